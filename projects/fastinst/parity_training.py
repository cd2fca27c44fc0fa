"""One golden training step of the official FastInst."""

import zlib
from typing import Any

import numpy as np
import torch
from detectron2.structures import BitMasks, Instances
from torch import Tensor, nn

from queryseg.losses import PointSampler
from queryseg.parity import ParityReport
from queryseg.projects.fastinst.convert import LAYOUTS
from queryseg.projects.fastinst.model import FastInst
from queryseg.projects.fastinst.parity_evaluation import batch_images
from queryseg.projects.fastinst.parity_recording import Recording, recorded

LOSS_RATIO = 2e-4
GRADIENT_RATIO = 2e-3
GRADIENT_SUM_RATIO = 5e-2
"""Of the norm: sums cancel, and the float32 golden sums are 9e-3 norms away from float64 ones."""


def compare_training(model: nn.Module, report: ParityReport, *, block: int) -> None:
    """`golden_train_<tag>`: losses, matchings, guidance masks and gradients of one step.

    `block` is the side of the blocks that the first image of the batch is made of.
    """
    assert isinstance(model, FastInst)
    for module in model.modules():
        if isinstance(module, PointSampler):
            module.draw = repeated_points
    model.train()
    model.zero_grad()
    seeds = {"seed": (11, 12), "count": (5, 3)}
    inputs = [
        _training_input(image, index, seed, count)
        for index, (image, seed, count) in enumerate(zip(batch_images(block), *seeds.values()))
    ]
    with recorded(model) as recording:
        losses = model(inputs)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    for name, loss in losses.items():
        report.by_ratio(f"loss/{name}", loss.double().detach(), LOSS_RATIO)
    report.by_ratio("loss_total", total.double().detach(), LOSS_RATIO)
    _compare_matches(report, recording)
    _compare_gradients(report, model)


def repeated_points(rows: int, num_points: int, device: torch.device) -> Tensor:
    """Points that depend on their number only, the same in every row."""
    seed = zlib.crc32(f"rand:{num_points}".encode()) & 0x7FFFFFFF
    points = np.random.RandomState(seed).rand(num_points, 2).astype(np.float32)
    return torch.as_tensor(points, device=device).expand(rows, -1, -1)


def _training_input(image: Tensor, index: int, seed: int, count: int) -> dict[str, Any]:
    height, width = image.shape[-2:]
    masks, labels = _rectangles(index, seed, height, width, count)
    instances = Instances(
        (height, width),
        gt_classes=torch.as_tensor(labels),
        gt_masks=BitMasks(torch.as_tensor(masks)),
    )
    return {"image": image, "height": height, "width": width, "instances": instances}


def _rectangles(
    index: int, seed: int, height: int, width: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Random rectangles and one mask that no query can be guided by."""
    generator = np.random.RandomState(seed)
    masks = np.zeros((count + 1, height, width), dtype=bool)
    for mask in masks[:count]:
        y0, x0 = generator.randint(0, height - 24), generator.randint(0, width - 24)
        tall, wide = generator.randint(16, height // 2), generator.randint(16, width // 2)
        mask[y0 : y0 + tall, x0 : x0 + wide] = True
    if index == 0:
        masks[-1, 101, 99] = True
    return masks, generator.randint(0, 80, count + 1)


def _compare_matches(report: ParityReport, recording: Recording) -> None:
    """Official order: guiding, pixels, last head, heads 0 to D-1. Ours: guiding, heads 0 to D."""
    guiding, *heads = recording.query_matches
    calls = [("decoder", guiding), ("proposal", recording.pixel_matches[0])]
    calls += [("decoder", match) for match in (heads[-1], *heads[:-1])]
    for call, (kind, match) in enumerate(calls):
        for image in range(len(match.sizes)):
            pairs = torch.stack(match.of_image(image)).numpy().astype(np.int32)
            report.exactly(f"match/{call}_{kind}_img{image}", pairs)
    blocked = (~recording.attend_masks[-1][:, 0]).sum(-1).numpy().astype(np.int32)
    report.exactly("gt_attn_blocked_count", blocked)


def _compare_gradients(report: ParityReport, model: nn.Module) -> None:
    layout = LAYOUTS[0]
    gradients = {
        str(layout.to_official(name)): parameter.grad.double()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    names = [name for name in report.golden["grad_names"].tolist() if name in gradients]
    extra = [name for name in gradients if name not in names]
    report.exactly("grad_names", np.array(names + extra))
    norms = np.array([float(gradients[name].norm()) for name in names])
    sums = np.array([float(gradients[name].sum()) for name in names])
    report.by_ratio("grad_norms", norms, GRADIENT_RATIO)
    report.by_ratio("grad_sums", sums, GRADIENT_SUM_RATIO, scale=report.golden["grad_norms"])
