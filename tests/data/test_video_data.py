"""YouTube-VIS jsons, pairs of frames and the loaders, against a set written by hand."""

import copy
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import Instances
from PIL import Image

from queryseg.data.mapper import InstanceMapper
from queryseg.data.registration import get_dataset_dicts, register_video_json
from queryseg.data.video_frames import (
    FramePairMapper,
    KeyFrames,
    WholeVideoSampler,
    build_pair_loader,
    build_video_test_loader,
)
from queryseg.data.video_json import load_video_json
from queryseg.evaluation import VideoEvaluator
from queryseg.evaluation.video_evaluator import join_frames
from queryseg.tools import check_dataset

HEIGHT, WIDTH, FRAMES = 24, 32, 4


def mask(x: int, y: int, side: int = 6) -> np.ndarray:
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[y : y + side, x : x + side] = 1
    return pixels


def compressed(pixels: np.ndarray) -> dict[str, Any]:
    rle = mask_util.encode(np.asfortranarray(pixels))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def uncompressed(pixels: np.ndarray) -> dict[str, Any]:
    """Runs as the YouTube-VIS jsons have them, a list that starts with the zeros."""
    flat = pixels.flatten(order="F")
    ends = [*np.flatnonzero(np.diff(flat)) + 1, len(flat)]
    return {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *ends]).tolist()}


def track(video: int, category: int, segmentations: list, **changes: Any) -> dict[str, Any]:
    boxes = [None if s is None else [0, 0, 5, 5] for s in segmentations]
    entry = {"id": 7, "video_id": video, "category_id": category, "iscrowd": 0}
    return {**entry, "segmentations": segmentations, "bboxes": boxes, **changes}


class VideoSet:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.content: dict[str, Any] = {
            "videos": [],
            "annotations": [
                track(3, 20, [uncompressed(mask(t, 2)) if t != 1 else None for t in range(4)]),
                track(3, 5, [compressed(mask(20 - t, 10)) for t in range(4)]),
                track(9, 5, [None, None, [[1, 1, 9, 1, 9, 9, 1, 9]], None]),
            ],
            "categories": [{"id": 20, "name": "fish"}, {"id": 5, "name": "cat"}],
        }
        for video in (3, 9):
            names = [f"{video}/{t}.jpg" for t in range(FRAMES)]
            entry = {"id": video, "file_names": names, "height": HEIGHT, "width": WIDTH}
            self.content["videos"].append({**entry, "length": FRAMES})
            for t, name in enumerate(names):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (WIDTH, HEIGHT), (10 * t, video, 0)).save(root / name)

    def write(self) -> tuple[Path, Path]:
        file = self.root / "train.json"
        file.write_text(json.dumps(self.content))
        return file, self.root


@pytest.fixture
def videos(tmp_path: Path) -> VideoSet:
    return VideoSet(tmp_path)


def test_videos_become_dicts_with_a_list_for_every_frame(videos: VideoSet) -> None:
    loaded = load_video_json(*videos.write())
    first, second = loaded.videos
    assert loaded.class_names == ["cat", "fish"] and loaded.index_of == {5: 0, 20: 1}
    assert (first["video_id"], first["length"], first["height"], first["width"]) == (3, 4, 24, 32)
    assert [Path(name).name for name in first["file_names"]] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    seen = [[(a["track_id"], a["category_id"]) for a in f] for f in first["annotations"]]
    assert seen == [[(0, 1), (1, 0)], [(1, 0)], [(0, 1), (1, 0)], [(0, 1), (1, 0)]]
    assert [len(frame) for frame in second["annotations"]] == [0, 0, 1, 0]
    rle = first["annotations"][2][0]["segmentation"]
    assert (mask_util.decode(rle) == mask(2, 2)).all()
    tracks = [
        [(t["track_id"], t["category_id"]) for t in video["tracks"]] for video in (first, second)
    ]
    assert tracks == [[(0, 1), (1, 0)], [(0, 0)]]


