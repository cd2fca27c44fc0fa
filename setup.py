"""Package layout and the optional compiled kernels.

`src/queryseg`, `projects/` and `configs/` are installed under one name. The kernels in `csrc/`
become `queryseg/_C.abi3.so`, one binary for every Python and torch (>= 2.10) version. They are
optional: where they cannot be built the package still installs and runs on pure torch.

Environment variables:
    QUERYSEG_NO_EXT=1       build no kernels.
    QUERYSEG_REQUIRE_EXT=1  fail instead of leaving kernels out (for those who build wheels).
    FORCE_CUDA=0 | 1        never compile CUDA | say why it is not compiled. Without it, CUDA is
                            compiled where torch has CUDA and its toolkit is found.
    CUDA_HOME               root of the CUDA toolkit, where the search does not find it.
    TORCH_CUDA_ARCH_LIST    GPU architectures, for example "8.0;9.0+PTX".
    CFLAGS                  more options of the C++ compiler; an -O level in it replaces -O3.
    MAX_JOBS                compilers at a time.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from setuptools import find_namespace_packages, setup

ROOTS = {"queryseg": "src/queryseg", "queryseg.projects": "projects", "queryseg.configs": "configs"}
HERE = Path(__file__).parent.resolve()
TORCH_TARGET_VERSION = "0x020a000000000000"  # 2.10: the oldest torch the binary runs on
BUILD_COMMANDS = {"build", "build_ext", "bdist_wheel", "editable_wheel", "develop", "install"}
ARCHITECTURES = {12: "7.0;7.5;8.0;8.6;9.0+PTX", 13: "7.5;8.0;8.6;9.0+PTX"}


def packages() -> list[str]:
    """Every package below the three roots, under its installed name."""
    names = []
    for name, folder in ROOTS.items():
        names.append(name)
        names += [f"{name}.{inner}" for inner in find_namespace_packages(folder)]
    return names


def enabled(variable: str) -> bool:
    """Whether an environment variable is set to something other than no."""
    return os.environ.get(variable, "").lower() not in ("", "0", "false", "no", "off")


def warn(message: str) -> None:
    """Say something that pip shows with -v and that a plain build always shows."""
    print(f"\nqueryseg: WARNING: {message}\n", file=sys.stderr, flush=True)


@dataclass
class Plan:
    """What is built, and why something is not."""

    kernels: bool = True
    cuda_home: Path | None = None
    cuda_version: str = ""
    architectures: str = ""
    missing: list[str] = field(default_factory=list)


def toolkit_candidates() -> list[Path]:
    """Where a CUDA toolkit may be, best guess first.

    `nvcc` on the PATH may be a wrapper outside the toolkit, so nvcc itself is asked for its root.
    """
    found = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    nvcc = shutil.which("nvcc")
    if nvcc is not None:
        command = [nvcc, "--dryrun", "-x", "cu", "-c", os.devnull]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        root = re.search(r"^#\$ TOP=(.+)$", answer.stdout + answer.stderr, re.MULTILINE)
        if root is not None:
            found.append(Path(root.group(1).strip()).resolve())
        found.append(Path(nvcc).resolve().parent.parent)
    return [*found, Path("/usr/local/cuda")]


def find_toolkit() -> tuple[Path, str] | None:
    """The root and version of the first complete toolkit (compiler and headers)."""
    for root in toolkit_candidates():
        nvcc = root / "bin" / ("nvcc.exe" if os.name == "nt" else "nvcc")
        if nvcc.is_file() and (root / "include" / "cuda_runtime.h").is_file():
            answer = subprocess.run(
                [nvcc, "--version"], capture_output=True, text=True, check=False
            )
            version = re.search(r"release (\d+\.\d+)", answer.stdout)
            if version is not None:
                return root, version.group(1)
    return None


def plan_cuda(plan: Plan, torch: Any) -> None:
    """Decide whether CUDA is compiled, and for what."""
    forced = os.environ.get("FORCE_CUDA", "")
    if forced and not enabled("FORCE_CUDA"):
        return
    wanted = torch.version.cuda
    if wanted is None:
        if forced:
            plan.missing.append(
                "FORCE_CUDA is set, but the installed torch has no CUDA: install a CUDA build of "
                "torch (https://pytorch.org/get-started)"
            )
        return
    toolkit = find_toolkit()
    if toolkit is None:
        if forced or torch.cuda.is_available():
            plan.missing.append(
                f"no CUDA toolkit found, so GPU tensors run on pure torch: install CUDA {wanted} "
                "with its headers and set CUDA_HOME to its root"
            )
        return
    root, version = toolkit
    if version.split(".")[0] != wanted.split(".")[0]:
        plan.missing.append(
            f"the CUDA toolkit at {root} is {version} but torch was built for {wanted}, so GPU "
            f"tensors run on pure torch: set CUDA_HOME to a CUDA {wanted.split('.')[0]} toolkit"
        )
        return
    plan.cuda_home, plan.cuda_version = root, version
    if not os.environ.get("TORCH_CUDA_ARCH_LIST") and not torch.cuda.is_available():
        major = int(version.split(".")[0])
        os.environ["TORCH_CUDA_ARCH_LIST"] = ARCHITECTURES.get(major, ARCHITECTURES[13])
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST", "native")
    plan.architectures = ",".join(re.split(r"[;, ]+", listed.strip()))


def make_plan() -> Plan:
    """Look at the machine and decide what to build."""
    plan = Plan()
    if enabled("QUERYSEG_NO_EXT"):
        plan.kernels = False
        plan.missing.append(
            "kernels left out because QUERYSEG_NO_EXT is set: unset it to build them"
        )
        return plan
    try:
        import torch
    except ImportError:
        plan.kernels = False
        plan.missing.append(
            "no kernels without torch: pip install torch setuptools ninja, then install queryseg "
            "with --no-build-isolation"
        )
        return plan
    compiler = os.environ.get("CXX", "cl" if os.name == "nt" else "c++").split()[0]
    if shutil.which(compiler) is None and (os.environ.get("CXX") or shutil.which("g++") is None):
        plan.kernels = False
        plan.missing.append(
            f"no kernels without a C++ compiler ({compiler} not found): install one "
            "(apt install g++, dnf install gcc-c++, xcode-select --install) and install again"
        )
        return plan
    plan_cuda(plan, torch)
    return plan


def extension(plan: Plan) -> Any:
    """The extension module that the plan asks for."""
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    sources = [path for path in sorted(HERE.glob("csrc/**/*.cpp")) if path.parent.name != "cuda"]
    host = [
        f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}",
        f"-DQUERYSEG_CUDA_VERSION={plan.cuda_version}",
        f"-DQUERYSEG_CUDA_ARCHITECTURES={plan.architectures}",
    ]
    if os.name != "nt":
        if not re.search(r"-O\w", os.environ.get("CFLAGS", "")):
            host.append("-O3")
        host += ["-g0", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math"]
        host += ["-Wno-maybe-uninitialized"]  # GCC reports its own intrinsics
    flags = {"cxx": host}
    if plan.cuda_home is not None:
        sources += sorted([*HERE.glob("csrc/**/cuda/*.cpp"), *HERE.glob("csrc/**/cuda/*.cu")])
        hidden = [] if os.name == "nt" else ["-Xcompiler", "-fvisibility=hidden"]
        flags["cxx"] = [*host, "-DUSE_CUDA"]
        flags["nvcc"] = ["-O3", *hidden]
    make = CppExtension if plan.cuda_home is None else CUDAExtension
    return make(
        name="queryseg._C",
        sources=[str(source.relative_to(HERE)) for source in sources],
        depends=[
            str(header.relative_to(HERE))
            for ending in ("h", "cuh")
            for header in sorted(HERE.glob(f"csrc/**/*.{ending}"))
        ],
        include_dirs=[str(HERE / "csrc")],
        extra_compile_args=flags,
        py_limited_api=True,
    )


def build_command(plan: Plan) -> Any:
    """`build_ext` that retries without CUDA, then goes on without kernels, when compiling fails."""
    from torch.utils.cpp_extension import BuildExtension

    class OptionalBuild(BuildExtension):  # type: ignore[misc]
        def run(self) -> None:
            wanted = self.compiler
            try:
                super().run()
                return
            except Exception as error:  # whatever fails, the package must install
                if enabled("QUERYSEG_REQUIRE_EXT"):
                    raise
                part = "kernels" if plan.cuda_home is None else "CUDA kernels"
                warn(
                    f"{part} left out because compiling them failed ({type(error).__name__}: "
                    f"{error}). The compiler's message above says what to fix; "
                    "QUERYSEG_REQUIRE_EXT=1 makes this an error."
                )
            if plan.cuda_home is not None:
                plan.cuda_home, plan.cuda_version, plan.architectures = None, "", ""
                self.extensions[:] = [extension(plan)]
                self.compiler = wanted
                self.run()

    return OptionalBuild.with_options(no_python_abi_suffix=False)


def main() -> None:
    """Run setuptools."""
    plan = make_plan()
    # pip runs this file for the metadata too; the message belongs to the build.
    if plan.missing and BUILD_COMMANDS & set(sys.argv):
        warn("; ".join(plan.missing))
        if enabled("QUERYSEG_REQUIRE_EXT") and not plan.kernels:
            raise SystemExit("queryseg: QUERYSEG_REQUIRE_EXT is set")
    arguments: dict[str, Any] = {}
    if plan.kernels:
        if plan.cuda_home is not None:
            os.environ["CUDA_HOME"] = str(
                plan.cuda_home
            )  # before cpp_extension makes its own guess
        arguments = {
            "ext_modules": [extension(plan)],
            "cmdclass": {"build_ext": build_command(plan)},
            "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
        }
    setup(packages=packages(), package_dir=dict(ROOTS), include_package_data=False, **arguments)


if __name__ == "__main__":
    main()
