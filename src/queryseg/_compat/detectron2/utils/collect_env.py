"""A table of the versions and devices that a job runs on."""

import importlib.metadata
import os
import platform
import sys

import torch
from tabulate import tabulate

import detectron2

__all__ = ["collect_env_info"]

_LIBRARIES = (
    "torchvision",
    "numpy",
    "fvcore",
    "iopath",
    "omegaconf",
    "hydra-core",
    "pycocotools",
    "opencv-python",
    "opencv-python-headless",
    "Pillow",
)


def collect_env_info() -> str:
    """Return versions of Python and the libraries, the GPUs, and torch's build as text."""
    cuda = torch.cuda.is_available()
    rows = [
        ("platform", f"{sys.platform} {platform.release()}"),
        ("Python", sys.version.replace("\n", "")),
        ("detectron2", f"{detectron2.__version__} @{os.path.dirname(detectron2.__file__)}"),
        ("PyTorch", f"{torch.__version__} @{os.path.dirname(torch.__file__)}"),
        ("GPU available", "Yes" if cuda else "No: torch.cuda.is_available() == False"),
        *_gpus(),
        *((name, _version(name)) for name in _LIBRARIES),
    ]
    return f"{tabulate(rows)}\n{torch.__config__.show()}"


def _gpus() -> list[tuple[str, str]]:
    rows = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        major, minor = torch.cuda.get_device_capability(index)
        rows.append((f"GPU {index}", f"{torch.cuda.get_device_name(index)} (arch={major}.{minor})"))
    return rows


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
