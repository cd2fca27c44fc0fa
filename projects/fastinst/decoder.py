"""The dual-path decoder: initial queries, layers, a prediction head before and after each."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from queryseg.projects.fastinst.attention_mask import predicted_attention, with_auxiliary
from queryseg.projects.fastinst.dual_path_layer import DualPathLayer, Update
from queryseg.projects.fastinst.initial_queries import InitialQueries
from queryseg.projects.fastinst.prediction_head import Prediction, PredictionHead


@dataclass(frozen=True)
class Streams:
    """Queries and pixels between two layers, with the positions that go with them.

    Args:
        query_feats: (B, Q + N_b, C), object queries first, then auxiliary ones.
        pixel_feats: (B, S, C).
        query_pos: (B, Q + N_b, C).
        pixel_pos: (1, S, C).
        mask_size: (h, w) with S = h * w.
    """

    query_feats: Tensor
    pixel_feats: Tensor
    query_pos: Tensor
    pixel_pos: Tensor
    mask_size: tuple[int, int]

    def through(self, layer: DualPathLayer, attend_mask: Tensor | None) -> "Streams":
        """The streams after a layer."""
        query_feats, pixel_feats = layer(
            self.query_feats, self.pixel_feats, self.query_pos, self.pixel_pos, attend_mask
        )
        return Streams(query_feats, pixel_feats, self.query_pos, self.pixel_pos, self.mask_size)


@dataclass(frozen=True)
class Decoded:
    """Everything the decoder found out.

    Args:
        queries: the initial object queries.
        predictions: of the heads 0 to D; the last one is the result. In evaluation only the last
            carries class logits.
        streams: after each of the D layers.
    """

    queries: InitialQueries
    predictions: list[Prediction]
    streams: list[Streams]

    @property
    def final(self) -> Prediction:
        """The prediction of the last head."""
        return self.predictions[-1]


class FastInstDecoder(nn.Module):
    """Refine queries and pixels in turn and predict at every stage (section 3.4).

    Args:
        queries: chooses the initial object queries from the pyramid.
        positions: positional embeddings of a map of any size.
        embed_dim: C.
        num_classes: K.
        num_layers: D; 0 predicts from the initial queries.
        num_aux_queries: N_b learned queries that take part in all attention and predict nothing.
        num_heads: attention heads.
        ffn_dim: hidden width of the feed-forward blocks.
        update: which stream is updated, in which order.
        pre_norm: normalise before instead of after each block.
    """

    def __init__(
        self,
        *,
        queries: nn.Module,
        positions: nn.Module,
        embed_dim: int,
        num_classes: int,
        num_layers: int,
        num_aux_queries: int = 8,
        num_heads: int = 8,
        ffn_dim: int = 1024,
        update: Update = "pixel_then_query",
        pre_norm: bool = False,
    ) -> None:
        super().__init__()
        self.queries = queries
        self.positions = positions
        self.aux_feats = nn.Embedding(num_aux_queries, embed_dim) if num_aux_queries else None
        self.aux_pos = nn.Embedding(num_aux_queries, embed_dim) if num_aux_queries else None
        self.num_aux_queries = num_aux_queries
        self.layers = nn.ModuleList(
            DualPathLayer(
                embed_dim=embed_dim,
                num_heads=num_heads,
                ffn_dim=ffn_dim,
                update=update,
                pre_norm=pre_norm,
            )
            for _ in range(num_layers)
        )
        self.heads = nn.ModuleList(
            PredictionHead(embed_dim=embed_dim, num_classes=num_classes)
            for _ in range(num_layers + 1)
        )
        self.uses_masks = num_layers > 0 and update != "pixel_only"
        if not num_layers:
            self._freeze_positions()

    def forward(self, pyramid: Sequence[Tensor]) -> Decoded:
        """Decode a pyramid of (B, C, h, w) maps, finest first."""
        queries = self.queries(pyramid, self.positions)
        streams = [self._start(queries, pyramid[0])]
        predictions = [self._predict(0, streams[0])] if self._needs_head(0) else []
        for index, layer in enumerate(self.layers, start=1):
            attend = predicted_attention(predictions[-1].mask_logits) if self.uses_masks else None
            streams.append(streams[-1].through(layer, self._attend_mask(attend)))
            if self._needs_head(index):
                predictions.append(self._predict(index, streams[-1]))
        return Decoded(queries, predictions, streams[1:])

    def guided(self, decoded: Decoded, attend: Tensor) -> list[Prediction]:
        """Run every layer once more on its own output, looking where the ground truth says.

        The guided runs do not feed each other (section 3.5).

        Args:
            decoded: the normal pass; gradients flow back into it.
            attend: (B, Q, S) bool, the same for all layers.

        Returns:
            D predictions of the heads 1 to D.
        """
        mask = self._attend_mask(attend)
        return [
            self._predict(index, streams.through(layer, mask))
            for index, (layer, streams) in enumerate(zip(self.layers, decoded.streams), start=1)
        ]

    def _start(self, queries: InitialQueries, finest: Tensor) -> Streams:
        feats, position = queries.feats, queries.position
        if self.aux_feats is not None and self.aux_pos is not None:
            batch = len(finest)
            feats = torch.cat((feats, self.aux_feats.weight.expand(batch, -1, -1)), dim=1)
            position = torch.cat((position, self.aux_pos.weight.expand(batch, -1, -1)), dim=1)
        return Streams(
            query_feats=feats,
            pixel_feats=finest.flatten(2).mT,
            query_pos=position,
            pixel_pos=self.positions(finest).flatten(2).mT,
            mask_size=tuple(finest.shape[-2:]),
        )

    def _attend_mask(self, attend: Tensor | None) -> Tensor | None:
        return None if attend is None else with_auxiliary(attend, self.num_aux_queries)

    def _needs_head(self, index: int) -> bool:
        """Training supervises every head; evaluation needs the last, and those that make masks."""
        return self.training or self.uses_masks or index == len(self.layers)

    def _predict(self, index: int, streams: Streams) -> Prediction:
        count = streams.query_feats.shape[1] - self.num_aux_queries
        return self.heads[index](
            streams.query_feats[:, :count],
            streams.pixel_feats,
            streams.mask_size,
            with_classes=self.training or index == len(self.layers),
        )

    def _freeze_positions(self) -> None:
        """Without layers nothing reads positions and auxiliary queries: they get no gradient."""
        unread = [self.positions, self.aux_feats, self.aux_pos]
        unread.append(getattr(self.queries, "position", None))
        for module in unread:
            if module is not None:
                module.requires_grad_(False)
