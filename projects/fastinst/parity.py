"""What the golden bundles of the official FastInst hold, and how each array is compared."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from detectron2.structures import BitMasks, Instances
from torch import Tensor, nn

from queryseg.losses import PointSampler
from queryseg.matching import Assignment
from queryseg.parity import Bundle, ParityReport, align_instances, block_image, noise_image
from queryseg.projects.fastinst.convert import LAYOUTS
from queryseg.projects.fastinst.decoder import Decoded
from queryseg.projects.fastinst.model import FastInst

FEATURES = 3e-4
"""Backbone maps: values reach 30."""
ACTIVATIONS = 3e-5
LOGITS = 2e-5
MASK_LOGITS = 3e-4
SCORES = 4e-5
AREA_PIXELS = 8
LOSS_RATIO = 2e-4
GRADIENT_RATIO = 2e-3
GRADIENT_SUM_RATIO = 5e-2
"""Of the norm: sums cancel, and the float32 golden sums are 9e-3 norms away from float64 ones."""


@dataclass
class Recording:
    """What passed through the parts of a model during one forward.

    Args:
        features: backbone maps by name.
        pyramid: pixel decoder maps, finest first.
        decoded: the decoder's result.
        attend_masks: of every call of a decoder layer, in order.
        query_matches: results of the query matcher's calls.
        pixel_matches: results of the pixel matcher's calls.
    """

    features: dict[str, Tensor] = field(default_factory=dict)
    pyramid: list[Tensor] = field(default_factory=list)
    decoded: Decoded | None = None
    attend_masks: list[Tensor] = field(default_factory=list)
    query_matches: list[Assignment] = field(default_factory=list)
    pixel_matches: list[Assignment] = field(default_factory=list)


@contextmanager
def recorded(model: FastInst) -> Iterator[Recording]:
    """Record what the parts of a model hand on."""
    recording = Recording()

    def keep_decoded(module: nn.Module, inputs: Any, output: Decoded) -> None:
        recording.decoded = output

    def on(module: nn.Module, keep: Any) -> Any:
        return module.register_forward_hook(lambda _, __, output: keep(output))

    activation_matcher = model.criterion.activation_loss.matcher
    handles = [
        on(model.backbone, recording.features.update),
        on(model.pixel_decoder, recording.pyramid.extend),
        model.decoder.register_forward_hook(keep_decoded),
        on(model.criterion.matcher, recording.query_matches.extend),
        on(activation_matcher, recording.pixel_matches.append),
    ]
    for layer in model.decoder.layers:
        handles.append(
            layer.register_forward_pre_hook(
                lambda _, inputs: recording.attend_masks.append(inputs[4])
            )
        )
    try:
        yield recording
    finally:
        for handle in handles:
            handle.remove()


# ---------------------------------------------------------------------------------- evaluation


def compare_evaluation(model: nn.Module, report: ParityReport, *, block: int) -> None:
    """`golden_eval_<tag>`: every stage of inference, on one image and on a batch of two.

    `block` is the side of the blocks that the first image of the batch is made of.
    """
    assert isinstance(model, FastInst)
    runs = {
        "one": [(noise_image(192, 256), (240, 320))],
        "two": [
            (image, size) for image, size in zip(_batch_images(block), [(240, 320), (150, 203)])
        ],
    }
    model.eval()
    for name, images in runs.items():
        inputs = [{"image": image, "height": h, "width": w} for image, (h, w) in images]
        with torch.no_grad(), recorded(model) as recording:
            results = model(inputs)
        _compare_maps(report, f"{name}/", recording)
        order = _compare_selection(report, f"{name}/", recording)
        _compare_decoder(report, f"{name}/", recording, order, every=10 if name == "two" else 1)
        for index, result in enumerate(results):
            _compare_instances(report, f"{name}/inst{index}_", result["instances"])


def _batch_images(block: int) -> list[Tensor]:
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
    golden = report.golden[f"{prefix}selected_indices"]
    order = np.stack([_positions(row, wanted) for row, wanted in zip(ours, golden)])
    aligned = np.take_along_axis(ours, order, axis=1)
    report.exactly(f"{prefix}selected_indices", aligned, dump=ours.astype(np.int32))
    return order


def _positions(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted value stands in `values`; its own place where it does not occur."""
    where = {value: index for index, value in enumerate(values.tolist())}
    return np.array([where.get(value, index) for index, value in enumerate(wanted.tolist())])


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


# ------------------------------------------------------------------------------------- instances


def _compare_instances(report: ParityReport, prefix: str, instances: Instances) -> None:
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


# -------------------------------------------------------------------------------------- training


