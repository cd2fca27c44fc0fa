"""The paper's tables of FLOPs and parameters beside those of our modules."""

from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from queryseg.projects.mask_frozen_detr.build import build_mask_network
from queryseg.projects.mask_frozen_detr.paper_flops import PaperFlops, paper_flops
from queryseg.projects.mask_frozen_detr.paper_rows import ROWS, PaperRow

OPTION = "mask-frozen-table"
HELP = "print the FLOPs and parameters of Mask Frozen-DETR beside those of the paper"
CHANNELS = 256
"""Of the backbone's first map and of the encoder."""


@dataclass(frozen=True)
class MeasuredRow:
    """A row of the paper and what our modules have.

    Args:
        paper: the row.
        flops: of one image, by kind.
        parameters: trainable ones.
    """

    paper: PaperRow
    flops: PaperFlops
    parameters: int

    @property
    def deviation(self) -> float:
        """Relative difference of the FLOPs."""
        return self.flops.total / (self.paper.gflops * 1e9) - 1

    @property
    def same_parameters(self) -> bool:
        """Whether the parameters are the paper's to the printed digit."""
        return f"{self.parameters / 1e6:.2f}" == f"{self.paper.millions:.2f}"


def measure(row: PaperRow) -> MeasuredRow:
    """Build the network of a row and count."""
    arguments: dict[str, Any] = {
        "num_classes": 80,
        "embed_dim": CHANNELS,
        "num_levels": 4,
        "stage1_channels": CHANNELS,
        **row.changes,
    }
    network = build_mask_network(**arguments)
    parameters = sum(p.numel() for p in network.parameters())
    flops = paper_flops(
        network,
        stage1_channels=CHANNELS,
        num_boxes=row.num_boxes,
        five_scales=arguments["num_levels"] == 5,
    )
    return MeasuredRow(row, flops, parameters)


def measured_rows() -> list[MeasuredRow]:
    """All rows of the paper."""
    return [measure(row) for row in ROWS]


def as_data() -> list[dict[str, Any]]:
    """The table for JSON."""
    return [
        {
            "table": row.paper.table,
            "row": row.paper.name,
            "paper_gflops": row.paper.gflops,
            "gflops": row.flops.total / 1e9,
            "gflops_roi_align": row.flops.roi_align / 1e9,
            "deviation": row.deviation,
            "paper_millions": row.paper.millions,
            "parameters": row.parameters,
            "same_parameters": row.same_parameters,
        }
        for row in measured_rows()
    ]


def as_text() -> str:
    """The table for people."""
    headers = (
        "table",
        "row",
        "paper G",
        "ours G",
        "difference",
        "of these RoIAlign",
        "paper M",
        "ours M",
        "to the digit",
    )
    lines = [
        (
            row.paper.table,
            row.paper.name,
            f"{row.paper.gflops:.2f}",
            f"{row.flops.total / 1e9:.2f}",
            f"{100 * row.deviation:+.2f} %",
            f"{row.flops.roi_align / 1e9:.2f}",
            f"{row.paper.millions:.2f}",
            f"{row.parameters / 1e6:.4f}",
            "yes" if row.same_parameters else "NO",
        )
        for row in measured_rows()
    ]
    table = tabulate(lines, headers, tablefmt="github", disable_numparse=True)
    return (
        f"{table}\n"
        "FLOPs of one image with 56,000 cells at stride 4 and 18,784 in the detector's levels.\n"
        "Multiply-adds, residual sums and interpolation; 31 operations a value of the map that\n"
        "RoIAlign reads are in the paper's figures for a reason unknown to us."
    )
