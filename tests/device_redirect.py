"""Sends the operators' CPU tensors to another device and their results back.

With `--device cuda` the tests of every operator, written for CPU tensors, thus judge the CUDA
kernels: values, gradients, precision, malformed calls, `opcheck`, compilation.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _pytree as pytree

from queryseg.ops import library


def operator_names() -> list[str]:
    """Every operator of the namespace, `"ms_deform_attn"` and so on."""
    prefix = f"{library.NAMESPACE}::"
    schemas = torch._C._jit_get_all_schemas()
    return sorted({one.name.removeprefix(prefix) for one in schemas if one.name.startswith(prefix)})


def moved(tree: Any, device: str) -> Any:
    """The same arguments or results, with every tensor on a device and of the same layout."""

    def move(leaf: Any) -> Any:
        return leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf

    return pytree.tree_map(move, tree)


def run_on_device(name: str, device: str, arguments: tuple[Any, ...]) -> Any:
    """One operator on the device."""
    return getattr(torch.ops.queryseg, name)(*moved(arguments, device))


@contextmanager
def redirected(device: str, run: Callable[..., Any] = run_on_device) -> Iterator[list[str]]:
    """Replace the CPU kernels by copies to the device, its kernels, and copies back.

    Args:
        device: where the operators run.
        run: how one runs there: takes its name, the device and the arguments.

    Yields:
        The names of the operators called so far.
    """
    calls: list[str] = []

    def kernel(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(name)
            return moved(run(name, device, arguments), "cpu")

        return call

    overrides = torch.library.Library(library.NAMESPACE, "IMPL")
    try:
        for name in operator_names():
            overrides.impl(name, kernel(name), "CPU", allow_override=True)
        yield calls
    finally:
        overrides._destroy()
