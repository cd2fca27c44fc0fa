"""Position codes against a loop in float64."""

import math

import pytest
import torch

from queryseg.projects.soit.position_codes import position_codes

MAP_SIZE, VALID = (5, 7), [(5, 7), (4, 3)]


@pytest.mark.parametrize("channels", [4, 8, 16])
@pytest.mark.parametrize("kind", ["relative", "absolute", "none"])
def test_codes_are_sines_of_the_distance_to_the_centre(channels: int, kind: str) -> None:
    centres = torch.tensor([[0.3, 0.8], [0.5, 0.1]])
    codes = position_codes(
        centres,
        torch.tensor(VALID),
        MAP_SIZE,
        channels=channels,
        kind=kind,  # type: ignore[arg-type]
    )
    half = channels // 2
    for axis, code in enumerate(codes):  # rows, then columns
        assert code.shape == (2, MAP_SIZE[axis] + 1, half)
        for instance, valid in enumerate(VALID):
            centre = float(centres[instance, 1 - axis]) if kind == "relative" else 0.0
            for place in range(MAP_SIZE[axis] + 1):
                count = min(place + 1, valid[axis]) if place < MAP_SIZE[axis] else 0
                for channel in range(half):
                    angle = (count / (valid[axis] + 1e-6) - centre) * 2 * math.pi
                    angle /= 10000 ** (2 * (channel // 2) / half)
                    wave = math.cos(angle) if channel % 2 else math.sin(angle)
                    expected = 0.0 if kind == "none" else wave
                    assert float(code[instance, place, channel]) == pytest.approx(
                        expected, abs=2e-6
                    )


def test_centres_get_no_gradient_and_half_precision_becomes_float32() -> None:
    centres = torch.rand(2, 2, dtype=torch.bfloat16, requires_grad=True)
    for code in position_codes(centres, torch.tensor(VALID), MAP_SIZE, channels=8):
        assert not code.requires_grad and code.dtype == torch.float32
