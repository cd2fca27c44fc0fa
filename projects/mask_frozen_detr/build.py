"""The mask network from a few words, so that a config override can change any row of a table."""

from typing import Literal

from torch import nn

from queryseg.projects.mask_frozen_detr.fusion import FeatureFusion, Neck
from queryseg.projects.mask_frozen_detr.image_encoder import (
    DeformableImageEncoder,
    ImageEncoder,
    convnext_image_encoder,
    swin_image_encoder,
)
from queryseg.projects.mask_frozen_detr.mask_heads import DotProductHead, SegmenterHead
from queryseg.projects.mask_frozen_detr.mask_network import MaskNetwork
from queryseg.projects.mask_frozen_detr.mask_scoring import MaskScoring
from queryseg.projects.mask_frozen_detr.query_encoder import QueryEncoder
from queryseg.projects.mask_frozen_detr.region_encoder import (
    ConvNeXtRegionEncoder,
    DeformableRegionEncoder,
    SwinRegionEncoder,
)
from queryseg.projects.mask_frozen_detr.regions import BoxRegions, WholeImage

Block = Literal["deformable", "swin", "convnext"]
Head = Literal["dot_product", "segmenter"]


def build_mask_network(
    *,
    num_classes: int,
    embed_dim: int,
    num_levels: int,
    stage1_channels: int,
    encoder_layer: int = 4,
    image_block: Block = "deformable",
    image_layers: int = 2,
    neck: Neck = "conv",
    roi_align: bool = True,
    roi_size: int = 32,
    hidden_dim: int = 128,
    region_block: Block = "deformable",
    region_layers: int = 2,
    query_ffn: bool = True,
    object_to_object: bool = False,
    box_to_object: bool = True,
    head: Head = "dot_product",
    scaled_dot_product: bool = False,
    mask_scoring: bool = True,
) -> MaskNetwork:
    """Build the mask network; the defaults are the paper's final design.

    Args:
        num_classes: K.
        embed_dim: C of the detector's encoder and queries.
        num_levels: L of the detector's encoder.
        stage1_channels: of the backbone's first map.
        encoder_layer: layer of the detector's encoder to build on, from one (Table 15).
        image_block: kind of the image encoder (Table 2).
        image_layers: its depth; 0 for none.
        neck: what becomes of the backbone's first map (Table 12).
        roi_align: predict masks inside the boxes (Table 1).
        roi_size: cells along each side of a box (Table 10).
        hidden_dim: d behind the channel mappers, which there are only where it differs from C
            (Table 4).
        region_block: kind of the box feature encoder (Table 3).
        region_layers: its depth and, with any of the next three, that of the query encoder.
        query_ffn: feed-forward blocks on the queries (Table 5).
        object_to_object: attention among queries (Table 5).
        box_to_object: attention of queries to their box (Table 5).
        head: how logits come from cells and queries (Table 14).
        scaled_dot_product: divide the logits of the dot product by the root of d.
        mask_scoring: predict the quality of masks (Table 12).

    Raises:
        ValueError: an unknown kind, or mask scoring without boxes.
    """
    if mask_scoring and not roi_align:
        raise ValueError("mask scoring needs boxes of one size: set mask_scoring=False")
    maps = hidden_dim != embed_dim
    return MaskNetwork(
        embed_dim=embed_dim,
        encoder_layer=encoder_layer,
        image_encoder=_image_encoder(image_block, image_layers, embed_dim, num_levels),
        fusion=FeatureFusion(neck=neck, in_channels=stage1_channels, embed_dim=embed_dim),
        regions=BoxRegions(size=roi_size) if roi_align else WholeImage(),
        feature_mapper=nn.Linear(embed_dim, hidden_dim) if maps else None,
        query_mapper=nn.Linear(embed_dim, hidden_dim) if maps else None,
        region_encoder=_region_encoder(region_block, region_layers, hidden_dim, roi_size),
        query_encoder=QueryEncoder(
            num_layers=region_layers,
            embed_dim=hidden_dim,
            feed_forward=query_ffn,
            object_to_object=object_to_object,
            box_to_object=box_to_object,
        )
        if region_layers and (query_ffn or object_to_object or box_to_object)
        else None,
        head=_head(head, hidden_dim, scaled_dot_product),
        scoring=MaskScoring(embed_dim=hidden_dim, size=roi_size, num_classes=num_classes)
        if mask_scoring
        else None,
    )


def _image_encoder(block: Block, layers: int, embed_dim: int, num_levels: int) -> ImageEncoder:
    if layers == 0:
        return ImageEncoder()
    if block == "deformable":
        return DeformableImageEncoder(
            num_layers=layers, embed_dim=embed_dim, num_levels=num_levels, ffn_dim=4 * embed_dim
        )
    kinds = {"swin": swin_image_encoder, "convnext": convnext_image_encoder}
    _check("image_block", block, ("deformable", *kinds))
    return kinds[block](num_layers=layers, embed_dim=embed_dim, ffn_dim=4 * embed_dim)


def _region_encoder(block: Block, layers: int, embed_dim: int, size: int) -> nn.Module | None:
    if layers == 0:
        return None
    kinds = {
        "deformable": DeformableRegionEncoder,
        "swin": SwinRegionEncoder,
        "convnext": ConvNeXtRegionEncoder,
    }
    _check("region_block", block, kinds)
    return kinds[block](num_layers=layers, embed_dim=embed_dim, size=size)


def _head(kind: Head, embed_dim: int, scaled: bool) -> nn.Module:
    if kind == "segmenter":
        return SegmenterHead(embed_dim=embed_dim)
    _check("head", kind, ("dot_product", "segmenter"))
    return DotProductHead(scaled=scaled)


def _check(name: str, value: str, known: object) -> None:
    known = tuple(known)  # type: ignore[arg-type]
    if value not in known:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(known)}")
