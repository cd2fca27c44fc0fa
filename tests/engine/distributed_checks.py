"""What the processes of `test_engine_distributed` do; spawned ones import it by name."""

from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from tiny_training import tiny_config

from queryseg.engine import LazyTrainer


class Gradients(HookBase):
    """Keeps the gradients of every step, and which images this process saw."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def after_step(self) -> None:
        grads = [parameter.grad.flatten() for parameter in self.trainer.model.parameters()]
        self.steps.append(torch.cat(grads))


def gradients(output_dir: Path) -> torch.Tensor:
    trainer = LazyTrainer(tiny_config(output_dir, total_batch_size=4, max_iter=3, accumulate=2))
    hook = Gradients()
    trainer.register_hooks([hook])
    trainer.train()
    return torch.stack(hook.steps)


def stopped_and_resumed(output_dir: Path) -> list[int]:
    """First iterations of a run of 6, of one that ends after 4, and of its continuation."""
    starts = []
    overrides = ("model.dropout=0.3", "model.noise=0.5")
    settings: dict[str, Any] = {"checkpointer": {"period": 2, "max_to_keep": 9}, "max_iter": 6}
    for name, resume in (("whole", False), ("stopped", False), ("stopped", True)):
        trainer = LazyTrainer(tiny_config(output_dir / name, *overrides, **settings))
        trainer.resume_or_load(resume)
        trainer.max_iter = 4 if name == "stopped" and not resume else 6
        trainer.train()
        starts.append(trainer.start_iter)
    return starts


def non_finite_message(output_dir: Path) -> str:
    override = "dataloader.train.mapper.broken_image=105"
    trainer = LazyTrainer(tiny_config(output_dir, override, total_batch_size=2, max_iter=50))
    try:
        trainer.train()
    except FloatingPointError as error:
        return str(error)
    return "nothing was raised"


def all_checks(output_dir: Path) -> None:
    """Run in every process; each writes what it found."""
    torch.set_num_threads(1)
    found = {
        "gradients": gradients(output_dir / "gradients"),
        "message": non_finite_message(output_dir / "broken"),
        "starts": stopped_and_resumed(output_dir),
    }
    torch.save(found, output_dir / f"found_{comm.get_rank()}.pt")
