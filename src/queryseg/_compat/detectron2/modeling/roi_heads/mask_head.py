"""Masks of boxes (https://arxiv.org/abs/1703.06870)."""

from collections.abc import Sequence
from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.config import configurable
from detectron2.layers import Conv2d, ConvTranspose2d, ShapeSpec, cat, get_norm
from detectron2.layers.batch_norm import Norm
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from detectron2.utils.registry import Registry

ROI_MASK_HEAD_REGISTRY = Registry("ROI_MASK_HEAD")


def mask_rcnn_loss(
    pred_mask_logits: Tensor, instances: Sequence[Instances], vis_period: int = 0
) -> Tensor:
    """Mean binary cross-entropy of the mask of each box's own class.

    Args:
        pred_mask_logits: (N, K, M, M), or (N, 1, M, M) for class-agnostic masks.
        instances: per image, N in all, in the order of the logits: `proposal_boxes`, `gt_classes`
            and `gt_masks`.
        vis_period: pictures of the masks go to the event storage once in so many iterations; 0 =
            never.

    Returns:
        Scalar; 0, still in the graph, without boxes.
    """
    assert pred_mask_logits.size(2) == pred_mask_logits.size(3), "masks must be square"
    with_boxes = [x for x in instances if len(x) > 0]
    if not with_boxes:
        return pred_mask_logits.sum() * 0
    size, device = pred_mask_logits.size(2), pred_mask_logits.device
    targets = cat(
        [x.gt_masks.crop_and_resize(x.proposal_boxes.tensor, size).to(device) for x in with_boxes]
    )
    logits = _of_class(pred_mask_logits, [x.gt_classes for x in with_boxes])
    target_bits = targets if targets.dtype == torch.bool else targets > 0.5
    targets = targets.float()
    _log_mask_accuracy(logits > 0.0, target_bits)
    storage = get_event_storage()
    if vis_period > 0 and storage.iter % vis_period == 0:
        pictures = torch.cat([logits.sigmoid(), targets], dim=2)
        for i, picture in enumerate(pictures):
            name = f"Left: mask prediction;   Right: mask GT ({i})"
            storage.put_image(name, picture.expand(3, -1, -1))
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="mean")


def mask_rcnn_inference(pred_mask_logits: Tensor, pred_instances: Sequence[Instances]) -> None:
    """Give each instance the mask of its class: `pred_masks` (n, 1, M, M), values in [0, 1].

    Args:
        pred_mask_logits: (N, K, M, M), or (N, 1, M, M) for class-agnostic masks.
        pred_instances: per image, N in all, with `pred_classes`; changed in place.
    """
    probs = _of_class(pred_mask_logits, [x.pred_classes for x in pred_instances])
    counts = [len(x) for x in pred_instances]
    for instances, masks in zip(pred_instances, probs[:, None].sigmoid().split(counts)):
        instances.pred_masks = masks


def _of_class(mask_logits: Tensor, classes: Sequence[Tensor]) -> Tensor:
    """(N, M, M) logits of the given classes out of (N, K, M, M); of the only one if K is 1."""
    if mask_logits.size(1) == 1:
        return mask_logits[:, 0]
    labels = cat(list(classes)).to(torch.int64)
    return mask_logits[torch.arange(len(labels), device=labels.device), labels]


def _log_mask_accuracy(predicted: Tensor, target: Tensor) -> None:
    """Store the part of wrong pixels: of all, of the background and of the foreground."""
    wrong = predicted != target
    foreground = target.sum().item()
    background = target.numel() - foreground
    storage = get_event_storage()
    storage.put_scalar("mask_rcnn/accuracy", 1 - wrong.sum().item() / max(wrong.numel(), 1.0))
    false_positive = (wrong & ~target).sum().item() / max(background, 1.0)
    storage.put_scalar("mask_rcnn/false_positive", false_positive)
    false_negative = (wrong & target).sum().item() / max(foreground, 1.0)
    storage.put_scalar("mask_rcnn/false_negative", false_negative)


class BaseMaskRCNNHead(nn.Module):
    """Loss and inference of a mask head; a subclass writes `layers`.

    Args:
        loss_weight: factor of the loss.
        vis_period: see `mask_rcnn_loss`.
    """

    @configurable
    def __init__(self, *, loss_weight: float = 1.0, vis_period: int = 0) -> None:
        super().__init__()
        self.vis_period = vis_period
        self.loss_weight = loss_weight

    def layers(self, x: Tensor) -> Tensor:
        """Mask logits (N, K, M, M) of pooled features (N, C, h, w)."""
        raise NotImplementedError(f"{type(self).__name__} does not define layers")

    def forward(self, x: Tensor, instances: list[Instances]) -> dict[str, Tensor] | list[Instances]:
        """Compute `loss_mask` (training), or set `pred_masks` and return `instances`."""
        logits = self.layers(x)
        if self.training:
            loss = mask_rcnn_loss(logits, instances, self.vis_period)
            return {"loss_mask": loss * self.loss_weight}
        mask_rcnn_inference(logits, instances)
        return instances


@ROI_MASK_HEAD_REGISTRY.register()
class MaskRCNNConvUpsampleHead(BaseMaskRCNNHead, nn.Sequential):
    """3x3 convolutions, a transposed convolution that doubles the size, and a 1x1 convolution.

    Args:
        input_shape: of the pooled features.
        num_classes: K; 1 for class-agnostic masks.
        conv_dims: output channels of each convolution; the last is the transposed one's.
        conv_norm: after each 3x3 convolution, as `get_norm` takes it.
        **kwargs: those of `BaseMaskRCNNHead`.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: Sequence[int],
        conv_norm: Norm = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        assert len(conv_dims) >= 1, "conv_dims is empty"
        channels = input_shape.channels
        self.conv_norm_relus: list[Conv2d] = []
        for k, dim in enumerate(conv_dims[:-1], start=1):
            norm, relu, bias = get_norm(conv_norm, dim), nn.ReLU(), not conv_norm
            conv = Conv2d(channels, dim, 3, padding=1, bias=bias, norm=norm, activation=relu)
            self.add_module(f"mask_fcn{k}", conv)
            self.conv_norm_relus.append(conv)
            channels = dim
        self.deconv = ConvTranspose2d(channels, conv_dims[-1], kernel_size=2, stride=2)
        self.deconv_relu = nn.ReLU()
        self.predictor = Conv2d(conv_dims[-1], num_classes, kernel_size=1)
        for layer in [*self.conv_norm_relus, self.deconv]:
            weight_init.c2_msra_fill(layer)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    def layers(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to mask logits (N, K, 2h, 2w)."""
        return nn.Sequential.forward(self, x)


def build_mask_head(cfg: Any, input_shape: ShapeSpec) -> nn.Module:
    """Build the head registered under the name `cfg.MODEL.ROI_MASK_HEAD.NAME`."""
    return ROI_MASK_HEAD_REGISTRY.get(cfg.MODEL.ROI_MASK_HEAD.NAME)(cfg, input_shape)