def test_challenge_sets_without_annotations_load(videos: VideoSet) -> None:
    videos.content["annotations"] = None
    loaded = load_video_json(*videos.write())
    assert not loaded.has_annotations
    assert loaded.videos[0]["annotations"] == [[], [], [], []]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["videos"][0].pop("height"), "needs id, file_names, height and width"),
        (lambda c: c["videos"][1].update(id=3), "video id occurs twice"),
        (lambda c: c["annotations"][0].update(category_id=1), "category_id 1 is not in the list"),
        (lambda c: c["videos"][0]["file_names"].append("3/none.jpg"), "no such file"),
        (lambda c: c.pop("videos"), "YouTube-VIS format: it lacks the list videos"),
    ],
)
def test_what_makes_a_set_useless_is_one_clear_error(videos, change, message) -> None:
    change(videos.content)
    with pytest.raises(ValueError, match=message):
        load_video_json(*videos.write())


def test_single_bad_masks_and_tracks_are_left_out_and_counted(videos, caplog) -> None:
    tracks = videos.content["annotations"]
    tracks[0]["segmentations"][2] = {"size": [2, 2], "counts": "11"}
    tracks.append(track(3, 5, [compressed(mask(1, 1))]))
    tracks.append(track(4, 5, [None] * 4))
    with caplog.at_level(logging.WARNING):
        loaded = load_video_json(*videos.write())
    assert [len(f) for f in loaded.videos[0]["annotations"]] == [2, 1, 1, 2]
    assert "3 masks or tracks cannot be used" in caplog.text
    assert "check_dataset --json JSON --images FOLDER` lists every problem" in caplog.text
    for kind in ("rle-size", "track-length", "unknown-video"):
        assert f"1 x {kind}" in caplog.text


def test_the_checker_lists_what_is_wrong_with_videos(videos: VideoSet, capsys) -> None:
    def checked() -> tuple[int, list[str]]:
        file, frames = videos.write()
        code = check_dataset.main(["--json", str(file), "--images", str(frames)])
        return code, [line.strip() for line in capsys.readouterr().out.splitlines()]

    code, lines = checked()
    assert code == 0 and lines[-1] == "READY for training."
    rows = [line.split() for line in lines]
    for row in ("videos 2", "frames 8", "tracks 3", "5 cat 5 5", "20 fish 3 3"):
        assert row.split() in rows, row
    assert ["usable", "masks", "8", "(8", "small,", "0", "medium,", "0", "large)"] in rows

    tracks = videos.content["annotations"]
    tracks[0]["segmentations"][2] = {"size": [2, 2], "counts": "11"}
    tracks += [track(3, 5, [compressed(mask(1, 1))], id=8), track(9, 5, [None] * 4, id=9)]
    code, lines = checked()
    assert code == 1 and lines[-1] == "READY, but 2 masks or tracks would be left out."
    frame = videos.root / "3" / "2.jpg"
    for line in (
        f"annotation 7, video 3, {frame}: RLE size [2, 2] differs from the image's [height, width]",
        "annotation 8, video 3: segmentations has 1 entries for 4 frames",
        "annotation 9, video 9: no frame shows it: it counts as missed in evaluation",
    ):
        assert any(found.startswith(line) for found in lines), line

    frame.write_bytes(b"nothing")
    code, lines = checked()
    assert code == 1 and lines[-1] == "NOT READY: 1 problem stops training."
    assert any(line.startswith(f"image 3/2, {frame}: cannot be read") for line in lines)


def test_registered_videos_are_found_by_name_and_empty_ones_left_out(videos: VideoSet) -> None:
    videos.content["annotations"].pop()
    register_video_json("hand_made_videos", *videos.write())
    assert [v["video_id"] for v in get_dataset_dicts("hand_made_videos")] == [3]
    assert len(get_dataset_dicts("hand_made_videos", filter_empty=False)) == 2


def make_mapper(**options: Any) -> FramePairMapper:
    augmentations = [T.ResizeShortestEdge([24, 48], 96, "choice"), T.RandomFlip(prob=0.5)]
    return FramePairMapper(is_train=True, augmentations=augmentations, **options)


def test_both_frames_of_a_pair_are_augmented_alike(videos: VideoSet) -> None:
    loaded = load_video_json(*videos.write()).videos
    mapper, drawn = make_mapper(), set()
    for _ in range(60):
        pair = mapper({**copy.deepcopy(loaded[0]), "key_frame": 1})
        other = pair["reference"]
        drawn.add(other["frame"])
        assert pair["frame"] == 1 and pair["video_id"] == other["video_id"] == 3
        assert pair["image"].shape == other["image"].shape
        scale = pair["image"].shape[1] // HEIGHT
        # Track 1 moves one pixel to the left a frame: to the right in a flipped pair.
        assert pair["instances"].gt_track_ids.tolist() == [1]
        assert other["instances"].gt_track_ids.tolist() == [0, 1]
        step = pair["instances"].gt_boxes.tensor[0] - other["instances"].gt_boxes.tensor[1]
        assert abs(step[0]) == scale * abs(other["frame"] - 1)
        flipped = bool(pair["instances"].gt_boxes.tensor[0, 0] < 16 * scale)
        assert (step[0] < 0) == ((other["frame"] < 1) != flipped)
    assert drawn == {0, 2, 3}


