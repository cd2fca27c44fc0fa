#!/usr/bin/env python
"""Time of QueryInst's heads and criterion, features given, beside the same heads in plain torch.

One training step (forward and backward) of the heads alone, batch 1, on a pyramid of an image of
800 x 1333 pixels; then of the whole model, which gives their share. "Plain" are copies of the same
heads and weights in which, as in the release, `torch.bmm` stands for the dynamic convolution, one
RoIAlign of torchvision a level for the pooling, and all classes' masks are computed and one is
kept; "plain bmm" keeps our pooling and masks. Contenders take turns in one process:

    python benchmarks/queryinst_heads.py --threads 2 --json
"""

import queryseg  # noqa: F401, I001  (must come before detectron2)

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Instances
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from queryseg.engine import load_config
from queryseg.projects.queryinst.dynamic_conv import DynamicConv
from queryseg.projects.queryinst.mask_head import MaskHead
from queryseg.projects.queryinst.model import QueryInst
from queryseg.projects.queryinst.roi_features import BoxFeatures
from queryseg.projects.queryinst.targets import InstanceTargets

IMAGE_SIZE = (800, 1333)
PADDED_SIZE = (800, 1344)
STRIDES = (4, 8, 16, 32)


class PlainDynamicConv(DynamicConv):
    """Two batched matrix products with layer norms."""

    def forward(self, box_feats: Tensor, query_feats: Tensor) -> Tensor:
        """As `DynamicConv`."""
        count, _, channels = box_feats.shape
        first, second = self.dynamic_layer(query_feats).chunk(2, dim=1)
        hidden = torch.bmm(box_feats, first.view(count, channels, -1))
        hidden = F.relu(self.norm_in(hidden))
        return F.relu(self.norm_out(torch.bmm(hidden, second.view(count, -1, channels))))


class PlainBoxFeatures(BoxFeatures):
    """RoIAlign of the boxes of one level after the other."""

    def forward(self, features: Sequence[Tensor], boxes_xyxy: Tensor, image_idx: Tensor) -> Tensor:
        """As `BoxFeatures`."""
        boxes = boxes_xyxy.detach()
        rois = torch.cat((image_idx[:, None].to(boxes), boxes), dim=1)
        levels = self.levels(boxes)
        side = self.resolution
        pooled = features[0].new_zeros(len(boxes), features[0].shape[1], side, side)
        for number, (level, scale) in enumerate(zip(features, self.scales)):
            chosen = (levels == number).nonzero()[:, 0]
            values = roi_align(level, rois[chosen], side, scale, self.sampling_ratio, True)
            pooled = pooled.index_put((chosen,), values)
        return pooled.flatten(2).mT


class PlainMaskHead(MaskHead):
    """Masks of all classes, of which one is kept."""

    def logits_of(self, upsampled: Tensor, labels: Tensor) -> Tensor:
        """As `MaskHead`."""
        return self.classifier(upsampled)[torch.arange(len(labels)), labels]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    args = parse_arguments(argv)
    torch.set_num_threads(args.threads)
    model = spread(instantiate(load_config(args.config).model)).train()
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, *IMAGE_SIZE), generator=generator, dtype=torch.uint8)
    instances = ellipses(args.instances, generator)
    features = [
        torch.randn(1, 256, *(side // stride for side in PADDED_SIZE), generator=generator)
        for stride in STRIDES
    ]
    plain_bmm = with_plain(model, {DynamicConv: PlainDynamicConv})
    plain = with_plain(plain_bmm, {BoxFeatures: PlainBoxFeatures, MaskHead: PlainMaskHead})
    channels_last = [x.contiguous(memory_format=torch.channels_last) for x in features]
    contenders = {
        "ours": heads_step(model, channels_last, instances),
        "plain bmm": heads_step(plain_bmm, channels_last, instances),
        "plain": heads_step(plain, features, instances),
        "whole step": lambda: whole_step(model, image, instances),
    }
    seconds = take_turns(contenders, args.runs)
    ratios = {f"ours/{name}": seconds["ours"] / seconds[name] for name in seconds if name != "ours"}
    result = {"threads": args.threads, "runs": args.runs, "seconds": seconds, "ratios": ratios}
    if args.json:
        text = json.dumps(result, indent=1)
    else:
        rows = [(name, f"{value:.3f} s") for name, value in seconds.items()]
        rows += [(name, f"{value:.3f}") for name, value in ratios.items()]
        text = "\n".join(f"{name:<16}{value}" for name, value in rows)
    print(text)  # noqa: T201


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="queryinst/queryinst_r50_100q_3x.py")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--instances", type=int, default=7, help="objects; COCO has 7 an image")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(argv)


def spread(model: QueryInst) -> QueryInst:
    """Boxes of many sizes all over the image, as a trained model has them."""
    boxes = model.decoder.proposals.boxes_cxcywh_norm
    generator = torch.Generator().manual_seed(1)
    centres = torch.rand(len(boxes), 2, generator=generator)
    sides = 0.03 * (20 ** torch.rand(len(boxes), 2, generator=generator))
    boxes.data = torch.cat((centres, sides), dim=1)
    return model


def with_plain(model: QueryInst, plain: dict[type, type]) -> QueryInst:
    """A copy in which some classes are replaced by their plain form, with the same weights."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        module.__class__ = plain.get(type(module), type(module))
    return copied


def ellipses(count: int, generator: torch.Generator) -> Instances:
    """Objects in the image."""
    y, x = (torch.arange(side)[None] + 0.5 for side in IMAGE_SIZE)
    centres = torch.rand(count, 2, generator=generator) * torch.tensor(IMAGE_SIZE[::-1])
    radii = 20 * 8 ** torch.rand(count, 2, generator=generator)
    across = ((x - centres[:, :1]) / radii[:, :1]).square()
    down = ((y - centres[:, 1:]) / radii[:, 1:]).square()
    masks = BitMasks(down[:, :, None] + across[:, None] <= 1)
    labels = torch.randint(0, 80, (count,), generator=generator)
    return Instances(
        IMAGE_SIZE, gt_boxes=masks.get_bounding_boxes(), gt_classes=labels, gt_masks=masks
    )


def heads_step(
    model: QueryInst, features: Sequence[Tensor], instances: Instances
) -> Callable[[], float]:
    """Forward and backward of everything behind the pyramid."""

    def step() -> float:
        model.zero_grad()
        levels = [level.detach().requires_grad_() for level in features]
        predictions = model.decoder(levels, [IMAGE_SIZE])
        targets = InstanceTargets.with_masks([instances], model.device, model.size_divisibility)
        matched = model.criterion.match(predictions, targets)
        mask_logits = model.matched_masks(levels, predictions, matched, targets)
        total = sum(model.criterion(predictions, mask_logits, matched, targets).values())
        total.backward()
        return float(total.detach())

    return step


def whole_step(model: QueryInst, image: Tensor, instances: Instances) -> float:
    """Forward and backward of the model."""
    model.zero_grad()
    total = sum(model([{"image": image, "instances": instances}]).values())
    total.backward()
    return float(total.detach())


def take_turns(contenders: dict[str, Callable[[], float]], runs: int) -> dict[str, float]:
    """Median seconds of each; the first round only warms up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(runs + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


if __name__ == "__main__":
    main()
