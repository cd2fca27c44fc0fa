"""Every stage of golden inference of the official FastInst."""

import numpy as np
import torch
from torch import Tensor, nn

from queryseg.parity import ParityReport, block_image, noise_image
from queryseg.projects.fastinst.decoder import Decoded
from queryseg.projects.fastinst.model import FastInst
from queryseg.projects.fastinst.parity_decisions import golden_decisions, golden_order
from queryseg.projects.fastinst.parity_instances import compare_instances
from queryseg.projects.fastinst.parity_recording import Recording, recorded

FEATURES = 3e-4
"""Backbone maps: values reach 30."""
ACTIVATIONS = 3e-5
LOGITS = 2e-5
MASK_LOGITS = 3e-4


def compare_evaluation(model: nn.Module, report: ParityReport, *, block: int) -> None:
    """`golden_eval_<tag>`: every stage of inference, on one image and on a batch of two.

    `block` is the side of the blocks that the first image of the batch is made of.
    """
    assert isinstance(model, FastInst)
    runs = {
        "one": [(noise_image(192, 256), (240, 320))],
        "two": [
            (image, size) for image, size in zip(batch_images(block), [(240, 320), (150, 203)])
        ],
    }
    model.eval()
    for name, images in runs.items():
        inputs = [{"image": image, "height": h, "width": w} for image, (h, w) in images]
        decisions = golden_decisions(model, report, f"{name}/")
        with torch.no_grad(), decisions, recorded(model) as recording:
            results = model(inputs)
        _compare_maps(report, f"{name}/", recording)
        order = _compare_selection(report, f"{name}/", recording)
        _compare_decoder(report, f"{name}/", recording, order, every=10 if name == "two" else 1)
        for index, result in enumerate(results):
            compare_instances(report, f"{name}/inst{index}_", result["instances"])


def batch_images(block: int) -> list[Tensor]:
    return [block_image(192, 256, 2, block), block_image(170, 230, 4, 16)]


def _compare_maps(report: ParityReport, prefix: str, recording: Recording) -> None:
    for name, feature in recording.features.items():
        _compare_stats(report, f"{prefix}C_{name}_stats", feature, FEATURES)
        step = feature.shape[1] // 8
        report.by_value(f"{prefix}C_{name}_slice", feature[:, ::step, ::3, ::3], FEATURES)
    for level, feature in zip((3, 4, 5), recording.pyramid):
        _compare_stats(report, f"{prefix}E{level}_stats", feature, ACTIVATIONS)
        report.by_value(f"{prefix}E{level}_slice", feature[:, ::32, ::2, ::2], ACTIVATIONS)


def _compare_stats(report: ParityReport, name: str, values: Tensor, tolerance: float) -> None:
    stats = torch.stack((values.mean(), values.std(), values.min(), values.max()))
    report.by_value(name, stats, tolerance)


def _compare_selection(report: ParityReport, prefix: str, recording: Recording) -> np.ndarray:
    """Compare the picked pixels as sets; returns (B, Q), where ours holds each golden query."""
    queries = _decoded(recording).queries
    assert queries.class_logits is not None
    assert queries.score_map is not None and queries.pixel_idx is not None
    scores = queries.score_map.flatten(1)
    report.by_value(f"{prefix}proposal_cls_logits", queries.class_logits, LOGITS)
    report.by_value(f"{prefix}proposal_score_map", scores, LOGITS)
    report.exactly(f"{prefix}n_local_maxima", (scores >= 1).sum(1))
    ranked = scores.sort(dim=1, descending=True).values
    count = queries.pixel_idx.shape[1]
    report.diagnostic(f"{prefix}selection_gap", ranked[:, count - 1] - ranked[:, count])
    steps = ranked[:, :count] - ranked[:, 1 : count + 1]
    report.diagnostic(f"{prefix}min_rank_gap", steps.amin(1))
    ours = queries.pixel_idx.numpy()
    golden = report.golden.get(f"{prefix}selected_indices", ours)
    order = golden_order(ours, golden)
    aligned = np.take_along_axis(ours, order, axis=1)
    report.exactly(f"{prefix}selected_indices", aligned, dump=ours.astype(np.int32))
    return order


def _compare_decoder(
    report: ParityReport, prefix: str, recording: Recording, order: np.ndarray, every: int
) -> None:
    """Queries are compared in the golden order, `order`; `every` thins the final masks."""
    decoded = _decoded(recording)
    batch, num_queries = order.shape
    aux = np.arange(num_queries, decoded.streams[0].query_feats.shape[1])
    with_aux = np.concatenate((order, np.tile(aux, (batch, 1))), axis=1)
    images = np.arange(batch)[:, None]
    for index, attend in enumerate(recording.attend_masks):
        head = f"{prefix}head{index}_"
        blocked = (~attend[:, 0]).sum(-1).numpy().astype(np.int32)
        report.exactly(f"{head}attn_blocked_count", blocked[images, with_aux], dump=blocked)
        logits = decoded.predictions[index].mask_logits.flatten(2)
        report.exactly(f"{head}n_fallback", (logits < 0).all(-1).sum(1))
        report.diagnostic(f"{head}min_abs_logit", logits.abs().min())
    for index, prediction in enumerate(decoded.predictions):
        _compare_stats(
            report, f"{prefix}head{index}_mask_stats", prediction.mask_logits, MASK_LOGITS
        )
    for index, streams in enumerate(decoded.streams):
        query = streams.query_feats[:, :, ::16].numpy()
        pixel = streams.pixel_feats.transpose(0, 1)[::16, :, ::16]
        layer = f"{prefix}layer{index}_"
        report.by_value(
            f"{layer}query_slice",
            query[images, with_aux].transpose(1, 0, 2),
            ACTIVATIONS,
            dump=query.transpose(1, 0, 2),
        )
        report.by_value(f"{layer}pixel_slice", pixel, ACTIVATIONS)
    assert decoded.final.class_logits is not None
    class_logits = decoded.final.class_logits.numpy()
    masks = decoded.final.mask_logits.numpy()
    report.by_value(f"{prefix}pred_logits", class_logits[images, order], LOGITS, dump=class_logits)
    report.by_value(
        f"{prefix}pred_masks",
        masks[images, order][:, ::every],
        MASK_LOGITS,
        dump=masks[:, ::every],
    )


def _decoded(recording: Recording) -> Decoded:
    assert recording.decoded is not None
    return recording.decoded
