"""How fast SOIT makes the masks of one image from its queries, beside the kernel alone.

At 800x1333 the map has 100x167 pixels. "mask branch" is what the model does in evaluation: the head
of 100 queries, their position codes and the kernel. "kernel" is its last step alone, and "torch"
the same masks in batched torch. Times are medians; with one thread they are the process's CPU time.

    python benchmarks/soit_masks.py --threads 1
"""

import queryseg  # noqa: F401, I001  (must come before detectron2)

import argparse
import json
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from queryseg.deformable_detr import Decoded
from queryseg.ops.instance_deform_attn import instance_deform_attn
from queryseg.projects.soit.instance_transformer import InstanceTransformer
from queryseg.projects.soit.mask_branch import MaskBranch, MaskFeatures
from queryseg.projects.soit.mask_encoder import MaskEncoder
from queryseg.projects.soit.position_codes import position_codes
from queryseg.tools.console import run_tool, say
from queryseg.tools.op_benchmark.case import Contender
from queryseg.tools.op_benchmark.instance_deform_attn_cases import batched_path
from queryseg.tools.op_benchmark.measure import measure

MAP_SIZE = (100, 167)
QUERIES, EMBED_DIM = 300, 256


def contenders(instances: int) -> list[Contender]:
    """Three ways to the same masks; a model's weights and queries are random."""
    torch.manual_seed(0)
    transformer = InstanceTransformer()
    branch = MaskBranch(encoder=MaskEncoder(), transformer=transformer, embed_dim=EMBED_DIM)
    decoded = Decoded([torch.randn(1, QUERIES, EMBED_DIM)], [], [torch.rand(1, QUERIES, 4)])
    features = MaskFeatures(torch.randn(1, *MAP_SIZE, 8), torch.tensor([MAP_SIZE]))
    pairs = torch.stack((torch.zeros(instances), torch.randperm(QUERIES)[:instances]), 1).long()
    vectors = branch.heads[0](decoded.query_feats[0][0, pairs[:, 1]]).detach()
    centres = decoded.boxes[0][0, pairs[:, 1], :2]
    sizes = features.valid_sizes.expand(instances, -1)
    codes = position_codes(centres, sizes, MAP_SIZE, channels=8)
    inputs: tuple[Tensor, ...] = (features.maps, vectors, *codes)
    return [
        Contender("mask branch", partial(branch.final_masks, features, decoded, pairs)),
        Contender("kernel", partial(instance_deform_attn, *inputs, heads=4, points=4)),
        Contender("torch", partial(batched_path, *inputs)),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=100, help="masks (default: 100)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--runs", type=int, default=10, help="timed runs (default: 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    ways = contenders(args.instances)
    ours, kernel, baseline = (way.run() for way in ways)
    if not (torch.equal(ours, kernel) and torch.allclose(ours, baseline, atol=1e-3)):
        raise RuntimeError("the three ways give different masks")
    found = measure(ways, "forward", torch.device("cpu"), args.runs, args.threads)
    figures = {f"{name} ms": round(one.milliseconds, 2) for name, one in found.items()}
    figures |= {
        f"{name} peak MiB": round((one.peak_bytes or 0) / 2**20, 1) for name, one in found.items()
    }
    figures["torch / mask branch"] = round(
        found["torch"].milliseconds / found["mask branch"].milliseconds, 1
    )
    if args.json:
        say(json.dumps(figures))
    else:
        for name, value in figures.items():
            say(f"{name:<24}{value}")
    return 0


if __name__ == "__main__":
    run_tool(main)
