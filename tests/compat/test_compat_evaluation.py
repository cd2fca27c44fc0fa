"""The loop over a data set, and average precision as COCO measures it."""

import contextlib
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.structures import Boxes, BoxMode, Instances

NAME = "compat_evaluation"
HEIGHT, WIDTH = 120, 160
CATEGORY_IDS = [2, 5, 9, 30]
METRICS = ["AP", "AP50", "AP75", "APs", "APm", "APl"]


def ellipse(center: np.ndarray, radii: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = ((x - center[0]) / radii[0]) ** 2 + ((y - center[1]) / radii[1]) ** 2
    return np.asfortranarray(inside <= 1, dtype=np.uint8)


def small_coco(num_images: int = 7) -> dict:
    """Ellipses of all sizes, some of them crowds; one image without any."""
    generator = np.random.RandomState(11)
    images = [
        {"id": 3 * i + 1, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH}
        for i in range(num_images)
    ]
    annotations: list[dict] = []
    for image in images[:-1]:
        for _ in range(generator.randint(2, 7)):
            center = generator.uniform([20, 20], [WIDTH - 20, HEIGHT - 20])
            radii = generator.uniform(6, 40, 2) * (3 if generator.rand() < 0.2 else 1)
            runs = coco_mask.encode(ellipse(center, radii))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": CATEGORY_IDS[generator.randint(3)],
                    "iscrowd": int(generator.rand() < 0.1),
                    "bbox": coco_mask.toBbox(runs).tolist(),
                    "area": float(coco_mask.area(runs)),
                    "segmentation": {"size": runs["size"], "counts": runs["counts"].decode()},
                }
            )
    categories = [{"id": category_id, "name": f"kind{category_id}"} for category_id in CATEGORY_IDS]
    return {"images": images, "annotations": annotations, "categories": categories}


def detections(coco: dict, image_id: int, noise: int) -> Instances:
    """The annotated objects, moved by up to `noise` pixels, and a few that are not there."""
    generator = np.random.RandomState(image_id)
    masks, classes, scores = [], [], []
    for annotation in coco["annotations"]:
        if annotation["image_id"] == image_id:
            shift = tuple(generator.randint(-noise, noise + 1, size=2))
            masks.append(np.roll(coco_mask.decode(annotation["segmentation"]), shift, axis=(0, 1)))
            classes.append(CATEGORY_IDS.index(annotation["category_id"]))
            scores.append(generator.uniform(0.3, 1))
    for _ in range(2 if noise else 0):
        masks.append(ellipse(generator.uniform(30, 90, 2), generator.uniform(8, 30, 2)))
        classes.append(generator.randint(3))
        scores.append(generator.uniform(0, 0.8))
    tensor = torch.from_numpy(np.stack(masks)).bool() if masks else torch.zeros(0, HEIGHT, WIDTH)
    boxes = [coco_mask.toBbox(coco_mask.encode(mask)) for mask in masks]
    return Instances(
        (HEIGHT, WIDTH),
        pred_masks=tensor,
        pred_boxes=Boxes(BoxMode.convert(np.array(boxes).reshape(-1, 4), 1, 0)),
        pred_classes=torch.tensor(classes, dtype=torch.int64),
        scores=torch.tensor(scores),
    )


@pytest.fixture
def coco(tmp_path: Path) -> Iterator[dict]:
    coco = small_coco()
    json_file = tmp_path / "small.json"
    json_file.write_text(json.dumps(coco))
    register_coco_instances(NAME, {}, str(json_file), "images")
    DatasetCatalog.get(NAME)
    yield coco
    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.remove(NAME)


def evaluate(coco: dict, noise: int, img_ids: list[int] | None = None, **arguments) -> dict:
    evaluator = COCOEvaluator(NAME, distributed=False, **arguments)
    evaluator.reset()
    for image in coco["images"]:
        output = [{"instances": detections(coco, image["id"], noise)}]
        evaluator.process([{"image_id": image["id"]}], output)
    with contextlib.redirect_stdout(io.StringIO()):
        return evaluator.evaluate(img_ids=img_ids)


