"""Table 1's shares on masks whose errors are known."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import BitMasks, Boxes, Instances
from torch import nn

from queryseg.data.masks import decode
from queryseg.data.registration import get_dataset_dicts, register_coco_json
from queryseg.data.shapes import ShapesSpec, write_shapes
from queryseg.engine import load_config
from queryseg.mask_refinement.mask_head import QuadtreeMaskHead
from queryseg.tools.analyze_incoherence import Counts, fill_with_truth, main


def test_errors_along_an_odd_edge_lie_inside_and_are_filled() -> None:
    truth = torch.zeros(1, 112, 112, dtype=torch.bool)
    truth[:, :, :50] = True  # column 25 of 56 is odd: cells 24 and 25 make an incoherent column
    boxes = torch.tensor([[0.0, 0, 112, 112]])
    coarse = torch.zeros(1, 1, 112, 112)
    coarse[..., :48] = 1.0  # wrong in columns 48 and 49
    counts = Counts()
    filled = fill_with_truth(coarse, BitMasks(truth), boxes, counts)
    assert torch.equal(filled[:, 0] >= 0.5, truth)
    assert (counts.cells, counts.incoherent) == (112 * 112, 4 * 112)
    shares = counts.shares()
    assert shares["area"] == 100 * 4 / 112
    assert shares["errors inside"] == 100
    assert shares["accuracy inside"] == 50
    coarse[..., 90:92] = 1.0  # wrong outside of the region: stays wrong
    counts = Counts()
    filled = fill_with_truth(coarse, BitMasks(truth), boxes, counts)
    assert counts.shares()["errors inside"] == 50
    assert (filled[..., 90:92] == 1).all()


class TruthHead(QuadtreeMaskHead):
    """Gives boxes their true masks, as exact as seven rows can show them."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, features: object, instances: list[Instances]) -> list[Instances]:
        for image in instances:
            fine = image.truth.crop_and_resize(image.pred_boxes.tensor, 112).float()
            image.pred_masks = nn.functional.avg_pool2d(fine.unsqueeze(1), 16)
            image.remove("truth")
        return instances


class TruthModel(nn.Module):
    """Finds every object, and then something that is none."""

    def __init__(self, *, dataset: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.mask_head = TruthHead()
        self.records = {record["image_id"]: record for record in get_dataset_dicts(dataset)}

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        results = []
        for inputs in batched_inputs:
            objects = self.records[inputs["image_id"]]["annotations"]
            pixels = [torch.as_tensor(decode(a["segmentation"], 96, 96)) for a in objects]
            truth = BitMasks(torch.stack([*pixels, pixels[0]]))
            boxes = truth.get_bounding_boxes().tensor
            boxes[-1] = boxes[-1].new_tensor([5, 5, 5, 5])  # empty: dropped on the way
            found = Instances((96, 96), pred_boxes=Boxes(boxes), truth=truth)
            found.pred_classes = torch.tensor([a["category_id"] for a in objects] + [0])
            found.scores = torch.linspace(0.9, 0.5, len(found))
            (found,) = self.mask_head(None, [found])
            results.append({"instances": detector_postprocess(found, 96, 96)})
        return results


def test_the_tool_finds_the_errors_of_coarse_masks_inside_and_the_oracle_mends_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shapes(tmp_path, ShapesSpec(train=0, val=6, height=96, width=96, max_objects=3))
    register_coco_json("incoherence_val", tmp_path / "annotations/val.json", tmp_path / "val")
    cfg = load_config("mask_transfiner/mask_transfiner_tiny.py")
    cfg.model = L(TruthModel)(dataset="incoherence_val")
    cfg.dataloader.test.dataset.names = "incoherence_val"
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    torch.save({"model": {"weight": torch.zeros(1)}}, tmp_path / "weights.pth")
    arguments = ["--config-file", str(tmp_path / "config.yaml"), "--device", "cpu"]
    assert main([*arguments, "--weights", str(tmp_path / "weights.pth")]) == 0
    found = re.findall(r"^(\D+?) +([\d.]+)$", capsys.readouterr().out, re.MULTILINE)
    figures = {name: float(value) for name, value in found}
    assert list(figures) == ["area", "errors inside", "accuracy inside", "AP coarse", "AP oracle"]
    assert 5 < figures["area"] < 40
    assert 30 < figures["errors inside"] < 100
    assert figures["AP oracle"] > figures["AP coarse"] + 5
