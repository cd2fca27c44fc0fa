"""BDD100K instance segmentation to COCO format: `python -m queryseg.data.bdd100k --help`.

Both formats of the labels are read: the json (polygons with curves, or RLE) and the bitmasks (PNG
with the class in red, attributes in green, and the number of the object in blue and alpha).
"""

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image

from queryseg.data.masks import decode
from queryseg.tools.console import say

CLASS_NAMES = (
    "pedestrian",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)
OTHER_NAMES = {
    "person": "pedestrian",
    "motor": "motorcycle",
    "bike": "bicycle",
    "van": "car",
    "caravan": "car",
}
IGNORED_NAMES = {"other person": "pedestrian", "other vehicle": "car", "trailer": "truck"}
"""Classes of the json whose objects may be taken for another class, without a right or wrong."""
CROWD, IGNORED = 2, 1  # bits of the green channel
CURVE_POINTS = 8

_logger = logging.getLogger(__name__)

Labels = list[tuple[str, bool, Any]]  # class name, crowd, COCO segmentation


def read_json(labels: Path) -> Iterator[tuple[str, Labels]]:
    """Image names and objects of a json of BDD100K.

    Labels of other classes, such as lanes, and those without an outline are left out; at the end
    one warning counts them by class.

    Raises:
        ValueError: not a list of frames, or a frame without the name of its image.
    """
    content = json.loads(labels.read_text(encoding="utf-8"))
    frames = content.get("frames") if isinstance(content, dict) else content
    if not isinstance(frames, list):
        raise ValueError(f"{labels} is no BDD100K json: it holds no list of frames")
    left_out: Counter[str] = Counter()
    for number, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("name"), str):
            raise ValueError(
                f"{labels}: frame {number} has no name of an image: add it, or take the frame out"
            )
        objects: Labels = []
        for label in frame.get("labels") or ():
            category = label.get("category")
            name = {**OTHER_NAMES, **IGNORED_NAMES}.get(category, category)
            segmentation = label.get("rle") or _polygons(label.get("poly2d") or ())
            if name in CLASS_NAMES and segmentation:
                flags = label.get("attributes") or {}
                crowd = category in IGNORED_NAMES or flags.get("crowd") or flags.get("ignored")
                objects.append((name, bool(crowd), segmentation))
            else:
                left_out[str(category)] += 1
        yield frame["name"], objects
    if left_out:
        _logger.warning(
            "%s: left out, of no class here or without an outline: %s",
            labels,
            ", ".join(f"{count} x {name}" for name, count in left_out.most_common()),
        )


def read_bitmasks(folder: Path) -> Iterator[tuple[str, Labels]]:
    """Image names and objects of a folder of bitmasks.

    Raises:
        ValueError: a file that is no RGBA image, or a class beyond the eight.
    """
    for file in sorted(folder.glob("*.png")):
        with Image.open(file) as image:
            pixels = np.asarray(image)
        if pixels.ndim != 3 or pixels.shape[2] != 4:
            raise ValueError(f"{file} is no bitmask of BDD100K: it has not four channels")
        category, flags = pixels[..., 0], pixels[..., 1]
        number = pixels[..., 2].astype(np.int64) * 256 + pixels[..., 3]
        key = (category.astype(np.int64) << 16) + number
        objects: Labels = []
        for one in np.unique(key[category > 0]).tolist():
            label, mask = one >> 16, key == one
            if label > len(CLASS_NAMES):
                raise ValueError(f"{file} has class {label}; known are 1 to {len(CLASS_NAMES)}")
            crowd = bool(flags[mask][0] & (CROWD | IGNORED))
            objects.append((CLASS_NAMES[label - 1], crowd, _encode(mask)))
        yield f"{file.stem}.jpg", objects


def to_coco(frames: Iterator[tuple[str, Labels]], images: Path) -> dict[str, Any]:
    """A COCO json of what was read.

    Args:
        frames: image names and objects.
        images: the folder of the images, for their sizes.

    Raises:
        FileNotFoundError: an image is not there.
    """
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, objects) in enumerate(frames, start=1):
        if not (images / name).is_file():
            raise FileNotFoundError(f"no image {images / name}, which the labels speak of")
        with Image.open(images / name) as image:
            width, height = image.size
        records.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for label, crowd, segmentation in objects:
            rle = _encode(decode(segmentation, height, width))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": CLASS_NAMES.index(label) + 1,
                    "segmentation": rle,
                    "area": float(mask_util.area(rle)),
                    "bbox": mask_util.toBbox(rle).tolist(),
                    "iscrowd": int(crowd),
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASS_NAMES, start=1)]
    return {"images": records, "annotations": annotations, "categories": categories}


def _polygons(poly2d: Sequence[dict[str, Any]]) -> list[list[float]]:
    """COCO polygons; three points in a row that are marked C are a cubic curve's last three."""
    polygons = []
    for part in poly2d:
        corners = np.asarray(part["vertices"], dtype=np.float64)
        types = part.get("types") or "L" * len(corners)
        points, place = [corners[0]], 1
        while place < len(corners):
            if types[place] == "C" and place + 2 < len(corners):
                points += _curve(points[-1], *corners[place : place + 3])
                place += 3
            else:
                points.append(corners[place])
                place += 1
        polygons.append(np.concatenate(points).tolist())
    return [one for one in polygons if len(one) >= 6]


def _curve(start: np.ndarray, a: np.ndarray, b: np.ndarray, end: np.ndarray) -> list[np.ndarray]:
    shares = np.linspace(0, 1, CURVE_POINTS + 1)[1:]
    return [
        (1 - t) ** 3 * start + 3 * (1 - t) ** 2 * t * a + 3 * (1 - t) * t**2 * b + t**3 * end
        for t in shares
    ]


def _encode(mask: np.ndarray) -> dict[str, Any]:
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def main(argv: Sequence[str] | None = None) -> int:
    """Convert labels; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m queryseg.data.bdd100k",
        description="Write instance labels of BDD100K as a COCO json.",
    )
    parser.add_argument("--labels", required=True, type=Path, help="json, or folder of bitmasks")
    parser.add_argument("--images", required=True, type=Path, help="folder of the images")
    parser.add_argument("--output", required=True, type=Path, help="json to write")
    args = parser.parse_args(argv)
    if not args.labels.exists():
        say(f"error: {args.labels} does not exist")
        return 2
    read = read_bitmasks if args.labels.is_dir() else read_json
    try:
        coco = to_coco(read(args.labels), args.images)
    except (ValueError, FileNotFoundError) as error:
        say(f"error: {error}")
        return 2
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(coco), encoding="utf-8")
    say(f"{len(coco['images'])} images, {len(coco['annotations'])} objects -> {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
