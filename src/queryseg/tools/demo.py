"""`python -m queryseg.tools.demo`: draw predictions on images, videos or a data set."""

import argparse
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from PIL import Image
from tqdm import tqdm

from queryseg.data.image import BadImageError, read_image
from queryseg.data.registration import get_dataset_dicts, register_coco_json
from queryseg.engine import apply_overrides, load_config
from queryseg.predictor import Predictor
from queryseg.tools.console import ToolError, apart, run_tool, say
from queryseg.visualization import DrawnObjects, PaintStyle, make_grid, paint
from queryseg.visualization.drawings import Drawing, find_drawing
from queryseg.visualization.inputs import find_inputs, is_video
from queryseg.visualization.video import draw_video

HEADINGS = ("ground truth", "prediction")
_logger = logging.getLogger("queryseg.demo")


def build_parser() -> argparse.ArgumentParser:
    """The command line of the demo."""
    parser = argparse.ArgumentParser(
        prog="python -m queryseg.tools.demo",
        description="Draw predicted instances on images and videos, or beside a data set's own.",
        epilog="examples: --input photo.jpg   --input photos/ clip.mp4 --output drawn   "
        "--dataset shapes_val --grid grid.png",
    )
    parser.add_argument("--config-file", required=True, help="config file, or an installed one")
    parser.add_argument("--weights", required=True, help="checkpoint file or zoo://<name>")
    what = parser.add_argument_group("what to draw on")
    what.add_argument("--input", nargs="+", default=[], metavar="PATH", help="files or folders")
    what.add_argument("--dataset", help="a known data set, for example shapes_val")
    what.add_argument("--json", help="annotations of your own data, in COCO format")
    what.add_argument("--images", help="image folder of --json")
    what.add_argument("--num", type=int, default=6, help="images of the data set (default: 6)")
    where = parser.add_argument_group("where to")
    where.add_argument("--output", default="output/demo", help="folder (default: output/demo)")
    where.add_argument("--grid", help="one picture: ground truth beside predictions")
    where.add_argument("--columns", type=int, default=2, help="pairs in a row of the grid")
    how = parser.add_argument_group("how")
    how.add_argument("--score-thresh", type=float, default=0.5, help="default: 0.5")
    how.add_argument(
        "--nms",
        type=float,
        default=0.7,
        metavar="IOU",
        help="leave out what overlaps a better one by more than this (default: 0.7; 1: keep all)",
    )
    how.add_argument("--draw", default="instances", help="another view that a method offers")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="config overrides")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = build_parser()
    args = parser.parse_intermixed_args(argv)
    has_data = bool(args.dataset or args.json)
    if bool(args.json) != bool(args.images):
        parser.error("--json and --images belong together")
    files, overrides = apart(args.input, os.path.exists)
    if bool(files) == has_data:
        parser.error("give either --input, or --dataset, or --json with --images")
    predictor = Predictor(
        apply_overrides(load_config(args.config_file), [*overrides, *args.opts]),
        args.weights,
        device=args.device,
        score_thresh=args.score_thresh,
        nms_iou=args.nms,
    )
    if has_data:
        return draw_dataset(predictor, args)
    return draw_inputs(predictor, find_drawing(args.draw), find_inputs(files), args.output)


