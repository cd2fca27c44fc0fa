"""Imports `queryseg` before any test can import `detectron2`, and fixes the seeds."""

import queryseg  # noqa: I001  (must come before detectron2)

import random

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def detectron2_kind() -> str:
    """`"real"` or `"subset"`."""
    return queryseg.detectron2_seam.use_detectron2()
