"""Every stage of golden inference of the official SOIT."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from queryseg.deformable_detr import TokenPyramid
from queryseg.deformable_detr.proposals import anchor_logits
from queryseg.parity import ParityReport
from queryseg.projects.soit.model import SOIT
from queryseg.projects.soit.parity_inputs import IMAGES
from queryseg.projects.soit.prediction import Prediction
from queryseg.projects.soit.queries import TwoStageQueries

TOLERANCE = 5e-5
"""Absolute: the release agrees with itself to 1e-5 between two runs."""
PIXELS = 1e-3
AREA_RATIO = 1e-3
AREA_SCALE = 4000
"""Pixels below which a mask may differ by four, as two ways of writing the release do."""
COMPARED_MASKS = 12


def compare_evaluation(model: nn.Module, report: ParityReport) -> None:
    """`golden_full_A` and `golden_full_B`: an image without and one with padding."""
    assert isinstance(model, SOIT)
    model.eval()
    model.resize_twice = True
    name = "A" if "input_slice" in report.golden else "B"
    image = IMAGES[name]
    images = image.on_canvas(model)
    report.by_value("input_slice", images.tensor[0, :, ::24, ::24], TOLERANCE, role="input")
    with torch.no_grad(), Recording(model) as recording:
        prediction = model.predict(images)
        height, width = image.output_size
        (result,) = model.segment(prediction, images, [{"height": height, "width": width}])
        _compare_stages(report, model, recording, prediction)
        _compare_detections(report, model, prediction, result["instances"])


class Recording:
    """Outputs of the parts of a model while it runs.

    Args:
        model: in whose parts the hooks are.
    """

    def __init__(self, model: SOIT) -> None:
        assert model.mask_branch is not None and isinstance(model.queries, TwoStageQueries)
        self.parts: dict[str, nn.Module] = {
            "neck": model.projection,
            "memory": model.encoder,
            "seg_enc": model.mask_branch.encoder.encoder,
            "proposals": model.queries.proposals,
            "proposed_tokens": model.queries.proposals.norm,
            "pos_trans": model.queries.queries.norm,
        }
        self.outputs: dict[str, Any] = {}

    def __enter__(self) -> "Recording":
        self.handles = [
            part.register_forward_hook(self._keeper(name)) for name, part in self.parts.items()
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def all_boxes(self, model: SOIT) -> Tensor:
        """(S, 4) the boxes of all tokens, which evaluation computes for the chosen ones only."""
        assert isinstance(model.queries, TwoStageQueries)
        anchors = anchor_logits(self.memory)
        return model.queries.proposals.boxes(self.outputs["proposed_tokens"], anchors)[0]

    def _keeper(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            self.outputs[name] = output
            if name == "proposals":
                self.memory: TokenPyramid = inputs[0]

        return keep


def _compare_stages(
    report: ParityReport, model: SOIT, recording: Recording, prediction: Prediction
) -> None:
    outputs, decoded = recording.outputs, prediction.decoded
    for level, feature in enumerate(outputs["neck"]):
        step = max(1, 4 >> level)
        report.by_value(f"neck{level}", feature[0, ::16, ::step, ::step], TOLERANCE)
    report.by_value("memory_rows", outputs["memory"][0, ::20], TOLERANCE)
    report.by_value("seg_enc_rows", outputs["seg_enc"][0, ::20], TOLERANCE)
    assert prediction.mask_features is not None and model.mask_branch is not None
    report.by_value("mask_feat", prediction.mask_features.maps[0].flatten(0, 1), TOLERANCE)
    _compare_proposals(report, model, recording)
    report.by_value("pos_trans_rows", outputs["pos_trans"][0, ::30], TOLERANCE)
    mask_head = model.mask_branch.heads[0]
    for layer, name, step in ((0, "0", 30), (-1, "_last", 10)):
        query_feats = decoded.query_feats[layer][0]
        report.by_value(f"hs{name}_rows", query_feats[::10], TOLERANCE)
        report.by_value(f"dyn{name}_rows", mask_head(query_feats[::step]), TOLERANCE)
    first_logits = model.class_heads[0](decoded.query_feats[0][0])
    report.by_value("cls0_rows", first_logits[::10], TOLERANCE)
    report.by_value("cls_last", prediction.class_logits[-1][0], TOLERANCE)
    report.by_value("boxes_all", torch.stack(decoded.boxes)[:, 0], TOLERANCE)


def _compare_proposals(report: ParityReport, model: SOIT, recording: Recording) -> None:
    proposals = recording.outputs["proposals"]
    report.by_value("enc_cls0", proposals.class_logits[0, :, 0], TOLERANCE)
    report.exactly("topk_idx", proposals.token_idx[0])
    report.by_value("enc_box", recording.all_boxes(model), TOLERANCE)


def _compare_detections(
    report: ParityReport,
    model: SOIT,
    prediction: Prediction,
    instances: Any,
) -> None:
    """Detections are paired by query and class; their order follows from scores 1e-6 apart."""
    ours = instances.query_idx * model.num_classes + instances.pred_classes
    golden = report.golden.get("det_flat_idx", ours.numpy())
    place = _places(ours.numpy(), golden)
    report.exactly("det_flat_idx", ours.numpy()[place], dump=ours)
    report.exactly("det_labels", instances.pred_classes[place], dump=instances.pred_classes)
    boxes = torch.cat((instances.pred_boxes.tensor, instances.scores[:, None]), dim=1)
    report.by_value("det_boxes", boxes[place], PIXELS, dump=boxes)
    logits = _mask_logits(model, prediction, instances.query_idx[place])
    report.by_value("mask_logits_first12", logits[:COMPARED_MASKS], TOLERANCE)
    report.by_value("mask_logits_mean", logits.mean((1, 2)), TOLERANCE)
    report.by_value("mask_logits_std", logits.std((1, 2)), TOLERANCE)
    masks = instances.pred_masks[place].numpy()
    report.exactly("det_mask_shape", np.array(masks.shape[1:]))
    area = masks.sum((1, 2))
    scale = np.maximum(report.golden.get("det_mask_area", area), AREA_SCALE)
    report.by_ratio("det_mask_area", area, AREA_RATIO, scale=scale)
    report.mask_bits("det_masks_first12_packed", np.packbits(masks[:COMPARED_MASKS]))


def _places(ours: np.ndarray, golden: np.ndarray) -> np.ndarray:
    """Where each golden detection is in ours; our own order where the sets differ."""
    if set(ours.tolist()) != set(golden.tolist()):
        return np.arange(len(ours))
    position = {index: place for place, index in enumerate(ours.tolist())}
    return np.array([position[index] for index in golden.tolist()])


def _mask_logits(model: SOIT, prediction: Prediction, query_idx: Tensor) -> Tensor:
    assert model.mask_branch is not None and prediction.mask_features is not None
    pairs = torch.stack((torch.zeros_like(query_idx), query_idx), dim=1)
    return model.mask_branch.final_masks(prediction.mask_features, prediction.decoded, pairs)
