"""Golden instances and post-processing of the official FastInst."""

import numpy as np
import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from queryseg.parity import ParityReport, align_instances
from queryseg.projects.fastinst.model import FastInst

SCORES = 4e-5
AREA_PIXELS = 8


def compare_instances(report: ParityReport, prefix: str, instances: Instances) -> None:
    """Compare by class, score and area; instances are in no particular order."""
    masks = instances.pred_masks.numpy()
    ours = _described(instances)
    golden = {name: report.golden[f"{prefix}{name}"] for name in ours}
    place = align_instances(golden, ours, score_tolerance=SCORES, area_tolerance=AREA_PIXELS)
    _compare_described(report, prefix, ours, place)
    report.exactly(f"{prefix}shape", np.array(masks.shape))
    top = report.golden[f"{prefix}top8"]
    _compare_order(report, f"{prefix}top8", ours, place, top)
    bits = np.packbits(masks.reshape(len(masks), -1), axis=1)
    report.mask_bits(f"{prefix}top8_maskbits", bits[place[top]], dump=bits[: len(top)])


def _described(instances: Instances) -> dict[str, np.ndarray]:
    return {
        "scores": instances.scores.numpy(),
        "classes": instances.pred_classes.numpy().astype(np.int32),
        "area": instances.pred_masks.flatten(1).sum(1).numpy().astype(np.int32),
    }


def _compare_described(
    report: ParityReport, prefix: str, ours: dict[str, np.ndarray], place: np.ndarray
) -> None:
    report.by_value(f"{prefix}scores", ours["scores"][place], SCORES, dump=ours["scores"])
    report.exactly(f"{prefix}classes", ours["classes"][place], dump=ours["classes"])
    report.by_value(f"{prefix}area", ours["area"][place], AREA_PIXELS, dump=ours["area"])


def _compare_order(
    report: ParityReport,
    name: str,
    ours: dict[str, np.ndarray],
    place: np.ndarray,
    golden_order: np.ndarray,
) -> None:
    """An order by falling score: the k-th of ours has to score as the k-th of theirs."""
    order = np.lexsort((ours["classes"], -ours["scores"]))[: len(golden_order)]
    gaps = ours["scores"][order] - ours["scores"][place[golden_order]]
    report.deviation(name, float(np.abs(gaps).max(initial=0.0)), SCORES, dump=order)


def compare_postprocessing(model: nn.Module, report: ParityReport) -> None:
    """`golden_postproc`: scores, selection and resizing on synthetic logits."""
    assert isinstance(model, FastInst)
    class_logits, mask_logits = _synthetic_logits()
    report.by_value("pred_logits", class_logits[None], 0.0, role="input")
    report.by_value("pred_masks_low_slice", mask_logits[None, :, ::6, ::8], 0.0, role="input")
    sizes = {"full": ((192, 256), (240, 320)), "padded": ((170, 230), (150, 203))}
    for name, (image_size, output_size) in sizes.items():
        instances = model.instances_of_image(
            class_logits,
            mask_logits,
            padded_size=(192, 256),
            image_size=image_size,
            output_size=output_size,
        )
        ours = _described(instances)
        golden = {part: report.golden[f"{name}_{part}"] for part in ours}
        place = align_instances(golden, ours, score_tolerance=SCORES, area_tolerance=AREA_PIXELS)
        _compare_described(report, f"{name}_", ours, place)
        order = report.golden[f"{name}_order"]
        _compare_order(report, f"{name}_order", ours, place, order)
        bits = np.packbits(instances.pred_masks.flatten(1).numpy(), axis=1)
        report.mask_bits(f"{name}_first8_maskbits", bits[place[order[:8]]], dump=bits[:8])
        report.excuse(f"{name}_boxes_all_zero", "boxes are those of the masks here")


def _synthetic_logits() -> tuple[Tensor, Tensor]:
    generator = np.random.RandomState(7)
    class_logits = (2 * generator.randn(1, 100, 81))[0].astype(np.float32)
    mask_logits = (3 * generator.randn(1, 100, 24, 32) - 0.5)[0].astype(np.float32)
    mask_logits[5], mask_logits[6] = -4, 4
    class_logits[5, 3] = class_logits[6, 4] = 9
    return torch.as_tensor(class_logits), torch.as_tensor(mask_logits)
