"""Files of detectors fill the detector inside Mask Frozen-DETR; DDP leaves it alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detector_inputs import image_input
from detectron2.config import instantiate
from mask_frozen_model import small_model
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from queryseg.checkpoint import Checkpointer, load_into, open_checkpoint
from queryseg.checkpoint.contents import CheckpointContents
from queryseg.checkpoint.recognition import recognise
from queryseg.engine import load_config

GOLDEN = Path(__file__).parents[2] / "golden" / "mask_frozen_detr"


@pytest.mark.parametrize(
    ("config", "manifest"),
    [
        ("hdetr_r50", "hdetr_r50"),
        ("hdetr_swin_l", "hdetr_swin_l_n900"),
        ("dino_r50", "dino_r50_4scale"),
        ("dino_focalnet_l", "dino_focalnet_l_5scale"),
    ],
)
def test_official_names_fill_the_whole_detector(config: str, manifest: str) -> None:
    with torch.device("meta"):
        cfg = load_config(f"mask_frozen_detr/mask_frozen_detr_{config}.py")
        state = instantiate(cfg.model).state_dict()
    with np.load(GOLDEN / "official_names.npz") as stored:
        names = [str(name) for name in stored[f"{manifest}/names"]]
    file = CheckpointContents("official.pth", {name: torch.empty(0) for name in names})
    reading = recognise(file, state)
    assert reading.covers == "detector."
    detector = {name for name in state if name.startswith("detector.")}
    assert set(reading.weights) == detector


def test_a_detector_trained_here_fills_the_detector_and_nothing_else(tmp_path: Path) -> None:
    cfg = load_config("detectors/hdetr_tiny.py")
    torch.manual_seed(7)
    detector = instantiate(cfg.model)
    Checkpointer(detector, str(tmp_path)).save("model_final")
    model = small_model()
    masks = {k: v.clone() for k, v in model.mask_network.state_dict().items()}
    report = load_into(model, open_checkpoint(tmp_path / "model_final.pth"))
    assert report.covers == "detector."
    assert not report.missing and not report.unexpected
    for name, value in detector.state_dict().items():
        assert torch.equal(model.detector.state_dict()[name], value), name
    after = model.mask_network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in masks.items())


def test_ddp_holds_the_mask_network_only(tmp_path: Path) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        model, alone = small_model(), small_model()
        wrapped = DistributedDataParallel(model)
        for one in (wrapped, alone):
            torch.manual_seed(3)
            losses = one.train()([image_input(64, 96)])
            torch.stack(list(losses.values())).sum().backward()
        assert not any(module.training for module in model.detector.modules())
        names = {name for name, _ in model.named_parameters() if name.startswith("detector.")}
        assert names <= set(wrapped.parameters_to_ignore)
        for ours, theirs in zip(model.mask_network.parameters(), alone.mask_network.parameters()):
            assert ours.grad is not None and theirs.grad is not None
            torch.testing.assert_close(ours.grad, theirs.grad)
    finally:
        distributed.destroy_process_group()
