"""NVIDIA's run-time compiler as the package index has it, through ctypes; no GPU is needed."""

import ctypes
import functools
import importlib.util
from pathlib import Path


@functools.cache
def load() -> ctypes.CDLL | None:
    """NVRTC 12 of the package `nvidia-cuda-nvrtc-cu12`, or None where it is not installed."""
    spec = importlib.util.find_spec("nvidia")
    for root in spec.submodule_search_locations or () if spec is not None else ():
        for library in Path(root, "cuda_nvrtc").glob("**/*nvrtc*12*"):
            if library.name in ("libnvrtc.so.12", "nvrtc64_120_0.dll"):
                return ctypes.CDLL(str(library))
    return None


def version(nvrtc: ctypes.CDLL) -> tuple[int, int]:
    """Major and minor version of CUDA."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    assert nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)) == 0
    return major.value, minor.value


def compiled(
    nvrtc: ctypes.CDLL, source: str, architecture: str, include: Path, kernels: list[str]
) -> tuple[bytes, bytes, str]:
    """Compile device code.

    Args:
        nvrtc: from `load`.
        source: text of the program.
        architecture: "sm_70" assembles the PTX of compute_70, "compute_90" stops at PTX.
        include: folder of the headers.
        kernels: instantiations of kernel templates, such as `"queryseg::device::f<float, 4>"`.

    Returns:
        PTX, empty if that failed; machine code, empty without it; the compiler's messages.
    """
    program = ctypes.c_void_p()
    text = source.encode()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, b"kernels.cu", 0, None, None) == 0
    try:
        for kernel in kernels:
            assert nvrtc.nvrtcAddNameExpression(program, kernel.encode()) == 0
        options = [f"--gpu-architecture={architecture}", f"-I{include}", "--std=c++17"]
        words = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = nvrtc.nvrtcCompileProgram(program, len(options), words)
        log = _text(nvrtc, program, "nvrtcGetProgramLog").rstrip(b"\0").decode()
        if failed:
            return b"", b"", log
        ptx, code = (_text(nvrtc, program, f"nvrtcGet{kind}") for kind in ("PTX", "CUBIN"))
        return ptx, code, log
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _text(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, function: str) -> bytes:
    size = ctypes.c_size_t()
    assert getattr(nvrtc, f"{function}Size")(program, ctypes.byref(size)) == 0
    buffer = ctypes.create_string_buffer(size.value)
    assert getattr(nvrtc, function)(program, buffer) == 0
    return buffer.raw
