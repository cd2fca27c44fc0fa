"""Imports `queryseg` before any test can import `detectron2`; seeds, and the device of the ops."""

import queryseg  # noqa: I001  (must come before detectron2)

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from device_redirect import redirected

from queryseg.ops import has_kernels


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where the operators run"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the machine or the chosen device has no use for."""
    no_gpu = pytest.mark.skip(reason="needs a CUDA GPU")
    of_host = pytest.mark.skip(reason="is about the CPU kernels")
    for item in items:
        if "cuda" in item.keywords and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if "host" in item.keywords and config.getoption("--device") != "cpu":
            item.add_marker(of_host)


@pytest.fixture(scope="session")
def ops_device(pytestconfig: pytest.Config) -> str:
    """Where the operators run: `--device`. The run ends where there is no such device."""
    name = pytestconfig.getoption("--device")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.exit("--device cuda: torch sees no GPU", returncode=1)
    if name == "cuda" and not has_kernels(name):
        pytest.exit("--device cuda: set FORCE_CUDA=1 and install again", returncode=1)
    return name


@pytest.fixture(scope="session", autouse=True)
def _operators_on_the_device(ops_device: str) -> Iterator[None]:
    """With `--device cuda` the tests written for CPU tensors judge the CUDA kernels."""
    if ops_device == "cpu":
        yield
    else:
        with redirected(ops_device):
            yield


@pytest.fixture(autouse=True)
def _gradcheck_allows_for_atomics(
    ops_device: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backward passes on a GPU add in no fixed order: two of them need not have equal bits."""

    def lenient(*args: Any, **kwargs: Any) -> bool:
        return check(*args, **{**kwargs, "nondet_tol": 1e-10})

    if ops_device != "cpu":
        check = torch.autograd.gradcheck
        monkeypatch.setattr(torch.autograd, "gradcheck", lenient)
        if hasattr(request.module, "gradcheck"):
            monkeypatch.setattr(request.module, "gradcheck", lenient)


@pytest.fixture
def same_gradient(ops_device: str) -> Callable[[torch.Tensor, torch.Tensor], bool]:
    """Tells whether two gradients are equal to the bit, or on a GPU but for the order of sums."""

    def almost(one: torch.Tensor, other: torch.Tensor) -> bool:
        limit = 10 * torch.finfo(one.dtype).eps * other.double().norm()
        return one.dtype == other.dtype and bool((one.double() - other.double()).norm() <= limit)

    return torch.equal if ops_device == "cpu" else almost


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def detectron2_kind() -> str:
    """`"real"` or `"subset"`."""
    return queryseg.detectron2_seam.use_detectron2()
