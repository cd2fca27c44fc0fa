"""Mask NMS against a plain loop."""

import numpy as np
import pytest
import torch

from queryseg.postprocess import mask_nms as module
from queryseg.postprocess.mask_nms import mask_nms, pairwise_mask_iou


def random_masks(count: int, seed: int) -> torch.Tensor:
    random = np.random.RandomState(seed)
    masks = np.zeros((count, 37, 53), bool)
    for mask in masks:
        y, x = random.randint(0, 20, 2)
        mask[y : y + random.randint(5, 17), x : x + random.randint(5, 30)] = True
    return torch.from_numpy(masks)


def plain_iou(a: np.ndarray, b: np.ndarray) -> float:
    union = np.logical_or(a, b).sum()
    return np.logical_and(a, b).sum() / union if union else 0.0


@pytest.mark.parametrize("pixels_at_once", [100, 1 << 16])
def test_overlaps_are_those_of_a_plain_loop(pixels_at_once: int, monkeypatch):
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", pixels_at_once)
    masks = random_masks(12, seed=0)
    masks[3] = False
    ious = pairwise_mask_iou(masks)
    for i in range(12):
        for j in range(12):
            assert ious[i, j].item() == pytest.approx(plain_iou(masks[i].numpy(), masks[j].numpy()))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_iou", [0.1, 0.3, 0.6])
def test_the_kept_masks_are_those_of_a_plain_loop(seed: int, max_iou: float):
    masks, scores = random_masks(25, seed), torch.rand(25)
    kept: list[int] = []
    for i in np.argsort(-scores.numpy(), kind="stable"):
        if all(plain_iou(masks[i].numpy(), masks[k].numpy()) <= max_iou for k in kept):
            kept.append(int(i))
    assert mask_nms(masks, scores, max_iou).tolist() == kept
    assert 1 < len(kept) < 25


def test_equal_scores_keep_the_first_and_no_masks_give_none():
    masks = random_masks(1, seed=1).repeat(3, 1, 1)
    assert mask_nms(masks, torch.ones(3), 0.5).tolist() == [0]
    assert mask_nms(masks[:0], torch.ones(0), 0.5).tolist() == []
