"""What training a mask network costs: memory of a step, and time against training everything.

`memory` follows one step of the mask network alone (forward and backward pass, AdamW) through fake
tensors, so it needs neither a GPU nor the memory it tells of. `iterations` times the tiny model on
noise images: all of it trained, the detector frozen, and what the detector says read from disk.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Instances
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from queryseg.detectors import Detected
from queryseg.engine import apply_overrides, load_config
from queryseg.matching import MaskTargets
from queryseg.projects.mask_frozen_detr.detection_cache import DetectionCache
from queryseg.projects.mask_frozen_detr.detections import Detections
from queryseg.projects.mask_frozen_detr.model import MaskFrozenDETR
from queryseg.tools.benchmark import parse_size
from queryseg.tools.console import say

GIB = 2**30
PAPER_GIB = 16


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    args = build_parser().parse_args(argv)
    say(json.dumps(args.run(args), indent=1))
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    memory = commands.add_parser("memory", help="peak memory of one step of the mask network")
    memory.add_argument("--config-file", default="mask_frozen_detr/mask_frozen_detr_hdetr_r50.py")
    memory.add_argument("--size", default="800x1333", help="HEIGHTxWIDTH of the images")
    memory.add_argument("--batch", type=int, default=2, help="images of a step")
    memory.add_argument("--instances", type=int, default=8, help="objects in each image")
    memory.set_defaults(run=measure_memory)
    iterations = commands.add_parser("iterations", help="seconds of an iteration, tiny model")
    iterations.add_argument("--runs", type=int, default=10, help="measured iterations of each kind")
    iterations.add_argument("--batch", type=int, default=8, help="images of an iteration")
    iterations.set_defaults(run=measure_iterations)
    return parser


def measure_memory(args: argparse.Namespace) -> dict[str, Any]:
    """Peak of a training step, by kind, in GiB."""
    cfg = load_config(args.config_file)
    size = parse_size(args.size)
    with FakeTensorMode():
        model = instantiate(cfg.model)
        network = model.mask_network.train()
        optimizer = torch.optim.AdamW(network.parameters())
        tracker = MemTracker()
        tracker.track_external(network, optimizer)
        image = fake_detected(model, cfg.model, size, args.batch)
        detections, targets = fake_matches(image, size, args.batch, args.instances)
        with tracker:
            prediction = network(network.features(image), detections)
            tgt_idx = torch.arange(len(detections))
            losses = model.criterion(prediction, detections, tgt_idx, targets)
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
    peak = {str(k): dict(v) for k, v in tracker.get_tracker_snapshot("peak").items()}
    (by_kind,) = peak.values()
    inputs = [image.stage1, image.position, *image.encoder_layers.values()]
    given = sum(x.numel() * x.element_size() for x in inputs)
    total = by_kind["Total"] / GIB
    return {
        "config": args.config_file,
        "images": f"{args.batch} x {size[0]} x {size[1]}, {args.instances} objects each, float32",
        "peak_gib": round(total, 3),
        "by_kind_gib": {str(k).split(".")[-1]: round(v / GIB, 4) for k, v in by_kind.items()},
        "given_by_the_detector_gib": round(given / GIB, 3),
        "paper_gpu_gib": PAPER_GIB,
        "share_of_the_papers_gpu": round((total + given / GIB) / PAPER_GIB, 3),
    }


def fake_detected(model: MaskFrozenDETR, cfg: Any, size: tuple[int, int], batch: int) -> Detected:
    """Tensors of the shapes that the detector gives."""
    levels = cfg.detector.num_levels
    first = 4 if not model.mask_network.fusion.uses_stage1 else 8
    shapes = [tuple(-(-side // (first * 2**level)) for side in size) for level in range(levels)]
    tokens = torch.zeros(batch, sum(h * w for h, w in shapes), cfg.detector.embed_dim)
    queries = cfg.detector.num_queries
    stage1 = torch.zeros(batch, cfg.mask_network.stage1_channels, *(-(-side // 4) for side in size))
    return Detected(
        stage1=stage1,
        encoder_layers={model.mask_network.encoder_layer: tokens},
        spatial_shapes=shapes,
        position=torch.zeros_like(tokens),
        query_feats=torch.zeros(batch, queries, cfg.detector.embed_dim),
        boxes_cxcywh_norm=torch.zeros(batch, queries, 4),
        class_probs=torch.zeros(batch, queries, model.num_classes),
        image_sizes=[size] * batch,
    )


def fake_matches(
    image: Detected, size: tuple[int, int], batch: int, instances: int
) -> tuple[Detections, MaskTargets]:
    """As many matched queries as there are objects."""
    count = batch * instances
    index = torch.zeros(count, dtype=torch.int64)
    masks = torch.zeros(count, *size, dtype=torch.bool)
    targets = MaskTargets(index, masks, (instances,) * batch)
    return Detections.pick(image, index, index), targets


def measure_iterations(args: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of an iteration of each kind, the kinds in turn, and their ratios."""
    logging.getLogger("queryseg").setLevel(logging.WARNING)
    inputs = [noise_input(seed) for seed in range(args.batch)]
    with tempfile.TemporaryDirectory() as folder:
        steps = {
            "everything": training_step(build("model.finetune=full"), inputs),
            "mask network": training_step(build(), inputs),
        }
        cached = build()
        cached.cache = DetectionCache(folder=folder, num_images=args.batch)
        steps["mask network, cached"] = training_step(cached, inputs)
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for run in range(args.runs + 2):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                if run >= 2:
                    seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    whole = medians["everything"]
    return {
        "threads": torch.get_num_threads(),
        "batch": args.batch,
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "times_cheaper": {name: round(whole / value, 2) for name, value in medians.items()},
    }


def build(*overrides: str) -> MaskFrozenDETR:
    """The tiny model with random weights."""
    name = "mask_frozen_detr/mask_frozen_detr_tiny.py"
    cfg = apply_overrides(load_config(name), list(overrides))
    torch.manual_seed(0)
    return instantiate(cfg.model)


def training_step(model: nn.Module, inputs: list[dict[str, Any]]) -> Callable[[], None]:
    """One optimizer step on the same batch each time."""
    model.train()
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        losses: dict[str, Tensor] = model(inputs)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()

    return step


def noise_input(seed: int, side: int = 128, count: int = 3) -> dict[str, Any]:
    """A noise image with a few squares for objects."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, side, side, dtype=torch.bool)
    for mask in masks:
        y, x = torch.randint(0, side - 40, (2,), generator=generator).tolist()
        mask[y : y + 40, x : x + 40] = True
    instances = Instances(
        (side, side),
        gt_boxes=BitMasks(masks).get_bounding_boxes(),
        gt_classes=torch.randint(0, 6, (count,), generator=generator),
        gt_masks=BitMasks(masks),
    )
    image = torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)
    return {"image": image, "instances": instances}
