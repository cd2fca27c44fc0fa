"""Masks of instances against a loop over pixels, heads and points in float64."""

import math

import pytest
import torch
from torch import Tensor

from queryseg.projects.soit.instance_transformer import InstanceTransformer
from queryseg.projects.soit.position_codes import position_codes

SIZE = (4, 5)
VALID = [(4, 5), (3, 4)]


def _naive(
    module: InstanceTransformer, feats: Tensor, vector: Tensor, centre: Tensor, image: int
) -> Tensor:
    """Logits (H, W) of one instance, from the formulas of section 3.2."""
    channels, heads, points = module.mask_channels, module.num_heads, module.num_points
    rows = heads * points
    sizes = [2 * rows * channels, 2 * rows, rows * channels, rows, channels, 1]
    w_offset, b_offset, w_attn, b_attn, w_out, b_out = vector.split(sizes)
    by_row, by_column = position_codes(
        centre[None], torch.tensor(VALID[image : image + 1]), SIZE, channels=channels
    )
    valid = VALID[image]
    logits = torch.zeros(SIZE, dtype=torch.float64)
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            code = torch.cat(
                (
                    by_row[0, row if column < valid[1] else -1],
                    by_column[0, column if row < valid[0] else -1],
                )
            )
            query = feats[image, row, column] + code
            offsets = (w_offset.view(-1, channels) @ query + b_offset).view(heads, points, 2)
            attention = (w_attn.view(-1, channels) @ query + b_attn).view(heads, points)
            attention = attention.softmax(-1)
            hidden = []
            for head in range(heads):
                part = slice(head * channels // heads, (head + 1) * channels // heads)
                total = torch.zeros(channels // heads, dtype=torch.float64)
                for point in range(points):
                    x = column + float(offsets[head, point, 0])
                    y = row + float(offsets[head, point, 1])
                    total += attention[head, point] * _sample(feats[image, ..., part], x, y, valid)
                hidden.append(total)
            read = torch.cat(hidden)
            logits[row, column] = w_out @ (read.relu() if module.relu else read) + b_out[0]
    return logits


def _sample(values: Tensor, x: float, y: float, valid: tuple[int, int]) -> Tensor:
    """Bilinear value of (H, W, D) at pixel x, y; zero outside the valid part."""
    total = torch.zeros(values.shape[-1], dtype=values.dtype)
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < valid[0] and 0 <= j < valid[1]:
                total += values[i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return total


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(
    ("channels", "heads", "points"), [(8, 4, 4), (8, 1, 2), (8, 8, 1), (16, 4, 2), (4, 4, 3)]
)
def test_masks_equal_loops(channels: int, heads: int, points: int, relu: bool) -> None:
    module = InstanceTransformer(
        mask_channels=channels, num_heads=heads, num_points=points, relu=relu
    )
    feats = torch.randn(2, *SIZE, channels, dtype=torch.float64)
    vectors = torch.randn(3, module.num_weights, dtype=torch.float64)
    centres = torch.rand(3, 2, dtype=torch.float64)
    image_idx = torch.tensor([1, 0, 1])
    logits = module(feats, vectors, centres, image_idx, torch.tensor(VALID))
    for index in range(3):
        image = int(image_idx[index])
        expected = _naive(module, feats, vectors[index], centres[index], image)
        assert torch.allclose(logits[index], expected, rtol=1e-9, atol=1e-9)


def test_heads_that_share_row_and_column_channels_work_without_relu() -> None:
    module = InstanceTransformer(mask_channels=12, num_heads=3, num_points=2, relu=False)
    feats = torch.randn(2, *SIZE, 12, dtype=torch.float64)
    vectors = torch.randn(1, module.num_weights, dtype=torch.float64)
    centres = torch.rand(1, 2, dtype=torch.float64)
    logits = module(feats, vectors, centres, torch.tensor([1]), torch.tensor(VALID))
    expected = _naive(module, feats, vectors[0], centres[0], 1)
    assert torch.allclose(logits[0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("channels", "heads", "count"),
    [(8, 1, 117), (8, 2, 225), (8, 4, 441), (8, 8, 873), (4, 4, 245), (16, 4, 833)],
)
def test_number_of_weights_is_that_of_the_tables(channels: int, heads: int, count: int) -> None:
    assert InstanceTransformer(mask_channels=channels, num_heads=heads).num_weights == count


def test_gradients_without_relu_are_those_of_finite_differences() -> None:
    module = InstanceTransformer(mask_channels=4, num_heads=2, num_points=1, relu=False)
    feats = torch.randn(1, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    vectors = torch.randn(1, module.num_weights, dtype=torch.float64, requires_grad=True)
    centres = torch.rand(1, 2, dtype=torch.float64)

    def masks(feats: Tensor, vectors: Tensor) -> Tensor:
        return module(feats, vectors, centres, torch.tensor([0]), torch.tensor([[3, 3]]))

    assert torch.autograd.gradcheck(masks, (feats, vectors), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask_channels": 6}, "mask_channels is 6"),
        ({"mask_channels": 8, "num_heads": 3}, "the 3 heads"),
        ({"position": "rel"}, "position is 'rel'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        InstanceTransformer(**options)


def test_autocast_leaves_the_masks_in_float32() -> None:
    module = InstanceTransformer()
    feats, vectors = torch.randn(1, *SIZE, 8), torch.randn(2, 441)
    arguments = (torch.rand(2, 2), torch.zeros(2, dtype=torch.int64), torch.tensor([SIZE]))
    plain = module(feats, vectors, *arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module(feats, vectors, *arguments), plain)
