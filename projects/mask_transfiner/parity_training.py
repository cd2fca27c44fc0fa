"""One golden training step of the official mask head."""

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from torch import Tensor, nn

from queryseg.data.object_masks import ObjectMasks
from queryseg.mask_refinement.criterion import RefinementCriterion
from queryseg.mask_refinement.incoherent_targets import outline_cells
from queryseg.mask_refinement.mask_head import QuadtreeMaskHead
from queryseg.mask_refinement.node_sampler import NodeSampler
from queryseg.mask_refinement.rois import RoIs
from queryseg.parity import ParityReport
from queryseg.projects.mask_transfiner.parity_evaluation import (
    VALUES,
    head_of,
    in_float32,
    recipe_features,
)

IMAGE_SIZES = ((190, 250), (180, 256))
POLYGONS = (
    (
        (20, 20, 120, 30, 110, 130, 40, 150, 15, 80),
        (150, 40, 240, 35, 230, 170, 160, 160),
    ),
    ((60, 20, 200, 25, 190, 100, 120, 60, 70, 150),),
)
CLASSES = ((3, 17), (42,))
PROPOSALS = (
    ((0, 18, 18, 122, 148), (0, 10, 25, 115, 140), (1, 148, 30, 244, 172), (1, 155, 50, 236, 150)),
    ((0, 58, 18, 204, 152), (0, 70, 30, 190, 140), (0, 62, 22, 80, 45)),
)


class RecordingCriterion(RefinementCriterion):
    """Keeps what the losses are computed from."""

    def __init__(self, criterion: RefinementCriterion) -> None:
        self.__dict__.update(criterion.__dict__)
        self.seen: dict[str, Tensor] = {}

    def mask_loss(self, mask_logits: Tensor, masks: Tensor) -> Tensor:
        self.seen.update(mask_logits=mask_logits, mask_target=masks)
        return super().mask_loss(mask_logits, masks)

    def boundary_loss(self, boundary_logits: Tensor, masks: Tensor) -> Tensor:
        self.seen.update(bound_logits=boundary_logits, bound_target=outline_cells(masks))
        return super().boundary_loss(boundary_logits, masks)

    def semantic_loss(self, logits: Tensor, foreground: Tensor) -> Tensor:
        self.seen.update(semantic_logits=logits, semantic_target=foreground)
        return super().semantic_loss(logits, foreground)

    def uncertain_loss(self, logits: Sequence[Tensor], regions: Sequence[Tensor]) -> Tensor:
        self.seen.update(incoherence_pred=logits[0].sigmoid(), incoherence_gt=regions[0])
        return super().uncertain_loss(logits, regions)

    def refine_loss(self, labels: Tensor, truth: Tensor, is_reference: Tensor) -> Tensor:
        self.seen.update(refine_pred=labels, refine_gt=truth)
        return super().refine_loss(labels, truth, is_reference)


class GoldenPermutations:
    """Draws the cells that the permutations of a bundle stand for.

    Args:
        concatenated: all permutations, box by box and in each box level by level.
        lengths: of each.
        num_levels: levels of a box.
    """

    def __init__(self, concatenated: np.ndarray, lengths: np.ndarray, num_levels: int = 3) -> None:
        parts = np.split(concatenated, np.cumsum(lengths)[:-1])
        self.permutations = [torch.as_tensor(part) for part in parts]
        self.num_levels = num_levels
        self.level = 0
        self.lengths = np.zeros(len(lengths), dtype=np.int64)

    def __call__(self, mask: Tensor, count: int) -> Tensor:
        """See `random_cells`."""
        rows = []
        for box, cells in enumerate(mask):
            number = box * self.num_levels + self.level
            there = cells.nonzero().squeeze(1)
            self.lengths[number] = len(there)
            order = self.permutations[number]
            order = order.repeat(-(-count // len(order)))[:count]
            rows.append(there[order.clamp(max=len(there) - 1)])
        self.level += 1
        return torch.stack(rows)


def compare_training(model: nn.Module, report: ParityReport) -> None:
    """`train_losses`: what every loss of one step is computed from."""
    head, dtype = head_of(in_float32(model, report)), torch.float32
    draw = prepare(head, report)
    features = recipe_features(192, 256, 2, 30.0, dtype)
    criterion = RecordingCriterion(head.criterion)
    head.criterion = criterion
    instances = training_instances(dtype)
    rois = RoIs.from_images([x.proposal_boxes.tensor for x in instances])
    head.losses([features[name] for name in head.in_features], rois, instances)
    seen = {name: value.detach() for name, value in criterion.seen.items()}
    for size in (14, 28):
        report.exactly(f"gt{size}", crops(instances, size))
    for size in (56, 112):
        report.exactly(f"gt{size}_bits", np.packbits(crops(instances, size).numpy()))
    report.exactly("perm_len", draw.lengths)
    report.by_value("perm_concat", report.golden["perm_concat"], 0.0, role="input")
    for name, value in seen.items():
        stored = np.asarray(report.golden.get(name, 0))
        value = value.reshape(stored.shape) if value.numel() == stored.size else value
        scale = max(1.0, float(np.abs(stored).max()))
        report.by_value(name, value, VALUES * scale)


def prepare(head: QuadtreeMaskHead, report: ParityReport) -> GoldenPermutations:
    """Training mode without dropout, and the nodes of the golden run."""
    head.train()
    for module in head.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0  # type: ignore[assignment]
    draw = GoldenPermutations(report.golden["perm_concat"], report.golden["perm_len"])
    assert isinstance(head.sampler, NodeSampler)
    head.sampler.draw = draw
    return draw


def training_instances(dtype: torch.dtype) -> list[Instances]:
    """The proposals of the recipe with their ground truth."""
    images = []
    for size, polygons, classes, proposals in zip(IMAGE_SIZES, POLYGONS, CLASSES, PROPOSALS):
        parts = [[np.array(one, dtype=np.float64)] for one in polygons]
        drawn = BitMasks.from_polygon_masks(PolygonMasks(parts), *size)
        index = torch.tensor([proposal[0] for proposal in proposals])
        boxes = torch.tensor([proposal[1:] for proposal in proposals], dtype=dtype)
        images.append(
            Instances(
                size,
                proposal_boxes=Boxes(boxes),
                gt_classes=torch.tensor(classes)[index],
                gt_masks=ObjectMasks(drawn.tensor, parts)[index],
            )
        )
    return images


def crops(instances: Sequence[Instances], size: int) -> Tensor:
    """(N, size, size) bool: the masks inside the proposals."""
    return torch.cat([x.gt_masks.crop_and_resize(x.proposal_boxes.tensor, size) for x in instances])
