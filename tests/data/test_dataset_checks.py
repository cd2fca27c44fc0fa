"""The data set checker finds every kind of problem and names it, and its exit code says so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from queryseg.data.checks import check_dataset
from queryseg.data.problems import Effect
from queryseg.data.shapes import ShapesSpec, write_shapes
from queryseg.tools.check_dataset import main


def found(small_set: Any, **options: Any) -> dict[str, list[Any]]:
    problems: dict[str, list[Any]] = {}
    for problem in check_dataset(*small_set.write(), **options).problems:
        problems.setdefault(problem.kind, []).append(problem)
    return problems


def test_counts_and_histogram_of_the_synthetic_set(tmp_path: Path) -> None:
    write_shapes(tmp_path, ShapesSpec(train=12, val=0, height=64, width=96))
    report = check_dataset(tmp_path / "annotations" / "train.json", tmp_path / "train")
    assert report.num_images == 12
    assert report.num_annotations == report.num_objects > 12
    assert report.num_crowds == 0
    assert sum(c.objects for c in report.classes) == report.num_objects
    assert all(c.images <= min(c.objects, 12) for c in report.classes)
    assert [c.category_id for c in report.classes] == list(range(1, 7))
    assert sum(report.area_counts.values()) == report.num_objects
    assert set(report.image_sizes) == {(64, 96)}
    assert not report.with_effect(Effect.FATAL) + report.with_effect(Effect.DROPPED)


def test_areas_are_counted_by_cocos_limits(small_set: Any) -> None:
    small_set.add_image(1, height=120, width=120)
    for side in (31, 32, 96, 97):
        box = [0, 0, side, 0, side, side, 0, side]
        small_set.add_object(1, segmentation=[box], area=... if side % 2 else side * side)
    report = check_dataset(*small_set.write())
    assert report.area_counts == {"small": 1, "medium": 2, "large": 1}


def test_every_bad_annotation_is_named_with_file_and_id(small_set: Any) -> None:
    path = small_set.add_image(8)
    small_set.add_object(8)
    bad = {
        21: ("polygon-points", {"segmentation": [[1, 1, 2, 2]]}),
        22: ("rle-size", {"segmentation": {"size": [2, 2], "counts": [1, 3]}}),
        23: ("empty-mask", {"segmentation": [[5, 5, 5.01, 5, 5.01, 5.01]]}),
        24: ("box-area", {"bbox": [4, 6, 0, 0]}),
        25: ("no-segmentation", {"segmentation": []}),
        26: ("unknown-category", {"category_id": 40}),
    }
    for own_id, (_, changes) in bad.items():
        small_set.add_object(8, id=own_id, **changes)
    problems = found(small_set)
    for own_id, (kind, _) in bad.items():
        (problem,) = [p for p in problems[kind] if p.annotation_id == own_id]
        assert (problem.image_id, problem.file_name) == (8, path)
        assert f"annotation {own_id}, image 8, {path}: " in str(problem)


def test_bad_images_are_named_and_unusual_ones_remarked(small_set: Any) -> None:
    paths = {n: Path(small_set.add_image(n)) for n in range(1, 8)}
    for number in paths:
        small_set.add_object(number)
    paths[1].unlink()
    paths[2].write_bytes(b"")
    Image.fromarray(np.zeros((32, 24, 3), dtype=np.uint8)).save(paths[3])
    Image.fromarray(np.zeros((24, 32), dtype=np.uint16)).save(paths[4])
    for number, orientation in ((5, 3), (6, 6)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.zeros((24, 32, 3), dtype=np.uint8)).save(paths[number], exif=exif)
    problems = found(small_set)
    assert [p.image_id for p in problems["missing-file"]] == [1]
    assert [p.image_id for p in problems["bad-image"]] == [2, 3]
    assert "24 x 32" in problems["bad-image"][1].message
    assert [p.image_id for p in problems["image-mode"]] == [4]
    remarks = {p.image_id: p.message for p in problems["image-exif"]}
    assert remarks.keys() == {5, 6}
    assert remarks[5].endswith("turned upright")
    assert "not turned" in remarks[6]
    assert all(p.effect is Effect.FATAL for k in ("missing-file", "bad-image") for p in problems[k])
    assert set(found(small_set, open_images=False)) == {"missing-file", "class-unused"}


def test_remarks_on_empty_images_doubled_files_and_unused_classes(small_set: Any) -> None:
    small_set.add_image(1)
    small_set.add_image(2)
    small_set.add_object(2, iscrowd=1)
    small_set.add_image(3, file_name="2.png")
    small_set.add_object(3)
    small_set.content["categories"].append({"id": 7, "name": "pear"})
    problems = found(small_set)
    assert [p.image_id for p in problems["no-objects"]] == [1]
    assert [p.image_id for p in problems["only-crowds"]] == [2]
    assert [p.image_id for p in problems["file-doubled"]] == [2, 3]
    assert len(problems["class-unused"]) == 2
    assert len(problems["class-name-doubled"]) == 1
    assert {p.effect for ps in problems.values() for p in ps} == {Effect.HANDLED}


def run(small_set: Any, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str]:
    json_file, images = small_set.write()
    code = main(["--json", str(json_file), "--images", str(images), *flags])
    return code, capsys.readouterr().out


def test_the_tool_passes_a_sound_set(small_set: Any, capsys: pytest.CaptureFixture[str]) -> None:
    small_set.add_image(1)
    small_set.add_image(2)
    small_set.add_object(1)
    code, text = run(small_set, capsys)
    assert code == 0
    assert "READY for training." in text
    assert "no-objects (1)" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["1", "apple", "1", "1"] in rows
    assert ["2", "pear", "0", "0"] in rows


def test_the_tool_warns_about_what_would_be_left_out(
    small_set: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    small_set.add_image(1)
    small_set.add_object(1)
    for _ in range(5):
        small_set.add_object(1, segmentation=[[1, 1]])
    code, text = run(small_set, capsys, "--max-lines", "2")
    assert code == 1
    assert "5 annotations would be left out" in text
    assert text.count("it needs at least 3") == 2
    assert "... and 3 more" in text


def test_the_tool_says_what_stops_training(
    small_set: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(small_set.add_image(1))
    small_set.add_object(1)
    path.write_bytes(b"nothing")
    code, text = run(small_set, capsys)
    assert code == 1
    assert "NOT READY: 1 problem stops training" in text
    assert run(small_set, capsys, "--quick")[0] == 0


def test_a_set_without_objects_is_not_ready(
    small_set: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    small_set.add_image(1)
    assert run(small_set, capsys)[0] == 1
    small_set.content["images"] = []
    code, text = run(small_set, capsys)
    assert code == 1
    assert "no usable object" in text


def test_a_file_that_is_not_there_has_its_own_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--json", "gone.json", "--images", "."]) == 2
    assert "no such annotation file: gone.json" in capsys.readouterr().out


def test_an_image_folder_that_is_not_there_is_one_error_and_not_one_an_image(
    small_set: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for image_id in (1, 2, 3):
        small_set.add_image(image_id)
        small_set.add_object(image_id)
    json_file, _ = small_set.write()
    nowhere = tmp_path / "nowhere"
    assert main(["--json", str(json_file), "--images", str(nowhere)]) == 2
    assert capsys.readouterr().out == f"error: no such image folder: {nowhere}\n"
