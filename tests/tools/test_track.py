"""The tracking tool on a small QueryInst-VIS with random weights."""

import gc
import json
import shutil
import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from PIL import Image

from queryseg.checkpoint import Checkpointer, CheckpointError
from queryseg.data.image import BadImageError
from queryseg.data.shapes import CLASS_NAMES
from queryseg.engine import apply_overrides, load_config
from queryseg.evaluation.track_recorder import TrackRecorder
from queryseg.projects.queryinst.tracker import OnlineTracker
from queryseg.tools import track
from queryseg.tools.console import ToolError
from queryseg.visualization.errors import PictureError
from queryseg.visualization.frames import Frames, open_frames

CONFIG = "queryinst/queryinst_vis_tiny.py"
OVERRIDES = [
    "model.decoder.num_queries=4",
    "model.min_score=0.0",
    "model.nms_iou=1.0",
    "model.decoder.embed_dim=32",
]
HEIGHT, WIDTH, FRAMES = 48, 64, 5


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights, a folder of frames and the same as a video."""
    folder = tmp_path_factory.mktemp("track")
    torch.manual_seed(0)
    model = instantiate(apply_overrides(load_config(CONFIG), OVERRIDES).model)
    Checkpointer(model, str(folder), class_names=CLASS_NAMES).save("weights")
    (folder / "frames").mkdir()
    video = cv2.VideoWriter(
        str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (WIDTH, HEIGHT)
    )
    for frame in range(FRAMES):
        pixels = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        pixels[10:30, 4 + 3 * frame : 24 + 3 * frame] = (200, 30 * frame, 0)
        # By name alone "11.png" would come before "7.png".
        Image.fromarray(pixels).save(folder / "frames" / f"{7 + frame}.png")
        video.write(pixels[:, :, ::-1])
    video.release()
    return folder


def run(workplace: Path, source: str | Path, *targets: Path) -> int:
    return track.main(
        [
            *("--config-file", CONFIG, "--weights", str(workplace / "weights.pth")),
            *("--input", str(source), "--output", *map(str, targets)),
            *("--device", "cpu", "--score-thresh", "0", *OVERRIDES),
        ]
    )


def test_a_folder_becomes_tracks_as_the_model_gives_them(workplace: Path, tmp_path: Path, capsys):
    target = tmp_path / "new" / "tracks.json"
    assert run(workplace, workplace / "frames", target) == 0
    assert f"{workplace / 'frames'}: {FRAMES} frames, " in capsys.readouterr().out

    model = instantiate(apply_overrides(load_config(CONFIG), OVERRIDES).model).eval()
    model.load_state_dict(torch.load(workplace / "weights.pth", weights_only=True)["model"])
    expected: dict[int, dict[int, tuple[np.ndarray, float]]] = {}
    augmentations = load_config(CONFIG).dataloader.test.mapper.augmentations
    (resize,) = (instantiate(a) for a in augmentations)
    for frame in range(FRAMES):
        pixels = np.array(Image.open(workplace / "frames" / f"{7 + frame}.png"))
        image = torch.from_numpy(
            resize.get_transform(pixels).apply_image(pixels).transpose(2, 0, 1).copy()
        )
        inputs = {"image": image, "height": HEIGHT, "width": WIDTH, "frame": frame}
        with torch.no_grad():
            found = model([inputs])[0]["instances"]
        for index, number in enumerate(found.pred_track_ids.tolist()):
            mask, score = found.pred_masks[index].numpy(), float(found.scores[index])
            expected.setdefault(number, {})[frame] = mask, score

    written = json.loads(target.read_text())
    assert len(written) == len(expected) > 1
    for result, seen in zip(written, expected.values()):
        assert result["video_id"] == 1 and 1 <= result["category_id"] <= 6
        assert len(result["segmentations"]) == FRAMES
        assert result["score"] == pytest.approx(np.mean([score for _, score in seen.values()]))
        for frame, rle in enumerate(result["segmentations"]):
            assert (rle is not None) == (frame in seen)
            if rle is not None:
                assert (mask_util.decode(rle).astype(bool) == seen[frame][0]).all()


def test_a_video_becomes_a_drawn_one_of_the_same_length_and_rate(workplace: Path, tmp_path: Path):
    targets = tmp_path / "drawn.mp4", tmp_path / "tracks.json"
    assert run(workplace, workplace / "clip.mp4", *targets) == 0
    capture = cv2.VideoCapture(str(targets[0]))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES
    assert {len(t["segmentations"]) for t in json.loads(targets[1].read_text())} == {FRAMES}


def test_overrides_may_stand_behind_the_files(workplace: Path, tmp_path: Path, capsys):
    target = tmp_path / "tracks.json"
    source = ["--input", str(workplace / "frames"), "--config-file", CONFIG, "--device", "cpu"]
    words = ["--weights", str(workplace / "weights.pth"), "--output", str(target)]
    assert track.main([*source, *words, *OVERRIDES, "model.max_detections=1"]) == 0
    assert f"-> {target}\n" in capsys.readouterr().out
    found = [t["segmentations"] for t in json.loads(target.read_text())]
    assert [sum(masks[frame] is not None for masks in found) for frame in range(FRAMES)] == [1] * 5
    with pytest.raises(ToolError, match=r"min_score: give a file that ends in"):
        track.main([*source, *words, "min_score"])


def test_what_cannot_be_tracked_is_named(workplace: Path, tmp_path: Path):
    target = tmp_path / "out.json"
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    (tmp_path / "list.txt").write_text("".join(f"{frame}.png\n" for frame in range(99)))
    (tmp_path / "mixed").mkdir()
    for name, width in (("1.png", 64), ("2.png", 32)):
        Image.new("RGB", (width, HEIGHT)).save(tmp_path / "mixed" / name)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "1.png").write_bytes(b"\x89PNG")
    with pytest.raises(PictureError, match=r"gone\.mp4: no such file or folder"):
        run(workplace, "gone.mp4", target)
    with pytest.raises(PictureError, match="empty: no image in it"):
        run(workplace, tmp_path / "empty", target)
    with pytest.raises(PictureError, match=r"broken\.mp4: not a video that OpenCV can read"):
        run(workplace, tmp_path / "broken.mp4", target)
    with pytest.raises(PictureError, match=r"list\.txt: not a video that OpenCV can read"):
        run(workplace, tmp_path / "list.txt", target)
    with pytest.raises(PictureError, match=r"2\.png: 32 x 48 pixels.*first frame has 64 x 48"):
        run(workplace, tmp_path / "mixed", target)
    with pytest.raises(BadImageError, match=r"1\.png: cannot be read"):
        run(workplace, tmp_path / "torn", target)
    assert not target.exists()


def test_the_tracks_before_a_frame_that_fails_are_kept_apart(
    workplace: Path, tmp_path: Path, caplog
):
    source = tmp_path / "clip"
    shutil.copytree(workplace / "frames", source)
    assert run(workplace, source, tmp_path / "whole.json") == 0
    (source / "10.png").write_bytes(b"\x89PNG")  # the fourth of five
    with pytest.raises(BadImageError, match=r"10\.png: cannot be read"):
        run(workplace, source, tmp_path / "tracks.json")
    assert not (tmp_path / "tracks.json").exists()
    part = tmp_path / "tracks.partial.json"
    assert f"first 3 frames are in {part}" in caplog.text
    whole = json.loads((tmp_path / "whole.json").read_text())
    kept = json.loads(part.read_text())
    assert kept and all(len(one["segmentations"]) == 3 for one in kept)
    expected = [one["segmentations"][:3] for one in whole]
    expected = [masks for masks in expected if any(masks)]
    assert [one["segmentations"] for one in kept] == expected


def test_arguments_that_make_no_sense_are_one_clear_error(workplace: Path, tmp_path: Path):
    frames, clip = workplace / "frames", workplace / "clip.mp4"
    with pytest.raises(ToolError, match=r"a model for single images.*queryinst_r50_vis"):
        track.check_follows(load_config("queryinst/queryinst_tiny.py"), "queryinst_tiny.py")
    with pytest.raises(ToolError, match=r"out\.gif: give a file that ends in"):
        run(workplace, frames, tmp_path / "out.gif")
    with pytest.raises(ToolError, match="are of one kind"):
        run(workplace, frames, tmp_path / "a.json", tmp_path / "b.json")
    with pytest.raises(ToolError, match="would overwrite the input"):
        run(workplace, clip, clip)
    with pytest.raises((CheckpointError, FileNotFoundError), match=r"weights\.pth"):
        run(tmp_path, frames, tmp_path / "out.json")


def test_a_damaged_video_says_how_many_frames_it_gave(workplace: Path, monkeypatch, caplog):
    real = cv2.VideoCapture

    class Overstated:
        """A capture whose file promises three frames more than it holds."""

        def __init__(self, name: str) -> None:
            self.capture = real(name)

        def get(self, key: int) -> float:
            extra = 3 if key == cv2.CAP_PROP_FRAME_COUNT else 0
            return self.capture.get(key) + extra

        def __getattr__(self, name: str):
            return getattr(self.capture, name)

    monkeypatch.setattr(cv2, "VideoCapture", Overstated)
    assert len(list(open_frames(workplace / "clip.mp4").pictures)) == FRAMES
    assert f"it should have {FRAMES + 3} frames, {FRAMES} could be read" in caplog.text


def test_one_frame_at_a_time_is_held():
    seen: list[weakref.ref] = []
    most = 0

    class Frame(np.ndarray):
        """An array that can be referred to weakly."""

    def pictures() -> Iterator[np.ndarray]:
        for _ in range(20):
            picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8).view(Frame)
            seen.append(weakref.ref(picture))
            yield picture
            del picture

    def predictor(picture: np.ndarray, frame: int) -> Instances:
        return Instances(picture.shape[:2])

    for _ in track.follow(predictor, Frames("clip", 25.0, 20, pictures())):  # type: ignore[arg-type]
        gc.collect()
        most = max(most, sum(reference() is not None for reference in seen))
    assert 1 <= most <= 2, "the frame at hand, and at most the one before"


def test_tracks_are_written_one_at_a_time(tmp_path: Path):
    frames, recorder = 4000, TrackRecorder()
    for frame in range(frames):
        recorder.add(
            Instances(
                (4, 4),
                scores=torch.tensor([0.5]),
                pred_classes=torch.tensor([3]),
                pred_masks=torch.ones(1, 4, 4, dtype=torch.bool),
                pred_track_ids=torch.tensor([frame // 10]),
            )
        )
    tracemalloc.start()
    recorder.write(tmp_path / "tracks.json", video_id=7)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000, "400 lists of 4,000 frames are 13 MB"
    text = (tmp_path / "tracks.json").read_text()
    written = json.loads(text)
    assert text == json.dumps(written) and len(text) > 9_000_000
    assert [t["segmentations"].count(None) for t in written] == [frames - 10] * 400
    assert {(t["video_id"], t["category_id"], t["score"]) for t in written} == {(7, 4, 0.5)}
    TrackRecorder().write(tmp_path / "none.json", video_id=7)
    assert json.loads((tmp_path / "none.json").read_text()) == []


def tensors_alive() -> tuple[int, int]:
    """How many tensors there are, and their bytes."""
    gc.collect()
    held = [value for value in gc.get_objects() if type(value) is torch.Tensor]
    return len(held), sum(value.untyped_storage().nbytes() for value in held)


def test_the_memory_of_the_tracker_stops_growing():
    tracker, sizes = OnlineTracker(max_objects=10), {}
    generator = torch.Generator().manual_seed(0)
    for frame in range(150):
        corners = torch.rand(4, 2, generator=generator) * 40
        tracker(
            Instances(
                (64, 64),
                pred_boxes=Boxes(torch.cat([corners, corners + 20], dim=1)),
                scores=torch.rand(4, generator=generator),
                pred_classes=torch.randint(40, (4,), generator=generator),
                track_feats=torch.randn(4, 64, generator=generator),
                pred_masks=torch.zeros(4, 64, 64, dtype=torch.bool),
            )
        )
        if frame in (50, 149):
            sizes[frame] = tensors_alive()
    assert tracker.num_tracks > 20 and tracker.num_remembered == 10
    assert sizes[149] == sizes[50]
