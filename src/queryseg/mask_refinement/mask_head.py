"""Coarse masks, where they are wrong, and their refinement: the head on the boxes of a detector."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.structures import Instances
from torch import Tensor, nn
from torch.nn import functional as F

from queryseg.mask_refinement.box_targets import BoxTargets
from queryseg.mask_refinement.build import Region
from queryseg.mask_refinement.coarse_mask_head import CoarseMaskHead, CoarseMasks
from queryseg.mask_refinement.criterion import RefinementCriterion
from queryseg.mask_refinement.node_encoder import at_nodes
from queryseg.mask_refinement.node_sampler import FullSampler, NodeSampler
from queryseg.mask_refinement.propagation import Propagation
from queryseg.mask_refinement.refiner import QuadtreeRefiner
from queryseg.mask_refinement.roi_pyramid import RoIPyramid
from queryseg.mask_refinement.rois import RoIs
from queryseg.mask_refinement.semantic_branch import SemanticBranch
from queryseg.ops.quadtree import QuadtreeNodes, select_nodes

_logger = logging.getLogger(__name__)


class QuadtreeMasks(NamedTuple):
    """Masks of N boxes, and how they came about.

    Attributes:
        masks: (N, 1, size, size) float32 probabilities.
        coarse_logits: (N, 1, m, m) before the refinement.
        incoherence: maps of probabilities (N, 1, h, h): one, or one for each level.
        nodes: of the refined boxes, which are the first ones; None without a refiner.
        labels: (T,) of the nodes.
    """

    masks: Tensor
    coarse_logits: Tensor
    incoherence: Sequence[Tensor] = ()
    nodes: QuadtreeNodes | None = None
    labels: Tensor | None = None

    @property
    def coarse_probs(self) -> Tensor:
        """(N, 1, m, m) float32."""
        return self.coarse_logits.float().sigmoid()


class QuadtreeMaskHead(nn.Module):
    """Masks of boxes, refined where they are incoherent (Mask Transfiner, section 3).

    It has the contract of Detectron2's mask heads that are given feature maps, so it sits in an
    R-CNN as it is, and on any other detector through `RefinedDetector`.

    Args:
        in_features: names of the maps, finest first.
        pyramid: the grids of a box.
        coarse_head: pooled features to coarse masks.
        detector: finds incoherent cells.
        region: chooses the cells that are refined.
        refiner: corrects their labels; None ends with the coarse masks (depth 0 of Table 5), and
            leaves the detector out, which nothing would ask or teach.
        propagation: puts the labels into the masks.
        sampler: chooses the nodes of a training step.
        criterion: the losses.
        semantic: sharpens the finest map, as in the release.
        coarse_offset: maps finer than its own that a box's coarse mask is pooled from.
        skipped_levels: levels of the tree that are not refined (Table 2), 0 the coarsest.
        max_boxes_train: most boxes of a batch that are refined in training, None: all. The release
            takes 30.
        max_boxes_test: the same in evaluation; the release takes 10, so its AP depends on it.
        nodes_of_truth: refine in training what is detected or truly incoherent, so that there is
            something to refine before the detector has learnt anything.
        align_foreground: leave out padding where the semantic branch learns; see `BoxTargets`.
    """

    def __init__(
        self,
        *,
        in_features: Sequence[str],
        pyramid: RoIPyramid,
        coarse_head: CoarseMaskHead,
        detector: nn.Module,
        region: Region,
        refiner: QuadtreeRefiner | None,
        propagation: Propagation,
        sampler: NodeSampler | FullSampler,
        criterion: RefinementCriterion,
        semantic: SemanticBranch | None = None,
        coarse_offset: int = 0,
        skipped_levels: Sequence[int] = (),
        max_boxes_train: int | None = None,
        max_boxes_test: int | None = None,
        nodes_of_truth: bool = False,
        align_foreground: bool = True,
    ) -> None:
        super().__init__()
        self.in_features = tuple(in_features)
        self.pyramid = pyramid
        self.coarse_head = coarse_head
        self.detector = None if refiner is None else detector
        self.region = region
        self.refiner = refiner
        self.propagation = propagation
        self.sampler = sampler
        self.criterion = criterion
        self.semantic = semantic
        self.coarse_offset = coarse_offset
        self.skipped_levels = frozenset(skipped_levels)
        self.max_boxes_train = max_boxes_train
        self.max_boxes_test = max_boxes_test
        self.nodes_of_truth = nodes_of_truth
        self.align_foreground = align_foreground

    @property
    def num_classes(self) -> int:
        """K of the coarse masks."""
        return self.coarse_head.num_classes

    def forward(self, features: Mapping[str, Tensor], instances: list[Instances]) -> Any:
        """Learn from boxes, or give them masks.

        Args:
            features: maps (B, C, H_l, W_l) by name.
            instances: of each of the B images; in training `proposal_boxes`, `gt_classes` and
                `gt_masks`, in evaluation `pred_boxes` and `pred_classes`.

        Returns:
            In training the weighted losses; in evaluation the instances, with `pred_masks`
            (n, 1, size, size) probabilities at the finest resolution.
        """
        maps = [features[name] for name in self.in_features]
        maps = [one.contiguous(memory_format=torch.channels_last) for one in maps]
        boxes = [x.proposal_boxes if self.training else x.pred_boxes for x in instances]
        rois = RoIs.from_images([one.tensor for one in boxes])
        if self.training:
            return self.losses(maps, rois, instances)
        classes = torch.cat([x.pred_classes for x in instances])
        masks = self.segment(maps, rois, classes).masks
        for image, own in zip(instances, masks.split([len(x) for x in instances])):
            image.pred_masks = own
        return instances

    def segment(
        self, maps: list[Tensor], rois: RoIs, classes: Tensor, *, reference_labels: bool = False
    ) -> QuadtreeMasks:
        """Masks of boxes, and how they came about.

        Args:
            maps: L maps (B, C, H_l, W_l), channels last.
            rois: N boxes.
            classes: (N,) int64.
            reference_labels: compute the labels of reference tokens too, which no mask needs.
        """
        fine, _ = self._sharpen(maps)
        coarse = self._coarse(maps, rois)
        logits = self._own_class(coarse, classes)
        probs = logits.float().sigmoid()
        if self.refiner is None or self.detector is None:
            return QuadtreeMasks(probs, logits)
        incoherence = [one.sigmoid() for one in self.detector(coarse, probs, fine, rois)]
        limit = self._limit(len(rois))
        nodes = self._select([one[:limit] for one in incoherence], probs[:limit])
        counts = nodes.counts.tolist()  # the last time that the host waits for the device
        labels = self.refiner(
            fine,
            maps,
            rois[:limit],
            nodes,
            self._cues(probs[:limit]),
            lengths=[sum(row) for row in counts],
            num_references=self.pyramid.reference_size**2,
            with_references=reference_labels,
        )
        totals = [sum(column) for column in zip(*counts)] or [0] * len(nodes.grid_sizes)
        masks = self.propagation(probs[:limit], nodes, labels, totals)
        masks = torch.cat([masks, _resize(probs[limit:], masks.shape[-1])])
        return QuadtreeMasks(masks, logits, incoherence, nodes, labels)

    def _select(self, incoherence: list[Tensor], probs: Tensor) -> QuadtreeNodes:
        """All nodes, behind the reference tokens of their box."""
        size = self.pyramid.reference_size
        references = probs.new_ones(len(probs), 1, size, size, dtype=torch.bool)
        return select_nodes([references, *self._regions(incoherence, probs)])

    def losses(
        self, maps: list[Tensor], rois: RoIs, instances: Sequence[Instances]
    ) -> dict[str, Tensor]:
        """Weighted losses of foreground boxes.

        Args:
            maps: L maps (B, C, H_l, W_l), channels last.
            rois: N boxes.
            instances: of each of the B images, with `gt_classes` and `gt_masks`.
        """
        targets = BoxTargets(instances, maps[0].device)
        criterion = self.criterion
        fine, semantic = self._sharpen(maps)
        losses: dict[str, Tensor] = {}
        if self.semantic is not None and semantic is not None:
            height, width = maps[0].shape[-2:]
            foreground = targets.foreground((height, width), self._padded(maps))
            losses["loss_semantic"] = criterion.semantic_loss(
                self.semantic.classifier(semantic), foreground
            )
        if not len(rois):
            return {**losses, **self._empty_losses()}
        coarse = self._coarse(maps, rois)
        logits = self._own_class(coarse, torch.cat([x.gt_classes for x in instances]))
        truth = targets.cropped(logits.shape[-1])
        losses["loss_mask"] = criterion.mask_loss(logits, truth)
        if coarse.boundary_logits is not None:
            losses["loss_bound"] = criterion.boundary_loss(coarse.boundary_logits, truth)
        if self.refiner is None or self.detector is None:
            return losses
        probs = logits.detach().float().sigmoid()
        incoherence = self.detector(coarse, probs, fine, rois)
        regions = criterion.incoherence(targets, [one.shape[-1] for one in incoherence])
        losses["loss_mask_uncertain"] = criterion.uncertain_loss(incoherence, regions)
        losses["loss_mask_refine"] = self._refine_loss(
            maps, fine, rois, probs, incoherence, regions, targets
        )
        return losses

    def _refine_loss(
        self,
        maps: list[Tensor],
        fine: list[Tensor],
        rois: RoIs,
        probs: Tensor,
        incoherence: list[Tensor],
        regions: list[Tensor],
        targets: BoxTargets,
    ) -> Tensor:
        assert self.refiner is not None
        limit = self._limit(len(rois))
        found = [one[:limit].detach().sigmoid() for one in incoherence]
        if self.nodes_of_truth:
            found = [
                torch.maximum(one, region[:limit].float()) for one, region in zip(found, regions)
            ]
        chosen, nodes = self.sampler(
            self._regions(found, probs[:limit]), self.pyramid.reference_size
        )
        labels = self.refiner(
            fine,
            maps,
            rois[chosen],
            nodes,
            self._cues(probs[chosen]),
            lengths=nodes.lengths.tolist(),
            num_references=self.pyramid.reference_size**2,
            with_references=self.criterion.reference_labels,
        )
        sizes = (self.pyramid.reference_size, *self.pyramid.grid_sizes)
        expected = at_nodes([targets.cropped(size, chosen) for size in sizes if size], nodes)
        loss = self.criterion.refine_loss(labels, expected, nodes.level == 0)
        return loss if len(labels) else loss + _zero(self.refiner)

    def _sharpen(self, maps: list[Tensor]) -> tuple[list[Tensor], Tensor | None]:
        return (maps, None) if self.semantic is None else self.semantic(maps)

    def _coarse(self, maps: list[Tensor], rois: RoIs) -> CoarseMasks:
        size = self.coarse_head.pooled_size
        return self.coarse_head(self.pyramid.pool(maps, rois, size, self.coarse_offset))

    def _own_class(self, coarse: CoarseMasks, classes: Tensor) -> Tensor:
        """(N, 1, m, m) logits of the class of each box."""
        logits = coarse.mask_logits
        if logits.shape[1] == 1:
            return logits
        return logits[torch.arange(len(classes), device=classes.device), classes].unsqueeze(1)

    def _regions(self, incoherence: Sequence[Tensor], probs: Tensor) -> list[Tensor]:
        masks = self.region(incoherence, probs, self.pyramid.grid_sizes, self.training)
        return [
            torch.zeros_like(mask) if number in self.skipped_levels else mask
            for number, mask in enumerate(masks)
        ]

    def _cues(self, probs: Tensor) -> list[Tensor]:
        """The coarse masks at the resolution of every grid, references first."""
        return [_resize(probs, s) for s in (self.pyramid.reference_size, *self.pyramid.grid_sizes)]

    def _limit(self, count: int) -> int:
        limit = self.max_boxes_train if self.training else self.max_boxes_test
        if limit is None or count <= limit:
            return count
        name = "max_boxes_train" if self.training else "max_boxes_test"
        _logger.log(
            logging.DEBUG if name in _SAID else logging.WARNING,
            "%d of %d boxes of the batch keep their coarse masks: %s is %d (the release's limit); "
            "set it to null to refine all. Later batches are reported at debug level.",
            count - limit,
            count,
            name,
            limit,
        )
        _SAID.add(name)
        return limit

    def _padded(self, maps: Sequence[Tensor]) -> tuple[int, int] | None:
        if not self.align_foreground:
            return None
        stride = round(1 / self.pyramid.scales[0])
        return maps[0].shape[-2] * stride, maps[0].shape[-1] * stride

    def _empty_losses(self) -> dict[str, Tensor]:
        """Zeros that reach every parameter, so that processes of a group stay in step."""
        names = ["loss_mask"]
        if self.coarse_head.boundary_predictor is not None:
            names.append("loss_bound")
        if self.refiner is not None:
            names += ["loss_mask_uncertain", "loss_mask_refine"]
        return dict.fromkeys(names, _zero(self))


_SAID: set[str] = set()


def _zero(module: nn.Module) -> Tensor:
    return torch.stack([p.sum() for p in module.parameters() if p.requires_grad]).sum() * 0


def _resize(probs: Tensor, size: int) -> Tensor:
    if not size or probs.shape[-1] == size:
        return probs[..., :size, :size]
    return F.interpolate(probs, (size, size), mode="bilinear", align_corners=False)
