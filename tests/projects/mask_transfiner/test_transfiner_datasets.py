"""Trainings from the first image to AP: run-length masks, Cityscapes, BDD100K."""

import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import LazyConfig
from PIL import Image
from street import NAMES, SPEC, Street

from queryseg.data.bdd100k import main as convert_bdd100k
from queryseg.data.shapes import ShapesSpec, render_scene, write_shapes
from queryseg.engine import load_config, train_main

SETTINGS = ["train.max_iter=3", "train.total_batch_size=2", "train.log_period=1"]
SETTINGS += ["dataloader.train.num_workers=0", "dataloader.test.num_workers=0"]
SETTINGS += ["train.init_checkpoint=''"]
SIZE = "mapper.augmentations.0.short_edge_length=64"


def train(config: str, output: Path, *overrides: str) -> dict[str, dict[str, float]]:
    """The figures of a short training, whose losses are finite."""
    arguments = [*SETTINGS, *overrides, f"train.output_dir={output}"]
    train_main(["--config-file", config, *arguments])
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    steps = [line for line in lines if "total_loss" in line]
    assert len(steps) == 3
    for step in steps:
        assert np.isfinite(step["total_loss"]) and step["loss_mask_refine"] > 0
        assert step["loss_mask"] > 0 and step["loss_mask_uncertain"] > 0
    return json.loads((output / "results.json").read_text())


def small(config: str, folder: Path) -> str:
    """A config with the tiny model in place of its own; the classes stay its own."""
    cfg = load_config(f"mask_transfiner/{config}.py")
    classes = cfg.model.num_classes
    cfg.model = load_config("mask_transfiner/mask_transfiner_tiny.py").model
    cfg.model.num_classes = classes
    LazyConfig.save(cfg, str(folder / "small.yaml"))
    return str(folder / "small.yaml")


@pytest.mark.parametrize("keep_polygons", [False, True])
def test_run_length_masks_train(keep_polygons: bool, datasets: Path) -> None:
    """The shapes are stored as run lengths, which the release cannot train on."""
    write_shapes(datasets / "shapes", ShapesSpec(train=6, val=2, height=64, width=80))
    figures = train(
        "mask_transfiner/mask_transfiner_tiny.py",
        datasets.parent / "output",
        f"dataloader.train.mapper.keep_polygons={keep_polygons}",
    )
    assert figures.keys() == {"bbox", "segm", "boundary"}
    for task in figures.values():
        assert 0 <= task["AP"] <= 100


def test_the_cityscapes_config_trains_and_is_evaluated_by_its_script(datasets: Path) -> None:
    for split in ("train", "val"):
        Street(datasets / "cityscapes", split)
    figures = train(
        small("mask_transfiner_r50_cityscapes", datasets.parent),
        datasets.parent / "output",
        f"dataloader.train.{SIZE}",
        f"dataloader.test.{SIZE}",
    )
    assert figures.keys() == {"segm", "boundary"}
    assert figures["segm"].keys() == {"AP", "AP50", *(f"AP-{name}" for name in NAMES)}
    assert 0 <= figures["segm"]["AP"] <= 100 and 0 <= figures["boundary"]["AP"] <= 100


def test_the_bdd100k_config_trains_on_converted_bitmasks(datasets: Path) -> None:
    root = datasets / "bdd100k"
    for number, split in enumerate(("train", "val")):
        labels, images = root / "labels" / split, root / "images" / "10k" / split
        for folder in (labels, images):
            folder.mkdir(parents=True)
        for index in range(3):
            scene = render_scene(SPEC, number, index)
            pixels = np.zeros((SPEC.height, SPEC.width, 4), np.uint8)
            for place, (mask, label) in enumerate(zip(scene.masks, scene.classes), start=1):
                pixels[mask] = (label + 1, 0, 0, place)
            Image.fromarray(pixels).save(labels / f"{index}.png")
            Image.fromarray(scene.image).save(images / f"{index}.jpg")
        output = root / "annotations" / f"ins_seg_{split}.json"
        arguments = ["--labels", str(labels), "--images", str(images), "--output", str(output)]
        assert convert_bdd100k(arguments) == 0
    figures = train(
        small("mask_transfiner_r101_bdd100k", datasets.parent),
        datasets.parent / "output",
        f"dataloader.train.{SIZE}",
        f"dataloader.test.{SIZE}",
    )
    assert figures.keys() == {"bbox", "segm", "boundary"}
    assert "AP-bicycle" in figures["segm"] and 0 <= figures["segm"]["AP"] <= 100
