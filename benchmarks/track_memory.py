"""How much memory following objects through a long video takes, frame by frame.

Writes a synthetic clip, follows it with a QueryInst-VIS as `queryseg.tools.track` does, with both
kinds of output, and prints the memory of the process after some of the frames. Without weights the
model is a random one whose every query is a detection: more masks than a trained one gives.

    python benchmarks/track_memory.py
    python benchmarks/track_memory.py --frames 3000 --size 360x640 --json
"""

import queryseg  # noqa: F401, I001  (must come before detectron2)

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate

from queryseg.checkpoint import Checkpointer
from queryseg.data.moving_shapes.__main__ import main as write_moving_shapes
from queryseg.engine import apply_overrides, load_config
from queryseg.evaluation.track_recorder import TrackRecorder
from queryseg.predictor import Predictor
from queryseg.tools.benchmark import parse_size
from queryseg.tools.console import run_tool, say
from queryseg.tools.track import draw, follow
from queryseg.visualization.frames import open_frames
from queryseg.visualization.video import VideoWriter

MIB = 2**20
EVERY_QUERY = ("model.min_score=0.0", "model.nms_iou=1.0")


def resident_bytes() -> int:
    """Memory of this process at this moment."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def write_clip(folder: Path, frames: int, size: str) -> Path:
    """A folder of frames, written in a process of its own so that it leaves nothing behind."""
    parse_size(size)
    child = os.fork()
    if child == 0:
        flags = ["--train", "0", "--val", "1", "--frames", str(frames), "--size", size]
        os._exit(write_moving_shapes(["--output", str(folder), *flags]))
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError(f"the clip could not be written to {folder}")
    return folder / "val" / "000000"


def random_weights(args: argparse.Namespace, folder: Path) -> str:
    """A checkpoint of the model as it starts."""
    torch.manual_seed(0)
    model = instantiate(apply_overrides(load_config(args.config_file), args.opts).model)
    Checkpointer(model, str(folder)).save("weights")
    return str(folder / "weights.pth")


def memory_over_time(args: argparse.Namespace, clip: Path, folder: Path) -> dict[str, Any]:
    """MiB after the chosen frames, and how much there was to remember."""
    overrides = [*args.opts] if args.weights else [*EVERY_QUERY, *args.opts]
    cfg = apply_overrides(load_config(args.config_file), overrides)
    weights = args.weights or random_weights(args, folder)
    predictor = Predictor(cfg, weights, device="cpu", score_thresh=0.0)
    recorder, frames, memory = TrackRecorder(), open_frames(clip), {}
    with VideoWriter(folder / "tracked.mp4", frames.frame_rate) as writer:
        for picture, instances in follow(predictor, frames):
            recorder.add(instances)
            writer.write(draw(predictor, picture, instances, 0.0))
            if recorder.length % args.every == 0:
                memory[recorder.length] = round(resident_bytes() / MIB, 1)
    recorder.write(folder / "tracks.json", 1)
    return {
        "config": args.config_file,
        "frames": recorder.length,
        "size": args.size,
        "tracks": predictor.model.tracker.num_tracks,
        "remembered": predictor.model.tracker.num_remembered,
        "json_mib": round((folder / "tracks.json").stat().st_size / MIB, 2),
        "resident_mib": memory,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Follow the clip and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="queryinst/queryinst_vis_tiny.py")
    parser.add_argument("--weights", default="", help="a checkpoint (default: random weights)")
    parser.add_argument("--frames", type=int, default=1200, help="of the clip (default: 1200)")
    parser.add_argument("--size", default="96x128", help="HEIGHTxWIDTH (default: 96x128)")
    parser.add_argument("--every", type=int, default=100, help="frames between two readings")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="config overrides")
    args = parser.parse_intermixed_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = memory_over_time(
            args, write_clip(folder / "clip", args.frames, args.size), folder
        )
    if args.json:
        say(json.dumps(figures))
    else:
        for key, value in figures.items():
            say(f"{key:<16}{value}")
    return 0


if __name__ == "__main__":
    run_tool(main)
