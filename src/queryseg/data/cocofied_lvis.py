"""LVIS masks of COCO's images and classes, for AP*: what Detectron2's script makes of LVIS v0.5."""

from collections.abc import Sequence
from pathlib import Path

from detectron2.data.datasets.builtin_meta import _get_builtin_metadata

from queryseg.data.coco_json import LoadedSet, finish_coco, read_coco_json

LENGTH_OF_NAME = len("000000001268.jpg")


def load_cocofied_lvis(
    json_file: str | Path,
    image_root: str | Path,
    class_names: Sequence[str] | None = None,
    check_files: bool = True,
) -> LoadedSet:
    """Load a file of `prepare_cocofied_lvis.py` with the classes of COCO.

    Its categories have COCO's ids but LVIS' names, and those that no image speaks of are absent.
    Its images have the names of COCO 2014, `COCO_val2014_000000001268.jpg`; in the folders of COCO
    2017 the beginning lacks.

    Args:
        json_file: its path.
        image_root: a folder of COCO 2017.
        class_names: of the 80 classes, by default COCO's.
        check_files: whether a missing image file is an error.

    Raises:
        FileNotFoundError: no such json.
        ValueError: an id that is none of COCO's, or what `load_coco_json` raises.
    """
    coco = read_coco_json(json_file, image_root)
    of_coco = _get_builtin_metadata("coco")
    index_of: dict[int, int] = of_coco["thing_dataset_id_to_contiguous_id"]
    if unknown := sorted(set(coco.categories) - set(index_of)):
        raise ValueError(
            f"{json_file} has categories {unknown[:5]}, which COCO has not: make it of LVIS v0.5 "
            "with Detectron2's datasets/prepare_cocofied_lvis.py"
        )
    for image in coco.images:
        file = Path(image["file_name"])
        image["file_name"] = str(file.with_name(file.name[-LENGTH_OF_NAME:]))
    return finish_coco(coco, class_names or of_coco["thing_classes"], index_of, check_files)
