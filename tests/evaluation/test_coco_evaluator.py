"""Our evaluator: perfect predictions, Detectron2's numbers, and files as people have them."""

import json
import logging
from pathlib import Path
from typing import Any

import detectron2.evaluation
import detectron2.utils.comm as comm
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances

from queryseg.data.masks import decode
from queryseg.data.registration import get_dataset_dicts, register_coco_json
from queryseg.data.shapes import CLASS_NAMES, ShapesSpec, write_shapes
from queryseg.evaluation import COCOEvaluator
from queryseg.evaluation.coco_evaluator import predictions_of


@pytest.fixture(scope="module")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    write_shapes(root, ShapesSpec(train=0, val=24, height=120, width=136, max_objects=5))
    return root


@pytest.fixture
def content(shapes_root: Path) -> dict[str, Any]:
    return json.loads((shapes_root / "annotations" / "val.json").read_text())


@pytest.fixture
def shapes(shapes_root: Path) -> str:
    name = f"evaluated_{shapes_root.name}"
    register_coco_json(name, shapes_root / "annotations" / "val.json", shapes_root / "val")
    return name


def registered(content: dict[str, Any], tmp_path: Path, images: Path) -> str:
    json_file = tmp_path / "annotations.json"
    json_file.write_text(json.dumps(content))
    register_coco_json(f"evaluated_{tmp_path.name}", json_file, images)
    return f"evaluated_{tmp_path.name}"


Output = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def output(image: dict[str, Any], masks: Any, classes: Any, scores: Any) -> Output:
    size = (image["height"], image["width"])
    instances = Instances(size)
    instances.pred_masks = torch.as_tensor(np.array(masks, dtype=bool)).reshape(-1, *size)
    instances.pred_boxes = (
        BitMasks(instances.pred_masks).get_bounding_boxes() if len(masks) else Boxes([])
    )
    instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
    instances.scores = torch.tensor(scores, dtype=torch.float32)
    return [{"image_id": image["image_id"]}], [{"instances": instances}]


def objects_of(image: dict[str, Any]) -> list[tuple[np.ndarray, int]]:
    return [
        (decode(a["segmentation"], image["height"], image["width"]), a["category_id"])
        for a in image["annotations"]
        if not a["iscrowd"]
    ]


def perfect(name: str) -> list[Output]:
    outputs = []
    for image in get_dataset_dicts(name, filter_empty=False):
        pairs = objects_of(image)
        masks, classes = [m for m, _ in pairs], [c for _, c in pairs]
        outputs.append(output(image, masks, classes, [0.9] * len(pairs)))
    return outputs


def imperfect(name: str, seed: int = 0) -> list[Output]:
    rng = np.random.RandomState(seed)
    outputs = []
    for image in get_dataset_dicts(name, filter_empty=False):
        masks, classes, scores = [], [], []
        for mask, label in objects_of(image):
            for _ in range(rng.randint(0, 4)):
                masks.append(np.roll(mask, tuple(rng.randint(-3, 4, size=2)), axis=(0, 1)))
                classes.append(label if rng.rand() < 0.8 else int(rng.randint(6)))
                scores.append(round(float(rng.rand()), 2))
        outputs.append(output(image, masks, classes, scores))
    return outputs


def results_of(evaluator: Any, outputs: list[Output]) -> dict[str, dict[str, float]]:
    evaluator.reset()
    for inputs, predicted in outputs:
        evaluator.process(inputs, predicted)
    return evaluator.evaluate()


def assert_equal(found: dict[str, dict[str, float]], expected: dict[str, dict[str, float]]) -> None:
    assert found.keys() == expected.keys()
    for task, numbers in expected.items():
        assert found[task] == pytest.approx(numbers, abs=1e-9, nan_ok=True)


def test_ground_truth_as_predictions_is_perfect(shapes: str) -> None:
    results = results_of(COCOEvaluator(shapes), perfect(shapes))
    assert set(results) == {"bbox", "segm"}
    for numbers in results.values():
        assert numbers["AP"] == pytest.approx(100.0, abs=1e-9)
        assert numbers["AR@100"] == pytest.approx(100.0, abs=1e-9)
        assert all(numbers[f"AP-{name}"] == pytest.approx(100) for name in CLASS_NAMES)


