"""Layers of `detectron2.layers`: norms, convolutions, NMS, ROIAlign, losses."""

import itertools
import threading

import numpy as np
import pytest
import torch
from detectron2.layers import (
    CNNBlockBase,
    Conv2d,
    DeformConv,
    DepthwiseSeparableConv2d,
    FrozenBatchNorm2d,
    ModulatedDeformConv,
    NaiveSyncBatchNorm,
    ROIAlign,
    ShapeSpec,
    batched_nms,
    cat,
    ciou_loss,
    cross_entropy,
    diou_loss,
    get_norm,
    nonzero_tuple,
    shapes_to_tensor,
)
from torch import nn
from torch.nn import functional as F

STATISTICS = ("weight", "bias", "running_mean", "running_var")


def randomize(norm: nn.Module) -> nn.Module:
    for name in STATISTICS:
        getattr(norm, name).data.uniform_(0.5, 1.5)
    return norm


def float64_norm(x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    weight, bias, mean, var = (getattr(norm, n).double()[:, None, None] for n in STATISTICS)
    return (x.double() - mean) / torch.sqrt(var + norm.eps) * weight + bias


@pytest.mark.parametrize("requires_grad", [False, True])
def test_frozen_batch_norm_normalises_with_its_constants(requires_grad):
    norm = randomize(FrozenBatchNorm2d(5, eps=1e-3))
    x = torch.randn(2, 5, 4, 3, requires_grad=requires_grad)
    y = norm(x)
    assert y.requires_grad == requires_grad
    torch.testing.assert_close(y.double(), float64_norm(x, norm), rtol=1e-6, atol=1e-6)
    assert norm(x.half()).dtype == torch.float16
    assert not list(norm.parameters())


def test_fresh_frozen_batch_norm_is_the_identity():
    norm = FrozenBatchNorm2d(3)
    np.testing.assert_array_equal(norm.running_var, np.float32(1) - np.float32(1e-5))
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(norm(x), x, rtol=1e-6, atol=0)
    assert repr(norm) == "FrozenBatchNorm2d(num_features=3, eps=1e-05)"
    assert list(norm.state_dict()) == list(STATISTICS)


def test_frozen_batch_norm_takes_weights_without_statistics_from_unversioned_files_only():
    folded = {"weight": torch.tensor([2.0]), "bias": torch.tensor([3.0])}
    norm = FrozenBatchNorm2d(1)
    norm.load_state_dict(dict(folded))
    assert [getattr(norm, n).item() for n in STATISTICS] == [2.0, 3.0, 0.0, 1.0]

    versioned = FrozenBatchNorm2d(1).state_dict()
    del versioned["running_mean"], versioned["running_var"]
    with pytest.raises(RuntimeError, match="running_mean"):
        norm.load_state_dict(versioned)


def test_freezing_a_block_keeps_its_output_and_stops_its_training():
    class Block(CNNBlockBase):
        def __init__(self) -> None:
            super().__init__(3, 4, 1)
            self.conv = Conv2d(3, 4, 3, norm=randomize(get_norm("BN", 4)))
            self.plain = randomize(nn.BatchNorm2d(4, eps=1e-2, affine=True))

        def forward(self, x):
            return self.plain(self.conv(x))

    block = Block().eval()
    x = torch.randn(2, 3, 6, 6)
    expected = block(x).detach()
    assert block.freeze() is block
    assert isinstance(block.conv.norm, FrozenBatchNorm2d) and block.plain.eps == 1e-2
    assert not any(p.requires_grad for p in block.parameters())
    torch.testing.assert_close(block.train()(x), expected, rtol=1e-5, atol=1e-6)
    assert "plain.num_batches_tracked" in block.state_dict()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("BN", nn.BatchNorm2d),
        ("SyncBN", nn.SyncBatchNorm),
        ("nnSyncBN", nn.SyncBatchNorm),
        ("FrozenBN", FrozenBatchNorm2d),
        ("GN", nn.GroupNorm),
        ("naiveSyncBN", NaiveSyncBatchNorm),
        ("naiveSyncBN_N", NaiveSyncBatchNorm),
        (nn.InstanceNorm2d, nn.InstanceNorm2d),
    ],
)
def test_get_norm_makes_the_layer_a_config_names(name, kind):
    assert type(get_norm(name, 64)) is kind


