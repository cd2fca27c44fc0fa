"""How well a tracker keeps identities: switches, and crossings that it gets through."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pycocotools.mask as mask_util
from scipy.optimize import linear_sum_assignment

from queryseg.evaluation.video_metrics import Track

MIN_OVERLAP = 0.5


@dataclass
class IdentityCounts:
    """What happened to the identities of one or several videos.

    Attributes:
        continued: times that an object was found again after it had been found before.
        switches: those of them in which it had become another track.
        crossings: pairs of objects whose boxes touched, both found before and after.
        kept: those of them in which both were the same tracks after as before.
        objects: masks to find.
        found: those that a predicted mask overlaps by at least `MIN_OVERLAP`.
    """

    continued: int = 0
    switches: int = 0
    crossings: int = 0
    kept: int = 0
    objects: int = 0
    found: int = 0

    def __add__(self, other: "IdentityCounts") -> "IdentityCounts":
        sums = {name: value + getattr(other, name) for name, value in vars(self).items()}
        return IdentityCounts(**sums)

    def summary(self) -> dict[str, float]:
        """Percentages; NaN where there was nothing to count.

        `IDSW` is the share of identity switches among the times an object was found again,
        `crossings-kept` that of the crossings after which both objects have their tracks, `found`
        that of the masks that were found.
        """

        def percent(part: int, whole: int) -> float:
            return 100 * part / whole if whole else float("nan")

        return {
            "IDSW": percent(self.switches, self.continued),
            "crossings-kept": percent(self.kept, self.crossings),
            "found": percent(self.found, self.objects),
        }


@dataclass
class _Followed:
    """A true object: the frames in which it was found, and as which track."""

    frames: list[int] = field(default_factory=list)
    tracks: list[int] = field(default_factory=list)

    def just_before(self, frame: int) -> int | None:
        """Its track when it was last found before a frame."""
        earlier = [t for f, t in zip(self.frames, self.tracks) if f < frame]
        return earlier[-1] if earlier else None

    def just_after(self, frame: int) -> int | None:
        """Its track when it was first found after a frame."""
        return next((t for f, t in zip(self.frames, self.tracks) if f > frame), None)


def count_identities(truth: Sequence[Track], predicted: Sequence[Track]) -> IdentityCounts:
    """Follow true objects through one video.

    In every frame true and predicted masks are assigned to each other, classes aside, so that their
    overlaps sum up to most; pairs below `MIN_OVERLAP` do not count.

    Args:
        truth: tracks of compressed RLEs.
        predicted: tracks of the same frames.
    """
    counts = IdentityCounts()
    followed = [_Followed() for _ in truth]
    for frame in range(len(truth[0]) if truth else 0):
        counts.objects += sum(bool(track[frame]) for track in truth)
        for index, track in _assigned(truth, predicted, frame):
            counts.found += 1
            history = followed[index]
            if history.tracks:
                counts.continued += 1
                counts.switches += history.tracks[-1] != track
            history.frames.append(frame)
            history.tracks.append(track)
    for first, second, start, end in crossings(truth):
        pairs = [
            (f.just_before(start), f.just_after(end)) for f in (followed[first], followed[second])
        ]
        if all(before is not None and after is not None for before, after in pairs):
            counts.crossings += 1
            counts.kept += all(before == after for before, after in pairs)
    return counts


def crossings(truth: Sequence[Track]) -> list[tuple[int, int, int, int]]:
    """Pairs of objects that meet and part again.

    Returns:
        (object, other object, first frame, last frame) of every longest time in which their boxes
        overlap, or one of them is out of sight, with both seen apart before and after.
    """
    boxes = [[mask_util.toBbox(m) if m else None for m in track] for track in truth]
    found = []
    for first in range(len(truth)):
        for second in range(first + 1, len(truth)):
            start: int | None = None
            seen_apart = False
            met = False
            for frame, (box, other) in enumerate(zip(boxes[first], boxes[second])):
                apart = box is not None and other is not None and not _touch(box, other)
                if apart:
                    if start is not None and met and seen_apart:
                        found.append((first, second, start, frame - 1))
                    start, met, seen_apart = None, False, True
                    continue
                start = frame if start is None else start
                met = met or (box is not None and other is not None)
    return found


def _touch(box: np.ndarray, other: np.ndarray) -> bool:
    """Whether two boxes (x, y, width, height) overlap."""
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[:2] + box[2:], other[:2] + other[2:])
    return bool((high > low).all())


def _assigned(
    truth: Sequence[Track], predicted: Sequence[Track], frame: int
) -> list[tuple[int, int]]:
    """(true object, predicted track) pairs of a frame that overlap enough."""
    seen = [index for index, track in enumerate(truth) if track[frame]]
    there = [index for index, track in enumerate(predicted) if track[frame]]
    if not seen or not there:
        return []
    masks = [truth[index][frame] for index in seen]
    others = [predicted[index][frame] for index in there]
    overlaps = np.asarray(mask_util.iou(masks, others, [0] * len(others)))
    rows, columns = linear_sum_assignment(-overlaps)
    return [
        (seen[row], there[column])
        for row, column in zip(rows, columns)
        if overlaps[row, column] >= MIN_OVERLAP
    ]
