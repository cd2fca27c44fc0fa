"""`python -m queryseg.tools.track`: follow instances through a video, frame by frame."""

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from detectron2.structures import Instances
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from queryseg.engine import apply_overrides, load_config
from queryseg.evaluation.track_recorder import TrackRecorder
from queryseg.predictor import Predictor
from queryseg.tools.console import ToolError, apart, run_tool, say
from queryseg.visualization import DrawnObjects, paint
from queryseg.visualization.frames import Frames, open_frames
from queryseg.visualization.video import VideoWriter

PICTURES, RESULTS = ".mp4", ".json"

_logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """The command line of the tracking tool."""
    parser = argparse.ArgumentParser(
        prog="python -m queryseg.tools.track",
        description="Follow instances through a video, one frame at a time.",
        epilog="example: --input clip.mp4 --output tracked.mp4 tracks.json",
    )
    parser.add_argument("--config-file", required=True, help="config file, or an installed one")
    parser.add_argument("--weights", required=True, help="checkpoint file or zoo://<name>")
    parser.add_argument("--input", required=True, help="a video, or a folder of frames")
    parser.add_argument(
        "--output",
        required=True,
        nargs="+",
        metavar="FILE",
        help="an .mp4 to draw, a .json for tracks in YouTube-VIS format, or both",
    )
    parser.add_argument(
        "--score-thresh", type=float, default=0.3, help="draw from this score on (default: 0.3)"
    )
    parser.add_argument("--video-id", type=int, default=1, help="in the .json (default: 1)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="config overrides")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    parser = build_parser()
    args = parser.parse_intermixed_args(argv)
    files, overrides = apart(args.output, is_output)
    cfg = apply_overrides(load_config(args.config_file), [*overrides, *args.opts])
    check_follows(cfg, args.config_file)
    source = Path(args.input)
    targets = output_files(files, source)
    frames = open_frames(source)
    predictor = Predictor(cfg, args.weights, device=args.device, score_thresh=0.0)
    recorder = TrackRecorder() if RESULTS in targets else None
    with ExitStack() as stack:
        writer = None
        if PICTURES in targets:
            writer = stack.enter_context(VideoWriter(targets[PICTURES], frames.frame_rate))
        if recorder is not None:
            stack.enter_context(written(recorder, targets[RESULTS], args.video_id))
        count = 0
        for picture, instances in follow(predictor, frames):
            if recorder is not None:
                recorder.add(instances)
            if writer is not None:
                writer.write(draw(predictor, picture, instances, args.score_thresh))
            count += 1
    written_files = ", ".join(map(str, targets.values()))
    say(f"{source}: {count} frames, {predictor.model.tracker.num_tracks} tracks -> {written_files}")
    return 0


@contextmanager
def written(recorder: TrackRecorder, target: Path, video_id: int) -> Iterator[None]:
    """Write what was recorded at the end of the block.

    Where a frame fails, the tracks up to it go to a file beside the target, which is logged: under
    the name of the target nobody would see that frames are missing.
    """
    try:
        yield
    except BaseException:
        if recorder.length:
            part = target.with_suffix(f".partial{target.suffix}")
            recorder.write(part, video_id)
            _logger.warning("The tracks of the first %d frames are in %s", recorder.length, part)
        raise
    recorder.write(target, video_id)


def check_follows(cfg: DictConfig, name: str) -> None:
    """Stop if a config has no model that follows objects.

    Raises:
        ToolError: it has none.
    """
    if OmegaConf.select(cfg, "model.tracker") is None:
        raise ToolError(
            f"{name} is a model for single images: take one with a tracker, for example "
            "queryinst/queryinst_r50_vis.py, or draw each frame by itself with queryseg.tools.demo"
        )


def is_output(word: str) -> bool:
    """Whether a word ends as what this tool writes."""
    return Path(word).suffix.lower() in (PICTURES, RESULTS)


def output_files(names: Sequence[str], source: Path) -> dict[str, Path]:
    """Ending -> file to write.

    Raises:
        ToolError: an unknown ending, two files of one kind, or the input itself.
    """
    targets: dict[str, Path] = {}
    for path in map(Path, names):
        ending = path.suffix.lower()
        if ending not in (PICTURES, RESULTS):
            raise ToolError(f"--output {path}: give a file that ends in {PICTURES} or {RESULTS}")
        if ending in targets:
            raise ToolError(f"--output: {targets[ending]} and {path} are of one kind; give one")
        if path.resolve() == source.resolve():
            raise ToolError(f"--output {path} would overwrite the input: choose another file")
        targets[ending] = path
    return targets


def follow(predictor: Predictor, frames: Frames) -> Iterator[tuple[np.ndarray, Instances]]:
    """Each frame with what is found in it and followed; only one is held at a time.

    Args:
        predictor: of a model that follows objects.
        frames: the clip, from its start.

    Yields:
        The picture (H, W, 3) uint8 RGB, and its instances with `pred_track_ids`.
    """
    shown = tqdm(frames.pictures, frames.name, frames.length, unit="frame", disable=None)
    for number, picture in enumerate(shown):
        yield picture, predictor(np.ascontiguousarray(picture[:, :, ::-1]), frame=number)


def draw(
    predictor: Predictor, picture_rgb: np.ndarray, instances: Instances, min_score: float
) -> np.ndarray:
    """The frame with the tracks of at least a score on it, each in a colour of its own."""
    objects = DrawnObjects.from_predictions(instances[instances.scores >= min_score])
    return paint(picture_rgb, objects, predictor.class_names)


if __name__ == "__main__":
    run_tool(main)
