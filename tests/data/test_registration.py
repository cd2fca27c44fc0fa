"""Data sets by name: lazily registered, with errors that say how to get what is missing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from queryseg.data.registration import (
    ensure_registered,
    get_dataset_dicts,
    register_coco_json,
    register_own_data,
)
from queryseg.data.shapes import CLASS_NAMES, ShapesSpec, write_shapes

pytestmark = pytest.mark.usefixtures("clean_catalogs")


@pytest.fixture
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for name in ("shapes_train", "shapes_val"):
        DatasetCatalog.data.pop(name, None)
        MetadataCatalog.data.pop(name, None)
    return tmp_path


def sound(small_set: Any, categories: list[dict[str, Any]] | None = None) -> tuple[Path, Path]:
    if categories is not None:
        small_set.content["categories"] = categories
    small_set.add_image(1)
    small_set.add_object(1, category_id=small_set.content["categories"][-1]["id"])
    return small_set.write()


def test_shapes_are_known_by_name_and_found_below_the_data_root(data_root: Path) -> None:
    write_shapes(data_root / "shapes", ShapesSpec(train=3, val=2, height=64, width=64))
    assert "shapes_train" not in DatasetCatalog
    images = get_dataset_dicts(names=["shapes_train", "shapes_val"])
    assert len(images) == 5
    assert Path(images[0]["file_name"]).is_file()
    metadata = MetadataCatalog.get("shapes_val")
    assert metadata.thing_classes == list(CLASS_NAMES)
    assert metadata.thing_dataset_id_to_contiguous_id == {i + 1: i for i in range(6)}
    assert metadata.evaluator_type == "coco"
    assert Path(metadata.json_file).is_file()
    assert Path(metadata.image_root).is_dir()


def test_shapes_that_are_not_there_say_how_to_write_them(data_root: Path) -> None:
    command = f"python -m queryseg.data.shapes --output {data_root}/shapes"
    with pytest.raises(FileNotFoundError) as error:
        get_dataset_dicts("shapes_train")
    assert command in str(error.value)


def test_coco_that_is_not_there_says_where_it_is_looked_for(data_root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"instances_val2017\.json.*DETECTRON2_DATASETS"):
        get_dataset_dicts("coco_2017_val")


def test_an_unknown_name_suggests_the_nearest(data_root: Path) -> None:
    with pytest.raises(ValueError, match=r"'shapes_trian'.*Did you mean shapes_train"):
        ensure_registered("shapes_trian")
    with pytest.raises(ValueError, match="at least one"):
        get_dataset_dicts([])


def test_a_registered_set_can_be_registered_again_but_not_replaced(
    make_small_set: Callable[[str], Any],
) -> None:
    one, other = sound(make_small_set("one")), sound(make_small_set("other"))
    register_coco_json("mine", *one)
    register_coco_json("mine", *one)
    with pytest.raises(ValueError, match=r"'mine' is registered already.*one.*other"):
        register_coco_json("mine", *other)
    assert len(get_dataset_dicts("mine")) == 1
    assert MetadataCatalog.get("mine").thing_classes == ["apple", "pear"]


def test_images_without_objects_are_left_out_for_training_only(small_set: Any) -> None:
    sound(small_set)
    small_set.add_image(2)
    small_set.add_image(3)
    small_set.add_object(3, iscrowd=1)
    register_coco_json("mine", *small_set.write())
    assert [i["image_id"] for i in get_dataset_dicts("mine")] == [1]
    assert [i["image_id"] for i in get_dataset_dicts("mine", filter_empty=False)] == [1, 2, 3]


def test_a_set_without_any_object_cannot_be_trained_on(small_set: Any) -> None:
    small_set.add_image(1)
    register_coco_json("mine", *small_set.write())
    with pytest.raises(ValueError, match=r"mine \(.*\.json\): there is no image with a usable"):
        get_dataset_dicts("mine")


def test_sets_with_different_classes_cannot_be_mixed(make_small_set: Callable[[str], Any]) -> None:
    register_coco_json("one", *sound(make_small_set("one")))
    register_coco_json("two", *sound(make_small_set("two"), [{"id": 1, "name": "plum"}]))
    with pytest.raises(ValueError, match=r"'one' and 'two' have different classes.*plum"):
        get_dataset_dicts(["one", "two"])


def test_a_json_that_changed_its_classes_in_between_is_noticed(small_set: Any) -> None:
    register_coco_json("mine", *sound(small_set))
    get_dataset_dicts("mine")
    small_set.content["categories"][0]["name"] = "plum"
    small_set.write()
    with pytest.raises(ValueError, match="restart"):
        get_dataset_dicts("mine")


def test_own_data_get_the_same_unique_names_in_every_process(
    make_small_set: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, val = make_small_set("train"), make_small_set("val")
    paths = (*sound(train), *sound(val))
    own = register_own_data(*paths)
    assert own.class_names == ("apple", "pear")
    assert own.train_name != own.val_name
    assert register_own_data(*(str(path) for path in paths)) == own
    monkeypatch.chdir(train.root)
    relative = (Path("annotations.json"), Path("images"), *paths[2:])
    assert register_own_data(*relative) == own
    assert len(get_dataset_dicts(own.train_name)) == 1
    same_set_twice = register_own_data(*paths[:2], *paths[:2])
    assert same_set_twice.train_name == own.train_name
    assert same_set_twice.val_name not in (own.val_name, own.train_name)


def test_the_classes_of_validation_data_are_matched_by_name(
    make_small_set: Callable[[str], Any],
) -> None:
    train = sound(make_small_set("train"), [{"id": 3, "name": "fig"}, {"id": 8, "name": "nut"}])
    val = sound(make_small_set("val"), [{"id": 1, "name": "nut"}])
    own = register_own_data(*train, *val)
    (image,) = get_dataset_dicts(own.val_name)
    assert image["annotations"][0]["category_id"] == 1
    metadata = MetadataCatalog.get(own.val_name)
    assert metadata.thing_classes == ["fig", "nut"]
    assert metadata.thing_dataset_id_to_contiguous_id == {1: 1}


def test_a_class_that_only_validation_data_have_is_an_error(
    make_small_set: Callable[[str], Any],
) -> None:
    train = sound(make_small_set("train"))
    val = sound(make_small_set("val"), [{"id": 1, "name": "plum"}])
    with pytest.raises(ValueError, match=r"val.*lacks: \['plum'\].*\['apple', 'pear'\]"):
        register_own_data(*train, *val)


def test_own_data_that_are_not_there_or_broken_are_errors(
    make_small_set: Callable[[str], Any],
) -> None:
    train, val = sound(make_small_set("train")), sound(make_small_set("val"))
    with pytest.raises(FileNotFoundError, match="no such image folder: nowhere"):
        register_own_data(*train, val[0], "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no such annotation file: gone\.json"):
        register_own_data("gone.json", train[1], *val)
    broken = make_small_set("broken")
    sound(broken)
    broken.add_object(1, category_id=9)
    with pytest.raises(ValueError, match="category_id 9"):
        register_own_data(*broken.write(), *val)
    empty = make_small_set("empty")
    empty.add_image(1)
    with pytest.raises(ValueError, match="no image has a usable object"):
        register_own_data(*empty.write(), *val)
