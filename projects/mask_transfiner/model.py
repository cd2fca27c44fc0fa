"""Mask Transfiner on a two-stage detector (Ke et al., CVPR 2022)."""

from typing import Any

from detectron2.modeling import GeneralizedRCNN
from torch import nn

from queryseg.data.object_masks import ObjectMasks


class MaskTransfiner(GeneralizedRCNN):
    """Detectron2's Mask R-CNN with the quadtree mask head.

    Backbone and pyramid, proposals, box head; then `QuadtreeMaskHead`, whose `segment` and `losses`
    are the story of the method: coarse masks, where they are incoherent, the nodes of the quadtree,
    their labels, and the propagation of these into the masks.

    Args:
        backbone: image to the maps p2 to p6.
        proposal_generator: the RPN.
        roi_heads: `StandardROIHeads` without a mask pooler, so that its mask head, a
            `QuadtreeMaskHead`, is given the maps.
        num_classes: K.
        pixel_mean: mean of each channel.
        pixel_std: standard deviation of each channel.
        input_format: order of the channels.
        vis_period: as in `GeneralizedRCNN`.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        proposal_generator: nn.Module,
        roi_heads: nn.Module,
        num_classes: int,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        input_format: str | None = None,
        vis_period: int = 0,
    ) -> None:
        super().__init__(
            backbone=backbone,
            proposal_generator=proposal_generator,
            roi_heads=roi_heads,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            input_format=input_format,
            vis_period=vis_period,
        )
        self.num_classes = num_classes

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Train on or segment a batch; the contract is that of `GeneralizedRCNN`.

        Args:
            batched_inputs: one dict an image: "image" (3, h, w); in training "instances" with
                `gt_boxes`, `gt_classes` and `gt_masks` (bitmaps, polygons or `ObjectMasks`).

        Returns:
            In training the weighted losses by name; in evaluation one dict an image: "instances"
            with `pred_boxes`, `scores`, `pred_classes` and bool `pred_masks`.
        """
        if self.training:
            batched_inputs = [with_shared_masks(inputs) for inputs in batched_inputs]
        return super().forward(batched_inputs)


def with_shared_masks(inputs: dict[str, Any]) -> dict[str, Any]:
    """The same inputs, with masks that sampled boxes refer to instead of copying them."""
    instances = inputs["instances"]
    fields = dict(instances.get_fields())
    if "gt_masks" in fields:
        fields["gt_masks"] = ObjectMasks.of(fields["gt_masks"], instances.image_size)
    return {**inputs, "instances": type(instances)(instances.image_size, **fields)}
