"""FLOPs of the mask network, counted as the paper's figures are.

A multiply-add counts one. So does each value of a residual sum, of a layer scale and of the scaling
of queries in windows; an upsampled value counts four. Norms, activations, softmax, positions and
the reads of deformable attention count nothing. With RoIAlign comes a term of 31 operations for
each value of the map it reads from, whose origin is not known: it is told apart.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import queryseg.ops  # noqa: F401  (registers our operators)
from queryseg.backbones.swin import SwinBlock
from queryseg.deformable_detr import DeformableEncoderLayer
from queryseg.detectors import Detected
from queryseg.layers import CrossAttentionBlock, FeedForwardBlock, SelfAttentionBlock
from queryseg.projects.mask_frozen_detr.convnext_block import ConvNeXtBlock
from queryseg.projects.mask_frozen_detr.detections import Detections
from queryseg.projects.mask_frozen_detr.fusion import FeatureFusion
from queryseg.projects.mask_frozen_detr.mask_network import MaskNetwork
from queryseg.projects.mask_frozen_detr.regions import BoxRegions

STAGE1 = (200, 280)
"""A map with the paper's mean of 56,000 cells at stride 4."""
COARSER = [(100, 141), (50, 71), (25, 36), (13, 18)]
"""Levels with its means of 14,100 cells at stride 8 and (all but one) 18,783 in all."""
ROI_ALIGN_UNITS = 31
UPSAMPLING_UNITS = 4
UNITS: dict[type[nn.Module], int] = {
    DeformableEncoderLayer: 1,  # its attention; the feed-forward block counts for itself
    SwinBlock: 3,
    ConvNeXtBlock: 2,
    FeedForwardBlock: 1,
    CrossAttentionBlock: 1,
    SelfAttentionBlock: 1,
}
"""Operations that a module spends on each value it gives, besides its multiply-adds."""


@dataclass(frozen=True)
class PaperFlops:
    """Operations of one image.

    Args:
        multiply_adds: of convolutions, matrix products and attention.
        sums: residual sums, scales and interpolation.
        roi_align: the unexplained term.
    """

    multiply_adds: int
    sums: int
    roi_align: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.multiply_adds + self.sums + self.roi_align


def paper_flops(
    network: MaskNetwork, *, stage1_channels: int, num_boxes: int, five_scales: bool = False
) -> PaperFlops:
    """Run the network on an image of the paper's mean size, without computing, and count.

    Args:
        network: any form of it.
        stage1_channels: of the backbone's first map.
        num_boxes: N.
        five_scales: whether the detector's finest level has stride 4 already.
    """
    sums = Sums()
    handles = [
        module.register_forward_hook(sums.of_module)
        for module in network.modules()
        if type(module) in UNITS or isinstance(module, FeatureFusion)
    ]
    counter = FlopCounterMode(display=False)
    # The fused attention of CPUs has no formula in the counter; products of matrices have.
    plain = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with torch.no_grad(), plain, FakeTensorMode(allow_non_fake_inputs=True), counter:
        image = _image(network, stage1_channels, five_scales)
        features = network.features(image)
        network(features, _boxes(image, num_boxes))
    for handle in handles:
        handle.remove()
    boxes = isinstance(network.regions, BoxRegions)
    return PaperFlops(
        multiply_adds=counter.get_total_flops() // 2,
        sums=sums.count,
        roi_align=ROI_ALIGN_UNITS * features.numel() if boxes else 0,
    )


class Sums:
    """Adds up what modules spend besides multiply-adds."""

    def __init__(self) -> None:
        self.count = 0

    def of_module(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """A forward hook."""
        if isinstance(module, FeatureFusion):
            stage1, encoded = inputs
            upsampled = encoded.shape[-2:] != stage1.shape[-2:]
            units = UPSAMPLING_UNITS * upsampled + module.uses_stage1
        else:
            units = UNITS[type(module)]
        self.count += units * output.numel()


def _image(network: MaskNetwork, stage1_channels: int, five_scales: bool) -> Detected:
    shapes = [STAGE1, *COARSER] if five_scales else COARSER
    tokens = torch.zeros(1, sum(h * w for h, w in shapes), network.embed_dim)
    return Detected(
        stage1=torch.zeros(1, stage1_channels, *STAGE1),
        encoder_layers={network.encoder_layer: tokens},
        spatial_shapes=shapes,
        position=torch.zeros_like(tokens),
        query_feats=tokens[:, :1],
        boxes_cxcywh_norm=torch.zeros(1, 1, 4),
        class_probs=torch.zeros(1, 1, 1),
        image_sizes=[(4 * STAGE1[0], 4 * STAGE1[1])],
    )


def _boxes(image: Detected, count: int) -> Detections:
    one = torch.zeros(count, dtype=torch.int64)
    return Detections.pick(image, one, one)
