"""A small plain DETR on Detectron2's parts: another model that satisfies the detector contract."""

from typing import Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.structures import ImageList
from torch import Tensor, nn

from queryseg.detectors import Detected


class PlainDETR(nn.Module):
    """One encoder level at stride 16, softmax over the classes and "no object", no proposals."""

    def __init__(self, num_classes: int = 6, embed_dim: int = 32, num_queries: int = 12) -> None:
        super().__init__()
        stages = ResNet.make_default_stages(depth=18, norm="BN")[:3]
        self.backbone = ResNet(BasicStem(norm="BN"), stages, out_features=["res2", "res4"])
        channels: ShapeSpec = self.backbone.output_shape()["res4"]
        self.projection = nn.Conv2d(channels.channels, embed_dim, 1)
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(embed_dim, 4, 64, batch_first=True) for _ in range(2)
        )
        self.decoder = nn.TransformerDecoderLayer(embed_dim, 4, 64, batch_first=True)
        self.queries = nn.Embedding(num_queries, embed_dim)
        self.class_head = nn.Linear(embed_dim, num_classes + 1)
        self.box_head = nn.Linear(embed_dim, 4)

    def preprocess(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        images = [x["image"].float() / 255 for x in batched_inputs]
        return ImageList.from_tensors(images, size_divisibility=16)

    def detect(self, images: ImageList) -> Detected:
        features = self.backbone(images.tensor)
        tokens = self.projection(features["res4"]).flatten(2).mT
        layers: dict[int, Tensor] = {}
        for number, layer in enumerate(self.encoder, start=1):
            tokens = layers[number] = layer(tokens)
        query_feats = self.decoder(self.queries.weight.expand(len(tokens), -1, -1), tokens)
        return Detected(
            stage1=features["res2"],
            encoder_layers=layers,
            spatial_shapes=[tuple(features["res4"].shape[-2:])],
            position=torch.zeros_like(tokens),
            query_feats=query_feats,
            boxes_cxcywh_norm=self.box_head(query_feats).sigmoid(),
            class_probs=self.class_head(query_feats).softmax(-1)[..., :-1],
            image_sizes=images.image_sizes,
        )
