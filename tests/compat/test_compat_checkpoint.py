"""Loading checkpoints: names matched by their endings, Caffe2's names, model-zoo files."""

import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import (
    align_and_update_state_dicts,
    convert_basic_c2_names,
    convert_c2_detectron_names,
)
from detectron2.checkpoint.catalog import ModelCatalog
from detectron2.utils.file_io import PathManager
from torch import nn

NORMS = ("bn_s", "bn_b", "bn_rm", "bn_riv", "bn_bias", "bn_gamma", "bn_beta")


def backbone_names() -> list[str]:
    names = ["conv1_w", "conv1_b", "pred_w", "pred_b", "conv1_gn_s", "conv1_gn_bias"]
    names += [f"res_conv1_{norm}" for norm in ("bn_s", "bn_bias", "bn_running_mean")]
    names += ["res_conv1_bn_running_var", "res_conv1_bn_riv", "res_conv1_bn_rm"]
    for branch in ("branch1", "branch2a", "branch2b", "branch2c"):
        names += [f"res2_0_{branch}_w", f"res5_2_{branch}_b", f"res4_22_{branch}_gn_s"]
        names += [f"res3_1_{branch}_{norm}" for norm in NORMS]
    return names


# Blob names of Mask R-CNN models, plain and with group norm, with their output channels.
DETECTOR_BLOBS = {
    "conv1_w": 2,
    "res_conv1_bn_s": 2,
    "res_conv1_bn_b": 2,
    "res2_0_branch1_w": 2,
    "res2_0_branch2a_bn_s": 2,
    "fpn_inner_res5_2_sum_w": 2,
    "fpn_inner_res4_5_sum_lateral_w": 2,
    "fpn_inner_res3_3_sum_lateral_gn_s": 2,
    "fpn_inner_res3_3_sum_lateral_gn_b": 2,
    "fpn_res2_2_sum_w": 2,
    "fpn_res2_2_sum_gn_s": 2,
    "conv_rpn_fpn2_w": 2,
    "rpn_cls_logits_fpn2_w": 3,
    "rpn_bbox_pred_fpn2_b": 12,
    "head_conv1_w": 2,
    "head_conv1_gn_s": 2,
    "fc6_w": 2,
    "fc7_b": 2,
    "cls_score_w": 4,
    "cls_score_b": 4,
    "bbox_pred_w": 16,
    "_[mask]_fcn1_w": 2,
    "_mask_fcn4_b": 2,
    "conv5_mask_w": 2,
    "mask_fcn_logits_w": 4,
}
# Without FPN, Caffe2 calls the same layers differently.
C4_BLOBS = {"conv_rpn_w": 2, "rpn_cls_logits_w": 3, "rpn_bbox_pred_w": 12}


def blobs(sizes: dict[str, int]) -> dict[str, torch.Tensor]:
    starts = np.cumsum([0, *sizes.values()])
    return {
        name: torch.arange(start, start + size, dtype=torch.float32)
        for start, (name, size) in zip(starts, sizes.items())
    }


def test_caffe2_backbone_names_are_those_of_the_real_package(stored: Callable[..., Any]) -> None:
    renamed = convert_basic_c2_names(backbone_names())
    assert "stem.conv1.norm.weight" in renamed and "res2.0.shortcut.weight" in renamed
    assert renamed == stored("checkpoint_c2_names", {"names": np.array(renamed)})["names"].tolist()


def test_caffe2_detectors_become_those_of_the_real_package(stored: Callable[..., Any]) -> None:
    converted: dict[str, torch.Tensor] = {}
    for sizes in (DETECTOR_BLOBS, C4_BLOBS):
        weights, old_names = convert_c2_detectron_names(blobs(sizes))
        assert sorted(old_names.values()) == sorted(sizes)
        converted |= {f"{len(sizes)}/{name}": value for name, value in weights.items()}
    answers = stored(
        "checkpoint_c2_weights", {name: value.numpy() for name, value in converted.items()}
    )
    for name, answer in answers.items():
        assert np.array_equal(converted[name].numpy(), answer), name


