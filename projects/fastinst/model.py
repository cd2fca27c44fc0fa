"""FastInst: query-based real-time instance segmentation (He et al., CVPR 2023)."""

from collections.abc import Sequence
from typing import Any

from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from queryseg.image_model import ImageModel, output_size
from queryseg.matching import MaskTargets
from queryseg.postprocess import boxes_from_masks, mask_quality, resize_masks, top_classes
from queryseg.projects.fastinst.attention_mask import ground_truth_attention
from queryseg.projects.fastinst.criterion import FastInstCriterion, Matched
from queryseg.projects.fastinst.decoder import Decoded, FastInstDecoder
from queryseg.projects.fastinst.prediction_head import Prediction


class FastInst(ImageModel):
    """Backbone, light pixel decoder, and a decoder that updates queries and pixels in turn.

    Args:
        backbone: image (B, 3, H, W) to a dict of feature maps.
        pixel_decoder: backbone maps to a pyramid (B, C, h, w), finest first.
        decoder: chooses queries from the pyramid, refines and predicts.
        criterion: matching and losses.
        num_classes: K.
        pixel_mean: mean of each channel, 0 to 255, in the order of the input.
        pixel_std: standard deviation of each channel.
        size_divisibility: images are padded at the right and bottom to multiples of this.
        max_detections: instances per image.
        gt_guidance: train each decoder layer a second time with ground-truth masks as attention
            masks (section 3.5). Without masked attention there is nothing to guide, and without
            deep supervision there is no loss for it.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        pixel_decoder: nn.Module,
        decoder: FastInstDecoder,
        criterion: FastInstCriterion,
        num_classes: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int = 32,
        max_detections: int = 100,
        gt_guidance: bool = True,
    ) -> None:
        super().__init__(
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            size_divisibility=size_divisibility,
            channels_last=True,
        )
        self.backbone = backbone
        self.pixel_decoder = pixel_decoder
        self.decoder = decoder
        self.criterion = criterion
        self.num_classes = num_classes
        self.max_detections = max_detections
        self.gt_guidance = gt_guidance and decoder.uses_masks and criterion.deep_supervision
        if not criterion.deep_supervision:
            # Their masks still steer the attention, but no loss reaches them: DDP would wait.
            decoder.heads[:-1].requires_grad_(False)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Train on or segment a batch.

        Args:
            batched_inputs: one dict an image: "image" (3, h, w) uint8; in training "instances"
                with `gt_classes` and `gt_masks` (bit masks); in evaluation "height" and "width" of
                the output, by default those of the image.

        Returns:
            In training the weighted losses by name; in evaluation one dict an image: "instances"
            by falling score, with `pred_boxes`, `scores`, `pred_classes`, bool `pred_masks` and
            `query_idx`; and "query_points" (Q, 2), where the queries were picked, in pixels of the
            output, if they have a place.
        """
        images = self.preprocess(batched_inputs)
        pyramid = self.pixel_decoder(self.backbone(images.tensor))
        decoded = self.decoder(pyramid)
        if not self.training:
            return self.segment(decoded, images, batched_inputs)
        targets = self.targets(batched_inputs, images)
        matched = self.criterion.match(decoded, targets)
        guided = self.guide(decoded, matched, targets) if self.gt_guidance else []
        return self.criterion(decoded, guided, matched, targets)

    def targets(self, batched_inputs: list[dict[str, Any]], images: ImageList) -> MaskTargets:
        """Ground truth of the batch on the padded images."""
        instances = [x["instances"].to(self.device) for x in batched_inputs]
        return MaskTargets.from_images(
            labels=[x.gt_classes for x in instances],
            masks=[x.gt_masks.tensor for x in instances],
            padded_size=tuple(images.tensor.shape[-2:]),
        )

    def guide(self, decoded: Decoded, matched: Matched, targets: MaskTargets) -> list[Prediction]:
        """Predictions of every layer when queries look inside their ground-truth mask."""
        num_queries, *size = decoded.final.mask_logits.shape[1:]
        attend = ground_truth_attention(targets, matched.guiding, num_queries, tuple(size))
        return self.decoder.guided(decoded, attend)

    def segment(
        self, decoded: Decoded, images: ImageList, batched_inputs: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Instances of each image at its output size, and where its queries were picked."""
        padded_size = tuple(images.tensor.shape[-2:])
        prediction, centres = decoded.final, decoded.queries.centres
        assert prediction.class_logits is not None
        results: list[dict[str, Any]] = []
        for index, (inputs, image_size) in enumerate(zip(batched_inputs, images.image_sizes)):
            size = output_size(inputs, image_size)
            instances = self.instances_of_image(
                prediction.class_logits[index],
                prediction.mask_logits[index],
                padded_size=padded_size,
                image_size=image_size,
                output_size=size,
            )
            results.append({"instances": instances})
            if centres is not None:
                sizes = centres.new_tensor([padded_size, image_size, size]).flip(1)
                results[-1]["query_points"] = centres[index] * sizes[0] / sizes[1] * sizes[2]
        return results

    def instances_of_image(
        self,
        class_logits: Tensor,
        mask_logits: Tensor,
        *,
        padded_size: tuple[int, int],
        image_size: tuple[int, int],
        output_size: tuple[int, int],
    ) -> Instances:
        """Score, select and resize the predictions of one image (section 3.4, prediction).

        Args:
            class_logits: (Q, K+1).
            mask_logits: (Q, h, w).
            padded_size: size of the padded batch.
            image_size: size of this image in it.
            output_size: size of the masks to return.
        """
        class_probs = class_logits.float().softmax(-1)[:, : self.num_classes]
        scores, classes, query_idx = top_classes(class_probs, self.max_detections)
        kept, place = query_idx.unique(return_inverse=True)
        logits = resize_masks(
            mask_logits[kept].float(),
            padded_size=padded_size,
            image_size=image_size,
            output_size=output_size,
        )
        masks = logits > 0
        scores = scores * mask_quality(logits, masks)[place]
        scores, order = scores.sort(descending=True, stable=True)
        place = place[order]
        return Instances(
            output_size,
            pred_boxes=Boxes(boxes_from_masks(masks)[place]),
            scores=scores,
            pred_classes=classes[order],
            pred_masks=masks[place],
            query_idx=query_idx[order],
        )
