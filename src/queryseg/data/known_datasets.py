"""Data sets that are known by name: where they lie below the data root, and how to get them."""

from dataclasses import dataclass
from enum import Enum

from queryseg.data.shapes import CLASS_NAMES as SHAPES_CLASS_NAMES

DATASETS_ROOT_VARIABLE = "DETECTRON2_DATASETS"


class Kind(Enum):
    """How a set is stored; the value is the type of its evaluator, where Detectron2 has a name."""

    COCO = "coco"
    COCOFIED_LVIS = "cocofied_lvis"
    VIDEO = "ytvis"
    CITYSCAPES = "cityscapes_instance"


@dataclass(frozen=True)
class KnownDataset:
    """Where a set that is known by name lies below the data root, and how to get it.

    Attributes:
        json_file: its annotations: a json, or for Cityscapes a folder.
        image_root: the folder that its file names are relative to.
        cure: what to do where it is not there; `{root}` stands for the data root.
        class_names: the order of the classes, if it is not that of the category ids.
        kind: how it is stored.
    """

    json_file: str
    image_root: str
    cure: str
    class_names: tuple[str, ...] | None = None
    kind: Kind = Kind.COCO


def _download(what: str, folder: str) -> str:
    return (
        f"download {what} and set the environment variable {DATASETS_ROOT_VARIABLE} to the folder "
        f"that holds {folder}/"
    )


_COCO_CURE = _download("COCO 2017", "coco")
_SHAPES_CURE = "write it with `python -m queryseg.data.shapes --output {root}/shapes`"
_MOVING_CURE = "write it with `python -m queryseg.data.moving_shapes --output {root}/moving_shapes`"


def _video_sets() -> dict[str, KnownDataset]:
    """YouTube-VIS and OVIS, in the folders of their downloads. Only training sets have masks."""
    sets = {}
    for year in (2019, 2021, 2022):
        cure = _download(f"YouTube-VIS {year}", f"ytvis_{year}")
        for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
            sets[f"ytvis_{year}_{split}"] = KnownDataset(
                f"ytvis_{year}/{folder}.json",
                f"ytvis_{year}/{folder}/JPEGImages",
                cure,
                kind=Kind.VIDEO,
            )
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        sets[f"ovis_{split}"] = KnownDataset(
            f"ovis/annotations_{folder}.json",
            f"ovis/{folder}",
            _download("OVIS", "ovis"),
            kind=Kind.VIDEO,
        )
    return sets


def _cityscapes() -> dict[str, KnownDataset]:
    """The splits of Cityscapes; those of the test split have no annotations."""
    return {
        f"cityscapes_{split}": KnownDataset(
            f"cityscapes/gtFine/{split}",
            f"cityscapes/leftImg8bit/{split}",
            _download("Cityscapes (gtFine and leftImg8bit)", "cityscapes"),
            kind=Kind.CITYSCAPES,
        )
        for split in ("train", "val", "test")
    }


def _bdd100k_sets() -> dict[str, KnownDataset]:
    """Instance segmentation of BDD100K, converted to COCO format."""
    folder = "{root}/bdd100k"
    return {
        f"bdd100k_ins_seg_{split}": KnownDataset(
            f"bdd100k/annotations/ins_seg_{split}.json",
            f"bdd100k/images/10k/{split}",
            f"download the 10K images and the instance labels of BDD100K to {folder} and run "
            f"`python -m queryseg.data.bdd100k --labels {folder}/labels/ins_seg/bitmasks/{split} "
            f"--images {folder}/images/10k/{split} "
            f"--output {folder}/annotations/ins_seg_{split}.json`",
        )
        for split in ("train", "val")
    }


KNOWN_DATASETS: dict[str, KnownDataset] = {
    "coco_2017_train": KnownDataset(
        "coco/annotations/instances_train2017.json", "coco/train2017", _COCO_CURE
    ),
    "coco_2017_val": KnownDataset(
        "coco/annotations/instances_val2017.json", "coco/val2017", _COCO_CURE
    ),
    "coco_2017_test-dev": KnownDataset(
        "coco/annotations/image_info_test-dev2017.json", "coco/test2017", _COCO_CURE
    ),
    # AP*: COCO's images and classes, with the finer masks of LVIS.
    "coco_2017_val_lvis": KnownDataset(
        "lvis/lvis_v0.5_val_cocofied.json",
        "coco/val2017",
        "download LVIS v0.5 to {root}/lvis, COCO 2017 to {root}/coco, and write the file with "
        "Detectron2's datasets/prepare_cocofied_lvis.py (it needs Python alone)",
        kind=Kind.COCOFIED_LVIS,
    ),
    **_bdd100k_sets(),
    "shapes_train": KnownDataset(
        "shapes/annotations/train.json", "shapes/train", _SHAPES_CURE, SHAPES_CLASS_NAMES
    ),
    "shapes_val": KnownDataset(
        "shapes/annotations/val.json", "shapes/val", _SHAPES_CURE, SHAPES_CLASS_NAMES
    ),
    **_cityscapes(),
    **_video_sets(),
    "moving_shapes_train": KnownDataset(
        "moving_shapes/annotations/train.json",
        "moving_shapes/train",
        _MOVING_CURE,
        SHAPES_CLASS_NAMES,
        Kind.VIDEO,
    ),
    "moving_shapes_val": KnownDataset(
        "moving_shapes/annotations/val.json",
        "moving_shapes/val",
        _MOVING_CURE,
        SHAPES_CLASS_NAMES,
        Kind.VIDEO,
    ),
}
