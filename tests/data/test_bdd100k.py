"""BDD100K labels in both formats, on a small synthetic set."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from queryseg.data.bdd100k import main
from queryseg.data.coco_json import load_coco_json
from queryseg.data.masks import decode

SIZE = (40, 60)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / name)
    return folder


def _masks(file: Path, images: Path) -> dict[tuple[str, str], np.ndarray]:
    loaded = load_coco_json(file, images)
    return {
        (Path(image["file_name"]).name, loaded.class_names[a["category_id"]]): decode(
            a["segmentation"], *SIZE
        )
        for image in loaded.images
        for a in image["annotations"]
    }


def test_bitmasks_and_json_of_the_same_objects_give_the_same_set(
    tmp_path: Path, images: Path
) -> None:
    pixels = np.zeros((*SIZE, 4), np.uint8)
    pixels[5:20, 10:30] = (3, 0, 1, 44)  # car number 300
    pixels[25:35, 5:15] = (1, 2, 0, 7)  # a crowd of pedestrians
    (tmp_path / "bits").mkdir()
    Image.fromarray(pixels).save(tmp_path / "bits" / "a.png")
    Image.fromarray(np.zeros_like(pixels)).save(tmp_path / "bits" / "b.png")
    square = [[10, 5], [30, 5], [30, 20], [10, 20]]
    crowd = [[5, 25], [15, 25], [15, 35], [5, 35]]
    frames = [
        {
            "name": "a.jpg",
            "labels": [
                {"category": "car", "poly2d": [{"vertices": square, "types": "LLLL"}]},
                {
                    "category": "person",
                    "attributes": {"crowd": True},
                    "poly2d": [{"vertices": crowd, "types": "LLLL"}],
                },
                {"category": "sky", "poly2d": [{"vertices": square, "types": "LLLL"}]},
            ],
        },
        {"name": "b.jpg"},
    ]
    (tmp_path / "labels.json").write_text(json.dumps({"frames": frames}))
    sets = []
    for labels in ("bits", "labels.json"):
        output = tmp_path / f"{labels}.coco.json"
        arguments = ["--labels", str(tmp_path / labels), "--images", str(images)]
        assert main([*arguments, "--output", str(output)]) == 0
        sets.append(_masks(output, images))
        content = json.loads(output.read_text())
        assert [a["iscrowd"] for a in content["annotations"]] in ([1, 0], [0, 1])
        assert len(content["images"]) == 2
    assert sets[0].keys() == sets[1].keys() == {("a.jpg", "car"), ("a.jpg", "pedestrian")}
    for key, mask in sets[0].items():
        np.testing.assert_array_equal(mask, sets[1][key])
    np.testing.assert_array_equal(sets[0]["a.jpg", "car"], pixels[..., 0] == 3)


def test_curves_bulge_beyond_their_chord(tmp_path: Path, images: Path) -> None:
    vertices = [[10, 30], [10, 5], [50, 5], [50, 30]]
    labels = [{"category": "bus", "poly2d": [{"vertices": vertices, "types": "LCCC"}]}]
    (tmp_path / "labels.json").write_text(json.dumps([{"name": "a.jpg", "labels": labels}]))
    output = tmp_path / "coco.json"
    arguments = ["--labels", str(tmp_path / "labels.json"), "--images", str(images)]
    assert main([*arguments, "--output", str(output)]) == 0
    mask = _masks(output, images)["a.jpg", "bus"]
    rows = np.flatnonzero(mask[:, 30])
    # A cubic curve reaches three quarters of the way to its control points.
    assert abs(rows[0] - (30 - 0.75 * 25)) <= 1 and rows[-1] == 29


def test_names_and_flags_of_the_json_are_those_of_its_toolkit(
    tmp_path: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    square = [{"vertices": [[10, 5], [30, 5], [30, 20], [10, 20]], "types": "LLLL"}]
    expected = [
        ("van", {}, ("car", 0)),
        ("caravan", {"occluded": True, "truncated": True}, ("car", 0)),
        ("motor", {"crowd": False}, ("motorcycle", 0)),
        ("rider", {"ignored": True}, ("rider", 1)),
        ("other person", {}, ("pedestrian", 1)),
        ("other vehicle", {}, ("car", 1)),
        ("trailer", {}, ("truck", 1)),
        ("road", {}, None),
    ]
    labels = [{"category": c, "attributes": a, "poly2d": square} for c, a, _ in expected]
    labels += [{"category": "car", "poly2d": []}, {"category": "road", "poly2d": square}]
    (tmp_path / "labels.json").write_text(json.dumps([{"name": "a.jpg", "labels": labels}]))
    output = tmp_path / "coco.json"
    arguments = ["--labels", str(tmp_path / "labels.json"), "--images", str(images)]
    assert main([*arguments, "--output", str(output)]) == 0
    content = json.loads(output.read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    found = [(names[a["category_id"]], a["iscrowd"]) for a in content["annotations"]]
    assert found == [one for _, _, one in expected if one]
    (said,) = caplog.messages
    assert said.startswith(str(tmp_path / "labels.json"))
    assert said.endswith("left out, of no class here or without an outline: 2 x road, 1 x car")


def test_labels_that_are_none_are_refused_in_one_line(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.json").write_text("{}")
    arguments = ["--images", str(images), "--output", str(tmp_path / "out.json"), "--labels"]
    assert main([*arguments, str(tmp_path / "labels.json")]) == 2
    assert "holds no list of frames" in capsys.readouterr().out
    (tmp_path / "labels.json").write_text('[{"name": "a.jpg"}, {"labels": []}]')
    assert main([*arguments, str(tmp_path / "labels.json")]) == 2
    assert "labels.json: frame 1 has no name of an image" in capsys.readouterr().out
    assert main([*arguments, str(tmp_path / "nothing")]) == 2
