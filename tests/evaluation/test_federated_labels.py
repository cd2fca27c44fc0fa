"""AP of images that were searched for some classes only, by hand and against the LVIS API."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.structures import Boxes, Instances
from known_sets import datasets_in
from PIL import Image

from queryseg.data.registration import get_dataset_dicts, register_coco_json
from queryseg.evaluation import COCOEvaluator

SIZE = (40, 60)
SQUARE = (slice(5, 25), slice(10, 30))
ELSEWHERE = (slice(5, 25), slice(35, 55))
CLASSES = {1: "cat", 2: "dog", 3: "cow"}


def _mask(place: tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[place] = True
    return mask


def _annotation(number: int, image: int, category: int, mask: np.ndarray) -> dict[str, Any]:
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": {"size": list(SIZE), "counts": rle["counts"].decode("ascii")},
        "bbox": mask_util.toBbox(rle).tolist(),
        "area": float(mask.sum()),
    }


def _content(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": [{"height": SIZE[0], "width": SIZE[1], **image} for image in images],
        "annotations": annotations,
        "categories": [
            {"id": i, "name": name, "frequency": "f", "image_count": 1, "instance_count": 1}
            for i, name in CLASSES.items()
        ],
    }


def _found(masks: list[np.ndarray], classes: list[int], scores: list[float]) -> dict[str, Any]:
    found = Instances(SIZE, scores=torch.tensor(scores), pred_classes=torch.tensor(classes))
    found.pred_masks = torch.from_numpy(np.stack(masks))
    rows = [mask_util.toBbox(mask_util.encode(np.asfortranarray(m, np.uint8))) for m in masks]
    boxes = torch.tensor(np.stack(rows)).float()
    found.pred_boxes = Boxes(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1))
    return {"instances": found}


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, 50),  # an ordinary set: a cat that nobody drew is an error
        ({"neg_category_ids": [], "not_exhaustive_category_ids": []}, 50),
        ({"neg_category_ids": [], "not_exhaustive_category_ids": [1]}, 100),
    ],
)
def test_what_is_found_of_an_unfinished_class_is_no_error(
    image: dict[str, Any], expected: float, tmp_path: Path
) -> None:
    cat = _annotation(1, 7, 1, _mask(SQUARE))
    content = _content([{"id": 7, "file_name": "7.jpg", **image}], [cat])
    (tmp_path / "set.json").write_text(json.dumps(content))
    name = f"federated_{len(image)}_{expected}"
    register_coco_json(name, tmp_path / "set.json", tmp_path)
    evaluator = COCOEvaluator(name, ["bbox", "segm", "boundary"], distributed=False)
    masks = [_mask(ELSEWHERE), _mask(SQUARE), _mask(ELSEWHERE)]
    evaluator.process([{"image_id": 7}], [_found(masks, [0, 0, 2], [0.9, 0.8, 0.7])])
    results = evaluator.evaluate()
    for task in ("bbox", "segm", "boundary"):
        assert results[task]["AP-cat"] == pytest.approx(expected, abs=0.01), task


def test_a_class_counts_where_it_was_looked_for(tmp_path: Path) -> None:
    # Image 1 has a dog; image 2 has none; nobody looked for dogs in image 3.
    images = [
        {"id": 1, "neg_category_ids": [], "not_exhaustive_category_ids": []},
        {"id": 2, "neg_category_ids": [2], "not_exhaustive_category_ids": []},
        {"id": 3, "neg_category_ids": [1, 3], "not_exhaustive_category_ids": []},
    ]
    images = [{**image, "file_name": f"{image['id']}.jpg"} for image in images]
    dog = _annotation(1, 1, 2, _mask(SQUARE))
    (tmp_path / "set.json").write_text(json.dumps(_content(images, [dog])))
    register_coco_json("federated_looked_for", tmp_path / "set.json", tmp_path)
    evaluator = COCOEvaluator("federated_looked_for", ["segm"], distributed=False)
    for wrong, expected in ((3, 100), (2, 50)):
        evaluator.reset()
        evaluator.process([{"image_id": 1}], [_found([_mask(SQUARE)], [1], [0.5])])
        evaluator.process([{"image_id": wrong}], [_found([_mask(SQUARE)], [1], [0.9])])
        assert evaluator.evaluate()["segm"]["AP"] == pytest.approx(expected, abs=0.01)


def test_an_image_that_says_nothing_was_searched_for_every_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = [{"id": 1, "neg_category_ids": []}, {"id": 2}]
    images = [{**image, "file_name": f"{image['id']}.jpg"} for image in images]
    dog = _annotation(1, 1, 2, _mask(SQUARE))
    (tmp_path / "set.json").write_text(json.dumps(_content(images, [dog])))
    register_coco_json("federated_partly", tmp_path / "set.json", tmp_path)
    with caplog.at_level("INFO"):
        evaluator = COCOEvaluator("federated_partly", ["segm"], distributed=False)
    assert "does not count there" in caplog.text
    evaluator.process([{"image_id": 1}], [_found([_mask(SQUARE)], [1], [0.5])])
    evaluator.process([{"image_id": 2}], [_found([_mask(SQUARE)], [1], [0.9])])
    assert evaluator.evaluate()["segm"]["AP"] == pytest.approx(50, abs=0.01)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore:The .warn. method")
@pytest.mark.parametrize("task", ["segm", "bbox"])
def test_ap_equals_the_lvis_api(
    seed: int, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lvis = pytest.importorskip("lvis")
    monkeypatch.setattr(np, "float", float, raising=False)  # the API has the old name
    rng = np.random.RandomState(seed)
    images, annotations, outputs = [], [], {}
    for image in range(1, 9):
        masks, labels = [], []
        for _ in range(5):
            y, x, side = rng.randint(0, 16), rng.randint(0, 36), rng.randint(6, 24)
            mask = _mask((slice(y, y + side), slice(x, x + side)))
            label = int(rng.randint(1, 4))
            if rng.rand() < 0.6:
                annotations.append(_annotation(len(annotations) + 1, image, label, mask))
            masks += [np.roll(mask, 1, 0), mask]
            labels += [label - 1, label - 1 if rng.rand() < 0.7 else int(rng.randint(3))]
        present = {a["category_id"] for a in annotations if a["image_id"] == image}
        absent = [c for c in CLASSES if c not in present and rng.rand() < 0.5]
        unfinished = [c for c in sorted(present) if rng.rand() < 0.4]
        images.append(
            {
                "id": image,
                "file_name": f"{image}.jpg",
                "neg_category_ids": absent,
                "not_exhaustive_category_ids": unfinished,
            }
        )
        outputs[image] = _found(masks, labels, rng.rand(len(masks)).tolist())
    (tmp_path / "set.json").write_text(json.dumps(_content(images, annotations)))
    name = f"federated_random_{seed}_{task}"
    register_coco_json(name, tmp_path / "set.json", tmp_path)
    evaluator = COCOEvaluator(name, [task], False, str(tmp_path / "output"))
    for image, output in outputs.items():
        evaluator.process([{"image_id": image}], [copy.deepcopy(output)])
    ours = evaluator.evaluate()[task]
    predictions = json.loads((tmp_path / "output/coco_instances_results.json").read_text())
    if task == "segm":  # or the areas are those of the boxes
        predictions = [{k: v for k, v in one.items() if k != "bbox"} for one in predictions]
    theirs = lvis.LVISEval(str(tmp_path / "set.json"), predictions, task)
    theirs.run()
    for figure in ("AP", "AP50", "AP75", "APs"):
        expected = theirs.get_results()[figure]
        expected = expected * 100 if expected >= 0 else np.nan
        assert ours[figure] == pytest.approx(expected, abs=1e-6, nan_ok=True), figure
    assert 10 < ours["AP"] < 90


def test_ap_star_reads_what_the_script_of_detectron2_writes(tmp_path: Path) -> None:
    """COCO's ids under LVIS' names, without absent classes, and names of COCO 2014."""
    for folder in ("lvis", "coco/val2017"):
        (tmp_path / folder).mkdir(parents=True)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "coco/val2017/000000001268.jpg")
    image = {
        "id": 1268,
        "file_name": "COCO_val2014_000000001268.jpg",
        "neg_category_ids": [90],
        "not_exhaustive_category_ids": [72],
    }
    content = _content([image], [_annotation(1, 1268, 72, _mask(SQUARE))])
    content["categories"] = [
        {"id": 72, "name": "television_set", "frequency": "f"},
        {"id": 90, "name": "toothbrush", "frequency": "r"},
    ]
    (tmp_path / "lvis/lvis_v0.5_val_cocofied.json").write_text(json.dumps(content))
    with datasets_in(tmp_path):
        (record,) = get_dataset_dicts("coco_2017_val_lvis", filter_empty=False)
        assert record["file_name"] == str(tmp_path / "coco/val2017/000000001268.jpg")
        assert [a["category_id"] for a in record["annotations"]] == [62]  # of COCO's 80: tv
        assert record["neg_category_ids"] == [79]
        evaluator = COCOEvaluator("coco_2017_val_lvis", ["segm", "boundary"], distributed=False)
        masks = [_mask(ELSEWHERE), _mask(SQUARE)]
        found = _found([*masks, masks[0]], [62, 62, 0], [0.9] * 3)
        evaluator.process([{"image_id": 1268}], [found])
        results = evaluator.evaluate()
        for task in ("segm", "boundary"):
            assert results[task]["AP"] == results[task]["AP-tv"] == pytest.approx(100)
