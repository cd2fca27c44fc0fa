"""A PNG writer without compression: the bytes do not depend on the installed zlib."""

import struct
import zlib

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LARGEST_STORED_BLOCK = 65535


def encode_png(image: np.ndarray) -> bytes:
    """The PNG file of an RGB image, in stored (uncompressed) deflate blocks.

    Args:
        image: uint8 (H, W, 3).

    Raises:
        ValueError: another dtype or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected uint8 (H, W, 3), got {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)  # a leading 0: no row filter
    rows[:, 1:] = image.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = _stored_zlib(rows.tobytes())
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _stored_zlib(raw: bytes) -> bytes:
    parts = [b"\x78\x01"]
    for start in range(0, len(raw), _LARGEST_STORED_BLOCK):
        block = raw[start : start + _LARGEST_STORED_BLOCK]
        last = start + _LARGEST_STORED_BLOCK >= len(raw)
        parts += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    return b"".join([*parts, struct.pack(">I", zlib.adler32(raw))])
