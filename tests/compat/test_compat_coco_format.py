"""Annotations in COCO's json format, read and written."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import (
    convert_to_coco_json,
    load_coco_json,
    register_coco_instances,
)
from detectron2.data.datasets.coco import convert_to_coco_dict
from detectron2.structures import BoxMode

NAME = "compat_coco_format"
POLYGON = [1.0, 1.0, 6.0, 1.0, 6.0, 5.0]
COUNTS = [3, 4, 13]
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def annotation(annotation_id: int, image_id: int, category_id: int, **more: object) -> dict:
    box = {"bbox": [1.0, 1.0, 5.0, 4.0], "area": 10.0, "iscrowd": 0}
    ids = {"id": annotation_id, "image_id": image_id, "category_id": category_id}
    return box | ids | more


def small_coco() -> dict:
    images = [
        {"id": 9, "file_name": "nine.png", "height": 4, "width": 5},
        {"id": 2, "file_name": "two.png", "height": 30, "width": 20, "license": 1},
    ]
    annotations = [
        annotation(1, 2, 7, segmentation=[POLYGON, POLYGON[:4], POLYGON[:5]], extra="kept"),
        annotation(2, 9, 3, segmentation={"size": [4, 5], "counts": COUNTS}, iscrowd=1),
        annotation(3, 2, 3, segmentation=[POLYGON[:4]]),
        annotation(4, 2, 3),
    ]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


@pytest.fixture
def write(tmp_path: Path):
    def write_json(coco: dict, file_name: str = "set.json") -> str:
        path = tmp_path / file_name
        path.write_text(json.dumps(coco))
        return str(path)

    yield write_json
    for catalog in (DatasetCatalog, MetadataCatalog):
        if NAME in catalog:
            catalog.remove(NAME)


Write = Callable[..., str]


def test_images_come_by_id_and_categories_are_renumbered(write: Write) -> None:
    first, second = load_coco_json(write(small_coco()), "images", NAME)
    assert (first["image_id"], first["file_name"]) == (2, "images/two.png")
    assert (first["height"], first["width"]) == (30, 20)
    assert second["image_id"] == 9
    assert [a["category_id"] for a in first["annotations"]] == [1, 0]
    metadata = MetadataCatalog.get(NAME)
    assert metadata.thing_classes == ["cat", "dog"]
    assert metadata.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}


def test_polygons_without_three_points_are_left_out(write: Write) -> None:
    with_polygon, without = load_coco_json(write(small_coco()), "images")[0]["annotations"]
    assert with_polygon["segmentation"] == [POLYGON]
    assert with_polygon["category_id"] == 7 and with_polygon["bbox_mode"] == BoxMode.XYWH_ABS
    assert "segmentation" not in without and without["bbox"] == [1, 1, 5, 4]


def test_run_lengths_are_compressed_and_crowds_kept(write: Write) -> None:
    crowd = load_coco_json(write(small_coco()), "images")[1]["annotations"][0]
    assert crowd["iscrowd"] == 1
    expected = np.repeat([0, 1, 0], COUNTS).reshape(5, 4).T
    np.testing.assert_array_equal(coco_mask.decode(crowd["segmentation"]), expected)


def test_only_asked_keys_are_kept(write: Write) -> None:
    json_file = write(small_coco())
    assert "extra" not in load_coco_json(json_file, "images")[0]["annotations"][0]
    kept = load_coco_json(json_file, "images", extra_annotation_keys=["extra"])
    assert kept[0]["annotations"][0]["extra"] == "kept"


def test_wrong_files_are_refused(write: Write) -> None:
    coco = small_coco()
    coco["annotations"][0]["bbox"] = []
    with pytest.raises(ValueError):
        load_coco_json(write(coco), "images")
    coco = small_coco()
    coco["annotations"][0]["category_id"] = 4
    with pytest.raises(KeyError, match="4"):
        load_coco_json(write(coco), "images", NAME)
    coco = small_coco()
    coco["annotations"][3]["id"] = 1
    with pytest.raises(AssertionError):
        load_coco_json(write(coco), "images")
    assert len(load_coco_json(write(coco, "minival.json"), "images")) == 2


def test_registered_sets_are_read_late_and_metadata_is_known_early(write: Write) -> None:
    register_coco_instances(NAME, {"more": 1}, "absent.json", "images")
    metadata = MetadataCatalog.get(NAME)
    assert (metadata.json_file, metadata.image_root) == ("absent.json", "images")
    assert metadata.evaluator_type == "coco" and metadata.more == 1
    with pytest.raises(FileNotFoundError):
        DatasetCatalog.get(NAME)


def test_a_set_written_and_read_again_is_the_same(write: Write, tmp_path: Path) -> None:
    register_coco_instances(NAME, {}, write(small_coco()), "images")
    records = DatasetCatalog.get(NAME)
    output = str(tmp_path / "written" / "set.json")
    convert_to_coco_json(NAME, output)
    again = load_coco_json(output, "")
    for record, twin in zip(records, again, strict=True):
        for ours, theirs in zip(record["annotations"], twin["annotations"], strict=True):
            ours = ours | {"category_id": [3, 7][ours["category_id"]]}
            assert json.dumps(ours, default=bytes.decode) == json.dumps(
                theirs, default=bytes.decode
            )
        assert {**record, "annotations": 0} == {**twin, "annotations": 0}


def test_a_written_file_is_used_again_only_if_allowed(write: Write, tmp_path: Path) -> None:
    register_coco_instances(NAME, {}, write(small_coco()), "images")
    DatasetCatalog.get(NAME)
    output = tmp_path / "cached.json"
    output.write_text("{}")
    convert_to_coco_json(NAME, str(output))
    assert output.read_text() == "{}"
    convert_to_coco_json(NAME, str(output), allow_cached=False)
    assert len(json.loads(output.read_text())["images"]) == 2


def test_areas_are_those_of_the_best_known_shape() -> None:
    mask = np.zeros((9, 8), dtype=np.uint8, order="F")
    mask[2:5, 3:7] = 1
    shapes: list[dict] = [
        {"segmentation": [POLYGON]},
        {"segmentation": coco_mask.encode(mask)},
        {"bbox": np.array([1.0, 2.0, 5.0, 4.5])},
        {"bbox": [10, 10, 6, 5, 30], "bbox_mode": BoxMode.XYWHA_ABS},
    ]
    common = {"bbox": [1, 2, 5, 4], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    record = {"file_name": "a.png", "height": 9, "width": 8}
    record["annotations"] = [common | shape for shape in shapes]
    DatasetCatalog.register(NAME, lambda: [copy.deepcopy(record)])
    MetadataCatalog.get(NAME).thing_classes = ["thing"]
    try:
        coco = convert_to_coco_dict(NAME)
    finally:
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)
    assert [a["area"] for a in coco["annotations"]] == [10, 12, 10, 30]
    assert [a["id"] for a in coco["annotations"]] == [1, 2, 3, 4]
    assert coco["annotations"][0]["bbox"] == [1, 2, 4, 2]
    assert coco["images"] == [{"id": 0, "width": 8, "height": 9, "file_name": "a.png"}]
    assert coco["categories"] == [{"id": 0, "name": "thing"}]
    assert json.dumps(coco)
