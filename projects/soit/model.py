"""SOIT: segmenting objects with instance-aware transformers (Yu et al., AAAI 2022)."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, ImageList, Instances
from torch import nn
from torchvision.ops import box_convert

from queryseg.deformable_detr import (
    DeformableDecoder,
    DeformableEncoder,
    PyramidProjection,
    PyramidTokens,
    TokenPyramid,
    class_head,
)
from queryseg.image_model import ImageModel, output_size, run_in_groups
from queryseg.matching import BoxTargets
from queryseg.postprocess import top_classes
from queryseg.projects.soit.criterion import SOITCriterion
from queryseg.projects.soit.mask_branch import MaskBranch
from queryseg.projects.soit.mask_resizing import output_masks
from queryseg.projects.soit.prediction import Prediction


class SOIT(ImageModel):
    """Deformable DETR whose queries also predict the weights of a small transformer each.

    Args:
        backbone: image (B, 3, H, W) to a dict of feature maps.
        projection: backbone maps to a pyramid of one width.
        tokens: pyramid to tokens with positions.
        encoder: lets the tokens of all levels exchange what they know.
        queries: encoded pyramid to the queries of the decoder.
        decoder: refines queries and boxes.
        mask_branch: masks of the queries; None for a pure detector.
        criterion: matching and losses.
        num_classes: K.
        pixel_mean: mean of each channel, 0 to 255, in the order of the input.
        pixel_std: standard deviation of each channel.
        max_detections: instances per image.
        resize_twice: resize masks to the network's input and then to the output, as the release
            does, instead of once.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        projection: PyramidProjection,
        tokens: PyramidTokens,
        encoder: DeformableEncoder,
        queries: nn.Module,
        decoder: DeformableDecoder,
        mask_branch: MaskBranch | None,
        criterion: SOITCriterion,
        num_classes: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        max_detections: int = 100,
        resize_twice: bool = False,
    ) -> None:
        super().__init__(pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.backbone = backbone
        self.projection = projection
        self.tokens = tokens
        self.encoder = encoder
        self.queries = queries
        self.decoder = decoder
        self.class_heads = nn.ModuleList(
            class_head(tokens.embed_dim, num_classes) for _ in decoder.layers
        )
        self.mask_branch = mask_branch
        self.criterion = criterion
        self.num_classes = num_classes
        self.max_detections = max_detections
        self.resize_twice = resize_twice

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Train on or segment a batch.

        Args:
            batched_inputs: one dict an image: "image" (3, h, w) uint8; in training "instances"
                with `gt_classes`, `gt_boxes` and `gt_masks` (bit masks); in evaluation "height" and
                "width" of the output, by default those of the image.

        Returns:
            In training the weighted losses by name; in evaluation one dict an image: "instances"
            by falling score, with `pred_boxes`, `scores`, `pred_classes`, bool `pred_masks` and
            `query_idx`.
        """
        if not self.training:
            return self.segment_by_size(batched_inputs)
        images = self.preprocess(batched_inputs)
        prediction = self.predict(images)
        instances = [x["instances"] for x in batched_inputs]
        targets = BoxTargets.from_instances(instances, self.device)
        matched = self.criterion.match(prediction, targets)
        losses = self.criterion.detection_losses(prediction, matched, targets)
        if self.mask_branch is None:
            return losses
        assert prediction.mask_features is not None
        masks = self.mask_branch.matched_masks(
            prediction.mask_features, prediction.decoded, matched.layers
        )
        gt_masks = [x.gt_masks.tensor.to(self.device) for x in instances]
        padded_size = tuple(images.tensor.shape[-2:])
        valid_sizes = prediction.mask_features.valid_sizes
        return losses | self.criterion.mask_losses(
            masks, gt_masks, padded_size, valid_sizes, matched.count
        )

    def predict(self, images: ImageList) -> Prediction:
        """Classes, boxes and shared mask maps of a padded batch."""
        maps = self.projection(self.backbone(images.tensor))
        pyramid = self.tokens(maps, images.image_sizes, tuple(images.tensor.shape[-2:]))
        memory = self.encode(pyramid)
        queries, proposals = self.queries(memory)
        decoded = self.decoder(queries, memory)
        heads = self.class_heads if self.training else self.class_heads[-1:]
        feats = decoded.query_feats[-len(heads) :]
        return Prediction(
            proposals=proposals,
            decoded=decoded,
            class_logits=[head(layer) for head, layer in zip(heads, feats)],
            mask_features=None if self.mask_branch is None else self.mask_branch.features(memory),
        )

    def encode(self, pyramid: TokenPyramid) -> TokenPyramid:
        """The pyramid after the encoder."""
        tokens = self.encoder(
            pyramid.tokens,
            pyramid.position,
            pyramid.spatial_shapes,
            valid_ratios=pyramid.valid_ratios,
            padding_mask=pyramid.padding_mask,
        )
        return pyramid.with_tokens(tokens)

    def segment_by_size(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Segment images of equal size together, so that none is padded.

        The network sees padding: an image beside a larger one would not give quite what it gives
        alone, which is how the release tests.
        """
        return run_in_groups(batched_inputs, self.padded_size, self.segment_together)

    def segment_together(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Segment images of one padded size."""
        images = self.preprocess(batched_inputs)
        return self.segment(self.predict(images), images, batched_inputs)

    def segment(
        self, prediction: Prediction, images: ImageList, batched_inputs: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Instances of each image at its output size."""
        padded_size = tuple(images.tensor.shape[-2:])
        results = []
        for index, (inputs, image_size) in enumerate(zip(batched_inputs, images.image_sizes)):
            instances = self.instances_of_image(
                prediction,
                index,
                padded_size=padded_size,
                image_size=image_size,
                output_size=output_size(inputs, image_size),
            )
            results.append({"instances": instances})
        return results

    def instances_of_image(
        self,
        prediction: Prediction,
        index: int,
        *,
        padded_size: tuple[int, int],
        image_size: tuple[int, int],
        output_size: tuple[int, int],
    ) -> Instances:
        """The best (query, class) pairs of one image, scored by their class alone.

        Args:
            prediction: of the batch.
            index: of the image.
            padded_size: size of the padded batch.
            image_size: size of this image in it.
            output_size: size of the masks to return.
        """
        probs = prediction.class_logits[-1][index].float().sigmoid()
        scores, classes, query_idx = top_classes(probs, self.max_detections)
        boxes = box_convert(prediction.decoded.boxes[-1][index, query_idx], "cxcywh", "xyxy")
        scale = boxes.new_tensor([output_size[1], output_size[0]] * 2)
        found = Instances(
            output_size,
            pred_boxes=Boxes((boxes.clamp(0, 1) * scale).float()),
            scores=scores,
            pred_classes=classes,
            query_idx=query_idx,
        )
        if self.mask_branch is not None and prediction.mask_features is not None:
            kept, place = query_idx.unique(return_inverse=True)
            logits = self.mask_branch.final_masks(
                prediction.mask_features,
                prediction.decoded,
                torch.stack((torch.full_like(kept, index), kept), dim=1),
            )
            masks = output_masks(
                logits,
                padded_size=padded_size,
                image_size=image_size,
                output_size=output_size,
                resize_twice=self.resize_twice,
            )
            found.pred_masks = masks[place]
        return found
