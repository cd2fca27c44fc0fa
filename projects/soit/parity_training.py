"""Golden losses and gradients of the official SOIT."""

import re

import numpy as np
import torch
from torch import Tensor, nn

from queryseg.layers import MultiheadAttention
from queryseg.matching import Assignment
from queryseg.parity import ParityReport
from queryseg.projects.soit.convert import LAYOUTS
from queryseg.projects.soit.mask_branch import MatchedMasks
from queryseg.projects.soit.model import SOIT
from queryseg.projects.soit.parity_inputs import IMAGES

LOSS_RATIO = 1e-5
GRADIENT_RATIO = 2e-3
DICE = 5e-5
TERMS = {
    "loss_cls": "class",
    "loss_bbox": "box",
    "loss_iou": "giou",
    "loss_mask_dice": "dice",
    "loss_mask_bce": "bce",
}
NUM_LAYERS = 6
ALIASES = re.compile(r"bbox_head\.seg_branches\.[0-9]+\.")


def compare_losses(model: nn.Module, report: ParityReport) -> None:
    """`golden_loss`: the losses of a batch of two, its matchings and two gradients."""
    assert isinstance(model, SOIT) and model.mask_branch is not None
    step = TrainingStep(model)
    for name in (name for name in report.golden if name.startswith("loss/")):
        ours = step.losses[_our_name(name)].double()
        report.by_ratio(name, ours.reshape(report.golden[name].shape), LOSS_RATIO)
    total = torch.stack(list(step.losses.values())).sum().double()
    report.by_ratio("total", total[None], LOSS_RATIO)
    for layer, assignment in enumerate(step.assignments):
        for image in range(len(assignment.sizes)):
            pairs = torch.stack(assignment.of_image(image))
            report.exactly(f"match_l{layer}_i{image}", pairs)
    for index, image in enumerate(IMAGES.values()):
        instances = image.instances()
        report.by_value(f"gt_boxes{index}", instances.gt_boxes.tensor, 1e-4, role="input")
        report.exactly(f"gt_labels{index}", instances.gt_classes, role="input")
        area = instances.gt_masks.tensor.sum((1, 2))
        report.exactly(f"gt_area{index}", area, role="input")
    report.by_value("dice_last_layer", step.last_dice(), DICE)
    mask_head, projection = model.mask_branch.heads[0], model.mask_branch.encoder.projection
    _compare_gradient(report, "grad_seg_last_w_rows", mask_head.layers[-1], step=(40, 16))
    _compare_gradient(report, "grad_mask_trans_w", projection, step=(1, 1))


def compare_gradient_norms(model: nn.Module, report: ParityReport) -> None:
    """`golden_loss_gradnorms`: the gradient's norm by every parameter of the release."""
    assert isinstance(model, SOIT)
    TrainingStep(model)
    (layout,) = LAYOUTS
    last_alias = f"bbox_head.seg_branches.{NUM_LAYERS - 1}."
    parameters = dict(model.named_parameters())
    for name in report.golden:
        parameter = parameters.get(layout.to_ours(ALIASES.sub(last_alias, name)) or "")
        gradient = None if parameter is None else parameter.grad
        norm = np.zeros(0) if gradient is None else gradient.double().norm()
        report.by_ratio(name, norm, GRADIENT_RATIO)


class TrainingStep:
    """One forward and backward pass on the two golden images, without dropout.

    Args:
        model: gets the gradients.
    """

    def __init__(self, model: SOIT) -> None:
        calls: list[list[Assignment]] = []
        masks: list[tuple[MatchedMasks, Tensor]] = []
        handles = [
            model.criterion.matcher.register_forward_hook(lambda _, __, out: calls.append(out)),
            model.criterion.mask_loss.register_forward_hook(
                lambda _, inputs, out: masks.append((inputs[0], out[0].detach()))
            ),
        ]
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout | MultiheadAttention):
                module.eval()
        model.zero_grad()
        losses = model([image.training_input() for image in IMAGES.values()])
        torch.stack(list(losses.values())).sum().backward()
        for handle in handles:
            handle.remove()
        self.losses = {name: loss.detach() for name, loss in losses.items()}
        self.assignments = calls[0]
        self.masks, self.dice = masks[0]

    def last_dice(self) -> Tensor:
        """Dice losses of the last layer, image after image by query."""
        last = self.masks.layer_idx == self.masks.layers[-1]
        by_instance = self.dice[last]
        return by_instance[self.assignments[-1].tgt_idx]


def _our_name(official: str) -> str:
    """Our name of a loss, from `loss/[enc_|dL.]loss_<term>`."""
    name = official.removeprefix("loss/")
    if name.startswith("enc_"):
        return f"loss_{TERMS[name.removeprefix('enc_')]}_enc"
    stage, _, term = name.rpartition(".")
    return f"loss_{TERMS[term]}" + (f"_{stage.removeprefix('d')}" if stage else "")


def _compare_gradient(
    report: ParityReport, name: str, linear: nn.Module, step: tuple[int, int]
) -> None:
    """Within a share of the largest golden entry."""
    assert isinstance(linear, nn.Linear) and linear.weight.grad is not None
    if name in report.golden:
        largest = float(np.abs(report.golden[name]).max())
        gradient = linear.weight.grad[:: step[0], :: step[1]]
        report.by_value(name, gradient, GRADIENT_RATIO * largest)
