"""Writes synthetic videos to disk in YouTube-VIS format."""

from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from tqdm import tqdm

from queryseg.data.moving_shapes.clip import Clip, render_clip
from queryseg.data.moving_shapes.spec import MovingShapesSpec
from queryseg.data.shapes.folder import SPLITS, write_json, write_once
from queryseg.data.shapes.png import encode_png
from queryseg.data.shapes.writer import categories


def write_moving_shapes(root: str | Path, spec: MovingShapesSpec) -> bool:
    """Write `root/{train,val}/<video>/<frame>.png` and `root/annotations/{train,val}.json`.

    The same specification gives the same bytes. A folder that already holds it is left alone;
    one that holds another specification is written anew.

    Returns:
        whether anything was written.

    Raises:
        FileExistsError: `root` holds images or annotations that this generator did not write.
    """
    root = Path(root)

    def write() -> None:
        for index, split in enumerate(SPLITS):
            _write_split(root, spec, index, split)

    return write_once(root, spec, (spec.train * spec.frames, spec.val * spec.frames), write)


def _write_split(root: Path, spec: MovingShapesSpec, split_index: int, split: str) -> None:
    number = spec.train if split == "train" else spec.val
    videos: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in tqdm(range(number), desc=f"moving shapes {split}", unit="video", disable=None):
        clip, name = render_clip(spec, split_index, index), f"{index:06d}"
        (root / split / name).mkdir(parents=True, exist_ok=True)
        file_names = [f"{name}/{frame:06d}.png" for frame in range(spec.frames)]
        for frame, file_name in zip(clip.frames, file_names):
            (root / split / file_name).write_bytes(encode_png(frame))
        videos.append(
            {
                "id": index + 1,
                "file_names": file_names,
                "height": spec.height,
                "width": spec.width,
                "length": spec.frames,
            }
        )
        annotations += _tracks(clip, index + 1, len(annotations) + 1)
    content = {
        "info": {"description": f"QuerySeg moving shapes, {split}", **spec.as_dict()},
        "licenses": [],
        "videos": videos,
        "annotations": annotations,
        "categories": categories(),
    }
    (root / split).mkdir(exist_ok=True)
    write_json(root, split, content)


def _tracks(clip: Clip, video_id: int, first_id: int) -> list[dict[str, Any]]:
    """One annotation for each object that is in sight at least once."""
    tracks: list[dict[str, Any]] = []
    height, width = clip.masks.shape[2:]
    for masks, label in zip(clip.masks.swapaxes(0, 1), clip.classes):
        rles = [
            mask_util.encode(np.asfortranarray(m, np.uint8)) if m.any() else None for m in masks
        ]
        if not any(rles):
            continue
        tracks.append(
            {
                "id": first_id + len(tracks),
                "video_id": video_id,
                "category_id": int(label) + 1,
                "iscrowd": 0,
                "height": height,
                "width": width,
                "length": len(masks),
                "segmentations": [_as_json(rle) if rle else None for rle in rles],
                "areas": [int(mask_util.area(rle)) if rle else None for rle in rles],
                "bboxes": [[int(v) for v in mask_util.toBbox(r)] if r else None for r in rles],
            }
        )
    return tracks


def _encode(mask: np.ndarray) -> dict[str, Any]:
    return mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))


def _as_json(rle: dict[str, Any]) -> dict[str, Any]:
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
