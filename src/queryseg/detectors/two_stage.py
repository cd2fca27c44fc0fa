"""The form that H-Deformable-DETR and DINO share: an encoder proposes, a decoder refines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn
from torchvision.ops import box_convert

from queryseg.deformable_detr import (
    Decoded,
    DeformableDecoder,
    DeformableEncoder,
    EncoderProposals,
    PyramidProjection,
    PyramidTokens,
    TokenPyramid,
)
from queryseg.detectors.class_numbering import ClassNumbering
from queryseg.detectors.contract import Detected
from queryseg.detectors.criterion import DetectionCriterion, Prediction
from queryseg.image_model import ImageModel, output_size
from queryseg.matching import BoxTargets
from queryseg.postprocess import top_classes


@dataclass(frozen=True)
class Encoded:
    """What a detector knows of a batch before it looks for objects.

    Args:
        stage1: (B, C1, h, w) first map of the backbone.
        layers: tokens (B, S, C) after each encoder layer.
        memory: the pyramid with the tokens of the last layer.
        image_sizes: (height, width) of each image.
    """

    stage1: Tensor
    layers: list[Tensor]
    memory: TokenPyramid
    image_sizes: list[tuple[int, int]]


class TwoStageDetector(ImageModel):
    """Backbone, deformable encoder, proposals of its tokens, deformable decoder.

    A subclass says how it learns. Satisfies `queryseg.detectors.Detector`.

    Args:
        backbone: image (B, 3, H, W) to a dict of maps, `stage1_feature` among them.
        projection: backbone maps to a pyramid of one width.
        tokens: adds positions to the pyramid.
        encoder: its tokens read from each other.
        proposals: the best tokens and their boxes.
        queries: makes queries of proposals.
        decoder: refines them.
        class_heads: class logits after each decoder layer; one that all layers share, or one each.
        criterion: matching and losses.
        numbering: which output of a class head stands for which class.
        num_queries: Q.
        pixel_mean: mean of each channel, 0 to 255, in the order of the input.
        pixel_std: standard deviation of each channel.
        max_detections: (query, class) pairs of an image to return.
        stage1_feature: name of the backbone's map at stride 4.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        projection: PyramidProjection,
        tokens: PyramidTokens,
        encoder: DeformableEncoder,
        proposals: EncoderProposals,
        queries: nn.Module,
        decoder: DeformableDecoder,
        class_heads: Sequence[nn.Module],
        criterion: DetectionCriterion,
        numbering: ClassNumbering,
        num_queries: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        max_detections: int = 100,
        stage1_feature: str = "res2",
    ) -> None:
        super().__init__(pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.backbone = backbone
        self.projection = projection
        self.tokens = tokens
        self.encoder = encoder
        self.proposals = proposals
        self.queries = queries
        self.decoder = decoder
        self.class_heads = nn.ModuleList(class_heads)
        self.criterion = criterion
        self.numbering = numbering
        self.num_classes = numbering.num_classes
        self.num_queries = num_queries
        self.max_detections = max_detections
        self.stage1_feature = stage1_feature

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Train on or detect in a batch.

        Args:
            batched_inputs: one dict an image: "image" (3, h, w) uint8; in training "instances"
                with `gt_classes` and `gt_boxes`; in evaluation "height" and "width" of the output,
                by default those of the image.

        Returns:
            In training the weighted losses by name; in evaluation one dict an image: "instances"
            by falling score, with `pred_boxes` (not clipped, as in the releases), `scores`,
            `pred_classes` and `query_idx`.
        """
        images = self.preprocess(batched_inputs)
        if self.training:
            return self.learn(images, self.targets(batched_inputs))[0]
        return self.results(self.detect(images), batched_inputs)

    def targets(self, batched_inputs: list[dict[str, Any]]) -> BoxTargets:
        """Ground truth of the batch, with the outputs of the class heads for labels."""
        instances = [x["instances"] for x in batched_inputs]
        targets = BoxTargets.from_instances(instances, self.device)
        labels = self.numbering.outputs[targets.labels]
        return BoxTargets(labels, targets.boxes_xyxy_abs, targets.image_sizes, targets.sizes)

    def detect(self, images: ImageList) -> Detected:
        """Find the objects of a batch without learning from it."""
        encoded = self.encode(images)
        proposals = self.proposals(encoded.memory, self.num_queries)
        decoded = self.decoder(self.queries(proposals.references), encoded.memory)
        return self.describe(encoded, decoded)

    def learn(self, images: ImageList, targets: BoxTargets) -> tuple[dict[str, Tensor], Detected]:
        """Losses of a batch, and what is detected in it by the queries of evaluation."""
        raise NotImplementedError

    def encode(self, images: ImageList) -> Encoded:
        """Backbone and encoder."""
        features = self.backbone(images.tensor)
        padded_size = tuple(images.tensor.shape[-2:])
        pyramid = self.tokens(self.projection(features), images.image_sizes, padded_size)
        layers = list(
            self.encoder.each_layer(
                pyramid.tokens,
                pyramid.position,
                pyramid.spatial_shapes,
                valid_ratios=pyramid.valid_ratios,
                padding_mask=pyramid.padding_mask,
            )
        )
        memory = pyramid.with_tokens(layers[-1])
        return Encoded(features[self.stage1_feature], layers, memory, images.image_sizes)

    def predictions(self, decoded: Decoded) -> list[Prediction]:
        """Class logits and boxes after each decoder layer."""
        return [
            (self.class_logits(layer, query_feats), boxes)
            for layer, (query_feats, boxes) in enumerate(zip(decoded.query_feats, decoded.boxes))
        ]

    def class_logits(self, layer: int, query_feats: Tensor) -> Tensor:
        """(B, Q, outputs) after a decoder layer."""
        return self.class_heads[min(layer, len(self.class_heads) - 1)](query_feats)

    def describe(self, encoded: Encoded, decoded: Decoded, first: int = 0) -> Detected:
        """What the last layer says, of the queries from `first` on, as other methods see it."""
        queries = slice(first, first + self.num_queries)
        query_feats = decoded.query_feats[-1][:, queries]
        memory = encoded.memory
        padding = memory.padding_mask
        return Detected(
            stage1=encoded.stage1,
            encoder_layers=dict(enumerate(encoded.layers, start=1)),
            spatial_shapes=memory.spatial_shapes,
            position=memory.position,
            query_feats=query_feats,
            boxes_cxcywh_norm=decoded.boxes[-1][:, queries],
            class_probs=self.class_logits(len(decoded.boxes) - 1, query_feats).sigmoid(),
            image_sizes=encoded.image_sizes,
            padding_mask=padding,
            valid_ratios=None if padding is None else memory.valid_ratios,
            class_ids=self.numbering.classes,
        )

    def results(
        self, detected: Detected, batched_inputs: list[dict[str, Any]]
    ) -> list[dict[str, Instances]]:
        """Instances of each image at its output size."""
        results = []
        for index, (inputs, image_size) in enumerate(zip(batched_inputs, detected.image_sizes)):
            height, width = output_size(inputs, image_size)
            scores, outputs, query_idx = top_classes(
                detected.class_probs[index].float(), self.max_detections
            )
            boxes = box_convert(detected.boxes_cxcywh_norm[index], "cxcywh", "xyxy")
            instances = Instances(
                (height, width),
                pred_boxes=Boxes(boxes[query_idx] * boxes.new_tensor([width, height] * 2)),
                scores=scores,
                pred_classes=self.numbering.classes[outputs],
                query_idx=query_idx,
            )
            results.append({"instances": instances[instances.pred_classes >= 0]})
        return results
