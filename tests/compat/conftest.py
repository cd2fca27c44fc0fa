"""Stored answers of the real Detectron2, so that every machine can compare with them.

With `QUERYSEG_RECORD=1` and the real Detectron2 installed, `stored` writes the arrays instead of
reading them: `QUERYSEG_RECORD=1 pytest tests/compat`.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "golden" / "detectron2"
Stored = Callable[[str, Mapping[str, object]], Mapping[str, np.ndarray]]


@pytest.fixture
def stored(detectron2_kind: str) -> Stored:
    """Return `stored(name, arrays)`: what the real Detectron2 gave for the same names."""

    def read_or_record(name: str, arrays: Mapping[str, object]) -> Mapping[str, np.ndarray]:
        path = FOLDER / f"{name}.npz"
        if os.environ.get("QUERYSEG_RECORD") == "1":
            if detectron2_kind != "real":
                raise RuntimeError("Record stored answers with the real Detectron2 only.")
            FOLDER.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path, **{key: np.asarray(value) for key, value in arrays.items()})
        with np.load(path, allow_pickle=False) as data:
            answers = {key: data[key] for key in data.files}
        assert answers.keys() == arrays.keys()
        return answers

    return read_or_record
