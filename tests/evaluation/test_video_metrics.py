"""The YouTube-VIS metric and the identity counts on cases worked out by hand."""

import numpy as np
import pycocotools.mask as mask_util
import pytest

from queryseg.evaluation.coco_metrics import Counting
from queryseg.evaluation.identity_metrics import count_identities, crossings
from queryseg.evaluation.video_evaluator import video_summary
from queryseg.evaluation.video_metrics import count_track_matches, mean_area, track_overlaps

SIDE = 20


def box(x: int, y: int, width: int, height: int) -> dict:
    """The mask of a filled rectangle."""
    mask = np.zeros((SIDE, SIDE), np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    return mask_util.encode(mask)


def truth(track: list, video: int = 0, category: int = 0, iscrowd: int = 0) -> dict:
    return {"video_id": video, "category_id": category, "track": track, "iscrowd": iscrowd}


def guess(track: list, score: float, video: int = 0, category: int = 0) -> dict:
    return {"video_id": video, "category_id": category, "track": track, "score": score}


def figures(ground_truth: list, predictions: list, videos: int = 1, classes: int = 1) -> dict:
    counting = count_track_matches(videos, ground_truth, predictions, classes)
    assert isinstance(counting, Counting)
    return video_summary(counting)


TEN = box(0, 0, 5, 2)  # ten pixels
HUNDRED = box(0, 0, 10, 10)


def test_an_equal_track_has_every_figure_at_100() -> None:
    found = figures([truth([TEN, None, TEN])], [guess([TEN, None, TEN], 0.3)])
    for name in ("AP", "AP50", "AP75", "APs", "AR1", "AR10"):
        assert found[name] == pytest.approx(100), name
    assert np.isnan(found["APm"]) and np.isnan(found["APl"])


def test_a_frame_that_is_missed_counts_with_all_its_pixels() -> None:
    # 10 of 20 pixels: the overlap is 1/2, which passes the first of ten thresholds only.
    found = figures([truth([TEN, TEN])], [guess([TEN, None], 0.9)])
    assert (found["AP"], found["AP50"], found["AP75"]) == pytest.approx((10, 100, 0))
    assert (found["AR1"], found["AR10"]) == pytest.approx((10, 10))


def test_a_frame_too_many_counts_as_well() -> None:
    # 10 / (10 + 2 + 1) = 0.769: thresholds 0.5 to 0.75 pass, six of ten.
    found = figures([truth([TEN, None, None])], [guess([TEN, box(0, 0, 2, 1), box(5, 5, 1, 1)], 1)])
    assert (found["AP"], found["AP75"]) == pytest.approx((60, 100))


def test_pixels_are_summed_over_frames_before_they_are_divided() -> None:
    # 100 / 104 = 0.96 passes all thresholds; the mean over frames would be 1/2.
    found = figures([truth([HUNDRED, box(0, 0, 2, 2)])], [guess([HUNDRED, None], 0.5)])
    assert found["AP"] == pytest.approx(100)


def test_a_better_scored_false_track_halves_the_precision() -> None:
    tracks = [guess([None, box(10, 10, 5, 5)], 0.9), guess([TEN, TEN], 0.8)]
    found = figures([truth([TEN, TEN])], tracks)
    assert (found["AP"], found["AP50"]) == pytest.approx((50, 50))
    assert (found["AR1"], found["AR10"]) == pytest.approx((0, 100))


def test_a_worse_scored_false_track_costs_nothing() -> None:
    tracks = [guess([None, box(10, 10, 5, 5)], 0.7), guess([TEN, TEN], 0.8)]
    assert figures([truth([TEN, TEN])], tracks)["AP"] == pytest.approx(100)


def test_half_the_tracks_found_is_half_the_recall() -> None:
    # Recall 1/2 is reached at precision 1: 51 of the 101 recall points.
    both = [truth([TEN], video=0), truth([TEN], video=1)]
    found = figures(both, [guess([TEN], 0.9, video=1)], videos=2)
    assert found["AP"] == pytest.approx(100 * 51 / 101)
    assert (found["AR1"], found["AR10"]) == pytest.approx((50, 50))


def test_a_track_counts_in_its_own_video_and_class_only() -> None:
    other_video = figures([truth([TEN], video=0)], [guess([TEN], 0.9, video=1)], videos=2)
    other_class = figures([truth([TEN])], [guess([TEN], 0.9, category=1)], classes=2)
    assert other_video["AP"] == other_class["AP"] == 0


def test_classes_are_averaged_and_absent_ones_left_out() -> None:
    both = [truth([TEN], category=0), truth([HUNDRED], category=2)]
    found = figures(both, [guess([TEN], 0.9, category=0)], classes=3)
    assert found["AP"] == pytest.approx(50)


def test_a_crowd_neither_helps_nor_hurts() -> None:
    everything = [truth([TEN]), truth([HUNDRED], iscrowd=1)]
    tracks = [guess([HUNDRED], 0.9), guess([TEN], 0.8)]
    assert figures(everything, tracks)["AP"] == pytest.approx(100)
    assert figures(everything[:1], tracks)["AP"] == pytest.approx(50)


def test_one_true_track_is_matched_once() -> None:
    twice = [guess([TEN], 0.9), guess([TEN], 0.8)]
    both = [truth([TEN]), truth([box(10, 10, 5, 5)])]
    # Recall 1/2 at precision 1 and never more.
    assert figures(both, twice)["AP"] == pytest.approx(100 * 51 / 101)


def test_areas_are_means_over_the_frames_where_a_track_is_seen() -> None:
    assert mean_area([HUNDRED, None, TEN]) == 55
    empty = mask_util.encode(np.zeros((SIDE, SIDE), np.uint8, order="F"))
    assert mean_area([HUNDRED, empty, TEN]) == 55
    assert mean_area([None, empty]) == 0


def test_overlaps_equal_those_counted_pixel_by_pixel() -> None:
    rng = np.random.RandomState(0)
    masks = rng.rand(7, 5, SIDE, SIDE) < rng.rand(7, 1, 1, 1)
    masks[2, 3] = masks[5, :2] = False
    seen = rng.rand(7, 5) < 0.8
    tracks = [
        [
            mask_util.encode(np.asfortranarray(m, np.uint8)) if s else None
            for m, s in zip(track, row)
        ]
        for track, row in zip(masks, seen)
    ]
    overlaps = track_overlaps(tracks[:4], tracks[4:])
    masks &= seen[:, :, None, None]
    for i in range(4):
        for j in range(3):
            expected = (masks[i] & masks[4 + j]).sum() / (masks[i] | masks[4 + j]).sum()
            assert overlaps[i, j] == expected


def test_tracks_without_pixels_overlap_nothing() -> None:
    assert track_overlaps([[None, None]], [[None, None], [TEN, None]]).tolist() == [[0, 0]]


def moving(xs: list[int | None], y: int = 0) -> list:
    """A track of a 3 x 3 square at the given places."""
    return [None if x is None else box(x, y, 3, 3) for x in xs]


TO_THE_RIGHT = moving([0, 4, 8, 12, 16])
TO_THE_LEFT = moving([16, 12, 8, 4, 0])


def test_two_that_pass_each_other_cross_once() -> None:
    assert crossings([TO_THE_RIGHT, TO_THE_LEFT]) == [(0, 1, 2, 2)]
    assert crossings([TO_THE_RIGHT, moving([0, 4, 8, 12, 16], y=10)]) == []
    hidden = [*TO_THE_LEFT[:2], None, *TO_THE_LEFT[3:]]
    assert crossings([TO_THE_RIGHT, hidden]) == [], "who is out of sight did not meet anyone"
    assert crossings([TO_THE_RIGHT[2:], TO_THE_LEFT[2:]]) == [], "never seen apart before"


def test_true_tracks_keep_all_identities() -> None:
    tracks = [TO_THE_RIGHT, TO_THE_LEFT]
    summary = count_identities(tracks, tracks[::-1]).summary()
    # In frame 2 both masks are equal: whichever is taken, one frame later it is right again.
    assert summary["crossings-kept"] == 100 and summary["found"] == 100
    apart = [[*track[:2], None, *track[3:]] for track in tracks]
    assert count_identities(tracks, apart).summary()["IDSW"] == 0


def test_tracks_that_swap_are_counted_as_switches() -> None:
    tracks = [TO_THE_RIGHT, TO_THE_LEFT]
    swapped = [[*a[:2], None, *b[3:]] for a, b in (tracks, tracks[::-1])]
    counts = count_identities(tracks, swapped)
    # Found in frames 0, 1, 3, 4: three continuations an object, one of them a switch.
    assert (counts.continued, counts.switches) == (6, 2)
    assert (counts.crossings, counts.kept) == (1, 0)
    assert (counts.objects, counts.found) == (10, 8)


def test_an_object_that_comes_back_as_another_track_is_a_switch() -> None:
    seen = moving([0, 1, 2, 3])
    halves = [[*seen[:2], None, None], [None, None, *seen[2:]]]
    counts = count_identities([seen], halves)
    assert (counts.continued, counts.switches) == (3, 1)


def test_a_mask_that_overlaps_too_little_is_not_found() -> None:
    counts = count_identities([moving([0])], [moving([2])])
    assert counts.found == 0
    assert np.isnan(counts.summary()["IDSW"])
