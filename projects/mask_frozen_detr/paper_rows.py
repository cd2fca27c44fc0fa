"""The rows of the paper's tables that state FLOPs and parameters, as arguments of the builder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NO_EXTRAS: dict[str, Any] = {"neck": "raw", "mask_scoring": False, "box_to_object": False}
NO_QUERIES = {**NO_EXTRAS, "query_ffn": False}
IMAGE_ONLY = {**NO_QUERIES, "region_layers": 0, "hidden_dim": 256}
WIDE = {**NO_QUERIES, "hidden_dim": 256}
FIVE_SCALES = {"neck": "none", "num_levels": 5}


@dataclass(frozen=True)
class PaperRow:
    """One row.

    Args:
        table: number of the table in the paper.
        name: what the row is about.
        gflops: what the paper states, in 10^9.
        millions: parameters it states, in 10^6.
        changes: arguments of `build_mask_network` that differ from its defaults.
        num_boxes: masks of one image.
    """

    table: int
    name: str
    gflops: float
    millions: float
    changes: Mapping[str, Any] = field(default_factory=dict)
    num_boxes: int = 100


def _depths(
    table: int, base: Mapping[str, Any], part: str, block: str, figures: list[tuple[float, float]]
) -> list[PaperRow]:
    """One to three layers of a block."""
    return [
        PaperRow(
            table,
            f"{part} {block} x{layers}",
            gflops,
            millions,
            {**base, f"{part}_block": block, f"{part}_layers": layers},
        )
        for layers, (gflops, millions) in enumerate(figures, start=1)
    ]


def _focalnet(image: int, region: int, gflops: float, millions: float) -> PaperRow:
    changes = {**FIVE_SCALES, "image_layers": image, "region_layers": region}
    name = f"5 scales, 300 boxes, image x{image}, region x{region}"
    return PaperRow(16, name, gflops, millions, changes, num_boxes=300)


ROWS = (
    *_depths(2, IMAGE_ONLY, "image", "deformable", [(14.71, 0.76), (28.88, 1.51), (43.04, 2.27)]),
    *_depths(2, IMAGE_ONLY, "image", "swin", [(14.20, 0.80), (27.86, 1.59), (41.51, 2.39)]),
    *_depths(2, IMAGE_ONLY, "image", "convnext", [(8.12, 0.54), (15.70, 1.08), (23.27, 1.62)]),
    *_depths(3, WIDE, "region", "deformable", [(98.55, 2.46), (168.23, 3.14), (237.91, 3.82)]),
    *_depths(3, WIDE, "region", "swin", [(112.84, 2.31), (196.81, 3.10), (280.77, 3.89)]),
    *_depths(3, WIDE, "region", "convnext", [(83.90, 2.05), (138.92, 2.59), (193.95, 3.13)]),
    PaperRow(4, "d = 256", 168.23, 3.14, WIDE),
    PaperRow(4, "d = 128", 66.60, 2.07, NO_QUERIES),
    PaperRow(4, "d = 96", 50.76, 1.87, {**NO_QUERIES, "hidden_dim": 96}),
    PaperRow(4, "d = 64", 39.11, 1.71, {**NO_QUERIES, "hidden_dim": 64}),
    PaperRow(5, "FFN", 66.63, 2.33, NO_EXTRAS),
    PaperRow(5, "FFN + O2O", 66.65, 2.53, {**NO_EXTRAS, "object_to_object": True}),
    PaperRow(5, "FFN + B2O", 73.40, 2.46, {**NO_EXTRAS, "box_to_object": True}),
    PaperRow(12, "neck", 77.07, 2.53, {"mask_scoring": False}),
    PaperRow(12, "neck, mask scoring", 82.09, 3.26),
    PaperRow(10, "RoI 16", 46.09, 2.97, {"roi_size": 16}),
    PaperRow(10, "RoI 32", 82.09, 3.26),
    PaperRow(10, "RoI 64", 225.86, 4.44, {"roi_size": 64}),
    PaperRow(14, "Segmenter head", 83.77, 3.29, {"head": "segmenter"}),
    _focalnet(2, 2, 262.27, 3.24),
    _focalnet(2, 3, 326.65, 3.62),
    _focalnet(3, 2, 320.44, 4.03),
    _focalnet(3, 3, 384.82, 4.40),
    _focalnet(4, 4, 507.38, 5.56),
)
