"""Cost of refining all boxes of an image: the released formulation beside the sparse one.

Random features of an 800 x 1088 image and boxes with sides from 30 to 700 pixels, weights of the
golden data. Prints, for each path, CPU seconds by part, the peak memory above model and inputs, and
how far its masks are from those of the dense path; writes the same as JSON.

    python benchmarks/mask_transfiner_refinement.py --boxes 100 --threads 2
"""

import argparse
import ctypes
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from queryseg.engine import load_config
from queryseg.mask_refinement.mask_head import QuadtreeMaskHead, QuadtreeMasks
from queryseg.mask_refinement.rois import RoIs
from queryseg.ops.quadtree import select_nodes, sine_position_table
from queryseg.parity import fill_by_official_names
from queryseg.projects.mask_transfiner.convert import LAYOUTS
from queryseg.projects.mask_transfiner.parity import spread_detector
from queryseg.projects.mask_transfiner.parity_evaluation import head_of, recipe_features
from queryseg.tools.console import say
from queryseg.tools.op_benchmark.machine import processor
from queryseg.tools.op_benchmark.quadtree_cases import make_boxes

HEIGHT, WIDTH = 800, 1088
PATHS = ("dense", "sparse", "sparse-bfloat16")
MIB = 2**20


class Clock:
    """CPU seconds of this process by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[name] += time.process_time() - start

    def watch(self, module: nn.Module, name: str) -> None:
        """Count the calls of a module."""
        starts: list[float] = []
        module.register_forward_pre_hook(lambda *_: starts.append(time.process_time()))

        def stop(*_: Any) -> None:
            self.seconds[name] += time.process_time() - starts.pop()

        module.register_forward_hook(stop)


def make_head() -> QuadtreeMaskHead:
    """The released mask head without its limit, under the weights of the golden data."""
    from detectron2.config import instantiate  # behind queryseg, which may have to provide it

    cfg = load_config("mask_transfiner/mask_transfiner_r50_1x.py")
    cfg.model.roi_heads.mask_head.max_boxes_test = None
    model = instantiate(cfg.model)

    def spread(state_dict: Any) -> None:
        spread_detector(4.0, -14.0, state_dict)

    fill_by_official_names(model, LAYOUTS[0], spread)
    return head_of(model).eval()


def make_inputs(count: int) -> tuple[list[Tensor], RoIs, Tensor]:
    """Maps, boxes and classes."""
    features = recipe_features(HEIGHT, WIDTH, 1, 30.0, torch.float32)
    classes = torch.arange(count) % 80
    return list(features.values()), RoIs.from_images([make_boxes(count)]), classes


def dense_segment(
    head: QuadtreeMaskHead, maps: Sequence[Tensor], rois: RoIs, classes: Tensor, clock: Clock
) -> tuple[Tensor, Tensor]:
    """Masks as the release computes them: whole maps of features and positions at every grid, then
    one box after the other through attention that returns its weights.

    Returns:
        (N, 1, size, size) probabilities; (T,) labels of the nodes, box by box, without references.
    """
    assert head.semantic is not None and head.refiner is not None
    pyramid = head.pyramid
    with clock.part("semantic convolutions"):
        fine, _ = head.semantic(maps)
    with clock.part("pooling"):
        reference = _dense_pool(head, maps, rois, pyramid.reference_size, 0)
        pooled = [
            _dense_pool(head, fine, rois, size, offset)
            for size, offset in zip(pyramid.grid_sizes, pyramid.level_offsets)
        ]
    with clock.part("coarse masks and detector"):
        coarse = head.coarse_head(reference)
        probs = head._own_class(coarse, classes).sigmoid()
        incoherence = head.detector(coarse, probs, fine, rois)[0].sigmoid()
    with clock.part("positions"):
        positions = [
            _dense_positions(size, len(rois)) for size in (reference.shape[-1], *pyramid.grid_sizes)
        ]
    masks = head.region([incoherence], probs, pyramid.grid_sizes, False)
    cues = head._cues(probs)
    attentions = [_plain_attention(layer) for layer in head.refiner.sequence_encoder.layers]
    labels = []
    for box in range(len(rois)):
        chosen = [torch.ones_like(cues[0][box, 0], dtype=torch.bool)]
        chosen += [mask[box, 0] for mask in masks]
        with clock.part("gathering nodes"):
            grids = [reference, *pooled]
            tokens = torch.cat(
                [
                    torch.cat([grid[box], cue[box]]).permute(1, 2, 0)[cells]
                    for grid, cue, cells in zip(grids, cues, chosen)
                ]
            )
            place = torch.cat(
                [table[box].permute(1, 2, 0)[cells] for table, cells in zip(positions, chosen)]
            )
        with clock.part("encoder"):
            fuse = head.refiner.node_encoder.fuse
            tokens = F.linear(tokens, fuse.weight.flatten(1), fuse.bias).unsqueeze(1)
            for layer, attention in zip(head.refiner.sequence_encoder.layers, attentions):
                keys = tokens + place.unsqueeze(1)
                tokens = layer.ffn(layer.norm(tokens + attention(keys, keys, tokens)[0]))
        with clock.part("decoder"):
            decoded = head.refiner._decode(tokens.transpose(0, 1))[0].sigmoid()
            labels.append(decoded[reference.shape[-1] ** 2 :])
    with clock.part("propagation"):
        nodes = select_nodes([probs[..., :0, :0] > 0, *masks])
        totals = nodes.counts.sum(0).tolist()
        refined = torch.cat(labels)
        return head.propagation(probs, nodes, refined, totals), refined


def _dense_pool(
    head: QuadtreeMaskHead, maps: Sequence[Tensor], rois: RoIs, size: int, offset: int
) -> Tensor:
    levels = (head.pyramid.own_levels(rois) - offset).clamp(min=0)
    pooled = maps[0].new_zeros(len(rois), maps[0].shape[1], size, size)
    for level, one in enumerate(maps):
        chosen = (levels == level).nonzero().squeeze(1)
        own = rois[chosen]
        boxes = torch.cat([own.image_index.unsqueeze(1).float(), own.boxes_xyxy_abs], 1)
        pooled[chosen] = roi_align(one, boxes, size, head.pyramid.scales[level], 0, True)
    return pooled


def _dense_positions(size: int, count: int) -> Tensor:
    rows = sine_position_table([size], 256)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.cat([rows[y], rows[x]], 2).permute(2, 0, 1).repeat(count, 1, 1, 1)


def _plain_attention(layer: Any) -> nn.MultiheadAttention:
    ours = layer.attention
    width = ours.out_proj.in_features
    plain = nn.MultiheadAttention(width, ours.num_heads)
    plain.load_state_dict(ours.state_dict())
    return plain.eval()


def sparse_segment(
    head: QuadtreeMaskHead, maps: Sequence[Tensor], rois: RoIs, classes: Tensor, clock: Clock
) -> QuadtreeMasks:
    """Masks as the model computes them."""
    assert head.semantic is not None and head.refiner is not None
    clock.watch(head.semantic, "semantic convolutions")
    clock.watch(head.coarse_head, "coarse masks and detector")
    clock.watch(head.detector, "coarse masks and detector")
    clock.watch(head.refiner.node_encoder, "gathering nodes")
    clock.watch(head.refiner.sequence_encoder, "encoder")
    clock.watch(head.refiner.decoder, "decoder")
    with clock.part("all"):
        last = [one.contiguous(memory_format=torch.channels_last) for one in maps]
        result = head.segment(last, rois, classes)
    known = sum(seconds for name, seconds in clock.seconds.items() if name != "all")
    clock.seconds["pooling, propagation, rest"] = clock.seconds.pop("all") - known
    return result


def measure(path: str, count: int, masks_file: Path) -> dict[str, Any]:
    """Run one path in this process and keep its masks."""
    head, (maps, rois, classes) = make_head(), make_inputs(count)
    clock, before = Clock(), _settled_memory()
    started = time.perf_counter()
    with torch.inference_mode():
        if path == "dense":
            masks, labels = dense_segment(head, maps, rois, classes, clock)
            nodes = len(labels)
        else:
            half = path.endswith("bfloat16")
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                result = sparse_segment(head, maps, rois, classes, clock)
            assert result.nodes is not None
            masks, nodes = result.masks, int(result.nodes.counts[:, 1:].sum())
    wall = time.perf_counter() - started
    extra = _memory("VmHWM") - before
    np.save(masks_file, masks.float().numpy())
    return {
        "path": path,
        "cpu_seconds": sum(clock.seconds.values()),
        "wall_seconds": wall,
        "extra_mib": extra / MIB,
        "nodes": nodes,
        "parts": dict(clock.seconds),
    }


def _settled_memory() -> int:
    """Bytes in use once freed memory is given back; the peak is counted from here on."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _memory("VmRSS")


