"""How much memory SOIT's mask loss takes in a training step with many objects.

Runs one training step (forward, backward, no optimizer) twice, each in a process of its own: with
the mask losses of all decoder layers, and without them, all else equal. Prints the peak of both and
the difference: of the process on a CPU, of torch's allocations on a GPU.

    python benchmarks/soit_mask_memory.py
    python benchmarks/soit_mask_memory.py --objects 30 --size 640x800 --json
"""

import queryseg  # noqa: F401, I001  (must come before detectron2)

import argparse
import json
import multiprocessing
import resource
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Boxes, Instances

from queryseg.engine import apply_overrides, load_config
from queryseg.engine.run_setup import resolve_device
from queryseg.projects.soit.model import SOIT
from queryseg.tools.benchmark import parse_size
from queryseg.tools.console import run_tool, say

MIB = 2**20


def training_inputs(images: int, objects: int, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Noise images with rectangles of all sizes."""
    height, width = size
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for _ in range(images):
        image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        corners = torch.rand(objects, 2, generator=generator) * torch.tensor([width, height]) * 0.8
        sides = 8 + torch.rand(objects, 2, generator=generator) * torch.tensor([width, height]) / 6
        boxes = torch.cat((corners, corners + sides), dim=1).floor()
        masks = torch.zeros(objects, height, width, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist()):
            mask[y0:y1, x0:x1] = True
        instances = Instances(
            (height, width),
            gt_boxes=Boxes(boxes),
            gt_classes=torch.randint(0, 80, (objects,), generator=generator),
            gt_masks=BitMasks(masks),
        )
        inputs.append({"image": image, "height": height, "width": width, "instances": instances})
    return inputs


def leave_out_masks(model: SOIT) -> None:
    """Let a training step end with the losses of classes and boxes."""
    assert model.mask_branch is not None
    model.mask_branch.matched_masks = lambda *_: None  # type: ignore[method-assign]
    model.criterion.mask_losses = lambda *_: {}  # type: ignore[method-assign]


def peak_of_a_step(args: argparse.Namespace, with_masks: bool, results: Any) -> None:
    """Put the peak memory of one step, in bytes, and the number of masks into the queue."""
    cfg = apply_overrides(load_config(args.config_file), args.opts)
    torch.manual_seed(0)
    device = resolve_device(args.device)
    model = instantiate(cfg.model).to(device).train()
    inputs = training_inputs(args.images, args.objects, parse_size(args.size))
    if not with_masks:
        leave_out_masks(model)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    torch.stack(list(model(inputs).values())).sum().backward()
    if device.type == "cuda":
        results.put(torch.cuda.max_memory_allocated(device))
    else:
        results.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def measure(args: argparse.Namespace, with_masks: bool) -> float:
    """Peak of a step in MiB, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=peak_of_a_step, args=(args, with_masks, results))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the step ended with exit code {process.exitcode}")
    return results.get() / MIB


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both steps and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", default="soit/soit_r50_50ep.py")
    parser.add_argument("--images", type=int, default=2, help="in the batch (default: 2)")
    parser.add_argument("--objects", type=int, default=93, help="of each image (default: 93)")
    parser.add_argument("--size", default="800x1333", help="HEIGHTxWIDTH (default: 800x1333)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="config overrides")
    args = parser.parse_intermixed_args(argv)
    without, with_masks = measure(args, False), measure(args, True)
    figures = {
        "config": args.config_file,
        "images": args.images,
        "objects": args.objects,
        "size": args.size,
        "device": str(resolve_device(args.device)),
        "torch": torch.__version__,
        "peak_without_mask_loss_mib": round(without, 1),
        "peak_mib": round(with_masks, 1),
        "mask_loss_mib": round(with_masks - without, 1),
    }
    if args.json:
        say(json.dumps(figures))
    else:
        for name, value in figures.items():
            say(f"{name:<28}{value}")
    return 0


if __name__ == "__main__":
    run_tool(main)
