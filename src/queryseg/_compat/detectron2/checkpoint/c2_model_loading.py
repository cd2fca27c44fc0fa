"""Finding a model's parameters in a checkpoint that names them differently."""

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence

import torch

__all__ = ["align_and_update_state_dicts", "convert_basic_c2_names", "convert_c2_detectron_names"]

StateDict = Mapping[str, torch.Tensor]
Rules = tuple[tuple[str, str], ...]

# Applied in this order, each to all names. Caffe2 separates by "_": res2_0_branch2a_bn_s.
_BASIC_RULES: Rules = (
    (r"^pred_(b|w)$", r"linear_\1"),
    (r"_", r"."),
    (r"\.b$", r".bias"),
    (r"\.w$", r".weight"),
    (r"bn\.(s|gamma)$", r"norm.weight"),
    (r"bn\.(bias|beta)$", r"norm.bias"),
    (r"bn\.(rm|running\.mean)$", r"norm.running_mean"),
    (r"bn\.(riv|running\.var)$", r"norm.running_var"),
    (r"gn\.s$", r"norm.weight"),
    (r"gn\.bias$", r"norm.bias"),
    (r"^res\.conv1\.norm\.", r"conv1.norm."),
    (r"^conv1\.", r"stem.conv1."),
    (r"\.branch1\.", r".shortcut."),
    (r"\.branch2a\.", r".conv1."),
    (r"\.branch2b\.", r".conv2."),
    (r"\.branch2c\.", r".conv3."),
)
_DETECTION_RULES: Rules = (
    # Caffe2 shares the RPN's layers between levels and calls them by the first one, "fpn2".
    (r"conv\.rpn(\.fpn2)?", r"proposal_generator.rpn_head.conv"),
    (r"rpn\.bbox\.pred(\.fpn2)?", r"proposal_generator.rpn_head.anchor_deltas"),
    (r"rpn\.cls\.logits(\.fpn2)?", r"proposal_generator.rpn_head.objectness_logits"),
    (r"^bbox\.pred", r"bbox_pred"),
    (r"^cls\.score", r"cls_score"),
    (r"^fc6\.", r"box_head.fc1."),
    (r"^fc7\.", r"box_head.fc2."),
    (r"^head\.conv", r"box_head.conv"),
    (r"^fpn\.inner\.res(\d+)\..*?(\.norm)?\.(\w+)$", r"fpn_lateral\1\2.\3"),
    (r"^fpn\.res(\d+)\..*?(\.norm)?\.(\w+)$", r"fpn_output\1\2.\3"),
    (r"\.\[mask\]\.fcn", r"mask_head.mask_fcn"),
    (r"^\.mask\.fcn", r"mask_head.mask_fcn"),
    (r"mask\.fcn\.logits", r"mask_head.predictor"),
    (r"conv5\.mask", r"mask_head.deconv"),
)


def _rename(names: Iterable[str], rules: Rules) -> list[str]:
    renamed = []
    for name in names:
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed.append(name)
    return renamed


def convert_basic_c2_names(original_keys: Iterable[str]) -> list[str]:
    """Return the names that a Caffe2 backbone's parameters have here, in the given order."""
    return _rename(original_keys, _BASIC_RULES)


def convert_c2_detectron_names(
    weights: StateDict,
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Rename a Caffe2 detector's parameters and move its background class.

    Caffe2 has the background first: its class scores go to the end, its boxes and masks, which
    mean nothing, are dropped.

    Returns:
        New name to tensor, and new name to Caffe2 name.
    """
    logger = logging.getLogger(__name__)
    old_names = sorted(weights)
    new_names = _rename(convert_basic_c2_names(old_names), _DETECTION_RULES)
    assert len(set(new_names)) == len(new_names), "Two Caffe2 names became the same."
    converted: dict[str, torch.Tensor] = {}
    for old, new in zip(old_names, new_names):
        value = weights[old]
        if new.startswith("cls_score."):
            logger.info("%s: background class moved from the first place to the last.", new)
            value = torch.cat([value[1:], value[:1]])
        elif new.startswith(("bbox_pred.", "mask_head.predictor.")):
            logger.info("%s: background class dropped.", new)
            value = value[4 if new.startswith("bbox_pred.") else 1 :]
        converted[new] = value
    return converted, dict(zip(new_names, old_names))


def align_and_update_state_dicts(
    model_state_dict: StateDict, ckpt_state_dict: StateDict, c2_conversion: bool = True
) -> dict[str, torch.Tensor]:
    """Return the checkpoint's tensors under the model's names.

    A checkpoint name fits every model name that is equal to it or ends in it after a dot
    ("res2.0.conv1.weight" fits "backbone.bottom_up.res2.0.conv1.weight"); the longest that fits is
    taken. Another shape is a warning, and the tensor is left out. Names that fit nothing are kept,
    and if none fits, the checkpoint comes back as it is (renamed from Caffe2).

    Args:
        model_state_dict: name to tensor of the model.
        ckpt_state_dict: name to tensor of the checkpoint.
        c2_conversion: whether the checkpoint has Caffe2's names.

    Raises:
        ValueError: a checkpoint name is the best one for two model names.
    """
    logger = logging.getLogger(__name__)
    found = dict(ckpt_state_dict)
    if c2_conversion:
        found, _ = convert_c2_detectron_names(ckpt_state_dict)
    result: dict[str, torch.Tensor] = {}
    used: dict[str, str] = {}
    for model_name in sorted(model_state_dict):
        name = _longest_suffix_in(model_name, found)
        if name is None:
            continue
        shape, model_shape = found[name].shape, model_state_dict[model_name].shape
        if shape != model_shape:
            logger.warning(
                f"{name} is not loaded: its shape is {tuple(shape)}, that of {model_name} in the "
                f"model is {tuple(model_shape)}."
            )
            continue
        if name in used:
            raise ValueError(
                f"Cannot match one checkpoint key to several in the model: {name} fits "
                f"{used[name]} and {model_name}."
            )
        used[name] = model_name
        result[model_name] = found[name]
    if not result:
        logger.warning("No weights in checkpoint matched with model.")
        return found
    submodule = _longest_common_prefix_str(list(result)).rpartition(".")[0] or "model"
    logger.info(f"{len(result)} weights matched with submodule {submodule}.")
    return result | {name: found[name] for name in sorted(found) if name not in used}


def _longest_suffix_in(name: str, names: Mapping[str, object]) -> str | None:
    suffix, dot = name, "."
    while dot:
        if suffix in names:
            return suffix
        _, dot, suffix = suffix.partition(".")
    return None


def _longest_common_prefix_str(names: Sequence[str]) -> str:
    return os.path.commonprefix(list(names))  # noqa: RUF071  (by character is what is meant)