def test_a_lonely_frame_is_its_own_reference_and_distance_can_be_bounded(videos) -> None:
    loaded = load_video_json(*videos.write()).videos
    lonely = make_mapper()({**copy.deepcopy(loaded[1]), "key_frame": 2})
    assert lonely["reference"]["frame"] == 2
    near = make_mapper(max_distance=1)
    drawn = {
        near({**copy.deepcopy(loaded[0]), "key_frame": 3})["reference"]["frame"] for _ in range(9)
    }
    assert drawn == {2}


def test_an_epoch_of_pairs_has_every_frame_with_an_object_once(videos: VideoSet) -> None:
    loaded = load_video_json(*videos.write()).videos
    loaded[0]["annotations"][3][0]["iscrowd"] = loaded[0]["annotations"][3][1]["iscrowd"] = 1
    assert len(KeyFrames(loaded)) == 4
    loader = build_pair_loader(
        loaded, mapper=make_mapper(), total_batch_size=2, num_workers=0, seed=1
    )
    batches = iter(loader)
    keys = [(x["video_id"], x["frame"]) for _ in range(2) for x in next(batches)]
    assert sorted(keys) == [(3, 0), (3, 1), (3, 2), (9, 2)]
    again = next(iter(loader))
    first = next(iter(build_pair_loader(loaded, mapper=make_mapper(), total_batch_size=2,
                                        num_workers=0, seed=1)))  # fmt: skip
    for one, other in zip(again, first):
        assert torch.equal(one["reference"]["image"], other["reference"]["image"])


def test_videos_without_objects_cannot_be_trained_on(videos: VideoSet) -> None:
    videos.content["annotations"] = []
    with pytest.raises(ValueError, match="none of the 2 videos has a frame with an object"):
        KeyFrames(load_video_json(*videos.write()).videos)


