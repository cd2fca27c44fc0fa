"""A model, data and an evaluator that train in milliseconds, as a LazyConfig."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.evaluation import DatasetEvaluator
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.nn import functional as F

from queryseg.data.loader import build_test_loader, build_train_loader
from queryseg.engine import load_config
from queryseg.engine.config import find_config

FEATURES = 6


class TinyModel(nn.Module):
    """Backbone, optional batch norm and dropout, class head; the loss also draws random numbers."""

    def __init__(
        self,
        *,
        num_classes: int = 3,
        dropout: float = 0.0,
        norm: bool = False,
        noise: float = 0.0,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.noise = noise
        self.gain = gain
        self.backbone = nn.Linear(FEATURES, 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.class_embed = nn.Linear(8, num_classes)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        device = self.class_embed.weight.device
        images = torch.stack([sample["image"] for sample in batched_inputs]).to(device)
        hidden = self.dropout(self.norm(self.backbone(images)).relu())
        class_logits = self.class_embed(hidden) * self.gain
        if not self.training:
            return [{"class": int(row.argmax()), "logits": row} for row in class_logits]
        labels = torch.tensor([sample["label"] for sample in batched_inputs], device=device)
        noise = self.noise * torch.rand_like(hidden)
        return {
            "loss_ce": F.cross_entropy(class_logits, labels),
            "loss_size": (hidden + noise).square().mean(),
        }


def fake_dicts(num: int, num_classes: int = 3) -> list[dict[str, Any]]:
    """Images of both orientations, with labels."""
    return [
        {
            "file_name": f"image_{index}.png",
            "image_id": 100 + index,
            "width": 40 if index % 3 else 20,
            "height": 30,
            "label": index % num_classes,
        }
        for index in range(num)
    ]


class FakeMapper:
    """Features that follow from the image id, plus augmentation from all three generators."""

    def __init__(self, is_train: bool = True, broken_image: int | None = None) -> None:
        self.is_train = is_train
        self.broken_image = broken_image

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(record["image_id"])
        image = torch.randn(FEATURES, generator=generator) + record["label"]
        if self.is_train:
            image = image + 0.1 * torch.randn(FEATURES) + 0.1 * float(np.random.rand())
        if record["image_id"] == self.broken_image:
            image[2] = float("nan")
        return {**record, "image": image}


class FakeEvaluator(DatasetEvaluator):
    """Accuracy as `segm/AP`; draws random numbers, as an evaluator may."""

    def __init__(self, dataset_name: str) -> None:
        self.dataset_name = dataset_name

    def reset(self) -> None:
        self.right: list[bool] = []

    def process(self, inputs: Any, outputs: Any) -> None:
        torch.rand(1), np.random.rand()
        self.right += [bool(o["class"] == i["label"]) for i, o in zip(inputs, outputs)]

    def evaluate(self) -> dict[str, dict[str, float]]:
        accuracy = 100.0 * float(np.mean(self.right))
        return {"segm": {"AP": accuracy, "AP50": float("nan"), "AP-cat": accuracy}}


def tiny_config(output_dir: Path, *overrides: str, **train: Any) -> DictConfig:
    """A whole config; keyword arguments change `train`, strings anything."""
    cosine = LazyConfig.load(str(find_config("common/schedule.py")), "cosine")
    cfg = OmegaConf.create(
        {
            "model": L(TinyModel)(num_classes=3),
            "optimizer": load_config("common/optim.py").adamw,
            "lr_multiplier": cosine(12, warmup_iters=3),
            "dataloader": {
                "train": L(build_train_loader)(
                    dataset=L(fake_dicts)(num=13),
                    mapper=L(FakeMapper)(is_train=True),
                    total_batch_size="${train.total_batch_size}",
                    num_workers=0,
                    seed="${train.seed}",
                ),
                "test": L(build_test_loader)(
                    dataset=L(fake_dicts)(num=6),
                    mapper=L(FakeMapper)(is_train=False),
                    num_workers=0,
                ),
                "evaluator": L(FakeEvaluator)(dataset_name="fake"),
            },
            "train": load_config("common/train.py").train,
        },
        flags={"allow_objects": True},
    )
    cfg.optimizer.lr = 0.01
    changes = {"max_iter": 6, "total_batch_size": 4, "eval_period": 0, "device": "cpu"} | train
    cfg.train = OmegaConf.merge(cfg.train, changes, {"output_dir": str(output_dir)})
    return LazyConfig.apply_overrides(cfg, list(overrides))
