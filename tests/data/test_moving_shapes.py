"""The synthetic videos: the same bytes everywhere, crossings in each, and tracks that are true."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from queryseg.data.moving_shapes import MovingShapesSpec, render_clip, write_moving_shapes
from queryseg.data.moving_shapes.__main__ import main
from queryseg.data.moving_shapes.motion import Path as MotionPath
from queryseg.evaluation.identity_metrics import crossings

TINY = MovingShapesSpec(train=2, val=1, height=48, width=64, frames=4, seed=7)
# Written once by this generator; another value means other data for the same flags.
TINY_DIGEST = "2b9264b3dfea0ef8fb6fc4e1971652ce09744626801a97b968458283b5ae16fa"


def folder_digest(root: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(f for f in root.rglob("*") if f.is_file()):
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def test_the_same_flags_give_the_same_bytes_as_when_the_generator_was_written(
    tmp_path: Path,
) -> None:
    assert write_moving_shapes(tmp_path, TINY)
    assert folder_digest(tmp_path) == TINY_DIGEST
    assert not write_moving_shapes(tmp_path, TINY)
    assert write_moving_shapes(tmp_path, replace(TINY, train=1))
    assert len(list((tmp_path / "train").rglob("*.png"))) == TINY.frames


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train" / "000000").mkdir(parents=True)
    (tmp_path / "train" / "000000" / "mine.png").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"mine\.png"):
        write_moving_shapes(tmp_path, TINY)


def test_two_objects_of_one_class_cross_in_nearly_every_video() -> None:
    spec, crossed = MovingShapesSpec(), 0
    for index in range(40):
        clip = render_clip(spec, 0, index)
        tracks = [
            [mask_util.encode(np.asfortranarray(m, np.uint8)) if m.any() else None for m in track]
            for track in clip.masks.swapaxes(0, 1)
        ]
        same = [
            pair for pair in crossings(tracks) if clip.classes[pair[0]] == clip.classes[pair[1]]
        ]
        crossed += bool(same)
    assert crossed >= 34, "others are apart at one end of the video only"


def test_masks_are_disjoint_and_follow_smooth_paths() -> None:
    clip = render_clip(MovingShapesSpec(max_objects=3), 1, 3)
    assert clip.frames.shape == (12, 96, 128, 3) and clip.frames.dtype == np.uint8
    assert clip.masks.sum(axis=1).max() == 1
    rows, columns = np.indices(clip.masks.shape[2:])
    for masks in clip.masks.swapaxes(0, 1):
        whole = np.flatnonzero(masks.sum((1, 2)) > 0.95 * masks.sum((1, 2)).max())
        centres = np.array([[rows[masks[t]].mean(), columns[masks[t]].mean()] for t in whole])
        steps = np.diff(centres, axis=0) / np.diff(whole)[:, None]
        assert 0.1 < np.abs(steps).max() < 6


def test_the_border_turns_a_path_back() -> None:
    path = MotionPath((10.0, 5.0), (4.0, 0.0), 0.0, 0.1, (2.0, 2.0), (20.0, 8.0))
    assert [path.centre(t)[0] for t in range(7)] == [10, 14, 18, 18, 14, 10, 6]
    assert path.centre(6)[1] == 5.0
    assert path.rotation(5) == pytest.approx(0.5)


def test_tracks_in_the_json_say_what_the_frames_show(tmp_path: Path) -> None:
    write_moving_shapes(tmp_path, TINY)
    content = json.loads((tmp_path / "annotations" / "val.json").read_text())
    (video,), clip = content["videos"], render_clip(TINY, 1, 0)
    for name, frame in zip(video["file_names"], clip.frames):
        assert (np.asarray(Image.open(tmp_path / "val" / name)) == frame).all()
    assert len(content["annotations"]) == len(clip.classes)
    for number, track in enumerate(content["annotations"]):
        assert track["category_id"] == clip.classes[number] + 1
        for frame, rle in enumerate(track["segmentations"]):
            mask = clip.masks[frame, number]
            assert (rle is not None) == mask.any() == (track["areas"][frame] is not None)
            if rle:
                assert (mask_util.decode(rle) == mask).all()
                assert track["areas"][frame] == mask.sum()
                assert track["bboxes"][frame] == mask_util.toBbox(rle).tolist()


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--frames", "1"], "at least 2 frames"), (["--objects", "1", "3"], "at least 2 objects")],
)
def test_flags_that_make_no_video_are_refused(flags, message, tmp_path, capsys) -> None:
    assert main(["--output", str(tmp_path / "x"), *flags]) == 2
    assert message in capsys.readouterr().out
