"""The synthetic set: the same bytes everywhere, and annotations that say what the pixels show."""

import hashlib
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from queryseg.data.shapes import CLASS_NAMES, Scene, ShapesSpec, render_scene, write_shapes
from queryseg.data.shapes.__main__ import main
from queryseg.data.shapes.colour import MIN_CONTRAST
from queryseg.data.shapes.outlines import OUTLINES, rotate
from queryseg.data.shapes.png import encode_png
from queryseg.data.shapes.raster import FULL, UNIT, coverage, signed_area, to_fixed_point
from queryseg.data.shapes.scene import MIN_VISIBLE_FRACTION
from queryseg.data.shapes.texture import pixel_noise, value_noise

TINY = ShapesSpec(train=5, val=3, height=64, width=80, seed=7)
# Written once by this generator; another value means other data for the same flags.
TINY_DIGESTS = {
    "colour": "c32bb394b19f0816f3803dc54572a83e7ca8507695ca174a955dd3dd80e6fd49",
    "shape": "fffa0afe8265532d9349ec030f4487552679c144b9f272945a53aaf8f09faf32",
}


def folder_digest(root: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(f for f in root.rglob("*") if f.is_file()):
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(ShapesSpec(), 0, index) for index in range(120)]


@pytest.mark.parametrize("difficulty", ["colour", "shape"])
def test_the_same_flags_give_the_same_bytes_as_when_the_generator_was_written(
    tmp_path: Path, difficulty: str
) -> None:
    write_shapes(tmp_path, replace(TINY, difficulty=difficulty))
    assert folder_digest(tmp_path) == TINY_DIGESTS[difficulty]


def test_a_larger_set_begins_with_the_smaller_one(tmp_path: Path) -> None:
    write_shapes(tmp_path / "small", TINY)
    write_shapes(tmp_path / "large", replace(TINY, train=7))
    for index in range(TINY.train):
        name = f"train/{index:06d}.png"
        assert (tmp_path / "small" / name).read_bytes() == (tmp_path / "large" / name).read_bytes()


def test_seed_split_and_difficulty_all_change_the_images() -> None:
    first = render_scene(TINY, 0, 0).image
    others = [
        render_scene(replace(TINY, seed=8), 0, 0),
        render_scene(TINY, 1, 0),
        render_scene(TINY, 0, 1),
        render_scene(replace(TINY, difficulty="shape"), 0, 0),
    ]
    assert all((other.image != first).any() for other in others)


def test_a_complete_set_is_left_alone_and_another_one_replaces_it(tmp_path: Path) -> None:
    assert write_shapes(tmp_path, TINY)
    stamp = (tmp_path / "train" / "000000.png").stat().st_mtime_ns
    assert not write_shapes(tmp_path, TINY)
    assert (tmp_path / "train" / "000000.png").stat().st_mtime_ns == stamp
    assert write_shapes(tmp_path, replace(TINY, train=2))
    assert len(list((tmp_path / "train").iterdir())) == 2


def test_an_interrupted_set_is_written_again(tmp_path: Path) -> None:
    write_shapes(tmp_path, TINY)
    (tmp_path / "val" / "000001.png").unlink()
    assert write_shapes(tmp_path, TINY)
    assert (tmp_path / "val" / "000001.png").is_file()


def test_a_folder_with_other_files_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "holiday.png").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=r"holiday\.png.*--output"):
        write_shapes(tmp_path, TINY)
    assert (tmp_path / "train" / "holiday.png").read_bytes() == b"precious"


def test_the_json_describes_what_is_on_disk(tmp_path: Path) -> None:
    write_shapes(tmp_path, TINY)
    for split, index in (("train", 0), ("val", 1)):
        content = json.loads((tmp_path / "annotations" / f"{split}.json").read_text())
        assert [c["name"] for c in content["categories"]] == list(CLASS_NAMES)
        ids = [a["id"] for a in content["annotations"]]
        assert ids == list(range(1, len(ids) + 1))
        for position, entry in enumerate(content["images"]):
            scene = render_scene(TINY, index, position)
            stored = np.asarray(Image.open(tmp_path / split / entry["file_name"]))
            assert stored.shape == (entry["height"], entry["width"], 3) == (64, 80, 3)
            np.testing.assert_array_equal(stored, scene.image)
            mine = [a for a in content["annotations"] if a["image_id"] == entry["id"]]
            assert [a["category_id"] - 1 for a in mine] == scene.classes.tolist()
            for annotation, mask in zip(mine, scene.masks):
                check_annotation(annotation, mask)


