"""Data sets and their metadata by name."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog

LIST_COCO = """
import queryseg
from detectron2.data import DatasetCatalog, MetadataCatalog
for name in sorted(DatasetCatalog.list()):
    if name.startswith("coco_") and "panoptic" not in name:
        metadata = MetadataCatalog.get(name)
        print(name, metadata.json_file, metadata.image_root, metadata.evaluator_type)
"""


@pytest.fixture
def name():
    name = "compat_catalog"
    yield name
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog:
            catalog.remove(name)


def test_a_data_set_is_read_when_it_is_asked_for(name: str) -> None:
    reads = []

    def read() -> list[dict]:
        reads.append(1)
        return [{"image_id": 7}]

    DatasetCatalog.register(name, read)
    assert name in DatasetCatalog.list() and not reads
    assert DatasetCatalog.get(name) == [{"image_id": 7}] and len(reads) == 1
    with pytest.raises(AssertionError):
        DatasetCatalog.register(name, read)


def test_names_and_readers_are_checked(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        DatasetCatalog.get(name)
    with pytest.raises(AssertionError):
        DatasetCatalog.register(name, [])


def test_metadata_can_be_set_once(name: str) -> None:
    metadata = MetadataCatalog.get(name)
    metadata.thing_classes = ["a", "b"]
    metadata.thing_classes = ["a", "b"]
    with pytest.raises(AssertionError):
        metadata.thing_classes = ["a"]
    assert MetadataCatalog.get(name) is metadata and metadata.thing_classes == ["a", "b"]
    assert metadata.set(evaluator_type="coco") is metadata
    assert metadata.as_dict() == {
        "name": name,
        "thing_classes": ["a", "b"],
        "evaluator_type": "coco",
    }


def test_absent_metadata_names_the_data_set(name: str) -> None:
    metadata = MetadataCatalog.get(name)
    assert metadata.get("json_file") is None and metadata.get("json_file", 3) == 3
    assert not hasattr(metadata, "json_file")
    with pytest.raises(AttributeError, match=name):
        _ = metadata.json_file


def test_metadata_answers_to_its_old_names_and_survives_pickling(name: str) -> None:
    metadata = Metadata(name=name)
    metadata.class_names = ["a"]
    assert metadata.thing_classes == ["a"] and metadata.class_names == ["a"]
    assert pickle.loads(pickle.dumps(metadata)) == metadata


def test_coco_metadata_is_known_without_its_files(stored) -> None:
    metadata = MetadataCatalog.get("coco_2017_val")
    ours = {
        "classes": metadata.thing_classes,
        "colors": metadata.thing_colors,
        "ids": [*metadata.thing_dataset_id_to_contiguous_id],
    }
    assert [*metadata.thing_dataset_id_to_contiguous_id.values()] == list(range(80))
    for key, answer in stored("coco_metadata", ours).items():
        assert answer.tolist() == ours[key], key


def test_coco_is_looked_for_where_the_environment_says(stored, tmp_path: Path) -> None:
    environment = os.environ | {"DETECTRON2_DATASETS": "/elsewhere"}
    printed = subprocess.run(
        [sys.executable, "-c", LIST_COCO],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=True,
    ).stdout
    lines = printed.splitlines()
    expected = "coco_2017_val /elsewhere/coco/annotations/instances_val2017.json"
    assert f"{expected} /elsewhere/coco/val2017 coco" in lines
    assert stored("coco_names", {"lines": lines})["lines"].tolist() == lines
    assert not [*tmp_path.iterdir()]
