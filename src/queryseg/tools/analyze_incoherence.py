"""`python -m queryseg.tools.analyze_incoherence`: where coarse masks are wrong (Table 1).

Of the detections that overlap an object of their class, the share of incoherent cells (equation 1)
in the box, the share of wrong cells among them, the accuracy of the coarse mask there, and the AP
of coarse masks and of those with the truth filled in there.
"""

import argparse
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.layers import paste_masks_in_image
from detectron2.structures import BitMasks, Boxes, Instances, pairwise_iou
from torch import Tensor, nn
from torch.nn import functional as F

from queryseg.checkpoint import load_into, open_checkpoint
from queryseg.data.masks import decode
from queryseg.engine import apply_overrides, load_config
from queryseg.engine.run_setup import resolve_device
from queryseg.mask_refinement.incoherent_targets import incoherent_region
from queryseg.mask_refinement.mask_head import QuadtreeMaskHead
from queryseg.mask_refinement.regions import repeat_cells
from queryseg.tools.console import ToolError, run_tool, say

ROOT = 28
FINEST = 112
MIN_OVERLAP = 0.5


@dataclass
class Counts:
    """Cells of all matched boxes."""

    cells: int = 0
    incoherent: int = 0
    wrong: int = 0
    wrong_inside: int = 0

    def add(self, coarse: Tensor, truth: Tensor, region: Tensor) -> None:
        """Count bool maps of equal shape."""
        wrong = coarse != truth
        self.cells += region.numel()
        self.incoherent += int(region.sum())
        self.wrong += int(wrong.sum())
        self.wrong_inside += int((wrong & region).sum())

    def shares(self) -> dict[str, float]:
        """Percent: area of the regions, errors inside them, accuracy inside them."""
        return {
            "area": 100 * self.incoherent / max(self.cells, 1),
            "errors inside": 100 * self.wrong_inside / max(self.wrong, 1),
            "accuracy inside": 100 * (1 - self.wrong_inside / max(self.incoherent, 1)),
        }


def fill_with_truth(coarse_probs: Tensor, truth: BitMasks, boxes: Tensor, counts: Counts) -> Tensor:
    """Coarse masks with the truth in their incoherent cells.

    Args:
        coarse_probs: (n, 1, m, m).
        truth: n bitmaps.
        boxes: (n, 4) xyxy in the pixels of the bitmaps.
        counts: takes in what is found.

    Returns:
        (n, 1, 112, 112) probabilities.
    """
    probs = F.interpolate(coarse_probs, (FINEST, FINEST), mode="bilinear", align_corners=False)
    fine = truth.crop_and_resize(boxes, FINEST).unsqueeze(1)
    region = incoherent_region(truth.crop_and_resize(boxes, 2 * ROOT).unsqueeze(1))
    region = repeat_cells(region, FINEST)
    counts.add(probs >= 0.5, fine, region)
    return torch.where(region, fine.to(probs.dtype), probs)


def analyze(cfg: Any, weights: str, device: torch.device) -> dict[str, float]:
    """Run a model over its test set; returns the figures of Table 1 in percent."""
    model = instantiate(cfg.model)
    load_into(model, open_checkpoint(weights), complete=True)
    model.to(device).eval()
    heads = [module for module in model.modules() if isinstance(module, QuadtreeMaskHead)]
    if not heads:
        raise ToolError("this model has no quadtree mask head: there are no coarse masks")
    head, counts = heads[0], Counts()
    head.refiner = None  # only the coarse masks are looked at
    evaluators = {name: instantiate(cfg.dataloader.evaluator) for name in ("coarse", "oracle")}
    truth_of = {one["image_id"]: one for one in instantiate(cfg.dataloader.test.dataset)}
    coarse: list[Tensor] = []

    def remember(module: nn.Module, inputs: Any, found: list[Instances]) -> None:
        for image in found:
            image.coarse_probs = image.pred_masks  # an R-CNN drops empty boxes, and these with them
            coarse.append(image.pred_masks)

    head.register_forward_hook(remember)
    with torch.inference_mode():
        for batch in instantiate(cfg.dataloader.test):
            coarse.clear()
            for number, (inputs, output) in enumerate(zip(batch, model(batch))):
                found = output["instances"].to("cpu")
                if not found.has("coarse_probs"):
                    found.coarse_probs = coarse[number].cpu()
                evaluators["coarse"].process([inputs], [{"instances": found}])
                filled = _oracle(found, truth_of[inputs["image_id"]], counts)
                evaluators["oracle"].process([inputs], [{"instances": filled}])
    results = counts.shares()
    for name, evaluator in evaluators.items():
        results[f"AP {name}"] = evaluator.evaluate()["segm"]["AP"]
    return results


def _oracle(found: Instances, record: dict[str, Any], counts: Counts) -> Instances:
    """The instances of an image, with their `coarse_probs`; the truth filled in at objects."""
    filled = copy.copy(found)
    size = (record["height"], record["width"])
    objects = [a for a in record.get("annotations", ()) if not a.get("iscrowd", 0)]
    if not objects or not len(found):
        return filled
    pixels = torch.stack([torch.as_tensor(decode(a["segmentation"], *size)) for a in objects])
    masks, labels = BitMasks(pixels), torch.tensor([a["category_id"] for a in objects])
    overlap = pairwise_iou(found.pred_boxes, masks.get_bounding_boxes())
    overlap[found.pred_classes.unsqueeze(1) != labels] = 0
    best, match = overlap.max(1)
    chosen = (best >= MIN_OVERLAP).nonzero().squeeze(1)
    boxes = found.pred_boxes.tensor[chosen]
    better = fill_with_truth(found.coarse_probs[chosen], masks[match[chosen]], boxes, counts)
    pasted = found.pred_masks.clone()
    pasted[chosen] = paste_masks_in_image(better[:, 0], Boxes(boxes), size)
    return Instances(size, **{**found.get_fields(), "pred_masks": pasted})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m queryseg.tools.analyze_incoherence",
        description="Say how much of a model's mask errors lie in incoherent regions (Table 1).",
    )
    parser.add_argument("--config-file", required=True, help="config file, or an installed one")
    parser.add_argument("--weights", required=True, help="checkpoint file or zoo://<name>")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="config overrides")
    args = parser.parse_intermixed_args(argv)
    cfg = apply_overrides(load_config(args.config_file), args.opts)
    for name, value in analyze(cfg, args.weights, resolve_device(args.device)).items():
        say(f"{name:<16}{value:6.1f}")
    return 0


if __name__ == "__main__":
    run_tool(main)