def check_annotation(annotation: dict[str, Any], mask: np.ndarray) -> None:
    np.testing.assert_array_equal(mask_util.decode(annotation["segmentation"]), mask)
    rows, cols = np.nonzero(mask)
    width, height = cols.max() - cols.min() + 1, rows.max() - rows.min() + 1
    assert annotation["bbox"] == [cols.min(), rows.min(), width, height]
    assert annotation["area"] == mask.sum()


def test_masks_show_one_surface_each_so_the_painting_order_is_right(scenes: list[Scene]) -> None:
    spreads, overlapping = [], 0
    for scene in scenes:
        assert scene.masks.sum(axis=0).max() <= 1
        for mask in scene.masks:
            inner = mask.copy()  # without the blended rim
            for axis in (0, 1):
                for shift in (-1, 1):
                    inner &= np.roll(mask, shift, axis)
            pixels = scene.image[inner].astype(np.float64)
            spreads.append(pixels.std(axis=0).max())
            overlapping += touches_another(mask, scene.masks)
    # Texture reaches 8 and noise has a deviation of at most 5 at either end of the scale; a strip
    # of another object, at least 70 away in colour, would show.
    assert max(spreads) < 14
    assert overlapping > 40


def touches_another(mask: np.ndarray, masks: np.ndarray) -> bool:
    grown = mask | np.roll(mask, 1, 0) | np.roll(mask, -1, 0) | np.roll(mask, 1, 1)
    return bool((grown & ~mask & masks.any(axis=0)).any())


def test_objects_stand_out_from_what_is_around_them(scenes: list[Scene]) -> None:
    distances = []
    for scene in scenes:
        background = np.median(scene.image[~scene.masks.any(axis=0)], axis=0)
        for mask in scene.masks:
            colour = np.median(scene.image[mask].astype(np.float64), axis=0)
            distances.append(math.dist(colour, background))
    # Textures move both colours by up to 12 and 8.
    assert np.quantile(distances, 0.05) > MIN_CONTRAST - 12


def test_with_difficulty_colour_the_hue_tells_the_class_and_with_shape_it_does_not() -> None:
    shares = {}
    for difficulty in ("colour", "shape"):
        spec = ShapesSpec(difficulty=difficulty)
        hits, total = 0, 0
        for index in range(60):
            scene = render_scene(spec, 0, index)
            for mask, label in zip(scene.masks, scene.classes):
                hits += nearest_hue(np.median(scene.image[mask], axis=0)) == label
                total += 1
        shares[difficulty] = hits / total
    assert shares["colour"] > 0.98
    assert shares["shape"] < 0.35


def nearest_hue(rgb: np.ndarray) -> int:
    r, g, b = (float(v) for v in rgb)
    hue = math.degrees(math.atan2(math.sqrt(3) * (g - b), 2 * r - g - b))
    return round(hue / 60) % 6


def test_the_statistics_are_those_of_the_reported_runs(scenes: list[Scene]) -> None:
    areas = np.array([mask.sum() for scene in scenes for mask in scene.masks])
    classes = np.concatenate([scene.classes for scene in scenes])
    assert 2.2 < len(areas) / len(scenes) < 2.9
    assert all(1 <= len(scene.classes) <= 4 for scene in scenes)
    assert np.bincount(classes, minlength=6).min() > 0.09 * len(classes)
    tenth, half, nine_tenths = np.quantile(areas, [0.1, 0.5, 0.9])
    assert 200 < tenth < 400 < half < 900 < nine_tenths < 1900


def test_every_object_shows_at_least_a_quarter_of_itself() -> None:
    # No object of a class is smaller than the smallest of many outlines at the smallest radius.
    spec = ShapesSpec(min_objects=9, max_objects=9)
    least = [MIN_VISIBLE_FRACTION * unit_area(name) * spec.min_radius**2 for name in CLASS_NAMES]
    for index in range(12):
        scene = render_scene(spec, 0, index)
        assert 4 <= len(scene.masks) <= 9
        for mask, label in zip(scene.masks, scene.classes):
            assert mask.sum() >= least[label]


