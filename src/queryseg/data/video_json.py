"""Reads a json in YouTube-VIS format (2019, 2021, 2022, OVIS) into one dict a video."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from queryseg.data.annotation import ImageEntry, as_flag, read_annotation
from queryseg.data.coco_json import find_missing_files, map_categories
from queryseg.data.json_lists import ANNOTATIONS, as_id, as_side, read_categories, read_lists
from queryseg.data.problems import CHECK_HINT, Effect, Problem, of_effect, raise_if_fatal, summarise

FORMAT_NAME = "YouTube-VIS"
VIDEOS = "videos"

_logger = logging.getLogger(__name__)


@dataclass
class VideoFile:
    """What a YouTube-VIS json holds.

    Attributes:
        json_file: its path.
        videos: one record a video, as of `load_video_json`, with the json's category ids.
        categories: id to name, sorted by id.
        num_annotations: tracks in the json, usable or not.
        has_annotations: whether the json has any list of them (the sets of the challenges lack it).
        problems: everything found. Their image ids are video ids.
    """

    json_file: str
    videos: list[dict[str, Any]] = field(default_factory=list)
    categories: dict[int, str] = field(default_factory=dict)
    num_annotations: int = 0
    has_annotations: bool = True
    problems: list[Problem] = field(default_factory=list)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The videos, as other kinds of sets call theirs."""
        return self.videos


@dataclass(frozen=True)
class LoadedVideos:
    """A YouTube-VIS json, ready for training or testing.

    Attributes:
        videos: see `load_video_json`.
        class_names: in the order of the class indices.
        index_of: category id of the json to class index.
        has_annotations: whether the json has annotations at all.
    """

    videos: list[dict[str, Any]]
    class_names: list[str]
    index_of: dict[int, int]
    has_annotations: bool

    @property
    def records(self) -> list[dict[str, Any]]:
        """The videos, as other kinds of sets call theirs."""
        return self.videos


def load_video_json(
    json_file: str | Path,
    image_root: str | Path,
    class_names: Sequence[str] | None = None,
    check_files: bool = True,
) -> LoadedVideos:
    """Load a YouTube-VIS json for training or testing.

    Each video becomes a dict with `video_id`, `file_names` (one a frame, with the folder),
    `height`, `width`, `length`, and `annotations`: for every frame the list of what is visible,
    each a standard annotation (`bbox`, `bbox_mode`, `category_id` from 0, `segmentation`,
    `iscrowd`, `id`) with `track_id`, the number of the object in its video. `tracks` lists all
    objects with `track_id`, `category_id` and `iscrowd`, also those that no frame shows.

    A mask that cannot be used is left out of its frame; one warning says how many of which kind.

    Args:
        json_file: its path.
        image_root: the folder that the file names are relative to.
        class_names: the order of the classes; categories are found in it by name. Without it the
            classes are those of the json, ordered by category id.
        check_files: whether a missing frame is an error.

    Raises:
        FileNotFoundError: no such json.
        ValueError: not in the format, or something that cannot be left out silently: an unknown or
            doubled category, doubled video ids, missing frames, a class that `class_names` lacks.
    """
    found = read_video_json(json_file, image_root)
    if check_files:
        frames = [
            {"file_name": name, "image_id": video["video_id"]}
            for video in found.videos
            for name in video["file_names"]
        ]
        found.problems += _of_videos(find_missing_files(frames))
    raise_if_fatal(found.problems, found.json_file)
    names = list(class_names) if class_names is not None else list(found.categories.values())
    index_of = map_categories(found.categories, found.json_file, names)
    for video in found.videos:
        for track in video["tracks"]:
            track["category_id"] = index_of[track["category_id"]]
        for annotation in (a for frame in video["annotations"] for a in frame):
            annotation["category_id"] = index_of[annotation["category_id"]]
            annotation["bbox_mode"] = BoxMode.XYWH_ABS
    _log(found)
    return LoadedVideos(found.videos, names, index_of, found.has_annotations)


def read_video_json(json_file: str | Path, image_root: str | Path) -> VideoFile:
    """Read a YouTube-VIS json without stopping at what is wrong inside it.

    Raises:
        FileNotFoundError: no such json.
        ValueError: not JSON, or without the lists of the format.
    """
    content = read_lists(json_file, FORMAT_NAME, (VIDEOS, "categories"))
    found = VideoFile(str(json_file), has_annotations=ANNOTATIONS in content)
    found.categories = read_categories(content["categories"], found.problems)
    records = _read_videos(content[VIDEOS], str(image_root), found.problems)
    tracks = content.get(ANNOTATIONS, [])
    found.num_annotations = len(tracks)
    for raw in tracks:
        video = _video_of(raw, records, found)
        if video is not None:
            _attach_track(raw, video, found)
    found.videos = list(records.values())
    found.problems = _of_videos(found.problems)
    return found


