"""Detectors that propose boxes first and look at each of them second."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detectron2._subset import outside
from detectron2.config import configurable
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import get_event_storage

from ..backbone import Backbone
from ..postprocessing import detector_postprocess
from .build import META_ARCH_REGISTRY

SHOWN_PROPOSALS = 20


@META_ARCH_REGISTRY.register()
class GeneralizedRCNN(nn.Module):
    """Backbone, then proposals, then heads on each proposal.

    Args:
        backbone: images to feature maps.
        proposal_generator: such as `RPN`; `None` if the inputs carry "proposals".
        roi_heads: such as `StandardROIHeads`.
        pixel_mean, pixel_std: per channel, in the input's units.
        input_format: order of the channels, such as "BGR"; needed for pictures.
        vis_period: a picture of the proposals goes to the event storage once in so many
            iterations; 0 = never.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module | None,
        roi_heads: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str | None = None,
        vis_period: int = 0,
    ) -> None:
        super().__init__()
        assert len(pixel_mean) == len(pixel_std), f"{pixel_mean} and {pixel_std} differ in length"
        assert vis_period <= 0 or input_format is not None, "vis_period needs input_format"
        self.backbone = backbone
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.input_format = input_format
        self.vis_period = vis_period
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            per_channel = torch.tensor(list(values)).view(-1, 1, 1)
            self.register_buffer(name, per_channel, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.pixel_mean.device

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Compute the losses, or detect objects.

        Args:
            batched_inputs: per image, "image" (C, H, W); in training "instances" with the `gt_*`
                fields; optionally "proposals", and the "height" and "width" to give results in.

        Returns:
            Losses in training; else per image {"instances": Instances} with `pred_boxes`, `scores`,
            `pred_classes` and, with a mask head, `pred_masks` (n, height, width) bool.
        """
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        gt_instances = None
        if "instances" in batched_inputs[0]:
            gt_instances = [x["instances"].to(self.device) for x in batched_inputs]
        features = self.backbone(images.tensor)
        proposals, proposal_losses = self._propose(batched_inputs, images, features, gt_instances)
        _, detector_losses = self.roi_heads(images, features, proposals, gt_instances)
        if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
            self.visualize_training(batched_inputs, proposals)
        return {**detector_losses, **proposal_losses}

    def inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[dict[str, Instances]] | list[Instances]:
        """Detect objects.

        Args:
            batched_inputs: see `forward`.
            detected_instances: known `pred_boxes` and `pred_classes` of each image; only the rest
                is predicted.
            do_postprocess: give results on the asked-for size, as `forward` does; else on the
                input's size, per image the Instances.
        """
        assert not self.training, "call eval() first"
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        if detected_instances is not None:
            known = [boxes.to(self.device) for boxes in detected_instances]
            found = self.roi_heads.forward_with_given_boxes(features, known)
        else:
            proposals = self._propose(batched_inputs, images, features, None)[0]
            found = self.roi_heads(images, features, proposals, None)[0]
        if not do_postprocess:
            return found
        return self._postprocess(found, batched_inputs, images.image_sizes)

    def _propose(
        self,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        features: dict[str, Tensor],
        gt_instances: list[Instances] | None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        if self.proposal_generator is not None:
            return self.proposal_generator(images, features, gt_instances)
        assert "proposals" in batched_inputs[0], "no proposal generator and no proposals"
        return [x["proposals"].to(self.device) for x in batched_inputs], {}

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalise the images and pad them to one size."""
        images = [x["image"].to(self.device) for x in batched_inputs]
        return ImageList.from_tensors(
            [(x - self.pixel_mean) / self.pixel_std for x in images],
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )

    @staticmethod
    def _postprocess(
        instances: Sequence[Instances],
        batched_inputs: Sequence[dict[str, Any]],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[dict[str, Instances]]:
        results = []
        for found, inputs, (height, width) in zip(instances, batched_inputs, image_sizes):
            size = inputs.get("height", height), inputs.get("width", width)
            results.append({"instances": detector_postprocess(found, *size)})
        return results

    def visualize_training(
        self, batched_inputs: Sequence[dict[str, Any]], proposals: Sequence[Instances]
    ) -> None:
        """Put a picture of the first image into the event storage: ground truth | proposals."""
        from detectron2.data.detection_utils import convert_image_to_rgb
        from detectron2.utils.visualizer import Visualizer

        inputs = batched_inputs[0]
        image = convert_image_to_rgb(inputs["image"].permute(1, 2, 0), self.input_format)
        proposed = proposals[0].proposal_boxes[:SHOWN_PROPOSALS].tensor.cpu().numpy()
        drawn = [
            Visualizer(image, None).overlay_instances(boxes=boxes).get_image()
            for boxes in (inputs["instances"].gt_boxes, proposed)
        ]
        picture = np.concatenate(drawn, axis=1).transpose(2, 0, 1)
        name = "Left: GT bounding boxes;  Right: Predicted proposals"
        get_event_storage().put_image(name, picture)


__getattr__ = outside(__name__, "ProposalNetwork")
