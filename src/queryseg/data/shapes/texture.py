"""Smooth texture and pixel noise, in integer arithmetic."""

import numpy as np

BYTES_PER_SAMPLE = 4
_BYTE_MEAN = 255 * BYTES_PER_SAMPLE // 2
_SUM_DEVIATION = 147.8  # of the sum of four uniform bytes


def value_noise(
    rng: np.random.RandomState, height: int, width: int, cell: int, amplitude: int
) -> np.ndarray:
    """Random lattice values, `cell` pixels apart, interpolated bilinearly.

    Returns:
        (height, width) int64 in [-amplitude, amplitude].
    """
    rows, cols = height // cell + 2, width // cell + 2
    lattice = rng.randint(-amplitude, amplitude + 1, size=(rows, cols)).astype(np.int64)
    y, fy = np.divmod(np.arange(height), cell)
    x, fx = np.divmod(np.arange(width), cell)
    along_y = lattice[y] * (cell - fy)[:, None] + lattice[y + 1] * fy[:, None]
    along_x = along_y[:, x] * (cell - fx) + along_y[:, x + 1] * fx
    return along_x // (cell * cell)


def stripes(
    rng: np.random.RandomState, height: int, width: int, period: int, amplitude: int
) -> np.ndarray:
    """Slanted two-tone stripes: (height, width) int64, each value `amplitude` or `-amplitude`."""
    slope_y, slope_x = rng.randint(-4, 5, size=2)
    position = np.arange(height)[:, None] * slope_y + np.arange(width) * max(slope_x, 1)
    return np.where(position // (2 * period) % 2 == 0, amplitude, -amplitude).astype(np.int64)


def pixel_noise(
    rng: np.random.RandomState, height: int, width: int, deviation: float
) -> np.ndarray:
    """Nearly normal noise (a sum of four uniform bytes), independent per pixel and channel.

    Returns:
        (height, width, 3) int64 with standard deviation about `deviation`.
    """
    shape = (BYTES_PER_SAMPLE, height, width, 3)
    raw = np.frombuffer(rng.bytes(int(np.prod(shape))), dtype=np.uint8).reshape(shape)
    centred = raw.sum(axis=0, dtype=np.int64) - _BYTE_MEAN
    return centred * round(deviation / _SUM_DEVIATION * 65536) // 65536
