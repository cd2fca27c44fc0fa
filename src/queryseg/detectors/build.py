"""The detectors from the numbers that a config states."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from queryseg.deformable_detr import (
    DeformableDecoder,
    DeformableEncoder,
    EncoderProposals,
    LearnedContent,
    ProposalQueries,
    PyramidProjection,
    PyramidTokens,
    ReferencePosition,
    class_head,
)
from queryseg.detectors.class_numbering import ClassNumbering, NumberingKind
from queryseg.detectors.criterion import DetectionCriterion
from queryseg.detectors.denoising import Denoising
from queryseg.detectors.dino import DINO
from queryseg.detectors.h_detr import HDETR
from queryseg.matching import BoxMatcher

RGB_MEAN = (123.675, 116.280, 103.530)
RGB_STD = (58.395, 57.120, 57.375)


def build_h_detr(
    *,
    num_classes: int,
    backbone: nn.Module,
    in_channels: Mapping[str, int],
    class_numbering: NumberingKind = "coco_ids",
    num_levels: int = 4,
    embed_dim: int = 256,
    num_heads: int = 8,
    ffn_dim: int = 2048,
    encoder_layers: int = 6,
    decoder_layers: int = 6,
    num_queries: int = 300,
    num_one_to_many: int = 1500,
    repeats: int = 6,
    one_to_many_weight: float = 1.0,
    position_temperature: float = 10000.0,
    position_offset: float = -0.5,
    reference_eps: float = 1e-5,
    max_detections: int = 100,
    pixel_mean: Sequence[float] = RGB_MEAN,
    pixel_std: Sequence[float] = RGB_STD,
) -> HDETR:
    """H-Deformable-DETR with mixed query selection and look forward twice, without dropout.

    Files of detrex need `class_numbering="contiguous"` and `reference_eps=1e-3`.

    Args:
        num_classes: K.
        backbone: image to a dict of maps.
        in_channels: names and channels of the maps that the encoder takes, finest first.
        class_numbering: how the class heads number the classes.
        num_levels: L.
        embed_dim: C.
        num_heads: attention heads.
        ffn_dim: hidden width of all feed-forward blocks.
        encoder_layers: depth of the encoder.
        decoder_layers: depth of the decoder.
        num_queries: Q of evaluation and of the one-to-one branch.
        num_one_to_many: further queries in training.
        repeats: how often an instance is wanted by these.
        one_to_many_weight: weight of their losses.
        position_temperature: of the sines.
        position_offset: added to pixel numbers counted from one.
        reference_eps: bound of the references that boxes move from.
        max_detections: (query, class) pairs of an image.
        pixel_mean: of RGB.
        pixel_std: of RGB.
    """
    numbering = ClassNumbering(num_classes=num_classes, kind=class_numbering)
    sizes: dict[str, Any] = {
        "embed_dim": embed_dim,
        "num_heads": num_heads,
        "num_levels": num_levels,
    }
    return HDETR(
        **_encoding_parts(
            backbone,
            in_channels,
            sizes,
            encoder_layers,
            ffn_dim,
            position_temperature,
            position_offset,
        ),
        proposals=EncoderProposals(
            embed_dim=embed_dim, num_classes=numbering.num_outputs, num_queries=num_queries
        ),
        queries=ProposalQueries(embed_dim=embed_dim, num_learned=num_queries + num_one_to_many),
        decoder=DeformableDecoder(
            num_layers=decoder_layers,
            ffn_dim=ffn_dim,
            look_forward_twice=True,
            reference_eps=reference_eps,
            **sizes,
        ),
        class_heads=[class_head(embed_dim, numbering.num_outputs) for _ in range(decoder_layers)],
        criterion=_criterion(weight_class=2.0),
        numbering=numbering,
        num_queries=num_queries,
        num_one_to_many=num_one_to_many,
        repeats=repeats,
        one_to_many_weight=one_to_many_weight,
        max_detections=max_detections,
        pixel_mean=pixel_mean,
        pixel_std=pixel_std,
    )


def build_dino(
    *,
    num_classes: int,
    backbone: nn.Module,
    in_channels: Mapping[str, int],
    class_numbering: NumberingKind = "coco_ids",
    num_levels: int = 4,
    embed_dim: int = 256,
    num_heads: int = 8,
    ffn_dim: int = 2048,
    encoder_layers: int = 6,
    decoder_layers: int = 6,
    num_queries: int = 900,
    share_heads: bool = True,
    denoising_queries: int = 100,
    label_noise: float = 0.5,
    box_noise: float = 0.4,
    extra_label: bool = True,
    position_temperature: float = 20.0,
    position_offset: float = 0.0,
    reference_eps: float = 1e-3,
    max_detections: int = 300,
    pixel_mean: Sequence[float] = RGB_MEAN,
    pixel_std: Sequence[float] = RGB_STD,
) -> DINO:
    """DINO; its defaults are those of the official release.

    Files of detrex need `class_numbering="contiguous"`, `share_heads=False`, `extra_label=False`,
    `position_temperature=10000` and `position_offset=-0.5`; detrex trains with `box_noise=1`.

    Args:
        num_classes: K.
        backbone: image to a dict of maps.
        in_channels: names and channels of the maps that the encoder takes, finest first.
        class_numbering: how the class heads number the classes.
        num_levels: L.
        embed_dim: C.
        num_heads: attention heads.
        ffn_dim: hidden width of all feed-forward blocks.
        encoder_layers: depth of the encoder.
        decoder_layers: depth of the decoder.
        num_queries: Q.
        share_heads: one class and one box head for all decoder layers.
        denoising_queries: about how many positive noisy queries an image gets; 0 for none.
        label_noise: twice the share of labels that are replaced.
        box_noise: how far noisy boxes move.
        extra_label: whether the label embedding has an unused entry more.
        position_temperature: of the sines of pixels.
        position_offset: added to pixel numbers counted from one.
        reference_eps: bound of the references that boxes move from.
        max_detections: (query, class) pairs of an image.
        pixel_mean: of RGB.
        pixel_std: of RGB.
    """
    numbering = ClassNumbering(num_classes=num_classes, kind=class_numbering)
    outputs = numbering.num_outputs
    sizes: dict[str, Any] = {
        "embed_dim": embed_dim,
        "num_heads": num_heads,
        "num_levels": num_levels,
    }
    denoising = Denoising(
        num_outputs=outputs,
        embed_dim=embed_dim,
        num_queries=denoising_queries,
        label_noise=label_noise,
        box_noise=box_noise,
        num_embeddings=outputs + extra_label,
    )
    return DINO(
        **_encoding_parts(
            backbone,
            in_channels,
            sizes,
            encoder_layers,
            ffn_dim,
            position_temperature,
            position_offset,
        ),
        proposals=EncoderProposals(
            embed_dim=embed_dim, num_classes=outputs, num_queries=num_queries, ranking="best_class"
        ),
        queries=LearnedContent(embed_dim=embed_dim, num_queries=num_queries),
        decoder=DeformableDecoder(
            num_layers=decoder_layers,
            ffn_dim=ffn_dim,
            look_forward_twice=True,
            share_box_heads=share_heads,
            output_norm=True,
            query_position=ReferencePosition(embed_dim=embed_dim),
            reference_eps=reference_eps,
            **sizes,
        ),
        class_heads=[
            class_head(embed_dim, outputs) for _ in range(1 if share_heads else decoder_layers)
        ],
        criterion=_criterion(weight_class=1.0),
        numbering=numbering,
        num_queries=num_queries,
        denoising=denoising if denoising_queries else None,
        max_detections=max_detections,
        pixel_mean=pixel_mean,
        pixel_std=pixel_std,
    )


def _encoding_parts(
    backbone: nn.Module,
    in_channels: Mapping[str, int],
    sizes: Mapping[str, Any],
    num_layers: int,
    ffn_dim: int,
    temperature: float,
    offset: float,
) -> dict[str, Any]:
    embed_dim, num_levels = sizes["embed_dim"], sizes["num_levels"]
    return {
        "backbone": backbone,
        "projection": PyramidProjection(
            in_channels=in_channels, embed_dim=embed_dim, num_levels=num_levels
        ),
        "tokens": PyramidTokens(
            embed_dim=embed_dim, num_levels=num_levels, temperature=temperature, offset=offset
        ),
        "encoder": DeformableEncoder(num_layers=num_layers, ffn_dim=ffn_dim, **sizes),
    }


def _criterion(weight_class: float) -> DetectionCriterion:
    """The class loss of DINO weighs half that of H-DETR; the matching is the same."""
    return DetectionCriterion(
        matcher=BoxMatcher(weight_class=2.0, weight_box=5.0, weight_giou=2.0),
        weights={"class": weight_class, "box": 5.0, "giou": 2.0},
    )
