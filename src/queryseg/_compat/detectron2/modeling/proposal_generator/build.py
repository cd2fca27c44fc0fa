"""Proposal generators by name, for models described by a yaml config."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry

PROPOSAL_GENERATOR_REGISTRY = Registry("PROPOSAL_GENERATOR")


def build_proposal_generator(cfg: Any, input_shape: Mapping[str, ShapeSpec]) -> nn.Module | None:
    """Build the one named `cfg.MODEL.PROPOSAL_GENERATOR.NAME`; none for "PrecomputedProposals"."""
    name = cfg.MODEL.PROPOSAL_GENERATOR.NAME
    if name == "PrecomputedProposals":
        return None
    return PROPOSAL_GENERATOR_REGISTRY.get(name)(cfg, input_shape)