def test_results_equal_those_of_the_real_detectron2(stored, coco: dict) -> None:
    ours = {}
    cases = {
        "noise_2": {"noise": 2},
        "noise_5": {"noise": 5},
        "some_images": {"noise": 5, "img_ids": [1, 7, 13]},
        "two_best": {"noise": 2, "max_dets_per_image": 2},
        "many": {"noise": 2, "max_dets_per_image": 300},
        "official": {"noise": 2, "use_fast_impl": False},
    }
    for case, arguments in cases.items():
        for task, results in evaluate(coco, **arguments).items():
            ours[f"{case}/{task}/names"] = [*results]
            ours[f"{case}/{task}/values"] = [*results.values()]
    assert ours["noise_2/segm/names"] == METRICS + [f"AP-kind{i}" for i in CATEGORY_IDS]
    for name, answer in stored("coco_evaluation", ours).items():
        if name.endswith("names"):
            assert answer.tolist() == ours[name], name
        else:
            np.testing.assert_allclose(ours[name], answer, rtol=0, atol=1e-9, err_msg=name)


def test_perfect_detections_have_full_precision_and_absent_categories_none(coco: dict) -> None:
    results = evaluate(coco, noise=0)
    for task in ("bbox", "segm"):
        assert results[task]["AP"] == pytest.approx(100, abs=1e-9)
        for category_id in CATEGORY_IDS[:3]:
            assert results[task][f"AP-kind{category_id}"] == pytest.approx(100, abs=1e-9)
        assert np.isnan(results[task]["AP-kind30"])
    assert evaluate(coco, noise=0, tasks=["segm"]).keys() == {"segm"}


def test_precision_counts_the_thresholds_that_the_overlap_reaches(coco: dict) -> None:
    target = next(a for a in coco["annotations"] if not a["iscrowd"])
    mask = coco_mask.decode(target["segmentation"]).astype(bool)
    row = int(np.searchsorted(np.cumsum(mask.sum(axis=1)), 0.32 * mask.sum()))
    part = mask.copy()
    part[:row] = False
    overlap = part.sum() / mask.sum()
    detection = Instances(
        (HEIGHT, WIDTH),
        pred_masks=torch.from_numpy(part)[None],
        pred_boxes=Boxes([[0.0, 0.0, 1.0, 1.0]]),
        pred_classes=torch.tensor([CATEGORY_IDS.index(target["category_id"])]),
        scores=torch.ones(1),
    )
    evaluator = COCOEvaluator(NAME, distributed=False)
    evaluator.reset()
    evaluator.process([{"image_id": target["image_id"]}], [{"instances": detection}])
    evaluator._coco_api.dataset["annotations"] = [target]
    evaluator._coco_api.createIndex()
    with contextlib.redirect_stdout(io.StringIO()):
        results = evaluator.evaluate()["segm"]
    reached = np.mean(overlap >= np.arange(0.5, 1, 0.05))
    assert 0.65 < overlap < 0.7 and results["AP"] == pytest.approx(100 * reached, abs=1e-9)
    assert (results["AP50"], results["AP75"]) == pytest.approx((100, 0), abs=1e-9)


def test_detections_are_written_with_the_ids_of_the_file(coco: dict, tmp_path: Path) -> None:
    evaluate(coco, noise=2, output_dir=str(tmp_path / "out"))
    written = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    expected = detections(coco, 1, noise=2)
    ours = [result for result in written if result["image_id"] == 1]
    assert [result["category_id"] for result in ours] == [
        CATEGORY_IDS[index] for index in expected.pred_classes
    ]
    for index, result in enumerate(ours):
        assert result["score"] == expected.scores[index].item()
        np.testing.assert_array_equal(
            coco_mask.decode(result["segmentation"]), expected.pred_masks[index]
        )
        box = expected.pred_boxes.tensor[index]
        np.testing.assert_allclose(result["bbox"], [*box[:2], *(box[2:] - box[:2])], atol=1e-5)
    dumped = torch.load(tmp_path / "out" / "instances_predictions.pth", weights_only=True)
    assert [image["image_id"] for image in dumped] == [image["id"] for image in coco["images"]]


def test_classes_that_the_data_set_does_not_have_are_refused(coco: dict) -> None:
    wrong = detections(coco, 1, noise=0)
    wrong.pred_classes[0] = len(CATEGORY_IDS)
    evaluator = COCOEvaluator(NAME, distributed=False)
    evaluator.reset()
    evaluator.process([{"image_id": 1}], [{"instances": wrong}])
    with pytest.raises(AssertionError):
        evaluator.evaluate()


def test_nothing_predicted_gives_no_numbers(coco: dict) -> None:
    evaluator = COCOEvaluator(NAME, distributed=False)
    evaluator.reset()
    assert evaluator.evaluate() == {}
    nothing = detections(coco, 1, noise=0)[:0]
    evaluator.process([{"image_id": 1}], [{"instances": nothing}])
    results = evaluator.evaluate()
    assert [*results["bbox"]] == METRICS and np.isnan([*results["bbox"].values()]).all()


