"""The operator namespace `queryseg`: schemas, pure-torch fallbacks and the compiled kernels.

Every operator is defined here in Python, with a pure-torch fallback that serves all devices. The
binary `queryseg/_C.abi3.so`, where it was built, adds faster kernels for the CPU and for CUDA.
"""

import ctypes
import functools
import json
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

NAMESPACE = "queryseg"
BUILD_COMMAND = "pip install --no-build-isolation --force-reinstall --no-deps ."

_logger = logging.getLogger(__name__)
_library = torch.library.Library(NAMESPACE, "DEF")


def define_op(
    schema: str,
    *,
    fallback: Callable[..., Any],
    fake: Callable[..., Any],
) -> None:
    """Define one operator of the namespace.

    Args:
        schema: for example `"my_op(Tensor x, int n) -> Tensor"`.
        fallback: pure-torch implementation, used on devices for which the binary has no kernel.
        fake: returns empty outputs of the right shape and dtype.
    """
    name = schema.split("(")[0]

    @functools.wraps(fallback)
    def slow(*args: Any) -> Any:
        device_type = next(arg.device.type for arg in args if isinstance(arg, torch.Tensor))
        _warn_slow_path(device_type)
        # The wrapper of an operator decides what autocast rounds: nothing more is rounded here.
        with torch.autocast(device_type, enabled=False):
            return fallback(*args)

    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, slow, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)


def define_backward(
    op: str,
    schema: str,
    *,
    fallback: Callable[..., Any],
    fake: Callable[..., Any],
    differentiate: Callable[..., Any],
    save: Callable[..., None],
) -> None:
    """Define the operator that computes the gradients of `op`, and make `op` differentiable by it.

    Args:
        op: name of the forward operator.
        schema, fallback, fake: of the backward operator, as in `define_op`.
        differentiate: the autograd formula, which calls the backward operator.
        save: keeps what the formula needs (`setup_context`).
    """
    define_op(schema, fallback=fallback, fake=fake)
    name = schema.split("(")[0]

    def refuse(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(f"{name} has no derivative: second derivatives are not supported")

    torch.library.register_autograd(f"{NAMESPACE}::{name}", refuse, lib=_library)
    torch.library.register_autograd(
        f"{NAMESPACE}::{op}", differentiate, setup_context=save, lib=_library
    )


def build_info() -> dict[str, str]:
    """Facts about the compiled kernels.

    Returns:
        `path`, `compiler`, `torch` (version the binary was compiled against), `cuda` (toolkit
        version, empty for a CPU build), `cuda_architectures` and `cpu_capability` (the vector
        instructions in use: portable, avx2 or avx512). Only `problem`, the reason, where there is
        no binary.
    """
    if _binary is None:
        return {"problem": _problem}
    describe = _binary.queryseg_build_info
    describe.restype = ctypes.c_char_p
    return {"path": str(_binary._name), **json.loads(describe().decode())}


def has_kernels(device_type: str) -> bool:
    """Whether compiled kernels serve tensors on devices of this type ("cpu", "cuda")."""
    if _binary is None:
        return False
    return device_type == "cpu" or (device_type == "cuda" and build_info()["cuda"] != "")


def _load_binary() -> tuple[ctypes.CDLL | None, str]:
    """The binary, or None and the reason."""
    if os.environ.get("QUERYSEG_NO_EXT", "").lower() not in ("", "0", "false", "no", "off"):
        return None, "QUERYSEG_NO_EXT is set"
    folder = Path(__file__).parent.parent
    paths = [path for suffix in ("so", "pyd", "dylib") for path in folder.glob(f"_C.*{suffix}")]
    if not paths:
        return None, f"they were not built ({folder / '_C.abi3.so'} does not exist)"
    try:
        torch.ops.load_library(paths[0])
        return ctypes.CDLL(str(paths[0])), ""
    except OSError as error:
        return None, f"{paths[0]} does not load with torch {torch.__version__}: {error}"


@functools.cache
def _warn_slow_path(device_type: str) -> None:
    """Say once per kind of device why its tensors do not reach a compiled kernel."""
    if device_type not in ("cpu", "cuda"):
        return
    reason = _problem or "they were built without CUDA"
    tools = "a C++ compiler" if device_type == "cpu" else "a C++ compiler and the CUDA toolkit"
    warnings.warn(
        f"QuerySeg's {device_type} kernels are missing: {reason}. Pure torch takes their place, "
        f"several times slower. To build them, install {tools} and run `{BUILD_COMMAND}` in "
        "QuerySeg's source folder.",
        RuntimeWarning,
        stacklevel=4,
    )


_binary, _problem = _load_binary()
_logger.debug("compiled kernels: %s", build_info())