@pytest.mark.parametrize("fast", [True, False])
def test_the_numbers_are_detectron2s(shapes: str, tmp_path: Path, fast: bool) -> None:
    outputs = imperfect(shapes)
    ours = results_of(COCOEvaluator(shapes, use_fast_impl=fast), outputs)
    theirs = results_of(
        detectron2.evaluation.COCOEvaluator(shapes, output_dir=str(tmp_path)), outputs
    )
    assert set(ours) == set(theirs) == {"bbox", "segm"}
    for task, numbers in theirs.items():
        assert 5 < numbers["AP"] < 60
        assert numbers["APm"] > 0  # small and medium objects are there
        for key, value in numbers.items():
            assert ours[task][key] == pytest.approx(value, abs=1e-9, nan_ok=True), (task, key)
    assert list(ours["segm"])[:6] == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert isinstance(COCOEvaluator(shapes), detectron2.evaluation.COCOEvaluator)


def test_the_detection_limit_keeps_the_best_of_every_class_in_an_image(shapes: str) -> None:
    outputs = imperfect(shapes)
    limited = results_of(COCOEvaluator(shapes, max_dets_per_image=1), outputs)
    full = results_of(COCOEvaluator(shapes), outputs)
    for _, ((predicted),) in outputs:
        instances = predicted["instances"]
        labels, scores = instances.pred_classes.tolist(), instances.scores.tolist()
        best = {}
        for index, label in enumerate(labels):
            if label not in best or scores[index] > scores[best[label]]:
                best[label] = index
        predicted["instances"] = instances[torch.tensor(sorted(best.values()), dtype=torch.int64)]
    by_hand = results_of(COCOEvaluator(shapes), outputs)
    for task in full:
        assert limited[task]["AP"] == pytest.approx(by_hand[task]["AP"], abs=1e-9)
        assert limited[task]["AP"] != pytest.approx(full[task]["AP"], abs=0.1)
        assert limited[task]["AR@1"] == pytest.approx(full[task]["AR@1"], abs=1e-9)


def test_boxes_left_at_zero_or_absent_are_taken_from_the_masks(shapes: str) -> None:
    evaluator = COCOEvaluator(shapes)
    outputs = perfect(shapes)
    for _, ((predicted),) in outputs[::2]:
        predicted["instances"].pred_boxes = Boxes(
            torch.zeros_like(predicted["instances"].pred_boxes.tensor)
        )
    for _, ((predicted),) in outputs[1::2]:
        predicted["instances"].remove("pred_boxes")
    assert results_of(evaluator, outputs)["bbox"]["AP"] == pytest.approx(100.0)


def test_float_masks_and_boxes_alone_are_understood(shapes: str) -> None:
    outputs = perfect(shapes)
    for _, ((predicted),) in outputs:
        instances = predicted["instances"]
        instances.pred_masks = instances.pred_masks.float()
    assert results_of(COCOEvaluator(shapes), outputs)["segm"]["AP"] == pytest.approx(100.0)
    for _, ((predicted),) in outputs:
        predicted["instances"].remove("pred_masks")
    results = results_of(COCOEvaluator(shapes), outputs)
    assert set(results) == {"bbox"}
    assert results["bbox"]["AP"] == pytest.approx(100.0)


def test_a_model_that_finds_nothing_has_zero_precision(shapes: str) -> None:
    images = get_dataset_dicts(shapes, filter_empty=False)
    results = results_of(COCOEvaluator(shapes), [output(i, [], [], []) for i in images])
    assert results["segm"]["AP"] == 0
    assert results["bbox"]["AP50"] == 0


@pytest.mark.parametrize("damage", ["zero ids", "doubled ids", "no ids", "string image ids"])
def test_unusual_ids_do_not_change_the_result(
    content: dict[str, Any], shapes_root: Path, tmp_path: Path, shapes: str, damage: str
) -> None:
    expected = results_of(COCOEvaluator(shapes), imperfect(shapes))
    for index, annotation in enumerate(content["annotations"]):
        if damage == "zero ids":
            annotation["id"] = index
        elif damage == "doubled ids":
            annotation["id"] = 1
        elif damage == "no ids":
            del annotation["id"]
        else:
            annotation["image_id"] = f"photo-{annotation['image_id']:04d}"
    if damage == "string image ids":
        for image in content["images"]:
            image["id"] = f"photo-{image['id']:04d}"
    name = registered(content, tmp_path, shapes_root / "val")
    assert_equal(results_of(COCOEvaluator(name), imperfect(name)), expected)


