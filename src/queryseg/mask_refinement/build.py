"""Parts of the quadtree mask head by name, so that a config override can exchange them."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from queryseg.mask_refinement.criterion import (
    EquationOneTargets,
    IncoherenceTargets,
    LossyPixelTargets,
    OutlineTargets,
)
from queryseg.mask_refinement.node_sampler import FullSampler, NodeSampler
from queryseg.mask_refinement.regions import DetectedRegion, FullRegion, UncertainRegion
from queryseg.mask_refinement.sequence_encoders import (
    ConvSequence,
    MLPSequence,
    NonLocalSequence,
    TransformerSequence,
)

Region = Callable[[Sequence[Tensor], Tensor, Sequence[int], bool], list[Tensor]]


def build_region(
    *,
    kind: Literal["detected", "full", "uncertain"],
    thresholds: Sequence[float] = (),
    train_thresholds: Sequence[float] | None = None,
    radius: float = 0.0,
    dilate_finest: bool = False,
    num_cells: int = 784,
) -> Region:
    """What is refined (Tables 2 and 6).

    Args:
        kind: "detected"; "full", all cells; or "uncertain", as PointRend chooses.
        thresholds, train_thresholds, radius, dilate_finest: of `DetectedRegion`.
        num_cells: of `UncertainRegion`.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "detected":
        return DetectedRegion(
            thresholds=thresholds,
            train_thresholds=train_thresholds,
            radius=radius,
            dilate_finest=dilate_finest,
        )
    if kind == "uncertain":
        return UncertainRegion(num_cells=num_cells)
    if kind == "full":
        return FullRegion()
    raise ValueError(f"region kind is {kind!r}; expected 'detected', 'full' or 'uncertain'")


def build_sequence_encoder(
    *,
    kind: Literal["transformer", "nonlocal", "mlp", "cnn"],
    embed_dim: int,
    num_layers: int,
    num_heads: int = 4,
    ffn_dim: int = 2048,
    dropout: float = 0.1,
) -> nn.Module:
    """How tokens learn from each other (Tables 6 and 7).

    Args:
        kind: "transformer"; "nonlocal"; "mlp", each for itself; or "cnn", on one full grid.
        embed_dim: width of a token.
        num_layers: D.
        num_heads, ffn_dim, dropout: of the transformer.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "transformer":
        return TransformerSequence(
            embed_dim=embed_dim,
            num_heads=num_heads,
            num_layers=num_layers,
            ffn_dim=ffn_dim,
            dropout=dropout,
        )
    others: dict[str, Any] = {"nonlocal": NonLocalSequence, "mlp": MLPSequence, "cnn": ConvSequence}
    if kind not in others:
        raise ValueError(
            f"sequence encoder kind is {kind!r}; expected one of transformer, {', '.join(others)}"
        )
    return others[kind](embed_dim=embed_dim, num_layers=num_layers)


def build_incoherence_targets(
    *,
    kind: Literal["lossy", "equation_one", "outline"],
    threshold: float = 0.05,
    signed: bool = False,
    jitter: int = 1,
) -> IncoherenceTargets:
    """What the detector is to find in training.

    Args:
        kind: "lossy", the release's; "equation_one", the paper's; "outline" (Table 2).
        threshold, signed: of `LossyPixelTargets`.
        jitter: of `EquationOneTargets`.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "lossy":
        return LossyPixelTargets(threshold=threshold, signed=signed)
    if kind == "equation_one":
        return EquationOneTargets(jitter=jitter)
    if kind == "outline":
        return OutlineTargets()
    raise ValueError(f"target kind is {kind!r}; expected 'lossy', 'equation_one' or 'outline'")


def build_sampler(
    *, kind: Literal["random", "full"], nodes_per_level: int = 150, min_nodes: int = 0
) -> NodeSampler | FullSampler:
    """The nodes of a training step.

    Args:
        kind: "random"; or "full", all of them, which whole-grid refiners need.
        nodes_per_level, min_nodes: of `NodeSampler`.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "random":
        return NodeSampler(nodes_per_level=nodes_per_level, min_nodes=min_nodes)
    if kind == "full":
        return FullSampler()
    raise ValueError(f"sampler kind is {kind!r}; expected 'random' or 'full'")
