"""The three-line predictor: channel order, sizes, thresholds, classes."""

from pathlib import Path

import cv2
import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.structures import BitMasks, Instances
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import nn

from queryseg.checkpoint import Checkpointer, CheckpointError
from queryseg.data.image import BadImageError
from queryseg.data.mapper import InstanceMapper
from queryseg.predictor import Predictor


class BrightChannel(nn.Module):
    """Class k is wherever channel k is bright; scores fall with k. Works at the input's size."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_embed = nn.Linear(4, num_classes)
        self.body = nn.Linear(4, 64)

    def forward(self, batched_inputs):
        assert not self.training
        outputs = []
        for inputs in batched_inputs:
            instances = Instances((inputs["height"], inputs["width"]))
            bright = nn.functional.interpolate(
                (inputs["image"][None] > 128).float(), instances.image_size
            )
            order = [2, 0, 1]
            instances.pred_masks = bright[0, order] > 0.5
            instances.pred_boxes = BitMasks(instances.pred_masks).get_bounding_boxes()
            instances.scores = torch.tensor([0.3, 0.9, 0.6])
            instances.pred_classes = torch.tensor(order)
            outputs.append({"instances": instances})
        return outputs


def make_config(image_format: str = "RGB", num_classes: int = 3, dataset: str = "") -> DictConfig:
    cfg = OmegaConf.create({"dataloader": {"test": {"dataset": {"names": dataset}}}})
    cfg.model = L(BrightChannel)(num_classes=num_classes)
    cfg.dataloader.test.mapper = L(InstanceMapper)(
        is_train=False,
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=32, max_size=64)],
        image_format=image_format,
    )
    return cfg


def save_weights(folder: Path, num_classes: int = 3, class_names=None) -> Path:
    model = BrightChannel(num_classes)
    Checkpointer(model, str(folder), class_names=class_names).save("weights")
    return folder / "weights.pth"


def image_with_colours() -> np.ndarray:
    """A BGR image of 64 x 80: blue at the left, green in the middle, red at the right."""
    image = np.zeros((64, 80, 3), np.uint8)
    image[:, :20, 0] = 255
    image[:, 20:40, 1] = 255
    image[:, 40:, 2] = 255
    return image


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
@pytest.mark.parametrize("as_file", [False, True])
def test_masks_are_where_the_colours_are(tmp_path: Path, image_format: str, as_file: bool):
    predictor = Predictor(
        make_config(image_format), save_weights(tmp_path), device="cpu", score_thresh=0.0
    )
    image = image_with_colours()
    cv2.imwrite(str(tmp_path / "image.png"), image)
    instances = predictor(tmp_path / "image.png" if as_file else image)
    assert instances.image_size == (64, 80)
    red, green, blue = (0, 1, 2) if image_format == "RGB" else (2, 1, 0)
    columns = {blue: (0, 20), green: (20, 40), red: (40, 80)}
    for mask, box, k in zip(instances.pred_masks, instances.pred_boxes, instances.pred_classes):
        expected = torch.zeros(64, 80, dtype=torch.bool)
        left, right = columns[int(k)]
        expected[:, left:right] = True
        assert torch.equal(mask, expected)
        assert box.tolist() == [left, 0, right, 64]


def test_scores_fall_and_stay_above_the_threshold(tmp_path: Path):
    predictor = Predictor(make_config(), save_weights(tmp_path), device="cpu")
    scores = predictor(image_with_colours()).scores
    assert scores.tolist() == pytest.approx([0.9, 0.6])


def test_overlapping_instances_can_be_left_out(tmp_path: Path):
    image = np.full((64, 80, 3), 255, np.uint8)  # white: bright in all channels
    image[:, :40, 2] = 0  # but the left half has no red
    weights = save_weights(tmp_path)

    def classes(nms_iou: float) -> list[int]:
        predictor = Predictor(
            make_config(), weights, device="cpu", score_thresh=0.0, nms_iou=nms_iou
        )
        return predictor(image).pred_classes.tolist()

    assert classes(1.0) == [0, 1, 2]
    assert classes(0.6) == [0, 1]
    assert classes(0.4) == [0]


def test_the_class_count_follows_the_checkpoint(tmp_path: Path):
    weights = save_weights(tmp_path, 5, ["a", "b", "c", "d", "e"])
    predictor = Predictor(make_config(num_classes=3), weights, device="cpu")
    assert predictor.model.num_classes == 5
    assert predictor.class_names == ["a", "b", "c", "d", "e"]


def test_weights_of_other_classes_say_which_count_to_set(tmp_path: Path):
    weights = save_weights(tmp_path, 5)
    with pytest.raises(CheckpointError, match=r"Set model\.num_classes=5"):
        Predictor(make_config(num_classes=3), weights, device="cpu")


def test_class_names_come_from_a_known_data_set_of_that_size(tmp_path: Path):
    weights = save_weights(tmp_path, 6)
    names = Predictor(make_config("RGB", 6, "shapes_val"), weights, device="cpu").class_names
    assert "gear" in names
    assert len(names) == 6
    weights = save_weights(tmp_path, 3)
    assert Predictor(make_config("RGB", 3, "shapes_val"), weights, device="cpu").class_names == []
    assert Predictor(make_config("RGB", 3, "own_x"), weights, device="cpu").class_names == []


@pytest.mark.parametrize("pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_pixels_of_another_kind_are_refused(tmp_path: Path, pixels: np.ndarray):
    predictor = Predictor(make_config(), save_weights(tmp_path), device="cpu")
    with pytest.raises(ValueError, match=r"expected pixels \(H, W, 3\) uint8"):
        predictor(pixels)


def test_an_image_of_which_resizing_leaves_nothing_says_its_size(tmp_path: Path):
    predictor = Predictor(make_config(), save_weights(tmp_path), device="cpu")
    with pytest.raises(BadImageError, match="900 x 1 pixels"):
        predictor(np.zeros((1, 900, 3), np.uint8))
    Image.new("RGB", (900, 1)).save(tmp_path / "line.png")
    with pytest.raises(BadImageError, match=r"line\.png: 900 x 1 pixels"):
        predictor(tmp_path / "line.png")


def test_without_weights_there_is_no_prediction():
    with pytest.raises(CheckpointError, match="no weights given"):
        Predictor(make_config(), "")
