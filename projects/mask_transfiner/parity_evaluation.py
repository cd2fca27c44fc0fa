"""Golden inference of the official Mask Transfiner: the head on given features, whole models."""

import copy
from collections.abc import Mapping

import numpy as np
import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from queryseg.mask_refinement.mask_head import QuadtreeMaskHead, QuadtreeMasks
from queryseg.mask_refinement.propagation import Propagation
from queryseg.mask_refinement.rois import RoIs
from queryseg.parity import ParityReport, noise_image

VALUES = 1e-4
"""Relative where values are large, absolute for labels and masks."""
SPREAD = 1e-3
"""Of features, relative to the deviation of the array."""
LEVELS = (2, 3, 4, 5)
STRIPE = 2


def head_of(model: nn.Module) -> QuadtreeMaskHead:
    """The mask head of a two-stage model."""
    head = model.roi_heads.mask_head  # type: ignore[union-attr]
    assert isinstance(head, QuadtreeMaskHead)
    return head


def in_float32(model: nn.Module, report: ParityReport) -> nn.Module:
    """The model in the precision of the golden run.

    The release rounds the places of RoIAlign's samples to float32. On the steep random features of
    golden data that moves pooled values by 2e-4, which float64 would show as a difference.
    """
    report.remark("compared in float32: it rounds the places of samples as the golden run did")
    return model.float()