def _of_videos(problems: Sequence[Problem]) -> list[Problem]:
    """Problems whose ids are those of videos."""
    return [replace(problem, unit="video") for problem in problems]


def _read_videos(
    raw: list[Any], image_root: str, problems: list[Problem]
) -> dict[int | str, dict[str, Any]]:
    records: dict[int | str, dict[str, Any]] = {}

    def fatal(kind: str, message: str, video_id: int | str | None = None) -> None:
        problems.append(Problem(kind, Effect.FATAL, message, video_id))

    for entry in raw:
        video_id, names = as_id(entry.get("id")), entry.get("file_names")
        height, width = as_side(entry.get("height")), as_side(entry.get("width"))
        named = isinstance(names, list) and names and all(isinstance(n, str) for n in names)
        if video_id is None or not named or height is None or width is None:
            fields = {key: value for key, value in entry.items() if key != "file_names"}
            message = f"video {fields!r:.80} needs id, file_names, height and width"
            fatal("video-fields", message)
        elif video_id in records:
            fatal("video-doubled", "the video id occurs twice: give each video its own", video_id)
        else:
            records[video_id] = {
                "video_id": video_id,
                "file_names": [os.path.join(image_root, name) for name in entry["file_names"]],
                "height": height,
                "width": width,
                "length": len(entry["file_names"]),
                "annotations": [[] for _ in entry["file_names"]],
                "tracks": [],
            }
    return records


def _video_of(
    raw: dict[str, Any], records: dict[int | str, dict[str, Any]], found: VideoFile
) -> dict[str, Any] | None:
    """The video of a track whose lists fit it; None with a problem otherwise."""
    own_id, video_id = as_id(raw.get("id")), as_id(raw.get("video_id"))
    video = records.get(video_id) if video_id is not None else None

    def report(kind: str, effect: Effect, message: str) -> None:
        found.problems.append(Problem(kind, effect, message, video_id, own_id))

    if video is None:
        message = f"video_id {raw.get('video_id')!r} is not in the list videos"
        report("unknown-video", Effect.DROPPED, message)
        return None
    if as_id(raw.get("category_id")) not in found.categories:
        message = (
            f"category_id {raw.get('category_id')!r} is not in the list categories: add the "
            "category or remove the annotation"
        )
        report("unknown-category", Effect.FATAL, message)
        return None
    for key in ("segmentations", "bboxes"):
        entries = raw.get(key)
        if key == "bboxes" and entries is None:
            continue
        if not isinstance(entries, list) or len(entries) != video["length"]:
            count = len(entries) if isinstance(entries, list) else "no"
            message = f"{key} has {count} entries for {video['length']} frames"
            report("track-length", Effect.DROPPED, message)
            return None
    return video


def _attach_track(raw: dict[str, Any], video: dict[str, Any], found: VideoFile) -> None:
    """Add a track to its video, and what is visible of it to the frames."""
    track_id, category_id = len(video["tracks"]), as_id(raw["category_id"])
    iscrowd = raw.get("iscrowd", 0)
    video["tracks"].append(
        {"track_id": track_id, "category_id": category_id, "iscrowd": int(bool(as_flag(iscrowd)))}
    )
    if not any(raw["segmentations"]):
        message = "no frame shows it: it counts as missed in evaluation"
        own_id = as_id(raw.get("id"))
        problem = Problem("unseen-track", Effect.HANDLED, message, video["video_id"], own_id)
        found.problems.append(problem)
    boxes = raw.get("bboxes") or [None] * video["length"]
    for place, (segmentation, box) in enumerate(zip(raw["segmentations"], boxes)):
        if not segmentation:
            continue  # out of sight in this frame
        file_name = video["file_names"][place]
        image = ImageEntry(video["video_id"], file_name, video["height"], video["width"])
        stated = {
            "id": as_id(raw.get("id")),
            "category_id": category_id,
            "iscrowd": iscrowd,
            "bbox": box,
            "segmentation": segmentation,
        }
        annotation, problems = read_annotation(stated, image)
        found.problems += problems
        if annotation is not None:
            video["annotations"][place].append({**annotation, "track_id": track_id})


def _log(found: VideoFile) -> None:
    frames = sum(video["length"] for video in found.videos)
    _logger.info(
        "%s: %d videos with %d frames, %d tracks, %d classes",
        found.json_file,
        len(found.videos),
        frames,
        found.num_annotations,
        len(found.categories),
    )
    dropped = of_effect(found.problems, Effect.DROPPED)
    if dropped:
        _logger.warning(
            "%s: %d masks or tracks cannot be used and are left out: %s. %s.",
            found.json_file,
            len(dropped),
            summarise(dropped),
            CHECK_HINT,
        )
    handled = of_effect(found.problems, Effect.HANDLED)
    if handled:
        _logger.info("%s: handled while loading: %s", found.json_file, summarise(handled))