def _memory(name: str) -> int:
    """Bytes of the process under a name of the kernel's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--paths", nargs="+", choices=PATHS, default=PATHS)
    parser.add_argument(
        "--results", type=Path, default=Path("benchmarks/results/mask_transfiner_refinement.json")
    )
    parser.add_argument("--inside", choices=PATHS, help=argparse.SUPPRESS)
    parser.add_argument("--masks-file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.inside:
        logging.disable(logging.WARNING)
        say(json.dumps(measure(args.inside, args.boxes, args.masks_file)))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(args, Path(folder))


def compare(args: argparse.Namespace, folder: Path) -> None:
    """Run every path in a process of its own, for its peak memory; print and write the figures."""
    rows = [run_path(path, args, folder) for path in args.paths]
    first = np.load(folder / f"{args.paths[0]}.npy")
    for row in rows:
        masks = np.load(folder / f"{row['path']}.npy")
        row["cpu_times_less"] = rows[0]["cpu_seconds"] / row["cpu_seconds"]
        row["memory_times_less"] = rows[0]["extra_mib"] / row["extra_mib"]
        row["largest_difference"] = float(np.abs(masks - first).max())
        say(
            f"{row['path']}: {row['cpu_seconds']:.1f} CPU s, {row['wall_seconds']:.1f} s, "
            f"{row['extra_mib']:.0f} MiB; {row['cpu_times_less']:.1f} times less CPU time and "
            f"{row['memory_times_less']:.1f} times less memory than {args.paths[0]}, masks differ "
            f"by at most {row['largest_difference']:.1e} ({row['nodes']} nodes)"
        )
        for name, seconds in sorted(row["parts"].items(), key=lambda part: -part[1]):
            say(f"    {seconds:7.2f}  {name}")
    report = {
        "boxes": args.boxes,
        "image": [HEIGHT, WIDTH],
        "threads": args.threads,
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
        "rows": rows,
    }
    args.results.parent.mkdir(parents=True, exist_ok=True)
    args.results.write_text(json.dumps(report, indent=1) + "\n")


def run_path(path: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Figures of one path; its masks go to the folder."""
    command = [sys.executable, __file__, "--inside", path, "--boxes", str(args.boxes)]
    command += ["--threads", str(args.threads), "--masks-file", str(folder / f"{path}.npy")]
    output = subprocess.check_output(command, text=True)
    return json.loads(output.splitlines()[-1])


if __name__ == "__main__":
    main()
