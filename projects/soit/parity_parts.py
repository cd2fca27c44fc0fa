"""Golden data of two parts of the official SOIT, which need no image."""

import torch
from torch import Tensor, nn

from queryseg.deformable_detr import TokenPyramid, cell_centres
from queryseg.parity import ParityReport
from queryseg.projects.soit.mask_loss import canvas_bce_loss, canvas_dice_loss
from queryseg.projects.soit.model import SOIT
from queryseg.projects.soit.parity_inputs import seeded
from queryseg.projects.soit.position_codes import position_codes
from queryseg.projects.soit.upsampling import aligned_upsample

MAP_SIZE, PADDED_SIZE = (25, 34), (22, 29)
"""Of the maps, and of their part that shows the image where there is padding."""
TOLERANCE = 5e-5
RATIO = 1e-4


def compare_instance_transformer(model: nn.Module, report: ParityReport) -> None:
    """`golden_iat`: six instances on a map, with and without padding, and the mask losses."""
    assert isinstance(model, SOIT) and model.mask_branch is not None
    dtype = next(model.parameters()).dtype
    count, (height, width) = 6, MAP_SIZE
    for name, valid in (("nopad", MAP_SIZE), ("pad", PADDED_SIZE)):
        feats = seeded(1, height * width, 1, 8).to(dtype).requires_grad_()
        vectors = seeded(2, count, 441).to(dtype)
        vectors[:, 256:288] *= 3
        vectors.requires_grad_()
        centres = seeded(3, count, 2, kind="rand").to(dtype)
        logits = model.mask_branch.transformer(
            feats.view(1, height, width, 8),
            vectors,
            centres,
            torch.zeros(count, dtype=torch.int64),
            torch.tensor([valid]),
        )
        (logits.flatten(1) * seeded(4, count, height * width)).sum().backward()
        report.by_value(f"{name}_logits", logits.detach(), TOLERANCE)
        _compare_gradient(report, f"{name}_grad_feat", feats.grad[:, 0])  # type: ignore[index]
        _compare_gradient(report, f"{name}_grad_params", vectors.grad)
        for instance in (0, 5):
            code = _position_map(centres[instance : instance + 1], valid)
            report.by_value(f"{name}_pe{instance}", code, TOLERANCE)
        ratios = torch.tensor([[[valid[1] / width, valid[0] / height]]])
        reference = cell_centres([MAP_SIZE], ratios, like=logits)[0, :, 0]
        report.by_value(f"{name}_ref", reference.view(height, width, 2), TOLERANCE)
        if name == "nopad":
            _compare_mask_losses(report, model, logits.detach())


def _compare_gradient(report: ParityReport, name: str, ours: Tensor | None) -> None:
    """Within a share of the largest entry: samples that cross a cell border round differently."""
    assert ours is not None
    scale = float(abs(report.golden[name]).max()) if name in report.golden else 1.0
    report.by_value(name, ours, RATIO * scale)


def _position_map(centres: Tensor, valid: tuple[int, int]) -> Tensor:
    """(H, W, 8) position code of every pixel of an instance's map."""
    rows, columns = position_codes(centres, torch.tensor([valid]), MAP_SIZE, channels=8)
    height, width = MAP_SIZE
    in_rows = (torch.arange(height) < valid[0])[:, None, None]
    in_columns = (torch.arange(width) < valid[1])[None, :, None]
    by_row = torch.where(in_columns, rows[0, :-1, None], rows[0, -1])
    by_column = torch.where(in_rows, columns[0, None, :-1], columns[0, -1])
    return torch.cat((by_row, by_column), dim=-1)


def _compare_mask_losses(report: ParityReport, model: SOIT, logits: Tensor) -> None:
    upsampled = aligned_upsample(logits)
    masks = seeded(5, len(logits), 197, 270, kind="rand") > 0.5
    targets = model.criterion.mask_loss.targets(masks, (197, 270), MAP_SIZE).to(logits.dtype)
    probs = upsampled.sigmoid()
    report.by_value("up4_first2", upsampled[:2], TOLERANCE)
    report.by_value("tgt_row0", targets[0, 0], TOLERANCE)
    report.by_value("dice", canvas_dice_loss(probs, targets), TOLERANCE)
    report.by_ratio("bce_sum", canvas_bce_loss(probs, targets).sum(), RATIO)


def compare_mask_encoder(model: nn.Module, report: ParityReport) -> None:
    """`golden_maskenc`: two maps of tokens, the second with padding."""
    assert isinstance(model, SOIT) and model.mask_branch is not None
    model.eval()
    height, width = MAP_SIZE
    dtype = next(model.parameters()).dtype
    valid = torch.tensor([MAP_SIZE, PADDED_SIZE])
    rows, columns = torch.arange(height), torch.arange(width)
    padding = (rows[:, None] >= valid[:, :1, None]) | (columns >= valid[:, 1:, None])
    memory = TokenPyramid(
        tokens=seeded(11, 2, height * width, 256).to(dtype),
        position=seeded(12, 2, height * width, 256).to(dtype),
        spatial_shapes=[MAP_SIZE],
        valid_sizes=valid[:, None],
        padding_mask=padding.flatten(1),
    )
    encoder = model.mask_branch.encoder
    kept: dict[str, Tensor] = {}
    handles = [
        part.register_forward_hook(lambda _, __, output, name=name: kept.update({name: output}))
        for name, part in (("seg_encoder", encoder.encoder), ("mask_trans", encoder.projection))
    ]
    with torch.no_grad():
        maps = encoder(memory)
    for handle in handles:
        handle.remove()
    report.by_value("seg_encoder_rows", kept["seg_encoder"].transpose(0, 1)[::50], TOLERANCE)
    report.by_value("mask_trans_rows", kept["mask_trans"].transpose(0, 1)[::50], TOLERANCE)
    report.by_value("mask_feat", maps.flatten(1, 2).transpose(0, 1), TOLERANCE)
    centres = cell_centres([MAP_SIZE], memory.valid_ratios, like=maps)
    report.by_value("ref", centres[1, ::50, 0], TOLERANCE)
    sine = model.tokens.encode(padding)[1]
    report.by_value("sinepos_img1_slice", sine[:, ::8, ::8], TOLERANCE)