def test_the_background_class_moves_to_the_end_or_goes() -> None:
    names = ("cls_score_w", "bbox_pred_b", "mask_fcn_logits_b")
    weights = {name: torch.arange(8.0) for name in names}
    converted, _ = convert_c2_detectron_names(weights)
    assert converted["cls_score.weight"].tolist() == [1, 2, 3, 4, 5, 6, 7, 0]
    assert converted["bbox_pred.bias"].tolist() == [4, 5, 6, 7]
    assert converted["mask_head.predictor.bias"].tolist() == [1, 2, 3, 4, 5, 6, 7]


def matched_by_loop(model: list[str], checkpoint: list[str]) -> dict[str, str]:
    """For each model name the longest checkpoint name that it ends in, part by part."""
    result = {}
    for name in model:
        parts = name.split(".")
        fitting = [c for c in checkpoint if parts[-len(c.split(".")) :] == c.split(".")]
        if fitting:
            result[name] = max(fitting, key=len)
    return result


MODEL = [
    "backbone.bottom_up.stem.conv1.weight",
    "backbone.bottom_up.res2.0.conv1.weight",
    "backbone.bottom_up.res2.0.conv1.norm.weight",
    "backbone.fpn_lateral2.weight",
    "head.whatever_conv2.weight",
    "head.absent",
]
CHECKPOINT = [
    "stem.conv1.weight",
    "res2.0.conv1.weight",
    "0.conv1.norm.weight",
    "norm.weight",
    "fpn_lateral2.weight",
    "conv2.weight",
    "unused",
]


def test_names_are_matched_by_their_longest_ending() -> None:
    model = {name: torch.zeros(2) for name in MODEL}
    checkpoint = {name: torch.full((2,), float(i)) for i, name in enumerate(CHECKPOINT)}
    result = align_and_update_state_dicts(model, checkpoint, c2_conversion=False)
    pairs = matched_by_loop(MODEL, CHECKPOINT)
    assert pairs["backbone.bottom_up.res2.0.conv1.norm.weight"] == "0.conv1.norm.weight"
    assert "head.whatever_conv2.weight" not in pairs
    unmatched = set(CHECKPOINT) - set(pairs.values())
    assert set(result) == set(pairs) | unmatched
    for name, ending in (pairs | {name: name for name in unmatched}).items():
        assert result[name] is checkpoint[ending]


def test_another_shape_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    model = {"a.w": torch.zeros(2), "a.b": torch.zeros(2)}
    with caplog.at_level(logging.WARNING):
        result = align_and_update_state_dicts(
            model, {"w": torch.zeros(3), "b": torch.ones(2)}, c2_conversion=False
        )
    assert set(result) == {"a.b", "w"}
    assert "a.w" in caplog.text and "3" in caplog.text


def test_one_name_for_two_parameters_is_refused() -> None:
    model = {"a.w": torch.zeros(2), "b.w": torch.zeros(2)}
    with pytest.raises(ValueError, match="Cannot match one checkpoint key"):
        align_and_update_state_dicts(model, {"w": torch.zeros(2)}, c2_conversion=False)


def test_a_checkpoint_that_fits_nothing_comes_back_as_it_is() -> None:
    checkpoint = {"res2_0_branch2a_w": torch.zeros(2)}
    result = align_and_update_state_dicts({"x": torch.zeros(2)}, checkpoint)
    assert set(result) == {"res2.0.conv1.weight"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"stem": nn.ModuleDict({"conv1": nn.Linear(2, 2)})})
        self.register_buffer("pixel_mean", torch.zeros(3))


def ones() -> dict[str, torch.Tensor]:
    return {"stem.conv1.weight": torch.ones(2, 2), "stem.conv1.bias": torch.ones(2)}


