"""Sinusoidal positions against a loop over pixels and channels."""

import math

import pytest
import torch

from queryseg.layers import sine_position_encoding


@pytest.mark.parametrize("offset", [0.0, -0.5])
def test_every_channel_equals_its_formula(offset: float) -> None:
    padding = torch.zeros(2, 4, 6, dtype=torch.bool)
    padding[1, 3:] = True
    padding[1, :, 4:] = True
    encoded = sine_position_encoding(padding, embed_dim=16, temperature=20.0, offset=offset)
    sizes = ((4, 6), (3, 4))
    for image, (height, width) in enumerate(sizes):
        for row in range(height):
            for column in range(width):
                for channel in range(16):
                    count, total = (row, height) if channel < 8 else (column, width)
                    angle = (count + 1 + offset) / (total + 1e-6) * 2 * math.pi
                    angle /= 20.0 ** (2 * (channel % 8 // 2) / 8)
                    expected = math.cos(angle) if channel % 2 else math.sin(angle)
                    assert encoded[image, channel, row, column] == pytest.approx(expected, abs=2e-6)


def test_width_that_four_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="embed_dim 6"):
        sine_position_encoding(torch.zeros(1, 2, 2, dtype=torch.bool), embed_dim=6)
