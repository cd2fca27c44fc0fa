"""What the processes of `test_training_checks` do; spawned ones import it by name."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from known_sets import datasets_in
from tiny_configs import (
    TINY_CONFIGS,
    Losses,
    chance_by_object,
    fix_batch_norms,
    tiny_config,
)

from queryseg.engine import LazyTrainer


class Steps(Losses):
    """Keeps losses and gradients of every step; batch norms use their stored statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.gradients: list[dict[str, torch.Tensor]] = []

    def before_step(self) -> None:
        fix_batch_norms(self.trainer.model)

    def after_step(self) -> None:
        super().after_step()
        named = self.trainer.model.named_parameters()
        grads = {n.removeprefix("module."): p.grad for n, p in named if p.grad is not None}
        self.gradients.append({name: grad.clone() for name, grad in grads.items()})


def steps_without_chance(name: str, output_dir: Path, *overrides: str) -> dict[str, list[Any]]:
    """`losses` and `gradients` of a step of two images."""
    settings = ("train.max_iter=1", "train.clip_grad.enabled=false")
    with chance_by_object():
        trainer = LazyTrainer(tiny_config(name, output_dir, *settings, *overrides))
        steps = Steps()
        trainer.register_hooks([steps])
        trainer.train()
    return {"losses": steps.of_step, "gradients": steps.gradients}


def all_steps(output_dir: Path, data: Path, overrides: Mapping[str, tuple[str, ...]]) -> None:
    """Run in every process; each writes what it found, by config."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    with datasets_in(data):
        found = {
            name: steps_without_chance(name, output_dir / name, *overrides.get(name, ()))
            for name in TINY_CONFIGS
        }
    torch.save(found, output_dir / f"found_{comm.get_rank()}.pt")
