"""Sine encoding of boxes."""

import math

import pytest
import torch

from queryseg.layers import sine_box_encoding


def test_encoding_is_that_of_a_loop() -> None:
    boxes = torch.rand(2, 3, 4, dtype=torch.float64)
    encoded = sine_box_encoding(boxes, embed_dim=32)
    assert encoded.shape == (2, 3, 32)
    for coordinate in range(4):
        for pair in range(4):
            angle = boxes[1, 2, coordinate].item() * 2 * math.pi / 10000 ** (2 * pair / 8)
            place = coordinate * 8 + 2 * pair
            assert encoded[1, 2, place].item() == pytest.approx(math.sin(angle), abs=1e-12)
            assert encoded[1, 2, place + 1].item() == pytest.approx(math.cos(angle), abs=1e-12)


def test_widths_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="embed_dim 20 is not a multiple of 8"):
        sine_box_encoding(torch.rand(2, 4), embed_dim=20)
