"""Average precision and recall of tracks of masks: the YouTube-VIS metric.

A track is a list with a mask for every frame of its video, or None where there is none. Tracks are
matched like COCO's boxes, by their spatio-temporal overlap: the pixels that two tracks share in all
frames together, over those that either covers.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from queryseg.evaluation.coco_metrics import Counting

LIMITS = (1, 10, 100)  # tracks a video that count
LARGEST_AREA = 1e10
# Mean area of a track in the frames where it is seen, in pixels.
AREA_RANGES = ((0, LARGEST_AREA), (0, 128**2), (128**2, 256**2), (256**2, LARGEST_AREA))
AREA_NAMES = ("all", "small", "medium", "large")

Track = Sequence[dict[str, Any] | None]


def track_overlaps(predicted: Sequence[Track], truth: Sequence[Track]) -> np.ndarray:
    """Spatio-temporal intersection over union of tracks of one video.

    Args:
        predicted: D tracks of compressed RLEs.
        truth: G tracks, of the same frames.

    Returns:
        (D, G) float64; 0 for two tracks without any pixel.
    """
    shared = np.zeros((len(predicted), len(truth)))
    union = np.zeros_like(shared)
    frames = len((*predicted, *truth)[0]) if predicted or truth else 0
    for frame in range(frames):
        there = [index for index, track in enumerate(predicted) if track[frame]]
        seen = [index for index, track in enumerate(truth) if track[frame]]
        masks = [predicted[index][frame] for index in there]
        others = [truth[index][frame] for index in seen]
        areas, other_areas = np.zeros(len(predicted)), np.zeros(len(truth))
        areas[there] = mask_util.area(masks) if masks else 0
        other_areas[seen] = mask_util.area(others) if others else 0
        sums = areas[:, None] + other_areas
        common = np.zeros_like(shared)
        if masks and others:
            ratio = np.asarray(mask_util.iou(masks, others, [0] * len(others)))
            # From I / (A + B - I) back to I, which is a whole number.
            common[np.ix_(there, seen)] = np.rint(sums[np.ix_(there, seen)] * ratio / (1 + ratio))
        shared += common
        union += sums - common
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def mean_area(track: Track) -> float:
    """Mean number of pixels over the frames in which a track has any; 0 if there is none."""
    areas = [float(mask_util.area(mask)) for mask in track if mask]
    areas = [area for area in areas if area > 0]
    return sum(areas) / len(areas) if areas else 0.0


class _TrackMatching(COCOeval):
    """COCO's matching and counting, on overlaps of tracks."""

    def computeIoU(self, imgId: int, catId: int) -> np.ndarray | list[float]:
        truth = self._gts[imgId, catId]
        predicted = self._dts[imgId, catId]
        if not truth and not predicted:
            return []
        order = np.argsort([-track["score"] for track in predicted], kind="mergesort")
        best = [predicted[index]["track"] for index in order[: self.params.maxDets[-1]]]
        return track_overlaps(best, [track["track"] for track in truth])


def count_track_matches(
    num_videos: int,
    ground_truth: Sequence[dict[str, Any]],
    predictions: Sequence[dict[str, Any]],
    num_classes: int,
) -> Counting:
    """Match predicted tracks to true ones as YouTube-VIS does.

    Args:
        num_videos: V; videos are called 0 to V - 1.
        ground_truth: dicts with `video_id`, `category_id` (0 to K - 1), `track` and `iscrowd` (such
            a track neither helps nor hurts).
        predictions: dicts with `video_id`, `category_id`, `track` and `score`.
        num_classes: K.

    Returns:
        The counts with areas of `AREA_RANGES` and the limits of `LIMITS`.
    """
    videos = [{"id": index} for index in range(num_videos)]
    classes = [{"id": index, "name": str(index)} for index in range(num_classes)]
    with contextlib.redirect_stdout(io.StringIO()):
        sets = []
        for tracks in (ground_truth, predictions):
            coco = COCO()
            coco.dataset = {
                "images": videos,
                "categories": classes,
                "annotations": [_entry(track, own) for own, track in enumerate(tracks, start=1)],
            }
            coco.createIndex()
            sets.append(coco)
        # The kind "bbox" keeps COCO from drawing masks; overlaps are ours.
        matching = _TrackMatching(sets[0], sets[1], "bbox")
        matching.params.maxDets = list(LIMITS)
        matching.params.areaRng = [list(bounds) for bounds in AREA_RANGES]
        matching.params.areaRngLbl = list(AREA_NAMES)
        matching.evaluate()
        matching.accumulate()
    return Counting(
        precision=matching.eval["precision"], recall=matching.eval["recall"], limits=LIMITS
    )


def _entry(track: dict[str, Any], own_id: int) -> dict[str, Any]:
    """A track under the keys that COCO's matching reads; ids start at 1, as 0 means "none"."""
    return {
        "id": own_id,
        "image_id": track["video_id"],
        "category_id": track["category_id"],
        "iscrowd": int(track.get("iscrowd", 0)),
        "score": track.get("score"),
        "area": mean_area(track["track"]),
        "track": track["track"],
    }
