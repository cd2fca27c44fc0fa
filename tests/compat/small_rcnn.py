"""A Mask R-CNN small enough to train and test in a second, and inputs for it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, GeneralizedRCNN
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import (
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    StandardROIHeads,
)
from detectron2.structures import BitMasks, Boxes, Instances
from torch import nn

NUM_CLASSES = 5
WIDTH = 16
STRIDES = (4, 8, 16, 32)
LEVELS = ["p2", "p3", "p4", "p5"]


def small_stages(norm: str) -> list[list[nn.Module]]:
    """Four stages of one block each, 8 to 64 channels."""
    stages, channels = [], 8
    for i in range(4):
        stages.append(
            ResNet.make_stage(
                BasicBlock,
                1,
                in_channels=channels,
                out_channels=8 * 2**i,
                stride_per_block=[1 if i == 0 else 2],
                norm=norm,
            )
        )
        channels = 8 * 2**i
    return stages


def small_config() -> Any:
    """The LazyConfig of the model."""

    def pooler(size: int) -> Any:
        scales = [1 / stride for stride in STRIDES]
        return L(ROIPooler)(
            output_size=size, scales=scales, sampling_ratio=0, pooler_type="ROIAlignV2"
        )

    return L(GeneralizedRCNN)(
        backbone=L(FPN)(
            bottom_up=L(ResNet)(
                stem=L(BasicStem)(in_channels=3, out_channels=8, norm="BN"),
                stages=L(small_stages)(norm="BN"),
                out_features=["res2", "res3", "res4", "res5"],
            ),
            in_features="${.bottom_up.out_features}",
            out_channels=WIDTH,
            top_block=L(LastLevelMaxPool)(),
        ),
        proposal_generator=L(RPN)(
            in_features=[*LEVELS, "p6"],
            head=L(StandardRPNHead)(in_channels=WIDTH, num_anchors=3),
            anchor_generator=L(DefaultAnchorGenerator)(
                sizes=[[8], [16], [32], [64], [128]],
                aspect_ratios=[0.5, 1.0, 2.0],
                strides=[*STRIDES, 64],
                offset=0.0,
            ),
            anchor_matcher=L(Matcher)(
                thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True
            ),
            box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
            batch_size_per_image=64,
            positive_fraction=0.5,
            pre_nms_topk=(200, 100),
            post_nms_topk=(100, 50),
        ),
        roi_heads=L(StandardROIHeads)(
            num_classes=NUM_CLASSES,
            batch_size_per_image=32,
            positive_fraction=0.25,
            proposal_matcher=L(Matcher)(thresholds=[0.5], labels=[0, 1]),
            box_in_features=LEVELS,
            box_pooler=pooler(7),
            box_head=L(FastRCNNConvFCHead)(
                input_shape=L(ShapeSpec)(channels=WIDTH, height=7, width=7),
                conv_dims=[8],
                fc_dims=[32],
            ),
            box_predictor=L(FastRCNNOutputLayers)(
                input_shape=L(ShapeSpec)(channels=32),
                test_score_thresh=0.05,
                test_topk_per_image=20,
                box2box_transform=L(Box2BoxTransform)(weights=(10, 10, 5, 5)),
                num_classes="${..num_classes}",
            ),
            mask_in_features=LEVELS,
            mask_pooler=pooler(14),
            mask_head=L(MaskRCNNConvUpsampleHead)(
                input_shape=L(ShapeSpec)(channels=WIDTH, height=14, width=14),
                num_classes="${..num_classes}",
                conv_dims=[8, 8],
            ),
        ),
        pixel_mean=[103.53, 116.28, 123.675],
        pixel_std=[57.4, 57.1, 58.4],
        input_format="BGR",
    )


def small_model(overrides: Mapping[str, Any] | None = None, spread: bool = True) -> nn.Module:
    """Build the model after `torch.manual_seed(0)`; overrides are dotted config keys.

    If `spread`, the last layers are scaled and shifted so that scores, boxes and masks of the
    untrained model vary as those of a trained one do, by far more than rounding.
    """
    config = small_config()
    for key, value in (overrides or {}).items():
        *path, last = key.split(".")
        node = config
        for name in path:
            node = node[name]
        node[last] = value
    torch.manual_seed(0)
    model = instantiate(config)
    if spread:
        spread_outputs(model)
    return model


def spread_outputs(model: nn.Module) -> None:
    """Give every channel of the last layers mean 0 and a fixed deviation on the small batch."""
    rpn_head, heads = model.proposal_generator.rpn_head, model.roi_heads
    deviations = {
        rpn_head.objectness_logits: 1.0,
        rpn_head.anchor_deltas: 0.1,
        heads.box_predictor.cls_score: 1.5,
        heads.box_predictor.bbox_pred: 1.0,
        heads.mask_head.predictor: 1.0,
    }
    seen: dict[nn.Module, list[torch.Tensor]] = {layer: [] for layer in deviations}
    hooks = [
        layer.register_forward_hook(lambda layer, _, output: seen[layer].append(output))
        for layer in deviations
    ]
    with torch.no_grad():
        model.eval()(small_batch((0,)))
        for layer, outputs in seen.items():
            values = torch.cat([x.transpose(0, 1).flatten(1) for x in outputs], dim=1)
            scale = deviations[layer] / values.std(dim=1)
            layer.weight *= scale.view(-1, *[1] * (layer.weight.dim() - 1))
            layer.bias.copy_((layer.bias - values.mean(dim=1)) * scale)
    for hook in hooks:
        hook.remove()
    model.train()


def small_batch(counts: Sequence[int] = (4, 0, 2), seed: int = 3) -> list[dict[str, Any]]:
    """Random images with ellipses as objects: `counts[i]` of them in image i."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(96, 128), (100, 90), (64, 128)]
    batch = []
    for count, (height, width) in zip(counts, sizes):
        corner = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) * 0.6
        boxes = torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 30 + 8], 1)
        x, y = torch.arange(width)[None, None], torch.arange(height)[None, :, None]
        x1, y1, x2, y2 = boxes.unbind(1)
        far_x = (2 * x - (x1 + x2)[:, None, None]) / (x2 - x1)[:, None, None]
        far_y = (2 * y - (y1 + y2)[:, None, None]) / (y2 - y1)[:, None, None]
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(boxes)
        instances.gt_classes = torch.randint(NUM_CLASSES, (count,), generator=generator)
        instances.gt_masks = BitMasks(far_x**2 + far_y**2 < 1)
        image = torch.rand(3, height, width, generator=generator) * 255
        sample = {"image": image.to(torch.uint8), "instances": instances}
        batch.append({**sample, "height": 2 * height, "width": width + 30})
    return batch


def fingerprint(tensors: Mapping[str, torch.Tensor]) -> list[list[float]]:
    """Mean and mean size of each tensor, in float64."""
    return [[t.double().mean().item(), t.double().abs().mean().item()] for t in tensors.values()]


def names_and_shapes(model: nn.Module) -> list[str]:
    """One line per entry of the state dict."""
    return [f"{name} {tuple(value.shape)}" for name, value in model.state_dict().items()]