def test_files_without_annotations_are_only_predicted_on(coco: dict, tmp_path: Path) -> None:
    json_file = Path(MetadataCatalog.get(NAME).json_file)
    json_file.write_text(json.dumps({key: coco[key] for key in ("images", "categories")}))
    assert evaluate(coco, noise=0, output_dir=str(tmp_path)) == {}
    assert (tmp_path / "coco_instances_results.json").exists()


def test_other_data_sets_are_converted_first(coco: dict, tmp_path: Path) -> None:
    other = "compat_evaluation_other"
    DatasetCatalog.register(other, lambda: DatasetCatalog.get(NAME))
    MetadataCatalog.get(other).thing_classes = MetadataCatalog.get(NAME).thing_classes
    try:
        with pytest.raises(ValueError):
            COCOEvaluator(other)
        evaluator = COCOEvaluator(other, distributed=False, output_dir=str(tmp_path))
        evaluator.reset()
        output = [{"instances": detections(coco, image["id"], 0)} for image in coco["images"]]
        evaluator.process([{"image_id": image["id"]} for image in coco["images"]], output)
        with contextlib.redirect_stdout(io.StringIO()):
            assert evaluator.evaluate()["segm"]["AP"] == pytest.approx(100, abs=1e-9)
    finally:
        DatasetCatalog.remove(other)
        MetadataCatalog.remove(other)


class Recorder(DatasetEvaluator):
    """Keeps what it was given."""

    def __init__(self, key: str = "seen") -> None:
        self.key = key
        self.seen: list = ["not reset"]

    def reset(self) -> None:
        self.seen = []

    def process(self, inputs: list, outputs: list) -> None:
        self.seen += zip(inputs, outputs)

    def evaluate(self) -> dict:
        return {self.key: len(self.seen)}


def test_every_batch_goes_through_the_model_in_eval_mode() -> None:
    model = torch.nn.Dropout(0.5)
    calls: list[str] = []
    model.register_forward_hook(
        lambda *_: calls.append(f"{model.training} {torch.is_grad_enabled()}")
    )
    recorder = Recorder()
    batches = [torch.full((2, 3), float(i)) for i in range(7)]
    steps = ("on_start", "before_inference", "after_inference", "on_end")
    callbacks = {step: (lambda step=step: calls.append(step)) for step in steps}
    assert inference_on_dataset(model, batches, recorder, callbacks) == {"seen": 14}
    batch_calls = ["before_inference", "False False", "after_inference"]
    assert calls == ["on_start", *batch_calls * 7, "on_end"]
    assert all(torch.equal(given, returned) for given, returned in recorder.seen)
    assert model.training


def test_speed_is_logged_in_the_lines_that_scripts_look_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        assert inference_on_dataset(len, [[1], [2]], None) == {}
    assert "Start inference on 2 batches" in caplog.text
    assert any(
        line.startswith("Total inference time: 0:00:00") and line.endswith("on 1 devices)")
        for line in caplog.messages
    )
    assert "s / iter per device" in caplog.messages[-1]
    assert "Total inference pure compute time" in caplog.text


def test_several_evaluators_work_as_one() -> None:
    both = [Recorder("a"), Recorder("b")]
    assert inference_on_dataset(lambda batch: batch, [[1, 2], [3]], both) == {"a": 3, "b": 3}
    with pytest.raises(AssertionError):
        DatasetEvaluators([Recorder(), Recorder()]).evaluate()


def test_main_results_are_logged_for_scripts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        print_csv_format({"bbox": {"AP": 1.23456, "AP50": 2.0, "AP-dog": 3.0}, "speed": 4})
    assert caplog.messages == [
        "copypaste: Task: bbox",
        "copypaste: AP,AP50",
        "copypaste: 1.2346,2.0000",
        "copypaste: speed=4",
    ]


def test_results_are_compared_with_expected_ones() -> None:
    def check(*expected: list) -> bool:
        cfg = SimpleNamespace(TEST=SimpleNamespace(EXPECTED_RESULTS=expected))
        return verify_results(cfg, {"bbox": {"AP": 40.0, "APs": float("nan")}})

    assert check() and check(["bbox", "AP", 40.2, 0.3])
    for wrong in (["bbox", "AP", 40.4, 0.3], ["bbox", "APs", 1, 99], ["bbox", "APx", 40, 9]):
        with pytest.raises(SystemExit):
            check(wrong)


def test_results_can_be_flattened() -> None:
    nested = {"bbox": {"AP": 1, "of": {"x": 2}}, "b": 3}
    assert flatten_results_dict(nested) == {"bbox/AP": 1, "bbox/of/x": 2, "b": 3}
