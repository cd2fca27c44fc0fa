"""Golden data of single parts of the official Mask Transfiner."""

import numpy as np
import torch
from torch import nn

from queryseg.mask_refinement.incoherent_targets import (
    incoherent_region,
    lossy_cells,
    lossy_pixels,
    outline_cells,
)
from queryseg.ops.quadtree import select_nodes
from queryseg.parity import ParityReport
from queryseg.projects.mask_transfiner.parity_evaluation import head_of

MASKS = 1e-4
ROUNDING = 2e-6


def compare_positions(model: nn.Module, report: ParityReport) -> None:
    """`pos_embed`: the sine code of the rows and columns of every grid."""
    pyramid = head_of(model).pyramid
    assert head_of(model).refiner is not None
    table = head_of(model).refiner.node_encoder.position_table
    sizes = (pyramid.reference_size, *pyramid.grid_sizes)
    for size, rows in zip(sizes, table.split(sizes)):
        y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        codes = torch.cat([rows[y], rows[x]], 2).permute(2, 0, 1)
        report.by_value(f"pos{size}_full", codes, ROUNDING)
        report.by_value(f"pos{size}_diag", codes.diagonal(dim1=1, dim2=2), ROUNDING)
        report.by_value(f"pos{size}_row0", codes[:, 0], ROUNDING)


def compare_incoherence(model: nn.Module, report: ParityReport) -> None:
    """`gt_incoherent`: incoherent pixels and cells of nine shapes, and equation 1."""
    for prefix in ("even_", "odd_"):
        width = int(report.golden[f"{prefix}shape"][2])
        bits = np.unpackbits(report.golden[f"{prefix}mask_bits"], axis=-1)[..., :width]
        masks = torch.as_tensor(bits > 0)
        boxes = torch.as_tensor(report.golden[f"{prefix}boxes"])
        report.exactly(f"{prefix}mask_bits", np.packbits(masks, axis=-1), role="input")
        report.exactly(f"{prefix}shape", np.array(masks.shape), role="input")
        report.by_value(f"{prefix}boxes", boxes, 0.0, role="input")
        lossy = lossy_pixels(masks)
        report.by_value(f"{prefix}incoherent", lossy, ROUNDING)
        earlier = lossy_pixels(masks, signed=True)
        report.by_value(f"{prefix}incoherent_noabs_prerelease", earlier, ROUNDING)
        index = torch.arange(len(masks))
        report.exactly(f"{prefix}roi28", lossy_cells(lossy, boxes, index, 28)[:, 0])
        report.excuse(f"{prefix}roi28_raw", "compared behind its threshold")
        report.exactly(f"{prefix}paper_eq1", incoherent_region(masks.unsqueeze(1))[:, 0])


def compare_boundaries(model: nn.Module, report: ParityReport) -> None:
    """`gt_boundary28`: the outlines that the boundary branch learns."""
    masks = torch.as_tensor(report.golden["masks"]) > 0
    report.exactly("masks", masks, role="input")
    report.exactly("contour", outline_cells(masks.unsqueeze(1))[:, 0])
    report.excuse("interior", "a weight map that the release computes and throws away")


def compare_propagation(model: nn.Module, report: ParityReport) -> None:
    """`propagation_<case>`: given labels of the nodes, put into given coarse masks."""
    head = head_of(model).eval()
    given = {name: torch.as_tensor(value) for name, value in report.golden.items()}
    for name in ("coarse_logits", "pred_classes", "incoherence", "node_labels"):
        report.by_value(name, given[name], 0.0, role="input")
    classes = given["pred_classes"].long()
    boxes = torch.arange(len(classes))
    probs = given["coarse_logits"].double()[boxes, classes].unsqueeze(1).sigmoid()
    no_references = probs[..., :0, :0] > 0
    nodes = select_nodes([no_references, *head._regions([given["incoherence"].double()], probs)])
    report.exactly("n_per_box", nodes.lengths)
    labels = given["node_labels"].double()
    masks = head.propagation(probs, nodes, labels, nodes.counts.sum(0).tolist())
    report.by_value("pred_masks", masks, MASKS)
