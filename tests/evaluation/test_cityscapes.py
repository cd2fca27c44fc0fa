"""Cityscapes on a small synthetic set in its layout, against masks that are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.structures import Instances
from street import NAMES, ROAD, SPEC, Street

from queryseg.data.cityscapes import LABELS, load_cityscapes
from queryseg.data.mapper import InstanceMapper
from queryseg.data.registration import get_dataset_dicts, register_cityscapes
from queryseg.evaluation import CityscapesEvaluator

CAR_GROUP = 26


@pytest.fixture
def street(tmp_path: Path) -> Street:
    return Street(tmp_path / "cityscapes")


def test_objects_are_those_of_the_scene_and_groups_are_crowds(street: Street) -> None:
    first = next(iter(street.scenes))
    ids = street.ids(first)
    ids[:5, :7] = CAR_GROUP
    street.write_ids(first, ids)
    loaded = load_cityscapes(street.truth, street.images)
    assert loaded.class_names == NAMES
    assert [r["image_id"] for r in loaded.images] == list(street.scenes)
    for record in loaded.images:
        scene = street.scenes[record["image_id"]]
        masks = [mask_util.decode(a["segmentation"]) for a in record["annotations"]]
        objects = [m for m, a in zip(masks, record["annotations"]) if not a["iscrowd"]]
        covered = street.ids(record["image_id"]) == CAR_GROUP
        expected = sorted((m & ~covered).sum() for m in scene.masks)
        assert sorted(m.sum() for m in objects) == expected
    crowds = [a for a in loaded.images[0]["annotations"] if a["iscrowd"]]
    assert [(a["category_id"], a["area"]) for a in crowds] == [(NAMES.index("car"), 35.0)]
    assert not any(a["iscrowd"] for r in loaded.images[1:] for a in r["annotations"])


def test_a_registered_split_trains(street: Street) -> None:
    register_cityscapes("street_train", street.truth, street.images)
    record = get_dataset_dicts("street_train")[0]
    mapped = InstanceMapper(is_train=True, augmentations=[])(record)
    scene = street.scenes[record["image_id"]]
    assert len(mapped["instances"]) == len(scene.classes)
    assert mapped["instances"].gt_masks.tensor.sum() == scene.masks.sum()


def predict(scene: Any, scores: np.ndarray | None = None, masks: np.ndarray | None = None) -> dict:
    masks = scene.masks if masks is None else masks
    scores = np.linspace(0.9, 0.5, len(scene.classes)) if scores is None else scores
    return {
        "instances": Instances(
            (SPEC.height, SPEC.width),
            pred_masks=torch.from_numpy(masks),
            scores=torch.from_numpy(scores),
            pred_classes=torch.from_numpy(scene.classes),
        )
    }


def evaluate(street: Street, name: str, change: Any = None) -> dict[str, float]:
    register_cityscapes(name, street.truth, street.images)
    evaluator = CityscapesEvaluator(name)
    for number, (image_id, scene) in enumerate(street.scenes.items()):
        output = predict(scene) if change is None else change(number, scene)
        evaluator.process([{"image_id": image_id}], [output])
    return evaluator.evaluate()["segm"]


def large_enough(street: Street) -> bool:
    """The script leaves objects below 100 pixels out."""
    return all(m.sum() >= 100 for scene in street.scenes.values() for m in scene.masks)


def test_ground_truth_as_predictions_is_perfect(street: Street) -> None:
    assert large_enough(street)
    figures = evaluate(street, "street_perfect")
    assert figures["AP"] == pytest.approx(100) and figures["AP50"] == pytest.approx(100)
    present = {NAMES[label] for scene in street.scenes.values() for label in scene.classes}
    for name in NAMES:
        expected = pytest.approx(100) if name in present else pytest.approx(np.nan, nan_ok=True)
        assert figures[f"AP-{name}"] == expected, name


def boundary_figures(street: Street, name: str, ids: np.ndarray, masks: list) -> dict[str, dict]:
    """Figures where one image alone has objects, and cars are found there, the surest first."""
    first, *others = street.scenes
    for image_id in others:
        street.write_ids(image_id, np.full_like(ids, ROAD))
    street.write_ids(first, ids)
    register_cityscapes(name, street.truth, street.images)
    evaluator = CityscapesEvaluator(name, boundary=True)
    for image_id in street.scenes:
        own = masks if image_id == first else []
        found = Instances((SPEC.height, SPEC.width))
        found.pred_masks = torch.zeros(len(own), SPEC.height, SPEC.width, dtype=torch.bool)
        for place, mask in enumerate(own):
            found.pred_masks[place] = torch.from_numpy(mask)
        found.scores = torch.linspace(0.9, 0.5, len(own))
        found.pred_classes = torch.full((len(own),), NAMES.index("car"))
        evaluator.process([{"image_id": image_id}], [{"instances": found}])
    return evaluator.evaluate()


def one_car() -> np.ndarray:
    ids = np.full((SPEC.height, SPEC.width), ROAD, np.int32)
    ids[40:60, 40:60] = 1000 * LABELS["car"]
    return ids


def test_boundary_ap_takes_the_smaller_overlap_of_a_border_of_one_pixel(street: Street) -> None:
    # The diagonal of 96 x 128 is 160 pixels: 0.5 % of it is one. Borders of 20 x 20 have 76 pixels.
    car = one_car() >= 1000
    moved = np.roll(car, 1, axis=1)  # masks share 380 of 420, borders 38 of 114
    figures = boundary_figures(street, "street_moved", one_car(), [moved])
    assert figures.keys() == {"segm", "boundary"}
    assert figures["segm"]["AP"] == pytest.approx(90)
    assert figures["boundary"]["AP"] == figures["boundary"]["AP50"] == 0
    hollow = car.copy()
    hollow[48:52, 48:52] = False  # masks share 384 of 400, borders 76 of 76 + 20
    figures = boundary_figures(street, "street_hollow", one_car(), [hollow])
    assert figures["segm"]["AP"] == pytest.approx(100)
    assert figures["boundary"]["AP"] == figures["boundary"]["AP-car"] == pytest.approx(60)
    figures = boundary_figures(street, "street_exact", one_car(), [car])
    assert figures["boundary"]["AP"] == pytest.approx(100)


def test_groups_and_small_objects_excuse_predictions_of_boundary_ap_too(street: Street) -> None:
    ids = one_car()
    ids[5:35, 5:35] = CAR_GROUP
    ids[70:79, 70:79] = 1000 * LABELS["car"] + 1  # 81 pixels: too small to count
    group, small = np.zeros((2, SPEC.height, SPEC.width), dtype=bool)
    group[5:35, 5:20] = True
    small[70:79, 70:78] = True
    car = ids == 1000 * LABELS["car"]
    figures = boundary_figures(street, "street_excused", ids, [group, small, car])
    assert figures["segm"]["AP"] == figures["boundary"]["AP"] == pytest.approx(100)
    road = np.roll(car, 60, axis=1)
    figures = boundary_figures(street, "street_blamed", ids, [group, small, road, car])
    # Precision is 1/2 at recall 1 and 0 at recall 0, between which the script takes the middle.
    assert figures["segm"]["AP"] == figures["boundary"]["AP"] == pytest.approx(25)


def test_what_is_not_found_costs_its_class_only(street: Street) -> None:
    lost = int(next(iter(street.scenes.values())).classes[0])

    def without(number: int, scene: Any) -> dict:
        return {"instances": predict(scene)["instances"][torch.from_numpy(scene.classes != lost)]}

    figures = evaluate(street, "street_lost", without)
    assert figures[f"AP-{NAMES[lost]}"] == pytest.approx(0)
    others = [figures[f"AP-{n}"] for n in NAMES if n != NAMES[lost]]
    assert np.nanmin(others) == pytest.approx(100)
    present = sum(not np.isnan(v) for v in [*others, 0.0])
    assert figures["AP"] == pytest.approx(100 * (present - 1) / present)


def test_masks_of_half_the_size_pass_the_lowest_thresholds_only(street: Street) -> None:
    def shrunk(number: int, scene: Any) -> dict:
        masks = scene.masks.copy()
        for mask in masks:
            rows, columns = np.nonzero(mask)
            drop = int(0.42 * len(rows))  # IoU 0.58: thresholds 0.5 and 0.55 of ten
            mask[rows[:drop], columns[:drop]] = False
        return predict(scene, masks=masks)

    figures = evaluate(street, "street_shrunk", shrunk)
    assert figures["AP50"] == pytest.approx(100)
    assert figures["AP"] == pytest.approx(20)


def test_predictions_can_be_kept_for_the_server(street: Street, tmp_path: Path) -> None:
    register_cityscapes("street_kept", street.truth, street.images)
    evaluator = CityscapesEvaluator("street_kept", output_dir=str(tmp_path / "kept"))
    image_id, scene = next(iter(street.scenes.items()))
    evaluator.process([{"image_id": image_id}], [predict(scene)])
    lines = (tmp_path / "kept" / f"{image_id}_pred.txt").read_text().splitlines()
    labels = [int(line.split()[1]) for line in lines]
    assert labels == [LABELS[NAMES[k]] for k in scene.classes]
    with pytest.raises(FileNotFoundError, match="2 files are missing"):
        evaluator.evaluate()


def test_what_does_not_belong_is_refused(street: Street, tmp_path: Path) -> None:
    register_cityscapes("street_refused", street.truth, street.images)
    evaluator = CityscapesEvaluator("street_refused")
    scene = next(iter(street.scenes.values()))
    with pytest.raises(ValueError, match="image 'paris_1'"):
        evaluator.process([{"image_id": "paris_1"}], [predict(scene)])
    with pytest.raises(FileNotFoundError, match="as in Cityscapes"):
        load_cityscapes(tmp_path, tmp_path)
    street.file_of(next(iter(street.scenes))).unlink()
    with pytest.raises(ValueError, match=r"1 of 3 lack"):
        load_cityscapes(street.truth, street.images)
    with pytest.raises(ValueError, match="no instances of"):
        load_cityscapes(street.truth, street.images, ["road"])


def test_a_split_without_annotations_loads_for_testing(street: Street) -> None:
    for image_id in street.scenes:
        street.file_of(image_id).unlink()
    loaded = load_cityscapes(street.truth, street.images)
    assert not loaded.has_annotations
    assert all(record["annotations"] == [] for record in loaded.images)