def compare_training(model: nn.Module, report: ParityReport, *, block: int) -> None:
    """`golden_train_<tag>`: losses, matchings, guidance masks and gradients of one step.

    `block` is the side of the blocks that the first image of the batch is made of.
    """
    assert isinstance(model, FastInst)
    for module in model.modules():
        if isinstance(module, PointSampler):
            module.draw = repeated_points
    model.train()
    model.zero_grad()
    seeds = {"seed": (11, 12), "count": (5, 3)}
    inputs = [
        _training_input(image, index, seed, count)
        for index, (image, seed, count) in enumerate(zip(_batch_images(block), *seeds.values()))
    ]
    with recorded(model) as recording:
        losses = model(inputs)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    for name, loss in losses.items():
        report.by_ratio(f"loss/{name}", loss.double().detach(), LOSS_RATIO)
    report.by_ratio("loss_total", total.double().detach(), LOSS_RATIO)
    _compare_matches(report, recording)
    _compare_gradients(report, model)


def repeated_points(rows: int, num_points: int, device: torch.device) -> Tensor:
    """Points that depend on their number only, the same in every row."""
    seed = zlib.crc32(f"rand:{num_points}".encode()) & 0x7FFFFFFF
    points = np.random.RandomState(seed).rand(num_points, 2).astype(np.float32)
    return torch.as_tensor(points, device=device).expand(rows, -1, -1)


def _training_input(image: Tensor, index: int, seed: int, count: int) -> dict[str, Any]:
    height, width = image.shape[-2:]
    masks, labels = _rectangles(index, seed, height, width, count)
    instances = Instances(
        (height, width),
        gt_classes=torch.as_tensor(labels),
        gt_masks=BitMasks(torch.as_tensor(masks)),
    )
    return {"image": image, "height": height, "width": width, "instances": instances}


def _rectangles(
    index: int, seed: int, height: int, width: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Random rectangles and one mask that no query can be guided by."""
    generator = np.random.RandomState(seed)
    masks = np.zeros((count + 1, height, width), dtype=bool)
    for mask in masks[:count]:
        y0, x0 = generator.randint(0, height - 24), generator.randint(0, width - 24)
        tall, wide = generator.randint(16, height // 2), generator.randint(16, width // 2)
        mask[y0 : y0 + tall, x0 : x0 + wide] = True
    if index == 0:
        masks[-1, 101, 99] = True
    return masks, generator.randint(0, 80, count + 1)


def _compare_matches(report: ParityReport, recording: Recording) -> None:
    """Official order: guiding, pixels, last head, heads 0 to D-1. Ours: guiding, heads 0 to D."""
    guiding, *heads = recording.query_matches
    calls = [("decoder", guiding), ("proposal", recording.pixel_matches[0])]
    calls += [("decoder", match) for match in (heads[-1], *heads[:-1])]
    for call, (kind, match) in enumerate(calls):
        for image in range(len(match.sizes)):
            pairs = torch.stack(match.of_image(image)).numpy().astype(np.int32)
            report.exactly(f"match/{call}_{kind}_img{image}", pairs)
    blocked = (~recording.attend_masks[-1][:, 0]).sum(-1).numpy().astype(np.int32)
    report.exactly("gt_attn_blocked_count", blocked)


def _compare_gradients(report: ParityReport, model: nn.Module) -> None:
    layout = LAYOUTS[0]
    gradients = {
        str(layout.to_official(name)): parameter.grad.double()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    names = [name for name in report.golden["grad_names"].tolist() if name in gradients]
    extra = [name for name in gradients if name not in names]
    report.exactly("grad_names", np.array(names + extra))
    norms = np.array([float(gradients[name].norm()) for name in names])
    sums = np.array([float(gradients[name].sum()) for name in names])
    report.by_ratio("grad_norms", norms, GRADIENT_RATIO)
    report.by_ratio("grad_sums", sums, GRADIENT_SUM_RATIO, scale=report.golden["grad_norms"])


def _bundles_of(tag: str, block: int) -> tuple[Bundle, Bundle]:
    evaluation = partial(compare_evaluation, block=block)
    training = partial(compare_training, block=block)
    return (
        Bundle(rf"golden_eval_{tag}", LAYOUTS[0], evaluation),
        Bundle(rf"golden_train_{tag}", LAYOUTS[0], training),
    )


BUNDLES = (
    *_bundles_of(r"R(50|101)_D\d+", block=48),
    *_bundles_of(r"R50-vd-dcn_D\d+", block=16),
    Bundle(r"golden_postproc", LAYOUTS[0], compare_postprocessing),
)