def draw_inputs(
    predictor: Predictor, drawing: Drawing, inputs: Sequence[Path], output: str | Path
) -> int:
    """Draw on files and say what was found; unreadable ones are named and skipped.

    Returns:
        0 if anything was drawn, else 1.

    Raises:
        ToolError: the output folder would overwrite an input.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    targets = _target_files(inputs, folder)
    done = 0
    for source, target in zip(inputs, targets):
        try:
            if is_video(source):
                frames = draw_video(source, target, lambda f: drawing(predictor, f).picture)
                say(f"{source}: {frames} frames -> {target}")
            else:
                drawn = drawing(predictor, read_image(source))
                save_picture(drawn.picture, target)
                say(f"{source}: {drawn.caption} -> {target}")
            done += 1
        except BadImageError as error:
            named = "" if str(source) in str(error) else f"{source}: "
            _logger.warning("skipped %s%s", named, error)
    if done < len(inputs):
        say(f"{len(inputs) - done} of {len(inputs)} inputs were skipped")
    return 0 if done else 1


def draw_dataset(predictor: Predictor, args: argparse.Namespace) -> int:
    """Draw ground truth beside predictions: into one grid, or one picture per image.

    Raises:
        ToolError: the data set is unknown or has nothing to draw.
    """
    try:
        name = args.dataset or _register_own(args.json, args.images)
        records = _evenly_spaced(get_dataset_dicts(name, filter_empty=False), args.num)
    except ValueError as error:
        raise ToolError(str(error)) from error
    class_names = MetadataCatalog.get(name).get("thing_classes")
    predictor.class_names = predictor.class_names or list(class_names)
    label = args.dataset or args.json
    shown = tqdm(records, unit="image", desc="drawing", disable=None)
    pairs = (draw_pair(predictor, record, class_names) for record in shown)
    if args.grid:
        save_picture(_grid_of_pairs(list(pairs), args.columns), Path(args.grid))
        say(f"{len(records)} images of {label} -> {args.grid}")
        return 0
    folder = Path(args.output)
    for record, pair in zip(records, pairs):
        target = folder / f"{Path(record['file_name']).stem}.png"
        save_picture(make_grid([pair], HEADINGS, tile_px=max(pair[0].shape)), target)
    say(f"{len(records)} images of {label} -> {folder}")
    return 0


def draw_pair(
    predictor: Predictor, record: dict[str, Any], class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Ground truth and prediction of one image of a data set, as two pictures of equal size."""
    image = read_image(record["file_name"], "RGB", (record["height"], record["width"]))
    style = PaintStyle(min_long_side=800, font_share=0.035)
    truth = DrawnObjects.from_annotations(record, image.shape[:2])
    found = DrawnObjects.from_predictions(predictor(np.ascontiguousarray(image[:, :, ::-1])))
    return (
        paint(image, truth, class_names, style),
        paint(image, found, predictor.class_names, style),
    )


def save_picture(picture_rgb: np.ndarray, target: Path) -> None:
    """Write a picture, making its folder.

    Raises:
        ToolError: the ending is not one of an image format.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        Image.fromarray(picture_rgb).save(target)
    except ValueError as error:
        raise ToolError(f"cannot write {target}: {error}; use .png or .jpg") from error


def _grid_of_pairs(pairs: Sequence[tuple[np.ndarray, np.ndarray]], columns: int) -> np.ndarray:
    columns = min(columns, len(pairs))
    rows = [
        [picture for pair in pairs[start : start + columns] for picture in pair]
        for start in range(0, len(pairs), columns)
    ]
    return make_grid(rows, HEADINGS * columns, group=2)


def _target_files(inputs: Sequence[Path], folder: Path) -> list[Path]:
    """One output file per input; inputs of the same name get numbers."""
    seen: Counter[str] = Counter()
    targets = []
    for source in inputs:
        suffix = ".mp4" if is_video(source) else ".png"
        seen[source.stem] += 1
        number = f"_{seen[source.stem]}" if seen[source.stem] > 1 else ""
        targets.append(folder / f"{source.stem}{number}{suffix}")
    if clash := {s.resolve() for s in inputs} & {t.resolve() for t in targets}:
        raise ToolError(f"--output {folder} would overwrite {clash.pop()}: choose another folder")
    return targets


def _register_own(json_file: str, images: str) -> str:
    name = f"demo:{Path(json_file).resolve()}"
    if not Path(images).is_dir():
        raise FileNotFoundError(f"no such image folder: {images}")
    register_coco_json(name, json_file, images)
    return name


def _evenly_spaced(records: Sequence[dict[str, Any]], num: int) -> list[dict[str, Any]]:
    if num < 1:
        raise ToolError(f"--num {num}: draw at least one image")
    count = min(num, len(records))
    return [records[i * len(records) // count] for i in range(count)]


if __name__ == "__main__":
    run_tool(main)
