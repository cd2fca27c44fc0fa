"""Batch norm with fixed statistics and a trained scale."""

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone import BasicStem, ResNet
from torch.nn import functional as F

from queryseg.backbones import FixedBatchNorm


def test_statistics_act_and_stay_in_training_while_scale_and_shift_learn() -> None:
    norm = FixedBatchNorm(3).train()
    norm.running_mean.uniform_()
    norm.running_var.uniform_(0.5, 1.5)
    before = [buffer.clone() for buffer in norm.buffers()]
    x = torch.randn(4, 3, 5, 5)
    y = norm(x)
    torch.testing.assert_close(y, F.batch_norm(x, norm.running_mean, norm.running_var))
    y.square().sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(before, norm.buffers()))
    assert norm.weight.grad.abs().min() > 0 and norm.bias.grad.abs().min() > 0
    assert not norm.training


def test_frozen_stages_keep_their_parameters_untrained() -> None:
    stages = ResNet.make_default_stages(18, norm=FixedBatchNorm)
    stem = BasicStem(3, 64, norm=FixedBatchNorm)
    resnet = ResNet(stem, stages, out_features=["res2", "res3"], freeze_at=2)
    assert isinstance(resnet.stem.conv1.norm, FixedBatchNorm)
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in resnet.modules())
    trained = [name for name, p in resnet.named_parameters() if p.requires_grad]
    assert trained and all(name.startswith("res3.") for name in trained)
    assert "res3.0.conv1.norm.weight" in trained


def test_wrong_rank_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(B, C, H, W\), got \(2, 3\)"):
        FixedBatchNorm(3)(torch.randn(2, 3))
