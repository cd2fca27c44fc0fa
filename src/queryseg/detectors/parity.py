"""The golden bundles of the official H-Deformable-DETR and DINO, and what each is compared by."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from queryseg.deformable_detr import Decoded, Proposals, refine_boxes
from queryseg.deformable_detr.proposals import anchor_logits
from queryseg.detectors.convert import DETECTOR_LAYOUTS
from queryseg.detectors.dino import DINO
from queryseg.detectors.two_stage import Encoded, TwoStageDetector
from queryseg.parity import Bundle, ParityReport, align_instances, noise_image
from queryseg.postprocess import top_classes

FEATURES = 1e-4
"""Backbone maps: values reach 20."""
ACTIVATIONS = 2e-5
SCORES = 2e-5
LOGITS = 1e-4
BOXES = 2e-5
DECIDED = 1e-5
"""Scores farther apart than this are ranked equally on every machine."""

Images = tuple[tuple[int, int, int], ...]
"""Height, width and seed of each image."""


@dataclass
class Recording:
    """What passed through the parts of a detector in one call."""

    features: dict[str, Tensor] = field(default_factory=dict)
    projected: list[Tensor] = field(default_factory=list)
    encoded: Encoded | None = None
    proposals: Proposals | None = None
    decoded: Decoded | None = None
    last_layer: Tensor | None = None


def compare_detector(
    model: nn.Module, report: ParityReport, *, images: Images, token_step: int
) -> None:
    """Every stage of detection in a batch, the golden choice of proposals put in.

    Contents are attached to proposals by rank and near-ties occur, so a free choice may swap two of
    them without being wrong; scores are compared before.
    """
    assert isinstance(model, TwoStageDetector)
    inputs = [
        {"image": noise_image(height, width, seed).flip(0), "height": height, "width": width}
        for height, width, seed in images
    ]
    golden_idx = torch.as_tensor(report.golden["topk_idx"].astype(np.int64))
    with torch.no_grad(), recorded(model.eval()) as recording, chosen(model, golden_idx) as scores:
        model(inputs)
        _compare_maps(report, recording)
        _compare_encoder(report, recording, token_step)
        _compare_proposals(report, scores[0], golden_idx)
        _compare_decoder(model, report, recording)
        if isinstance(model, DINO):
            _compare_dino(model, report, recording)
        else:
            _compare_hdetr(model, report, recording)
        for index, (height, width, _) in enumerate(images):
            _compare_results(model, report, recording, index, (height, width))
    report.exactly("seed", np.array([images[0][2]]), role="input")


@contextmanager
def recorded(model: TwoStageDetector) -> Iterator[Recording]:
    """Record what the parts of a model hand on."""
    recording = Recording()

    def keep(name: str) -> Any:
        return lambda _, __, output: setattr(recording, name, output)

    handles = [
        model.backbone.register_forward_hook(keep("features")),
        model.projection.register_forward_hook(keep("projected")),
        model.proposals.register_forward_hook(keep("proposals")),
        model.decoder.register_forward_hook(keep("decoded")),
        model.decoder.layers[-1].register_forward_hook(keep("last_layer")),
    ]
    encode = model.encode

    def keep_encoded(images: Any) -> Encoded:
        recording.encoded = encode(images)
        return recording.encoded

    model.encode = keep_encoded  # type: ignore[method-assign]
    try:
        yield recording
    finally:
        del model.encode
        for handle in handles:
            handle.remove()


@contextmanager
def chosen(model: TwoStageDetector, token_idx: Tensor) -> Iterator[list[Tensor]]:
    """Take these proposals, and give what ours would have been ranked by."""
    seen: list[Tensor] = []

    def golden_choice(scores: Tensor, num_queries: int) -> Tensor:
        seen.append(scores)
        return token_idx[:, :num_queries]

    model.proposals.select = golden_choice  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        del model.proposals.select


def _stats(values: Tensor) -> Tensor:
    return torch.stack((values.mean(), values.std(), values.abs().max(), values.abs().mean()))


def _compare_maps(report: ParityReport, recording: Recording) -> None:
    maps = list(recording.features.values())
    report.by_value("backbone_layer1_stats", _stats(maps[0]), FEATURES)
    report.by_value("backbone_layer1_slice", maps[0][:, ::16, ::8, ::8], FEATURES)
    first = 0 if "backbone_out0_stats" in report.golden else 1
    for index, feature in enumerate(maps[1:], start=first):
        report.by_value(f"backbone_out{index}_stats", _stats(feature), FEATURES)
    for index, feature in enumerate(recording.projected):
        report.by_value(f"input_proj{index}_stats", _stats(feature), ACTIVATIONS)
    report.by_value("input_proj0_slice", recording.projected[0][:, ::16, ::4, ::4], ACTIVATIONS)
    report.by_value("input_proj3_slice", recording.projected[3][:, ::16], ACTIVATIONS)


def _compare_encoder(report: ParityReport, recording: Recording, token_step: int) -> None:
    assert recording.encoded is not None
    layers = recording.encoded.layers
    report.exactly("memory_shape", np.array(layers[-1].shape))
    report.by_value("memory_stats", _stats(layers[-1]), ACTIVATIONS)
    for number, tokens in enumerate(layers, start=1):
        report.by_value(f"enc_layer{number}_stats", _stats(tokens), ACTIVATIONS)
    for name, tokens in (("memory_slice", layers[-1]), ("enc_layer4_slice", layers[3])):
        report.by_value(name, tokens[:, ::37, ::8][:, ::token_step], ACTIVATIONS)


def _compare_proposals(report: ParityReport, scores: Tensor, golden_idx: Tensor) -> None:
    for name in ("enc_class0", "enc_class_max"):
        report.by_value(name, scores, SCORES)
    count = golden_idx.shape[1]
    ranked = scores.sort(dim=1, descending=True)
    gaps = ranked.values[:, :-1] - ranked.values[:, 1:]
    report.diagnostic("topk_min_gap_inside", gaps[:, : count - 1].amin(1))
    if count < scores.shape[1]:
        report.diagnostic("topk_min_gap_at_boundary", gaps[:, count - 1])
    if report.golden["topk_min_gap_inside"].min() > DECIDED:
        report.exactly("topk_idx", ranked.indices[:, :count])
    else:
        report.exactly("topk_idx", golden_idx, role="input")


def _compare_decoder(model: TwoStageDetector, report: ParityReport, recording: Recording) -> None:
    decoded = recording.decoded
    assert decoded is not None
    step = 10 if isinstance(model, DINO) else 5
    last = decoded.query_feats[-1]
    report.by_value("hs_last", last[:, ::step], LOGITS)
    report.by_value("hs_last_stats", _stats(last), ACTIVATIONS)
    report.by_value("pred_logits", model.class_logits(len(decoded.boxes) - 1, last), LOGITS)
    report.by_value("pred_boxes", decoded.boxes[-1], BOXES)


def _compare_hdetr(model: TwoStageDetector, report: ParityReport, recording: Recording) -> None:
    decoded, encoded = recording.decoded, recording.encoded
    assert decoded is not None and encoded is not None
    report.by_value("inter_references_first", decoded.boxes[0], BOXES)
    report.by_value("inter_references_last", decoded.boxes[-1], BOXES)
    anchors = anchor_logits(encoded.memory)
    boxes = model.proposals.boxes(model.proposals.tokens(encoded.memory, anchors), anchors)
    report.by_value("enc_boxes_slice", boxes[:, ::7], BOXES)
    silent = ~anchors.isfinite().all(-1)
    counts = [silent.sum(1).numpy()]
    if encoded.memory.padding_mask is not None:
        counts.append((silent & ~encoded.memory.padding_mask).sum(1).numpy())
    # Whether tokens on padding count as invalid, too, is not on record.
    golden = report.golden.get("n_invalid_proposals", counts[0])
    fitting = [count for count in counts if np.array_equal(count, golden)]
    report.exactly("n_invalid_proposals", (fitting or counts)[0])


def _compare_dino(model: DINO, report: ParityReport, recording: Recording) -> None:
    decoded, proposals = recording.decoded, recording.proposals
    assert decoded is not None and proposals is not None
    for layer in (0, 1):
        report.by_value(f"ref{layer}", decoded.references[layer], BOXES)
    assert recording.last_layer is not None
    head = model.decoder.box_heads[-1]
    refined = refine_boxes(
        head(recording.last_layer), decoded.references[-1], model.decoder.reference_eps
    )
    report.by_value("ref6", refined, BOXES)
    report.by_value("interm_boxes", proposals.references, BOXES)
    logits = proposals.class_logits
    index = proposals.token_idx[..., None].expand(-1, -1, logits.shape[-1])
    report.by_value("interm_logits_slice", logits.gather(1, index)[:, ::11], LOGITS)


def _compare_results(
    model: TwoStageDetector,
    report: ParityReport,
    recording: Recording,
    index: int,
    size: tuple[int, int],
) -> None:
    """The highest (query, class) pairs of an image, brought into the golden order."""
    decoded, name = recording.decoded, f"post{index}_"
    assert decoded is not None
    logits = model.class_logits(len(decoded.boxes) - 1, decoded.query_feats[-1][index])
    scores, labels, query_idx = top_classes(logits.sigmoid(), model.max_detections)
    boxes = box_convert(decoded.boxes[-1][index], "cxcywh", "xyxy")[query_idx]
    boxes = boxes * boxes.new_tensor([size[1], size[0]] * 2)
    order = align_instances(
        _instances(*(report.golden[f"{name}{part}"] for part in ("scores", "labels", "boxes"))),
        _instances(scores.numpy(), labels.numpy(), boxes.numpy()),
        score_tolerance=LOGITS,
        area_tolerance=BOXES * size[0] * size[1],
    )
    report.by_value(f"{name}scores", scores[order], LOGITS)
    report.exactly(f"{name}labels", labels[order])
    report.by_value(f"{name}boxes", boxes[order], BOXES * max(size))


def _instances(scores: np.ndarray, labels: np.ndarray, boxes: np.ndarray) -> dict[str, np.ndarray]:
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return {"scores": scores, "classes": labels, "area": area}


SINGLE: Images = ((192, 256, 0),)
BEST_GAP: Images = ((192, 256, 2),)
PADDED: Images = ((192, 256, 0), (160, 224, 1))
LARGE: Images = ((480, 800, 2),)


def _bundle(name: str, images: Images, token_step: int = 1) -> Bundle:
    layout = DETECTOR_LAYOUTS[0 if name.startswith("hdetr") else 1]
    return Bundle(name, layout, partial(compare_detector, images=images, token_step=token_step))


DETECTOR_BUNDLES = (
    _bundle("hdetr_r50_single", SINGLE),
    _bundle("hdetr_r50_single_bestgap", BEST_GAP),
    _bundle("hdetr_r50_batch2_padded", PADDED, token_step=2),
    _bundle("hdetr_r50_480x800", LARGE, token_step=4),
    _bundle("dino_r50_single", SINGLE),
    _bundle("dino_r50_batch2_padded", PADDED, token_step=2),
)