def test_testing_sees_every_frame_once_in_order(videos: VideoSet) -> None:
    loaded = load_video_json(*videos.write()).videos
    mapper = InstanceMapper(is_train=False, augmentations=[])
    loader = build_video_test_loader(loaded, mapper=mapper, num_workers=0)
    frames = [(x["video_id"], x["frame"], x["length"]) for (x,) in loader]
    assert frames == [(video, t, 4) for video in (3, 9) for t in range(4)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_processes_share_whole_videos(world_size: int) -> None:
    lengths = [5, 40, 3, 3, 20, 9]
    shares = [list(WholeVideoSampler(lengths, rank, world_size)) for rank in range(world_size)]
    assert sorted(frame for share in shares for frame in share) == list(range(80))
    video_of = np.repeat(range(6), lengths)
    owners = [set(video_of[share]) for share in shares]
    assert sum(len(owner) for owner in owners) == 6


def predictions(video: dict[str, Any], frame: int, ids: list[int]) -> dict[str, Any]:
    seen = video["annotations"][frame]
    masks = np.array([mask_util.decode(a["segmentation"]) for a in seen]).reshape(-1, 24, 32)
    return {
        "instances": Instances(
            (24, 32),
            pred_masks=torch.from_numpy(masks).bool(),
            scores=torch.full((len(seen),), 0.9),
            pred_classes=torch.tensor([a["category_id"] for a in seen], dtype=torch.int64),
            pred_track_ids=torch.tensor([ids[a["track_id"]] for a in seen], dtype=torch.int64),
        )
    }


def evaluate(videos: VideoSet, name: str, ids_of: Any, folder: Path | None = None) -> dict:
    videos.content["annotations"][2]["segmentations"][2] = compressed(mask(1, 1))
    register_video_json(name, *videos.write())
    evaluator = VideoEvaluator(name, output_dir=None if folder is None else str(folder))
    for video in get_dataset_dicts(name):
        for frame in range(FRAMES):
            place = {"video_id": video["video_id"], "frame": frame}
            evaluator.process([place], [predictions(video, frame, ids_of(frame))])
    return evaluator.evaluate()


def test_ground_truth_as_predictions_is_perfect(videos: VideoSet, tmp_path: Path) -> None:
    results = evaluate(videos, "perfect_videos", lambda frame: [4, 2], tmp_path / "out")
    for name in ("AP", "AP50", "AP75", "APs", "AR1", "AR10", "AP-cat", "AP-fish"):
        assert results["vis"][name] == pytest.approx(100), name
    assert results["identity"]["IDSW"] == 0 and results["identity"]["found"] == 100
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {(t["video_id"], t["category_id"]) for t in written} == {(3, 20), (3, 5), (9, 5)}
    assert all(len(t["segmentations"]) == FRAMES for t in written)
    assert written[0]["segmentations"][1] is None


def test_an_object_that_no_frame_shows_counts_as_missed(videos: VideoSet) -> None:
    videos.content["annotations"].append(track(9, 5, [None] * 4))
    results = evaluate(videos, "hidden_videos", lambda frame: [4, 2])
    # Two of three cats at precision 1: 67 of the 101 recall points.
    assert results["vis"]["AP-cat"] == pytest.approx(100 * 67 / 101)
    assert results["vis"]["AR1"] == pytest.approx(100 * (1 + 2 / 3) / 2)


def test_tracks_of_equal_score_count_by_the_ids_of_their_videos(videos: VideoSet) -> None:
    videos.content["videos"].reverse()
    videos.content["annotations"] = [track(9, 5, [compressed(mask(1, 1))] * 4)]
    register_video_json("tied_videos", *videos.write())
    evaluator = VideoEvaluator("tied_videos")
    (video,) = get_dataset_dicts("tied_videos")
    for video_id in (9, 3):  # right in video 9, false in video 3
        for frame in range(FRAMES):
            place = {"video_id": video_id, "frame": frame}
            evaluator.process([place], [predictions(video, frame, [0])])
    # The false one comes first: precision 1/2 at every recall.
    assert evaluator.evaluate()["vis"]["AP"] == pytest.approx(50)


def test_tracks_that_are_swapped_half_way_lose_precision_and_are_counted(videos) -> None:
    results = evaluate(videos, "swapped_videos", lambda frame: [0, 1] if frame < 2 else [1, 0])
    # Track 0 has three masks, track 1 four: after frame 1 each goes on as the other. Two switches
    # in two continuations of track 0 and three of track 1.
    assert results["identity"]["IDSW"] == pytest.approx(100 * 2 / 5)
    assert results["vis"]["AP"] < 60


def test_a_crowd_has_no_identity_to_lose(videos: VideoSet) -> None:
    videos.content["annotations"][0]["iscrowd"] = 1
    results = evaluate(videos, "crowded_videos", lambda frame: [frame, 7])
    assert results["identity"]["IDSW"] == 0 and results["identity"]["found"] == 100
    assert results["vis"]["AP-cat"] == pytest.approx(100) and np.isnan(results["vis"]["AP-fish"])


def test_score_is_a_mean_and_class_the_most_frequent() -> None:
    found = [
        {"frame": 0, "category_id": 4, "score": 0.9, "mask": "a"},
        {"frame": 2, "category_id": 1, "score": 0.5, "mask": "b"},
        {"frame": 3, "category_id": 1, "score": 0.1, "mask": "c"},
    ]
    joined = join_frames(found, 5)
    assert joined["track"] == ["a", None, "b", "c", None]
    assert joined["score"] == pytest.approx(0.5) and joined["category_id"] == 1
    assert join_frames(found[:2], 5)["category_id"] == 1, "of equal votes the lower class"


def test_a_track_twice_in_a_frame_and_an_unknown_frame_are_refused(videos: VideoSet) -> None:
    videos.content["annotations"].pop()
    register_video_json("refused_videos", *videos.write())
    evaluator = VideoEvaluator("refused_videos")
    (video,) = get_dataset_dicts("refused_videos")
    with pytest.raises(ValueError, match="twice in frame 0 of video 3"):
        evaluator.process([{"video_id": 3, "frame": 0}], [predictions(video, 0, [1, 1])])
    with pytest.raises(ValueError, match="frame 4 of video 3"):
        evaluator.process([{"video_id": 3, "frame": 4}], [predictions(video, 0, [0, 1])])
