"""QueryInst-VIS: QueryInst that follows its instances through a video (section 3.6)."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor

from queryseg.postprocess.mask_nms import mask_nms
from queryseg.projects.queryinst.model import QueryInst
from queryseg.projects.queryinst.track_head import TrackHead
from queryseg.projects.queryinst.track_loss import TrackLoss
from queryseg.projects.queryinst.tracker import OnlineTracker


class QueryInstVIS(QueryInst):
    """QueryInst with a track head, trained on pairs of frames and run frame by frame.

    Args:
        track_head: embeds boxes.
        track_loss: compares the boxes of a key frame with the objects of a reference frame.
        tracker: follows objects in evaluation; it holds the memory of the video.
        min_score: detections below it are left out before tracking.
        nms_iou: a detection whose mask overlaps a better one by more than this is left out before
            tracking, as each would start a track of its own; 1 keeps all. Classes play no role.
        both_frames: train on both frames of a pair, each as the key frame of the other. A step then
            sees twice as many masks for the one backbone pass that both frames take anyway.
            MaskTrack R-CNN trains on the key frame and reads of the reference its true boxes alone.
        options: those of `QueryInst`. Of each query, the best class alone is a detection.
    """

    def __init__(
        self,
        *,
        track_head: TrackHead,
        track_loss: TrackLoss,
        tracker: OnlineTracker,
        min_score: float = 0.05,
        nms_iou: float = 1.0,
        both_frames: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.track_head = track_head
        self.track_loss = track_loss
        self.tracker = tracker
        self.min_score = min_score
        self.nms_iou = nms_iou
        self.both_frames = both_frames

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Train on a batch of pairs, or follow a video.

        Args:
            batched_inputs: as for `QueryInst`. In training every dict has a second one of the same
                kind under "reference", and "instances" have `gt_track_ids`. In evaluation dicts
                are frames in their order, with "frame": the video starts anew at frame 0 and with
                an image without that number.

        Returns:
            In training the weighted losses by name; in evaluation one dict a frame: "instances" as
            `QueryInst` gives them, with `pred_track_ids`.
        """
        if not self.training:
            return self.track(batched_inputs)
        references = [x["reference"] for x in batched_inputs]
        frames = [*batched_inputs, *references]
        images = self.preprocess(frames)
        pyramid = self.features(images)
        keys = frames if self.both_frames else batched_inputs
        features = [level[: len(keys)] for level in pyramid]
        predictions = self.decoder(features, images.image_sizes[: len(keys)])
        targets = self.targets(keys)
        matched = self.criterion.match(predictions, targets)
        mask_logits = self.matched_masks(features, predictions, matched, targets)
        losses = self.criterion(predictions, mask_logits, matched, targets)
        boxes = predictions[-1].boxes_xyxy_abs[matched[-1].image_idx, matched[-1].src_idx]
        masks = mask_logits[len(predictions) - 1]
        others = [*references, *batched_inputs][: len(keys)]
        losses["loss_track"] = self.track_loss(
            self.track_head(features, boxes, matched[-1].image_idx, masks.sigmoid()),
            matched[-1],
            self.track_ids(keys),
            self.embeddings_of_truth(pyramid, others, first=len(references)),
            self.track_ids(others),
        )
        return losses

    def track_ids(self, frames: Sequence[dict[str, Any]]) -> list[Tensor]:
        """Per frame (n,) int64."""
        return [x["instances"].gt_track_ids.to(self.device) for x in frames]

    def embeddings_of_truth(
        self, features: Sequence[Tensor], frames: Sequence[dict[str, Any]], first: int = 0
    ) -> Sequence[Tensor]:
        """Per frame (n, D): the embeddings of its true boxes and masks.

        Args:
            features: levels (B, C, H, W).
            frames: with their "instances".
            first: place of the first of them in the batch; behind its last comes place 0 again.
        """
        targets = self.targets(frames)
        dtype = torch.promote_types(features[0].dtype, torch.float32)  # lower ones move boxes
        boxes = targets.boxes_xyxy_abs.to(dtype)
        numbers = torch.arange(len(boxes), device=self.device)
        masks = targets.crop_masks(boxes, numbers, self.mask_branch.mask_side)
        image_idx = torch.arange(len(frames), device=self.device)
        image_idx = image_idx.repeat_interleave(torch.tensor(targets.sizes, device=self.device))
        places = (image_idx + first) % len(features[0])
        return self.track_head(features, boxes, places, masks).split(list(targets.sizes))

    def track(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Segment frames and give what is found in them the identities of the video."""
        results = self.infer(batched_inputs)
        for inputs, result in zip(batched_inputs, results):
            if inputs.get("frame", 0) == 0:
                self.tracker.reset()
            result["instances"] = self.tracker(result["instances"])
            result["instances"].remove("track_feats")
        return results

    def infer_together(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Instances of frames that share one padded size, with `track_feats` (N, D).

        Differs from QueryInst: of the best pairs of query and class, the first of each query is
        kept alone, as a query with two classes would be two tracks of one object.
        """
        images = self.preprocess(batched_inputs)
        features = self.features(images)
        predictions = self.decoder(features, images.image_sizes)
        results = []
        for index, inputs in enumerate(batched_inputs):
            detections = self.detect(features, predictions, index)
            image_idx = torch.full_like(detections.query_idx, index)
            instances = self.segment(detections, inputs)
            instances.track_feats = self.track_head(
                features, detections.boxes_xyxy_abs, image_idx, detections.mask_probs
            )
            chosen = first_of_each(instances.query_idx) & (instances.scores >= self.min_score)
            results.append({"instances": self.without_doubles(instances[chosen])})
        return results

    def without_doubles(self, instances: Instances) -> Instances:
        """Those that `nms_iou` keeps, by falling score."""
        if self.nms_iou >= 1.0:
            return instances
        return instances[mask_nms(instances.pred_masks, instances.scores, self.nms_iou)]


def first_of_each(values: Tensor) -> Tensor:
    """(N,) bool: whether a value occurs for the first time.

    >>> first_of_each(torch.tensor([3, 1, 3, 0]))
    tensor([ True,  True, False,  True])
    """
    return ~(values[:, None] == values).tril(diagonal=-1).any(dim=1)
