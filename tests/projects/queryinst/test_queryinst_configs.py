"""Every QueryInst config loads, survives saving, and states its numbers once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import BitMasks, BoxMode, PolygonMasks
from omegaconf import DictConfig
from PIL import Image

from queryseg.engine import apply_overrides, load_config
from queryseg.engine.config import installed_configs

CONFIGS = [
    name
    for name in installed_configs()
    if name.startswith("queryinst/") and not name.endswith("vis.py") and "vis_tiny" not in name
]
SECTIONS = {"model", "dataloader", "optimizer", "lr_multiplier", "train"}


def _shapes(cfg: DictConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        model = instantiate(cfg.model)
    return {name: value.shape for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_saved_and_loaded_again_builds_the_same_model(name: str, tmp_path: Path) -> None:
    cfg = load_config(name)
    assert set(cfg) == SECTIONS
    LazyConfig.save(cfg, str(tmp_path / "saved.yaml"))
    again = load_config(tmp_path / "saved.yaml")
    assert not list(tmp_path.glob("*.pkl"))
    assert _shapes(again) == _shapes(cfg)


@pytest.mark.parametrize("name", CONFIGS)
def test_class_query_stage_and_width_numbers_stand_once(name: str) -> None:
    numbers = {
        "model.num_classes": 11,
        "model.decoder.num_queries": 37,
        "model.decoder.embed_dim": 96,
        "model.decoder.num_stages": 2,
    }
    overrides = [f"{key}={value}" for key, value in numbers.items()]
    cfg = apply_overrides(load_config(name), overrides)
    shapes = _shapes(cfg)
    assert cfg.model.max_detections == 37
    assert shapes["backbone.fpn_output3.weight"] == (96, 96, 3, 3)
    assert shapes["decoder.proposals.query_feats"] == (37, 96)
    assert shapes["decoder.stages.1.box_head.class_embed.weight"] == (11, 96)
    assert shapes["mask_branch.heads.1.classifier.weight"] == (11, 96, 1, 1)
    assert not any("stages.2." in key or "heads.2." in key for key in shapes)


def test_mask_rcnn_baseline_has_the_entries_of_its_published_model(tmp_path: Path) -> None:
    cfg = apply_overrides(load_config("mask_rcnn/mask_rcnn_r101_3x.py"), ["model.num_classes=7"])
    assert set(cfg) == SECTIONS
    LazyConfig.save(cfg, str(tmp_path / "saved.yaml"))
    shapes = _shapes(load_config(tmp_path / "saved.yaml"))
    assert shapes["roi_heads.box_predictor.cls_score.weight"] == (8, 1024)
    assert shapes["roi_heads.box_predictor.bbox_pred.weight"] == (28, 1024)
    assert shapes["roi_heads.mask_head.predictor.weight"] == (7, 256, 1, 1)
    assert shapes["roi_heads.mask_head.mask_fcn4.weight"] == (256, 256, 3, 3)
    assert shapes["backbone.bottom_up.res4.22.conv3.weight"] == (1024, 256, 1, 1)
    with torch.device("meta"):
        model = instantiate(load_config("mask_rcnn/mask_rcnn_r101_3x.py").model)
    assert model.num_classes == model.roi_heads.num_classes == 80


def test_mask_rcnn_baseline_learns_what_detectron2_would_give_it(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "image.png")
    polygons = [[10.0, 5.0, 50.0, 8.0, 20.0, 40.0]]
    annotation = {
        "id": 1,
        "category_id": 3,
        "iscrowd": 0,
        "bbox": [9.0, 4.0, 44.0, 38.0],  # looser than the polygon
        "bbox_mode": BoxMode.XYWH_ABS,
        "segmentation": polygons,
    }
    record = {"file_name": str(tmp_path / "image.png"), "annotations": [annotation]}
    overrides = ["dataloader.train.mapper.augmentations=[]"]
    cfg = apply_overrides(load_config("mask_rcnn/mask_rcnn_r101_3x.py"), overrides)
    instances = instantiate(cfg.dataloader.train.mapper)(record)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[9.0, 4.0, 53.0, 42.0]]
    box = torch.tensor([[12.3, 6.1, 41.7, 33.9]])
    expected = PolygonMasks([[np.array(polygons[0])]]).crop_and_resize(box, 28)
    assert torch.equal(instances.gt_masks.crop_and_resize(box, 28), expected)
    assert not torch.equal(BitMasks(instances.gt_masks.tensor).crop_and_resize(box, 28), expected)
