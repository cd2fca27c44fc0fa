"""The online tracker of MaskTrack R-CNN: a memory of objects that each frame is compared with."""

import logging

import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor

from queryseg.projects.queryinst.track_head import match_logits

_logger = logging.getLogger(__name__)


class OnlineTracker:
    """Gives detections the identities of the objects they show, frame by frame.

    Detection i fits object j of the memory as well as

        log softmax(x_i . m_j) + a ln(s_i) + b IoU(box_i, box_j) + c [class_i = class_j]

    and a new object with a product and an IoU of 0 and the class term c. Each takes the best. Of
    several detections that take the same object the best one gets it; the others are dropped from
    the frame. An object keeps the class it was first seen with; its box is that of its last
    detection, its features follow the `momentum`, and it is remembered for the whole video.

    Args:
        weight_score: a.
        weight_iou: b.
        weight_class: c.
        max_objects: of more objects, those not seen for longest are forgotten, which is logged.
            None forgets none, as in MaskTrack R-CNN.
        momentum: share of its old features that an object keeps when it is found again; a frame in
            which it is half covered then changes them less. With 0, as in MaskTrack R-CNN, they are
            those of its last detection.

    Raises:
        ValueError: a momentum outside [0, 1).
    """

    def __init__(
        self,
        *,
        weight_score: float = 1.0,
        weight_iou: float = 2.0,
        weight_class: float = 10.0,
        max_objects: int | None = 1000,
        momentum: float = 0.0,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum}: it must lie in [0, 1)")
        self.weight_score = weight_score
        self.weight_iou = weight_iou
        self.weight_class = weight_class
        self.max_objects = max_objects
        self.momentum = momentum
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new video starts."""
        self.num_tracks = 0
        self.num_forgotten = 0
        self._frame = 0
        self._memory: Instances | None = None

    @property
    def num_remembered(self) -> int:
        """How many objects the memory holds."""
        return 0 if self._memory is None else len(self._memory)

    def __call__(self, detections: Instances) -> Instances:
        """Track the detections of the next frame.

        Args:
            detections: with `pred_boxes`, `scores`, `pred_classes` and `track_feats` (N, D).

        Returns:
            Those that were not dropped, in their order, with `pred_track_ids` (N,) int64, numbers
            from 0 in the order of first sight.
        """
        places = self._assign(detections)
        kept = places >= 0
        detections, places = detections[kept], places[kept]
        detections.pred_track_ids = self._remember(detections, places)
        self._frame += 1
        self._forget()
        return detections

    def fit(self, detections: Instances) -> Tensor:
        """(N, 1 + M) how well each detection fits a new object and those of the memory."""
        memory = self._memory
        assert memory is not None
        logits = match_logits(detections.track_feats, memory.track_feats)
        overlaps = pairwise_iou(detections.pred_boxes, memory.pred_boxes)
        same_class = detections.pred_classes[:, None] == memory.pred_classes
        fit = logits.log_softmax(dim=1)
        fit = fit + self.weight_score * detections.scores.log()[:, None]
        fit[:, 0] += self.weight_class
        fit[:, 1:] += self.weight_iou * overlaps + self.weight_class * same_class
        return fit

    def _assign(self, detections: Instances) -> Tensor:
        """Place in the memory of each detection, one beyond its end if new, -1 if dropped."""
        count = len(detections)
        places = torch.full((count,), self.num_remembered, device=detections.scores.device)
        if not count or not self.num_remembered:
            return places
        best, choice = self.fit(detections).max(dim=1)
        taken: set[int] = set()
        for index in best.argsort(descending=True, stable=True).tolist():
            place = int(choice[index]) - 1
            if place < 0:
                continue
            places[index] = -1 if place in taken else place
            taken.add(place)
        return places

    def _remember(self, detections: Instances, places: Tensor) -> Tensor:
        """Put detections into the memory; returns their track ids."""
        seen = Instances(
            (0, 0),
            track_feats=detections.track_feats,
            pred_boxes=detections.pred_boxes,
            pred_classes=detections.pred_classes,
            track_ids=places,
            last_seen=torch.full_like(places, self._frame),
        )
        is_new = places >= self.num_remembered
        if self._memory is not None:
            memory, old = self._memory, places[~is_new]
            memory.track_feats[old] = memory.track_feats[old].lerp(
                seen.track_feats[~is_new], 1 - self.momentum
            )
            memory.pred_boxes.tensor[old] = seen.pred_boxes.tensor[~is_new]
            memory.last_seen[old] = self._frame
            seen.track_ids[~is_new] = memory.track_ids[old]
        fresh = int(is_new.sum())
        numbers = torch.arange(self.num_tracks, self.num_tracks + fresh, device=places.device)
        seen.track_ids[is_new] = numbers
        self.num_tracks += fresh
        new = _copied(seen[is_new])
        self._memory = new if self._memory is None else Instances.cat([self._memory, new])
        return seen.track_ids

    def _forget(self) -> None:
        excess = 0 if self.max_objects is None else self.num_remembered - self.max_objects
        if excess <= 0 or self._memory is None:
            return
        if not self.num_forgotten:
            _logger.warning(
                "more than %d objects in one video: those not seen for longest are forgotten and "
                "get new identities if they come back (max_objects of the tracker)",
                self.max_objects,
            )
        self.num_forgotten += excess
        oldest = self._memory.last_seen.argsort(stable=True)
        self._memory = self._memory[oldest[excess:].sort().values]


def _copied(instances: Instances) -> Instances:
    """The same, in memory of its own: what is remembered must not hold on to whole frames."""
    return Instances(
        (0, 0),
        track_feats=instances.track_feats.clone(),
        pred_boxes=Boxes(instances.pred_boxes.tensor.clone()),
        pred_classes=instances.pred_classes.clone(),
        track_ids=instances.track_ids.clone(),
        last_seen=instances.last_seen.clone(),
    )