def test_a_query_in_the_path_asks_for_matching(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(ones(), path)  # without the key "model", too
    model = Net()
    conv = model.backbone["stem"]["conv1"]
    before = conv.weight.detach().clone()
    DetectionCheckpointer(model).load(str(path))
    assert torch.equal(conv.weight, before)
    DetectionCheckpointer(model).load(f"{path}?matching_heuristics=True")
    assert torch.equal(conv.weight, torch.ones(2, 2))
    with pytest.raises(ValueError, match="anything"):
        DetectionCheckpointer(model).load(f"{path}?anything=True")


@pytest.mark.parametrize("kind", ["zoo", "detectron1", "imagenet"])
def test_model_zoo_pickles_are_read(tmp_path: Path, kind: str) -> None:
    weight, bias = np.full((2, 2), 3, np.float32), np.full(2, 4, np.float32)
    blobs = {"conv1_w": weight, "conv1_b": bias}
    content: dict[str, dict[str, Any]] = {
        "zoo": {
            "model": {"stem.conv1.weight": weight, "stem.conv1.bias": bias},
            "__author__": "somebody",
            "matching_heuristics": True,
        },
        "detectron1": {"blobs": {**blobs, "conv1_w_momentum": weight}},
        "imagenet": blobs,
    }
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(content[kind], protocol=2))
    model = Net()
    DetectionCheckpointer(model).load(str(path))
    assert torch.equal(model.backbone["stem"]["conv1"].weight, torch.full((2, 2), 3.0))
    assert torch.equal(model.backbone["stem"]["conv1"].bias, torch.full((2,), 4.0))


def test_pixel_statistics_and_old_anchors_are_not_reported(tmp_path: Path) -> None:
    model = Net()
    checkpointer = DetectionCheckpointer(model)
    state = model.state_dict()
    del state["pixel_mean"], state["backbone.stem.conv1.bias"]
    state["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    state["other"] = torch.zeros(1)
    incompatible = checkpointer._load_model({"model": state})
    assert incompatible.missing_keys == ["backbone.stem.conv1.bias"]
    assert incompatible.unexpected_keys == ["other"]


def test_saving_and_resuming_brings_everything_back(tmp_path: Path) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    checkpointer = DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer)
    assert not checkpointer.has_checkpoint()
    checkpointer.save("model_0000004", iteration=4)
    other = Net()
    other_optimizer = torch.optim.SGD(other.parameters(), lr=9.0)
    again = DetectionCheckpointer(other, str(tmp_path), optimizer=other_optimizer)
    assert again.resume_or_load("ignored", resume=True) == {"iteration": 4}
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    assert other_optimizer.param_groups[0]["lr"] == 0.25
    path = str(tmp_path / "model_0000004.pth")
    fresh = DetectionCheckpointer(Net(), optimizer=torch.optim.SGD(Net().parameters(), lr=1.0))
    rest = fresh.resume_or_load(path, resume=False)
    assert set(rest) == {"iteration", "optimizer"}  # only the model was taken


def test_an_empty_path_loads_nothing() -> None:
    assert DetectionCheckpointer(Net()).load("") == {}


def test_names_of_published_backbones_lead_to_addresses() -> None:
    address = ModelCatalog.get("ImageNetPretrained/MSRA/R-50")
    assert address == ("https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/MSRA/R-50.pkl")
    with pytest.raises(RuntimeError, match="nothing"):
        ModelCatalog.get("nothing/at/all")


def test_the_path_manager_knows_detectron2s_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = PathManager.get_local_path

    def get_local_path(path: str, *args: Any, **kwargs: Any) -> str:
        if path.startswith("https://"):
            asked.append(path)
            return "cached"
        return real(path, *args, **kwargs)

    monkeypatch.setattr(PathManager, "get_local_path", get_local_path)
    assert get_local_path("detectron2://COCO/model.pkl") == "cached"
    assert get_local_path("catalog://ImageNetPretrained/MSRA/R-101") == "cached"
    assert asked == [
        "https://dl.fbaipublicfiles.com/detectron2/COCO/model.pkl",
        "https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/MSRA/R-101.pkl",
    ]
