"""What every method promises of its training, on the tiny configs through the trainer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from known_sets import datasets_in
from tiny_configs import TINY_CONFIGS, Losses, tiny_config, write_data
from torch import nn
from training_in_two_processes import all_steps, steps_without_chance

from queryseg.engine import LazyTrainer
from queryseg.engine.processes import run_in_processes

STEPS = 4
WITHOUT_LOCAL_MEANS = {"fastinst/fastinst_tiny.py": ("model.criterion.weights.ce=0",)}
"""The release averages this loss over the queries of a process alone."""
AS_IF_IN_TWO = {"mask_transfiner/mask_transfiner_tiny.py": ("train.accumulate=2",)}
"""Detectron2's heads average over the boxes of a process alone, so over those of each image."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    write_data(root)
    return root


@pytest.fixture(autouse=True)
def _synthetic_sets(data: Path) -> Iterator[None]:
    with datasets_in(data):
        yield


def trained(
    name: str, output_dir: Path, *overrides: str, steps: int = STEPS, resume: bool = False
) -> Losses:
    half = f"train.checkpointer.period={STEPS // 2}"
    settings = (f"train.max_iter={STEPS}", half, "train.ema.enabled=true")
    trainer = LazyTrainer(tiny_config(name, output_dir, *settings, *overrides))
    trainer.resume_or_load(resume)
    trainer.max_iter = steps
    losses = Losses()
    trainer.register_hooks([losses])
    trainer.train()
    return losses


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_training_repeats_resumes_exactly_and_begins_alike_in_bfloat16(
    name: str, tmp_path: Path
) -> None:
    whole = trained(name, tmp_path / "whole")
    first = trained(name, tmp_path / "parts", steps=STEPS // 2)
    second = trained(name, tmp_path / "parts", resume=True)
    assert first.of_step + second.of_step == whole.of_step
    states = [
        torch.load(tmp_path / run / "model_final.pth", weights_only=True)
        for run in ("whole", "parts")
    ]
    averages = [state["trainer"]["hooks"]["EMAHook"]["weights"] for state in states]
    for once, again in (averages, [state["model"] for state in states]):
        assert once.keys() == again.keys()
        assert all(torch.equal(value, again[key]) for key, value in once.items())

    halved = trained(name, tmp_path / "bfloat16", "train.amp.enabled=true", "train.amp.dtype=bf16")
    assert halved.totals.isfinite().all()
    assert halved.totals[0] == pytest.approx(whole.totals[0].item(), rel=0.05)


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_a_broken_feature_stops_the_training_and_names_the_images(
    name: str, tmp_path: Path
) -> None:
    trainer = LazyTrainer(tiny_config(name, tmp_path, "train.max_iter=3"))
    convolution = next(m for m in trainer.model.modules() if isinstance(m, nn.Conv2d))

    def break_feature(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        broken = output.clone()
        broken[0, 0, 0, 0] = float("nan") if trainer.iter == 1 else broken[0, 0, 0, 0]
        return broken

    convolution.register_forward_hook(break_feature)
    with pytest.raises(FloatingPointError, match=r"iteration 1: .*images? .*\.(png|jpg)"):
        trainer.train()
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


@pytest.fixture(scope="module")
def two_processes(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output_dir = tmp_path_factory.mktemp("two_processes")
    run_in_processes(all_steps, (output_dir, data, WITHOUT_LOCAL_MEANS), num_processes=2)
    return output_dir


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_two_processes_have_the_losses_and_gradients_of_one(
    name: str, two_processes: Path, tmp_path: Path
) -> None:
    overrides = WITHOUT_LOCAL_MEANS.get(name, ()) + AS_IF_IN_TWO.get(name, ())
    expected = steps_without_chance(name, tmp_path, *overrides)
    # A cell of a mask target that is half covered may fall on either side.
    close = 1e-3 if name.startswith("queryinst/") else 1e-5
    for rank in range(2):
        found = torch.load(two_processes / f"found_{rank}.pt")[name]
        for one, two in zip(expected["losses"], found["losses"], strict=True):
            assert two == pytest.approx(one, rel=close, abs=1e-6)
        for one, two in zip(expected["gradients"], found["gradients"], strict=True):
            assert one.keys() == two.keys()
            whole, halves = (torch.cat([grad.flatten() for grad in x.values()]) for x in (one, two))
            # Points on the border of two pixels have one gradient or the other.
            assert (halves - whole).norm() <= 1e-2 * whole.norm()