def recipe_features(
    height: int, width: int, batch: int, amplitude: float, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The maps p2 to p5 that golden data describes by a seed for each level."""
    maps = {}
    for level in LEVELS:
        shape = (batch, 256, height // 2**level, width // 2**level)
        values = np.random.RandomState(100 + level).randn(*shape) * amplitude
        maps[f"p{level}"] = torch.as_tensor(values.astype(np.float32)).to(dtype)
    return maps


def compare_pooling(model: nn.Module, report: ParityReport) -> None:
    """`pooler_levels`: boxes on every level, under every grid."""
    head, dtype = head_of(in_float32(model, report)).eval(), torch.float32
    features = recipe_features(512, 640, 1, 1.0, dtype)
    boxes = torch.as_tensor(report.golden["boxes"]).to(dtype)
    report.by_value("boxes", boxes, 0.0, role="input")
    rois = RoIs.from_images([boxes])
    with torch.no_grad():
        pooled, semantic = _pooled(head, features, rois)
    report.exactly("level14", head.pyramid.own_levels(rois))
    report.by_value("roi14_ch0_4", pooled[0][:, :4], VALUES)
    report.by_value("roi28_ch0_2", pooled[1][:, :2], VALUES)
    report.by_value("roi56_ch0", pooled[2][:, :1], VALUES)
    report.by_value("roi112_ch0_s4", pooled[3][:, :1, ::4, ::4], VALUES)
    report.by_value("roi_mean", torch.stack([one.flatten(1).mean(1) for one in pooled]), VALUES)
    report.by_value("roi_std", torch.stack([one.flatten(1).std(1) for one in pooled]), VALUES)
    report.by_value("semantic_ch0", semantic[:, 0], VALUES)


def compare_head(model: nn.Module, report: ParityReport) -> None:
    """`head_fixed_features`: every stage from the maps to the masks."""
    head, rois, features, classes = _fixed_inputs(model, report)
    for name in ("boxes", "classes", "nimg"):
        report.by_value(name, report.golden.get(name), 0.0, role="input")
    with torch.no_grad():
        result = head.segment(
            [features[name] for name in head.in_features], rois, classes, reference_labels=True
        )
        _compare_pooled(report, head, features, rois)
        _compare_tokens(report, head, features, rois, result)
    report.exactly("level14", head.pyramid.own_levels(rois))
    _compare_counts(report, result)
    scale = float(np.abs(report.golden["coarse_logits"]).max())
    report.by_value("coarse_logits", result.coarse_logits[:, 0], VALUES * scale)
    report.by_value("incoherence", result.incoherence[0][:, 0], VALUES)
    assert result.labels is not None
    report.by_value("node_labels", result.labels, VALUES)
    report.by_value("pred_masks", result.masks[:, 0], VALUES)


def compare_demo_mode(model: nn.Module, report: ParityReport) -> None:
    """`head_demo_mode`: with the wider finest regions and the blur of the release's demo."""
    head, rois, features, classes = _fixed_inputs(model, report)
    set_demo_mode(head)
    with torch.no_grad():
        result = head.segment([features[name] for name in head.in_features], rois, classes)
    assert result.nodes is not None
    report.by_value("pred_masks_box0_2_9", result.masks[[0, 2, 9], 0], VALUES)
    report.exactly("nodes", result.nodes.counts[:, 1:].sum(1))


def set_demo_mode(head: QuadtreeMaskHead) -> None:
    """What `region.dilate_finest=true propagation.blur=true` asks for in a config."""
    head.region.dilate_finest = True  # type: ignore[attr-defined]
    head.propagation = Propagation(mode=head.propagation.mode, blur=True)


def compare_model(model: nn.Module, report: ParityReport) -> None:
    """`full_<config>`: backbone, proposals, box head and masks of three given boxes."""
    in_float32(model, report).eval()
    boxes, classes = _given_boxes(report)
    inputs = [{"image": noise_image(192, 256), "height": 192, "width": 256}]
    heads, head = model.roi_heads, head_of(model)
    with torch.no_grad():
        images = model.preprocess_image(inputs)  # type: ignore[operator]
        features = model.backbone(images.tensor)  # type: ignore[operator]
        _compare_features(report, features)
        _compare_proposals(report, model, features)
        pooled = heads.box_pooler([features[n] for n in heads.box_in_features], [Boxes(boxes)])
        scores, deltas = heads.box_predictor(heads.box_head(pooled))
        maps = [features[name] for name in head.in_features]
        result = head.segment(maps, RoIs.from_images([boxes]), classes, reference_labels=True)
    _by_spread(report, "box_scores", scores)
    _by_spread(report, "box_deltas", deltas)
    _by_spread(report, "coarse_logits", result.coarse_logits[:, 0])
    report.by_value("incoherence", result.incoherence[0][:, 0], VALUES)
    assert result.nodes is not None and result.labels is not None
    report.exactly("counts", result.nodes.counts[:, 1:])
    report.by_value("node_labels", result.labels, VALUES)
    report.by_value("pred_masks", result.masks[:, 0], VALUES)
    _compare_pasted(report, boxes, result.masks)


def _compare_pasted(report: ParityReport, boxes: Tensor, masks: Tensor) -> None:
    instances = Instances((192, 256), pred_boxes=Boxes(boxes.float()), pred_masks=masks.float())
    pasted = detector_postprocess(instances, 192, 256).pred_masks.numpy()
    golden = np.asarray(report.golden.get("pasted_bits", np.packbits(pasted)))
    # Packed mask by mask, row by row of the image, or all in one.
    layouts = (pasted.reshape(len(pasted), -1), pasted, pasted.reshape(-1))
    packed = [np.packbits(one, axis=-1) for one in layouts]
    fitting = [one for one in packed if one.shape == golden.shape]
    report.mask_bits("pasted_bits", (fitting or packed)[0])


def _given_boxes(report: ParityReport) -> tuple[Tensor, Tensor]:
    """The three boxes of a whole model: those of the bundle, or the first of the fixed ones."""
    golden = report.golden
    for name in ("boxes", "classes"):
        report.by_value(name, golden.get(name), 0.0, role="input")
    if "boxes" in golden and "classes" in golden:
        return torch.as_tensor(golden["boxes"]), torch.as_tensor(golden["classes"]).long()
    report.remark("the bundle lacks `boxes` and `classes`: the first three fixed boxes are taken")
    boxes, classes, _ = _fixed_boxes({})
    return boxes[:3], classes[:3]


def _fixed_inputs(
    model: nn.Module, report: ParityReport
) -> tuple[QuadtreeMaskHead, RoIs, dict[str, Tensor], Tensor]:
    head, dtype = head_of(in_float32(model, report)).eval(), torch.float32
    boxes, classes, counts = _fixed_boxes(report.golden)
    rois = RoIs.from_images(boxes.to(dtype).split(counts))
    features = recipe_features(192, 256, len(counts), 30.0, dtype)
    return head, rois, features, classes


FIXED_BOXES = (
    (10, 12, 60, 50),
    (30.5, 20.25, 150.75, 130.5),
    (5, 5, 250, 185),
    (100, 40, 118, 61),
    (128, 64, 240, 190),
    (60.20000076293945, 90.9000015258789, 90.0999984741211, 170.39999389648438),
    (0, 0, 255.89999389648438, 191.89999389648438),
    (12, 100, 80, 180),
    (150, 10, 250, 60),
    (70, 70, 74, 75),
    (20, 30, 200, 90),
    (33.29999923706055, 44.400001525878906, 222.1999969482422, 177.6999969482422),
)
FIXED_CLASSES = (0, 1, 5, 17, 42, 79, 3, 8, 60, 61, 2, 33)
FIXED_COUNTS = (7, 5)


def _fixed_boxes(golden: Mapping[str, np.ndarray]) -> tuple[Tensor, Tensor, list[int]]:
    """Boxes, classes and boxes of each image; a bundle may leave them out."""
    return (
        torch.as_tensor(golden.get("boxes", np.array(FIXED_BOXES, dtype=np.float32))),
        torch.as_tensor(golden.get("classes", np.array(FIXED_CLASSES))).long(),
        [int(count) for count in golden.get("nimg", np.array(FIXED_COUNTS))],
    )


def _pooled(
    head: QuadtreeMaskHead, features: Mapping[str, Tensor], rois: RoIs
) -> tuple[list[Tensor], Tensor]:
    """Dense maps of all grids, which inference never makes, and the semantic features."""
    maps = [features[name] for name in head.in_features]
    assert head.semantic is not None
    fine, semantic = head.semantic(maps)
    pyramid = head.pyramid
    pooled = [pyramid.pool(maps, rois, pyramid.reference_size)]
    for size, offset in zip(pyramid.grid_sizes, pyramid.level_offsets):
        pooled.append(pyramid.pool(fine, rois, size, offset))
    return pooled, semantic


def _compare_pooled(
    report: ParityReport, head: QuadtreeMaskHead, features: Mapping[str, Tensor], rois: RoIs
) -> None:
    pooled, semantic = _pooled(head, features, rois[:10])
    shown = [one[[0, 2, 9]] for one in pooled]
    tolerance = VALUES * 30  # the amplitude of the features
    report.by_value("roi14_box_ch0_4", shown[0][:, :4], tolerance)
    report.by_value("roi28_box_ch0_2", shown[1][:, :2], tolerance)
    report.by_value("roi56_box_ch0", shown[2][:, :1], tolerance)
    report.by_value("roi112_box_ch0_s2", shown[3][:, :1, ::STRIPE, ::STRIPE], tolerance)
    means = torch.stack([one.flatten(1).mean(1) for one in pooled])
    report.by_value("roi_mean_per_box", means, tolerance)
    stds = torch.stack([one.flatten(1).std(1) for one in pooled])
    report.by_value("roi_std_per_box", stds, tolerance)
    report.by_value("semantic_ch0_2", semantic[:, :2], tolerance)


def _compare_tokens(
    report: ParityReport,
    head: QuadtreeMaskHead,
    features: Mapping[str, Tensor],
    rois: RoIs,
    result: QuadtreeMasks,
) -> None:
    """The tokens of box 0 before and behind every layer.

    Convolutions and layers run in float64: on some processors float32 rounds as much as is allowed.
    """
    assert head.refiner is not None and head.semantic is not None and result.nodes is not None
    maps = [features[name] for name in head.in_features]
    fine, _ = copy.deepcopy(head.semantic).double()([level.double() for level in maps])
    count = int(result.nodes.lengths[0])
    nodes = type(result.nodes)(
        result.nodes.index[:count],
        result.nodes.level[:count],
        result.nodes.counts[:1],
        result.nodes.grid_sizes,
    )
    tokens, position = head.refiner.node_encoder(
        [level.float() for level in fine],
        maps,
        rois[:1],
        nodes,
        head._cues(result.coarse_probs[:1]),
    )
    report.by_value("conv_fuse_box0_ch0_16", tokens[:, :16].T, VALUES * 30)
    tokens = tokens.unsqueeze(0).double()
    position = None if position is None else position.unsqueeze(0).double()
    encoder = copy.deepcopy(head.refiner.sequence_encoder).double()
    for number, layer in enumerate(encoder.layers):  # type: ignore[union-attr, arg-type]
        tokens = layer(tokens, position, None)
        name = f"enc{number}_box0_ch0_8"
        scale = float(np.abs(report.golden.get(name, 1.0)).max())
        report.by_value(name, tokens[0, :, :8], VALUES * scale)


def _compare_counts(report: ParityReport, result: QuadtreeMasks) -> None:
    assert result.nodes is not None
    for level, name in enumerate(("n28", "n56", "n112"), start=1):
        report.exactly(name, result.nodes.counts[:, level])


def _compare_features(report: ParityReport, features: Mapping[str, Tensor]) -> None:
    for name, values in features.items():
        _by_spread(report, f"{name}_ch0_4", values[:, :4])
        for stored in report.golden:
            if stored.startswith(f"{name}_") and "mean" in stored:
                _by_spread(report, stored, values.mean((0, 2, 3)))
            elif stored.startswith(f"{name}_") and "std" in stored:
                _by_spread(report, stored, values.std((0, 2, 3)))


def _compare_proposals(report: ParityReport, model: nn.Module, features: dict[str, Tensor]) -> None:
    generator = model.proposal_generator
    maps = [features[name] for name in generator.in_features]  # type: ignore[union-attr]
    objectness, deltas = generator.rpn_head(maps)  # type: ignore[union-attr, operator]
    for level, name in ((2, "rpn_obj_p4"), (4, "rpn_obj_p6")):
        _by_spread(report, name, objectness[level])
    _by_spread(report, "rpn_deltas_p5", deltas[3])


def _by_spread(report: ParityReport, name: str, values: Tensor) -> None:
    """Within a tolerance relative to the deviation of the golden array."""
    if name in report.golden:
        spread = max(float(np.std(report.golden[name])), 1e-6)
        shape = np.asarray(report.golden[name]).shape
        if values.numel() == np.prod(shape):
            values = values.reshape(shape)
        report.by_value(name, values, SPREAD * spread)
