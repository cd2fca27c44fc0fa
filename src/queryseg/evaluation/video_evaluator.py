"""Evaluation of video instance segmentation, frame by frame as an online model gives them."""

import itertools
import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import detectron2.utils.comm as comm
import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from tabulate import tabulate

from queryseg.data.known_datasets import Kind
from queryseg.data.masks import decode
from queryseg.data.registration import ensure_registered
from queryseg.data.video_json import LoadedVideos, load_video_json
from queryseg.evaluation.coco_evaluator import nothing_to_evaluate
from queryseg.evaluation.coco_metrics import Counting
from queryseg.evaluation.identity_metrics import IdentityCounts, count_identities
from queryseg.evaluation.video_metrics import LIMITS, count_track_matches

RESULTS_FILE = "results.json"  # the name that the YouTube-VIS server expects in a zip

_logger = logging.getLogger(__name__)


class VideoEvaluator(DatasetEvaluator):
    """YouTube-VIS AP and AR of tracks, and how often identities are switched.

    Frames may come in any order. A track's score is the mean of its scores over the frames in which
    it was found, its class the most frequent one there (of equal ones, the lowest).

    Args:
        dataset_name: a registered or known set of videos.
        distributed: gather the predictions of all processes; each video must be whole in one.
        output_dir: where the tracks are written as `results.json`, in the format of the server.
        identity_score: tracks below it do not count for identities (for AP they all count).

    Raises:
        FileNotFoundError: the annotation file is not there.
        ValueError: an unknown or broken set, or one without annotations (allowed with `output_dir`,
            for sets that a server evaluates).
    """

    data_kind = Kind.VIDEO

    def __init__(
        self,
        dataset_name: str,
        *,
        distributed: bool = True,
        output_dir: str | None = None,
        identity_score: float = 0.3,
    ) -> None:
        self._distributed = distributed
        self._output_dir = output_dir
        self._identity_score = identity_score
        loaded = _load(dataset_name)
        self._class_names = loaded.class_names
        self._category_of = {index: category for category, index in loaded.index_of.items()}
        self._lengths = {v["video_id"]: v["length"] for v in loaded.videos}
        self._ground_truth = ground_truth_tracks(loaded.videos)
        if not self._ground_truth and (loaded.has_annotations or output_dir is None):
            raise ValueError(nothing_to_evaluate(dataset_name))
        self.reset()

    def reset(self) -> None:
        """Forget the predictions."""
        self._detections: dict[tuple[int | str, int], list[dict[str, Any]]] = {}

    def process(self, inputs: Iterable[dict[str, Any]], outputs: Iterable[dict[str, Any]]) -> None:
        """Take the predictions of frames in.

        Args:
            inputs: dicts with `video_id` and `frame`.
            outputs: dicts with `instances`: `scores`, `pred_classes`, `pred_masks` (n, H, W) and
                `pred_track_ids` (n,), none of them twice in a frame.

        Raises:
            ValueError: a video or frame that the set lacks, a score that is not finite, or a track
                that is twice in one frame.
        """
        for frame_input, output in zip(inputs, outputs):
            video_id, frame = frame_input["video_id"], frame_input["frame"]
            if not 0 <= frame < self._lengths.get(video_id, 0):
                raise ValueError(
                    f"a prediction is for frame {frame} of video {video_id!r}, which the data set "
                    "lacks: the test loader and the evaluator must use the same data set"
                )
            for detection in frame_detections(output["instances"].to(torch.device("cpu"))):
                track = self._detections.setdefault((video_id, detection.pop("track_id")), [])
                if track and track[-1]["frame"] == frame:
                    raise ValueError(f"a track is twice in frame {frame} of video {video_id!r}")
                track.append({**detection, "frame": frame})

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Compute the results from all predictions.

        Returns:
            `{"vis": {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100",
            "AP-<class>", ...}, "identity": {"IDSW", "crossings-kept", "found"}}` in percent; on
            other processes than the first, an empty dict.

        Raises:
            ValueError: a prediction has a class that the data set lacks.
        """
        predictions = self._tracks()
        if self._distributed:
            comm.synchronize()
            gathered = comm.gather(predictions, dst=0)
            if not comm.is_main_process():
                return {}
            predictions = list(itertools.chain.from_iterable(gathered))
        self._check_classes(predictions)
        if self._output_dir:
            self._write(predictions)
        if not self._ground_truth:
            _logger.warning("no annotations: the predictions are stored, nothing is evaluated")
            return {}
        # Tracks of equal score count in the order of their videos' ids, as in the public code.
        ordered = sorted(self._lengths, key=lambda video_id: (isinstance(video_id, str), video_id))
        place = {video_id: index for index, video_id in enumerate(ordered)}
        counting = count_track_matches(
            len(place),
            [{**track, "video_id": place[track["video_id"]]} for track in self._ground_truth],
            [{**track, "video_id": place[track["video_id"]]} for track in predictions],
            len(self._class_names),
        )
        results = {"vis": video_summary(counting), "identity": self._identities(predictions)}
        for task, figures in results.items():
            table = tabulate([figures.values()], list(figures), floatfmt=".2f", tablefmt="pipe")
            _logger.info("Evaluation results for %s:\n%s", task, table)
        if len(self._class_names) > 1:
            names = (f"AP-{name}" for name in self._class_names)
            results["vis"].update(zip(names, counting.per_class()))
        return results

    def _tracks(self) -> list[dict[str, Any]]:
        return [
            {"video_id": video_id, **join_frames(detections, self._lengths[video_id])}
            for (video_id, _), detections in self._detections.items()
        ]

    def _check_classes(self, predictions: Sequence[dict[str, Any]]) -> None:
        highest = max((track["category_id"] for track in predictions), default=-1)
        if highest >= len(self._class_names):
            raise ValueError(
                f"a prediction has class {highest}, but the data set has "
                f"{len(self._class_names)} classes: set model.num_classes to that number"
            )

    def _identities(self, predictions: Sequence[dict[str, Any]]) -> dict[str, float]:
        total = IdentityCounts()
        for video_id in self._lengths:
            total += count_identities(
                [
                    t["track"]
                    for t in self._ground_truth
                    if t["video_id"] == video_id and not t["iscrowd"]
                ],
                [
                    t["track"]
                    for t in predictions
                    if t["video_id"] == video_id and t["score"] >= self._identity_score
                ],
            )
        return total.summary()

    def _write(self, predictions: Sequence[dict[str, Any]]) -> None:
        folder = Path(str(self._output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        named = [
            {
                "video_id": track["video_id"],
                "category_id": self._category_of[track["category_id"]],
                "segmentations": track["track"],
                "score": track["score"],
            }
            for track in predictions
            if track["category_id"] in self._category_of
        ]
        (folder / RESULTS_FILE).write_text(json.dumps(named), encoding="utf-8")


def video_summary(counting: Counting) -> dict[str, float]:
    """The numbers of YouTube-VIS in percent; NaN where there is no ground truth.

    AR1, AR10 and AR100 are average recall with so many tracks a video.
    """
    figures = counting.summary()
    kept = {name: figures[name] for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")}
    return kept | {f"AR{limit}": figures[f"AR@{limit}"] for limit in LIMITS}


def frame_detections(instances: Instances) -> list[dict[str, Any]]:
    """What was found in a frame: `track_id`, `category_id`, `score` and `mask`, a JSON-ready RLE.

    Raises:
        ValueError: a score is not finite.
    """
    scores = instances.scores.tolist()
    if not all(math.isfinite(score) for score in scores):
        raise ValueError("a prediction has a score that is not finite")
    if not scores:
        return []
    masks = instances.pred_masks.to(torch.uint8).numpy().transpose(1, 2, 0)
    rles = mask_util.encode(np.asfortranarray(masks))
    return [
        {
            "track_id": track_id,
            "category_id": category_id,
            "score": score,
            "mask": {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")},
        }
        for track_id, category_id, score, rle in zip(
            instances.pred_track_ids.tolist(), instances.pred_classes.tolist(), scores, rles
        )
    ]


def join_frames(detections: Sequence[dict[str, Any]], length: int) -> dict[str, Any]:
    """One track from what was found of it in single frames.

    Args:
        detections: with `frame`, `category_id`, `score` and `mask`.
        length: frames of the video.

    Returns:
        `track` (a mask or None for every frame), `score` (the mean) and `category_id` (the most
        frequent).
    """
    track: list[dict[str, Any] | None] = [None] * length
    for detection in detections:
        track[detection["frame"]] = detection["mask"]
    votes = Counter(detection["category_id"] for detection in detections)
    return {
        "track": track,
        "score": sum(detection["score"] for detection in detections) / len(detections),
        "category_id": min(votes, key=lambda category: (-votes[category], category)),
    }


def ground_truth_tracks(videos: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """True tracks: `video_id`, `category_id`, `iscrowd` and `track`, compressed RLEs or None.

    One that no frame shows is there too: it cannot be found, and counts as missed.
    """
    return [
        {
            "video_id": video["video_id"],
            "category_id": track["category_id"],
            "iscrowd": track["iscrowd"],
            "track": [_mask_in(video, t, track["track_id"]) for t in range(video["length"])],
        }
        for video in videos
        for track in video["tracks"]
    ]


def _mask_in(video: dict[str, Any], frame: int, track_id: int) -> dict[str, Any] | None:
    for annotation in video["annotations"][frame]:
        if annotation["track_id"] == track_id:
            mask = decode(annotation["segmentation"], video["height"], video["width"])
            return mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return None


def _load(dataset_name: str) -> LoadedVideos:
    ensure_registered(dataset_name)
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("evaluator_type") != "ytvis":
        raise ValueError(f"data set {dataset_name!r} is not a set of videos")
    return load_video_json(
        metadata.json_file,
        metadata.image_root,
        metadata.get("thing_classes"),
        check_files=False,
    )