def test_a_json_of_the_bare_minimum_evaluates_equally(
    content: dict[str, Any], shapes_root: Path, tmp_path: Path, shapes: str
) -> None:
    expected = results_of(COCOEvaluator(shapes), imperfect(shapes))
    bare = {
        "images": content["images"],
        "categories": [{"id": c["id"], "name": c["name"]} for c in content["categories"]],
        "annotations": [
            {key: a[key] for key in ("image_id", "category_id", "segmentation")}
            for a in content["annotations"]
        ],
    }
    name = registered(bare, tmp_path, shapes_root / "val")
    assert_equal(results_of(COCOEvaluator(name), imperfect(name)), expected)


def test_unusable_annotations_are_left_out_with_a_warning(
    content: dict[str, Any],
    shapes_root: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = {**content["annotations"][0], "id": 4711, "segmentation": [[1, 1, 2, 2]]}
    content["annotations"].append(broken)
    name = registered(content, tmp_path, shapes_root / "val")
    with caplog.at_level(logging.WARNING):
        evaluator = COCOEvaluator(name)
    assert "annotation 4711" in caplog.text
    assert results_of(evaluator, perfect(name))["segm"]["AP"] == pytest.approx(100)


def test_crowds_neither_help_nor_hurt(
    content: dict[str, Any], shapes_root: Path, tmp_path: Path
) -> None:
    for annotation in content["annotations"][::3]:
        annotation["iscrowd"] = 1
    name = registered(content, tmp_path, shapes_root / "val")
    evaluator = COCOEvaluator(name)
    assert results_of(evaluator, perfect(name))["segm"]["AP"] == pytest.approx(100)


def test_results_of_every_class_follow_names_where_category_ids_are_shuffled(
    content: dict[str, Any], shapes_root: Path, tmp_path: Path
) -> None:
    renumbered = {1: 60, 2: 50, 3: 40, 4: 30, 5: 20, 6: 10}
    for entry in content["categories"]:
        entry["id"] = renumbered[entry["id"]]
    for annotation in content["annotations"]:
        annotation["category_id"] = renumbered[annotation["category_id"]]
    json_file = tmp_path / "shuffled.json"
    json_file.write_text(json.dumps(content))
    name = f"evaluated_{tmp_path.name}"
    register_coco_json(name, json_file, shapes_root / "val", class_names=CLASS_NAMES)
    outputs = perfect(name)
    for _, ((predicted),) in outputs:  # all discs are missed
        predicted["instances"] = predicted["instances"][predicted["instances"].pred_classes != 0]
    evaluator = COCOEvaluator(name, output_dir=str(tmp_path / "out"))
    numbers = results_of(evaluator, outputs)["segm"]
    assert numbers["AP-disc"] == 0
    assert all(numbers[f"AP-{n}"] == pytest.approx(100) for n in CLASS_NAMES[1:])
    stored = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert {entry["category_id"] for entry in stored} == {10, 20, 30, 40, 50}
    assert set(stored[0]) == {"image_id", "category_id", "bbox", "score", "segmentation"}


def test_only_the_asked_images_and_tasks_count(shapes: str) -> None:
    evaluator = COCOEvaluator(shapes, tasks=["segm"])
    outputs = perfect(shapes)
    for inputs, predicted in outputs[:3]:
        evaluator.process(inputs, predicted)
    first = [inputs[0]["image_id"] for inputs, _ in outputs[:3]]
    results = evaluator.evaluate(img_ids=first)
    assert set(results) == {"segm"}
    assert results["segm"]["AP"] == pytest.approx(100)
    assert evaluator.evaluate()["segm"]["AP"] < 50
    with pytest.raises(ValueError, match="keypoints"):
        COCOEvaluator(shapes, tasks=["keypoints"])


def test_reset_forgets(shapes: str) -> None:
    evaluator = COCOEvaluator(shapes)
    assert results_of(evaluator, perfect(shapes))["segm"]["AP"] == pytest.approx(100)
    evaluator.reset()
    assert evaluator.evaluate()["segm"]["AP"] == 0


def test_predictions_of_all_processes_are_counted_once_on_the_first(
    shapes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = perfect(shapes)
    shares = []
    for rank in (0, 1):
        evaluator = COCOEvaluator(shapes)
        for inputs, predicted in outputs[rank::2]:
            evaluator.process(inputs, predicted)
        shares.append(evaluator)
    sent: list[Any] = []

    def gather(data: Any, dst: int) -> list[Any]:
        sent.append(data)
        return sent

    monkeypatch.setattr(comm, "gather", gather)
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert shares[1].evaluate() == {}
    monkeypatch.setattr(comm, "is_main_process", lambda: True)
    assert shares[0].evaluate()["segm"]["AP"] == pytest.approx(100)
    sent.clear()
    alone = COCOEvaluator(shapes, distributed=False)
    assert results_of(alone, outputs)["segm"]["AP"] == pytest.approx(100)
    assert sent == []


def test_nothing_to_evaluate_against_is_an_error_before_inference(
    content: dict[str, Any], shapes_root: Path, tmp_path: Path
) -> None:
    content["annotations"] = []
    name = registered(content, tmp_path, shapes_root / "val")
    with pytest.raises(ValueError, match="has no usable annotations: there is nothing to evaluate"):
        COCOEvaluator(name, output_dir=str(tmp_path))


def test_predictions_for_a_test_set_are_stored_for_its_server(
    content: dict[str, Any], shapes_root: Path, tmp_path: Path, shapes: str
) -> None:
    del content["annotations"]
    name = registered(content, tmp_path, shapes_root / "val")
    with pytest.raises(ValueError, match="output_dir"):
        COCOEvaluator(name)
    outputs = perfect(shapes)
    assert results_of(COCOEvaluator(name, output_dir=str(tmp_path)), outputs) == {}
    stored = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert len(stored) == sum(len(p[0]["instances"]) for _, p in outputs)


def test_predictions_that_do_not_fit_the_data_set_are_explained(shapes: str) -> None:
    image = get_dataset_dicts(shapes)[0]
    mask = np.ones((image["height"], image["width"]), dtype=bool)
    with pytest.raises(ValueError, match=r"class 9, but the data set has 6.*model\.num_classes"):
        results_of(COCOEvaluator(shapes), [output(image, [mask], [9], [0.5])])
    with pytest.raises(ValueError, match="image 10001, which the data set lacks"):
        results_of(
            COCOEvaluator(shapes), [output({**image, "image_id": 10001}, [mask], [0], [0.5])]
        )
    with pytest.raises(ValueError, match="not finite"):
        results_of(COCOEvaluator(shapes), [output(image, [mask], [0], [float("nan")])])


def test_a_set_registered_as_dicts_needs_no_json(shapes: str, shapes_root: Path) -> None:
    name = f"dicts_{shapes_root.name}"
    images = get_dataset_dicts(shapes)
    DatasetCatalog.register(name, lambda: images)
    MetadataCatalog.get(name).thing_classes = list(CLASS_NAMES)
    expected = results_of(COCOEvaluator(shapes), imperfect(shapes))
    assert_equal(results_of(COCOEvaluator(name), imperfect(shapes)), expected)


def test_tables_are_logged_with_the_number_of_objects(
    shapes: str, content: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        results_of(COCOEvaluator(shapes), perfect(shapes))
    assert "Evaluation results for segm" in caplog.text
    assert "ARs@100" in caplog.text
    gears = sum(a["category_id"] == CLASS_NAMES.index("gear") + 1 for a in content["annotations"])
    cells = [cell.strip() for cell in caplog.text.split("|")]
    assert cells[cells.index("gear") + 1] == str(gears)


def test_predictions_keep_their_order_and_become_coco_results() -> None:
    masks = np.zeros((2, 6, 9), dtype=bool)
    masks[0, 1:4, 2:7] = True
    masks[1, 5, 8] = True
    ((predicted),) = output({"image_id": 3, "height": 6, "width": 9}, masks, [4, 1], [0.25, 0.75])[
        1
    ]
    first, second = predictions_of(predicted["instances"], 3)
    assert (first["category_id"], first["score"], first["bbox"]) == (4, 0.25, [2, 1, 5, 3])
    assert (second["category_id"], second["score"], second["bbox"]) == (1, 0.75, [8, 5, 1, 1])
    np.testing.assert_array_equal(decode(first["segmentation"], 6, 9), masks[0])
    boxes_only = Instances((6, 9))
    boxes_only.pred_boxes = Boxes(torch.tensor([[1.0, 2.0, 5.0, 6.0]]))
    boxes_only.pred_classes = torch.tensor([0])
    boxes_only.scores = torch.tensor([1.0])
    (only,) = predictions_of(boxes_only, 3)
    expected = BoxMode.convert([1, 2, 5, 6], BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    assert only["bbox"] == list(expected)
    assert "segmentation" not in only