def test_get_norm_knows_no_norm_and_refuses_unknown_ones():
    assert get_norm("", 8) is None and get_norm(None, 8) is None
    assert get_norm("GN", 64).num_groups == 32
    with pytest.raises(KeyError):
        get_norm("BatchNorm", 8)


def test_channel_layer_norm_is_torch_layer_norm_over_channels():
    norm = get_norm("LN", 6)
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.uniform_(-1, 1)
    x = torch.randn(2, 6, 3, 4)
    expected = F.layer_norm(x.permute(0, 2, 3, 1), (6,), norm.weight, norm.bias, eps=1e-6)
    torch.testing.assert_close(norm(x), expected.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-6)


def two_process_batch_norm(monkeypatch, stats_mode, batches):
    """Outputs of two "processes", threads that meet in the all-reduce, and the first one's norm."""
    barrier, parts = threading.Barrier(2, timeout=30), {}

    def all_reduce(x):
        parts[threading.current_thread().name] = x
        barrier.wait()
        return parts["0"] + parts["1"]

    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("detectron2.layers.batch_norm.differentiable_all_reduce", all_reduce)
    norms = [NaiveSyncBatchNorm(3, stats_mode=stats_mode) for _ in batches]
    outputs: dict[str, torch.Tensor] = {}

    def run(rank):
        outputs[rank] = norms[int(rank)](batches[int(rank)])

    threads = [threading.Thread(target=run, args=(rank,), name=rank) for rank in ("0", "1")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return torch.cat([outputs["0"], outputs["1"]]), norms[0]


@pytest.mark.parametrize(("stats_mode", "sizes"), [("", (2, 2)), ("N", (1, 3)), ("N", (0, 4))])
def test_naive_sync_batch_norm_equals_batch_norm_of_the_joint_batch(monkeypatch, stats_mode, sizes):
    joint = torch.randn(4, 3, 5, 5, requires_grad=True)
    output, norm = two_process_batch_norm(monkeypatch, stats_mode, joint.split(sizes))
    reference = nn.BatchNorm2d(3)
    expected = reference(joint)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
    cotangent = torch.randn_like(expected)
    got = torch.autograd.grad(output, joint, cotangent)[0]
    torch.testing.assert_close(
        got, torch.autograd.grad(expected, joint, cotangent)[0], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(norm.running_mean, reference.running_mean, rtol=1e-5, atol=1e-6)


def test_naive_sync_batch_norm_of_no_images_keeps_its_statistics(monkeypatch):
    empty = torch.zeros(0, 3, 5, 5, requires_grad=True)
    output, norm = two_process_batch_norm(monkeypatch, "N", [empty, empty])
    assert output.shape == (0, 3, 5, 5) and output.requires_grad
    assert not norm.running_mean.any() and (norm.running_var == 1).all()


def test_conv_applies_the_norm_before_the_activation_and_takes_empty_batches():
    norm, conv = randomize(FrozenBatchNorm2d(4)), Conv2d(3, 4, 3, stride=2, padding=1)
    fused = Conv2d(3, 4, 3, stride=2, padding=1, norm=norm, activation=F.relu)
    fused.load_state_dict(conv.state_dict(), strict=False)
    x = torch.randn(2, 3, 7, 8)
    torch.testing.assert_close(fused(x), F.relu(norm(conv(x))))
    assert fused(x[:0]).shape == (0, 4, 4, 4)
    assert [k for k in fused.state_dict() if "." in k] == [f"norm.{n}" for n in STATISTICS]


def test_depthwise_separable_conv_is_two_convolutions():
    module = DepthwiseSeparableConv2d(4, 6, norm1="BN", activation2=F.relu)
    assert module.depthwise.bias is None and module.pointwise.bias is not None
    assert module.depthwise.weight.shape == (4, 1, 3, 3)
    x = torch.randn(2, 4, 5, 5)
    middle = F.batch_norm(
        F.conv2d(x, module.depthwise.weight, padding=1, groups=4), None, None, training=True
    )
    expected = F.conv2d(middle, module.pointwise.weight, module.pointwise.bias).relu()
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)


def test_cross_entropy_of_nothing_is_zero_with_a_gradient():
    logits = torch.randn(0, 5, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0 and logits.grad.shape == (0, 5)
    logits, target = torch.randn(6, 5), torch.arange(6) % 5
    expected = -(logits.double().log_softmax(1)[range(6), target]).mean().item()
    assert cross_entropy(logits, target).item() == pytest.approx(expected, rel=1e-6)


def test_small_helpers():
    single = torch.zeros(2)
    assert cat([single]) is single
    with pytest.raises(AssertionError):
        cat(single)
    assert shapes_to_tensor([3, 4]).tolist() == [3, 4]
    rows, columns = nonzero_tuple(torch.tensor([[0, 1], [1, 0]]))
    assert rows.tolist() == [0, 1] and columns.tolist() == [1, 0]
    assert ShapeSpec(channels=4) == ShapeSpec(4, None, None, None)


def greedy_nms(boxes, scores, groups, threshold):
    kept: list[int] = []
    for i in np.argsort(-scores):
        x1, y1, x2, y2 = boxes[i]
        for j in kept:
            a1, b1, a2, b2 = boxes[j]
            inter = max(min(x2, a2) - max(x1, a1), 0) * max(min(y2, b2) - max(y1, b1), 0)
            union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - inter
            if groups[i] == groups[j] and inter / union > threshold:
                break
        else:
            kept.append(int(i))
    return kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_batched_nms_suppresses_within_groups_only(dtype):
    corners = torch.randint(0, 60, (80, 2)).float()
    boxes = torch.cat([corners, corners + torch.randint(4, 40, (80, 2))], dim=1)
    scores, groups = torch.rand(80), torch.randint(0, 3, (80,))
    keep = batched_nms(boxes.to(dtype), scores, groups, 0.5)
    expected = greedy_nms(boxes.double().numpy(), scores.numpy(), groups.numpy(), 0.5)
    assert 10 < len(expected) < 80
    assert keep.tolist() == expected


def test_aligned_roi_align_reads_a_ramp_at_pixel_centres_of_plus_one_half():
    ramp = torch.arange(20.0)[None, :].expand(16, 20) + 100 * torch.arange(16.0)[:, None]
    pool = ROIAlign((2, 4), 0.5, 0)
    box = torch.tensor([[0, 4.0, 8.0, 20.0, 16.0]])
    # On the map: x in [2, 10], y in [4, 8]; a cell's mean is the ramp at its centre, less 1/2.
    x, y = np.array([3.0, 5.0, 7.0, 9.0]) - 0.5, np.array([5.0, 7.0]) - 0.5
    got = pool(ramp[None, None], box)
    np.testing.assert_allclose(got[0, 0], x + 100 * y[:, None], rtol=1e-6)
    text = "ROIAlign(output_size=(2, 4), spatial_scale=0.5, sampling_ratio=0, aligned=True)"
    assert repr(pool) == text
    assert pool(ramp.half()[None, None], box).dtype == torch.float16
    with pytest.raises(AssertionError):
        pool(ramp[None, None], box[:, 1:])


def test_distance_and_shape_losses_follow_their_formulas():
    a, b = (
        torch.tensor([[0.0, 0, 4, 2], [5, 5, 6, 7]]),
        torch.tensor([[1.0, 0, 3, 2], [0, 0, 2, 2]]),
    )
    iou = np.array([0.5, 0.0])
    distance = np.array([0.0, (5.5 - 1) ** 2 + (6 - 1) ** 2]) / [4**2 + 2**2, 6**2 + 7**2]
    diou = 1 - iou + distance
    v = 4 / np.pi**2 * (np.arctan([1.0, 1.0]) - np.arctan([2.0, 0.5])) ** 2
    ciou = diou + v**2 / (1 - iou + v)
    np.testing.assert_allclose(diou_loss(a, b), diou, rtol=1e-5)
    np.testing.assert_allclose(ciou_loss(a, b), ciou, rtol=1e-5)
    assert ciou_loss(a, b, reduction="mean").item() == pytest.approx(ciou.mean(), rel=1e-5)
    assert diou_loss(a, b, reduction="sum").item() == pytest.approx(diou.sum(), rel=1e-5)
    assert diou_loss(a[:0], b[:0], reduction="mean").item() == 0
    with pytest.raises(AssertionError, match="bad box"):
        diou_loss(-a, b)


def sample(image, y, x):
    """Bilinear value of (H, W) at pixel (y, x), zero outside."""
    y0, x0 = int(np.floor(y)), int(np.floor(x))
    total = 0.0
    for yy, xx in itertools.product((y0, y0 + 1), (x0, x0 + 1)):
        if 0 <= yy < image.shape[0] and 0 <= xx < image.shape[1]:
            total += image[yy, xx] * (1 - abs(y - yy)) * (1 - abs(x - xx))
    return total


def deform_conv_loop(x, offset, mask, conv):
    """One image: (C, H, W), offsets (2 * groups * 9, H', W'), mask or None; in float64."""
    weight = conv.weight.detach().double().numpy()
    channels_out, per_group = weight.shape[:2]
    in_group = x.shape[0] // conv.deformable_groups
    output = np.zeros((channels_out, *offset.shape[1:]))
    (stride, pad, dilation) = (conv.stride, conv.padding, conv.dilation)
    stride, pad, dilation = (v[0] if isinstance(v, tuple) else v for v in (stride, pad, dilation))
    for o, c, k in itertools.product(range(channels_out), range(per_group), range(9)):
        source = (o * conv.groups // channels_out) * per_group + c
        point = (source // in_group) * 9 + k
        for i, j in np.ndindex(offset.shape[1:]):
            y = i * stride - pad + k // 3 * dilation + offset[2 * point, i, j]
            z = j * stride - pad + k % 3 * dilation + offset[2 * point + 1, i, j]
            value = weight[o, c, k // 3, k % 3] * sample(x[source], y, z)
            output[o, i, j] += value if mask is None else value * mask[point, i, j]
    return output


@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), (2, 2, 2)])
def test_deformable_convolution_samples_at_its_offsets(stride, dilation, groups):
    conv = DeformConv(4, 2, 3, stride=stride, padding=dilation, dilation=dilation, groups=groups)
    x, size = torch.randn(2, 4, 6, 5), (-(-6 // stride), -(-5 // stride))
    offset = torch.randn(2, 18, *size) * 1.5
    got = conv(x, offset).detach()
    loop = [deform_conv_loop(a.numpy(), b.numpy(), None, conv) for a, b in zip(x, offset)]
    np.testing.assert_allclose(got, np.stack(loop), rtol=1e-4, atol=1e-4)
    assert conv(x[:0], offset[:0]).shape == (0, 2, *size)
    assert "deformable_groups=1, bias=False" in repr(conv)


def test_modulated_deformable_convolution_weighs_its_points(detectron2_kind):
    if detectron2_kind == "real":
        pytest.skip("the real package has no modulated deformable convolution on a CPU")
    norm = randomize(FrozenBatchNorm2d(2))
    conv = ModulatedDeformConv(
        4, 2, 3, padding=1, deformable_groups=2, norm=norm, activation=torch.tanh
    )
    conv.bias.data.uniform_(-1, 1)
    x, offset, mask = torch.randn(1, 4, 4, 5), torch.randn(1, 36, 4, 5), torch.rand(1, 18, 4, 5)
    offset.requires_grad_()
    got = conv(x, offset, mask)
    plain = deform_conv_loop(x[0].numpy(), offset[0].detach().numpy(), mask[0].numpy(), conv)
    plain = torch.from_numpy(plain) + conv.bias.double()[:, None, None]
    expected = torch.tanh(float64_norm(plain, norm))
    np.testing.assert_allclose(got[0].detach(), expected.detach(), rtol=1e-4, atol=1e-4)
    got.sum().backward()
    assert all(g.abs().sum() > 0 for g in (offset.grad, conv.weight.grad, conv.bias.grad))
    with pytest.raises(RuntimeError, match="offset must have 36 channels"):
        conv(x, offset[:, :18], mask)
    with pytest.raises(RuntimeError, match="mask must have 18 channels"):
        conv(x, offset, mask[:, :9])
