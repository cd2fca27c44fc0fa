"""The golden bundles of the official Mask Transfiner and what each is compared by."""

from collections.abc import MutableMapping
from functools import partial

from torch import Tensor

from queryseg.parity import Bundle
from queryseg.projects.mask_transfiner.convert import LAYOUTS
from queryseg.projects.mask_transfiner.parity_evaluation import (
    compare_demo_mode,
    compare_head,
    compare_model,
    compare_pooling,
)
from queryseg.projects.mask_transfiner.parity_parts import (
    compare_boundaries,
    compare_incoherence,
    compare_positions,
    compare_propagation,
)
from queryseg.projects.mask_transfiner.parity_training import compare_training

PREDICTOR = "roi_heads.mask_head.predictor_uncertain."


def spread_detector(scale: float, bias: float, state_dict: MutableMapping[str, Tensor]) -> None:
    """The override of the golden data: node sets that are sparse but varied."""
    state_dict[f"{PREDICTOR}weight"] = state_dict[f"{PREDICTOR}weight"] * scale
    state_dict[f"{PREDICTOR}bias"].fill_(bias)


def _bundle(pattern: str, run: object, *override: float) -> Bundle:
    adjust = partial(spread_detector, *override) if override else None
    return Bundle(pattern, LAYOUTS[0], run, adjust)  # type: ignore[arg-type]


BUNDLES = (
    _bundle(r"head_fixed_features", compare_head, 4.0, -14.0),
    _bundle(r"head_demo_mode", compare_demo_mode, 4.0, -14.0),
    _bundle(r"train_losses", compare_training, 4.0, -5.0),
    _bundle(r"full_mask_rcnn_R_50_FPN_3x", compare_model, 0.18, -14.0),
    _bundle(r"full_mask_rcnn_R_50_FPN_3x_deform", compare_model, 0.5, -14.0),
    _bundle(r"pooler_levels", compare_pooling),
    _bundle(r"pos_embed", compare_positions),
    _bundle(r"gt_incoherent", compare_incoherence),
    _bundle(r"gt_boundary28", compare_boundaries),
    _bundle(r"propagation_(two_boxes|only_level28|no_nodes)", compare_propagation),
)
