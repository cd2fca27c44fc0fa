"""Keeps what a model found in a video, frame by frame, in the format of the YouTube-VIS server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from detectron2.structures import Instances

from queryseg.checkpoint.atomic_file import write_atomically
from queryseg.evaluation.video_evaluator import frame_detections, join_frames


class TrackRecorder:
    """The tracks of one video. Of a frame only run-length codes of its masks stay in memory.

    A track's score is the mean of its scores over the frames in which it was found, its class the
    most frequent one there.
    """

    def __init__(self) -> None:
        self.length = 0
        self._detections: dict[int, list[dict[str, Any]]] = {}

    def add(self, instances: Instances) -> None:
        """Take the next frame: `scores`, `pred_classes`, `pred_masks` and `pred_track_ids`.

        Raises:
            ValueError: a score is not finite.
        """
        for detection in frame_detections(instances):
            track = self._detections.setdefault(detection.pop("track_id"), [])
            track.append({**detection, "frame": self.length})
        self.length += 1

    def results(self, video_id: int) -> Iterator[dict[str, Any]]:
        """One dict a track: `video_id`, `category_id`, `score` and `segmentations`.

        `segmentations` has an RLE for every frame, None where the track is not seen. `category_id`
        counts from 1, as in YouTube-VIS.
        """
        for found in self._detections.values():
            track = join_frames(found, self.length)
            yield {
                "video_id": video_id,
                "category_id": track["category_id"] + 1,
                "segmentations": track["track"],
                "score": track["score"],
            }

    def write(self, target: Path, video_id: int) -> None:
        """Write the results as json, making the folder; all or nothing.

        Of a long video most entries are null: one track is spread over its frames at a time.
        """

        def fill(stream: BinaryIO) -> None:
            stream.write(b"[")
            for place, result in enumerate(self.results(video_id)):
                stream.write((", " if place else "").encode() + json.dumps(result).encode())
            stream.write(b"]")

        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, fill)