def unit_area(name: str) -> float:
    outlines = [OUTLINES[name](np.random.RandomState(seed)) for seed in range(50)]
    return 0.95 * min(signed_area(to_fixed_point(o, (0.0, 0.0), 100.0)) for o in outlines) / 1e4


@pytest.mark.parametrize("size", [(16, 16), (33, 250), (300, 41)])
def test_any_size_works_and_objects_grow_with_it(size: tuple[int, int]) -> None:
    spec = ShapesSpec(height=size[0], width=size[1])
    found = [render_scene(spec, 0, index) for index in range(6)]
    assert all(scene.image.shape == (*size, 3) for scene in found)
    assert sum(len(scene.classes) for scene in found) >= 6


def test_flags_that_make_no_sense_are_refused() -> None:
    wrong = [
        {"difficulty": "easy"},
        {"height": 8},
        {"train": -1},
        {"min_objects": 5, "max_objects": 4},
        {"min_radius": 0},
        {"seed": -1},
    ]
    for flags in wrong:
        with pytest.raises(ValueError):
            ShapesSpec(**flags)


def test_the_command_writes_the_set(tmp_path: Path) -> None:
    flags = ["--output", str(tmp_path), "--train", "2", "--val", "1", "--size", "48x64"]
    done = subprocess.run(
        [sys.executable, "-m", "queryseg.data.shapes", *flags], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "wrote 2 + 1 images" in done.stdout
    assert Image.open(tmp_path / "train" / "000001.png").size == (64, 48)


def test_the_command_explains_a_wrong_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--output", str(tmp_path), "--size", "4"]) == 2
    assert "at least 16 x 16" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path), "--size", "1x2x3"])


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_coverage_equals_a_float64_loop_over_scan_lines(name: str) -> None:
    rng = np.random.RandomState(3)
    outline = rotate(OUTLINES[name](rng), 0.7)
    rings = to_fixed_point(outline, (9.3, 7.8), 8.6)  # reaches beyond the frame
    height, width = 15, 17
    expected = np.array(
        [[naive_coverage(rings, y, x) for x in range(width)] for y in range(height)]
    )
    # Crossings are rounded to 1/256 pixel on each of four lines.
    assert np.abs(coverage(rings, height, width) / FULL - expected).max() <= 2 / UNIT


def naive_coverage(rings: list[np.ndarray], row: int, column: int) -> float:
    total = 0.0
    for line in range(4):
        y = row + (line + 0.5) / 4
        crossings = []
        for ring in rings:
            points = ring / UNIT
            for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0)):
                if (y0 <= y) != (y1 <= y):
                    crossings.append(x0 + (y - y0) * (x1 - x0) / (y1 - y0))
        crossings.sort()
        for left, right in zip(crossings[::2], crossings[1::2]):
            total += max(0.0, min(right, column + 1) - max(left, column)) / 4
    return total


def test_areas_of_known_outlines() -> None:
    disc = to_fixed_point(OUTLINES["disc"](np.random.RandomState(0)), (0.0, 0.0), 50.0)
    polygon = 48 / 2 * math.sin(2 * math.pi / 48) * 50**2
    assert signed_area(disc) == pytest.approx(polygon, rel=1e-4)
    square = [np.array([[0, 0], [4, 0], [4, 4], [0, 4]]) * UNIT]
    assert signed_area(square) == 16.0
    np.testing.assert_array_equal(coverage(square, 4, 4), np.full((4, 4), FULL))


def test_texture_stays_in_its_range_and_noise_has_its_deviation() -> None:
    rng = np.random.RandomState(0)
    texture = value_noise(rng, 90, 70, 9, 12)
    assert texture.shape == (90, 70)
    assert np.abs(texture).max() <= 12
    assert np.ptp(texture) > 10
    assert np.abs(np.diff(texture, axis=0)).max() <= 24 / 9 + 1
    noise = pixel_noise(rng, 200, 200, 5.0)
    assert abs(noise.std() - 5.0) < 0.2
    assert abs(noise.mean()) < 0.6


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (256, 300)])
def test_the_png_writer_is_read_back_by_pillow(tmp_path: Path, size: tuple[int, int]) -> None:
    image = np.random.RandomState(0).randint(0, 256, (*size, 3), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(encode_png(image))
    with Image.open(tmp_path / "a.png") as opened:
        opened.verify()
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), image)


def test_the_png_writer_refuses_other_arrays() -> None:
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\)"):
        encode_png(np.zeros((4, 4), dtype=np.uint8))
