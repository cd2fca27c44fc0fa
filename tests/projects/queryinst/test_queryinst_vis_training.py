"""QueryInst-VIS through the command line, on a user's own videos with all that they may hold."""

import json
from pathlib import Path
from typing import Any

import pytest

from queryseg.data.moving_shapes import MovingShapesSpec, write_moving_shapes
from queryseg.engine import train_main

SETTINGS = [
    "train.max_iter=2",
    "train.total_batch_size=2",
    "train.device=cpu",
    "model.decoder.embed_dim=32",
    "model.decoder.num_queries=4",
]


class OwnVideos:
    """Synthetic videos, whose jsons a test may change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        write_moving_shapes(root, MovingShapesSpec(train=2, val=1, height=48, width=64, frames=4))

    def change(self, split: str) -> "Content":
        return Content(self.root / "annotations" / f"{split}.json")

    def train(self, *more: str) -> dict[str, Any]:
        """Train and evaluate on them; returns the results."""
        flags = []
        for split in ("train", "val"):
            flags += [f"--{split}-json", str(self.root / "annotations" / f"{split}.json")]
            flags += [f"--{split}-images", str(self.root / split)]
        output = self.root / "output"
        config = ["--config-file", "queryinst/queryinst_vis_tiny.py"]
        train_main([*config, *flags, *SETTINGS, f"train.output_dir={output}", *more])
        return json.loads((output / "results.json").read_text())


class Content:
    """The content of a json, which is written back at the end of a `with`."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> dict[str, Any]:
        self.content = json.loads(self.file.read_text())
        return self.content

    def __exit__(self, *_: object) -> None:
        self.file.write_text(json.dumps(self.content))


@pytest.fixture
def own(tmp_path: Path) -> OwnVideos:
    return OwnVideos(tmp_path)


def test_own_videos_with_gaps_and_nulls_are_trained_through(own: OwnVideos) -> None:
    with own.change("train") as content:
        for entry in (*content["categories"], *content["annotations"]):
            key = "category_id" if "category_id" in entry else "id"
            entry[key] = 3 + 10 * entry[key]
        first = content["annotations"][0]
        first["segmentations"][1] = None  # its box stays
        first["bboxes"][2] = None  # its mask stays
        nowhere = [None] * 4
        content["annotations"].append(
            {**first, "id": 98, "segmentations": nowhere, "bboxes": nowhere}
        )
        content["annotations"].append(
            {**first, "id": 99, "segmentations": first["segmentations"][:3]}
        )
    results = own.train()
    assert {"vis", "identity"} <= set(results)
    assert 0 <= results["vis"]["AP"] <= 100
    log = (own.root / "output" / "log.txt").read_text()
    assert "6 classes: disc, rectangle, triangle, star, gear, ring" in log
    assert "1 x track-length (annotation 99)" in log


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["videos"][1]["file_names"].__setitem__(2, "000001/gone.png"),
            r"video 2, .*train/000001/gone\.png: no such file",
        ),
        (
            lambda c: c["annotations"][0].update(category_id=77),
            r"annotation 1, video 1.*category_id 77 is not in the list categories",
        ),
        (
            lambda c: c["annotations"].clear(),
            r"train\.json: no video has a usable object to train on",
        ),
        (
            lambda c: c.update(images=c.pop("videos")),
            r"train\.json is not in YouTube-VIS format: it lacks the list videos and has .*images",
        ),
    ],
    ids=["missing frame", "unknown category", "no object", "not videos"],
)
def test_own_videos_that_cannot_be_used_are_one_clear_error(own, change, message) -> None:
    with own.change("train") as content:
        change(content)
    with pytest.raises(SystemExit, match=message) as error:
        own.train()
    hinted = "check_dataset --json JSON --images FOLDER` lists every problem" in str(error.value)
    assert hinted == ("cannot be used" in str(error.value))
