"""The refiner: corrected labels of quadtree nodes (section 3.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from queryseg.mask_refinement.node_encoder import NodeEncoder
from queryseg.mask_refinement.rois import RoIs
from queryseg.mask_refinement.sequence_encoders import SequenceEncoder, same_level_mask
from queryseg.ops.quadtree import QuadtreeNodes
from queryseg.ops.sequence_buckets import TOKENS_AT_ONCE, Bucket, SequenceBuckets


class QuadtreeRefiner(nn.Module):
    """Node encoder, sequence encoder and pixel decoder.

    The nodes of a box are one sequence. Boxes are sorted by the lengths of their sequences and pass
    through in padded batches of bounded size: no loop over boxes, and once the node counts are
    known to the host nothing waits for the device.

    Args:
        node_encoder: nodes to tokens.
        sequence_encoder: tokens to tokens.
        embed_dim: width of a token.
        joint: the nodes of all levels see each other; otherwise only those of their own level and
            the reference tokens (Table 8).
        tokens_at_once: bounds a batch.
    """

    def __init__(
        self,
        *,
        node_encoder: NodeEncoder,
        sequence_encoder: SequenceEncoder,
        embed_dim: int = 256,
        joint: bool = True,
        tokens_at_once: int = TOKENS_AT_ONCE,
    ) -> None:
        super().__init__()
        self.node_encoder = node_encoder
        self.sequence_encoder = sequence_encoder
        # 1x1 convolutions, as the release stores them.
        self.decoder = nn.Sequential(
            nn.Conv2d(embed_dim, embed_dim, 1), nn.ReLU(), nn.Conv2d(embed_dim, 1, 1)
        )
        self.joint = joint
        self.tokens_at_once = tokens_at_once
        for parameter in self.decoder.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        maps: Sequence[Tensor],
        reference_maps: Sequence[Tensor],
        rois: RoIs,
        nodes: QuadtreeNodes,
        coarse_probs: Sequence[Tensor],
        *,
        lengths: Sequence[int],
        num_references: int,
        with_references: bool = False,
    ) -> Tensor:
        """Refined labels.

        Args:
            maps: L maps that the refined grids are pooled from.
            reference_maps: L maps that reference tokens are pooled from.
            rois: N boxes.
            nodes: T nodes, in sequences that begin with the reference tokens.
            coarse_probs: (N, 1, size, size) at the resolution of every grid.
            lengths: nodes of every box, on the host.
            num_references: reference tokens of every box.
            with_references: compute the labels of reference tokens too; else they are zero.

        Returns:
            (T,) probabilities, float32.
        """
        plan = SequenceBuckets.from_lengths(lengths, nodes.level.device, self.tokens_at_once)
        skip = 0 if with_references else num_references
        labels = []
        for bucket in plan.buckets:
            encoded = self._encode(maps, reference_maps, rois, nodes, coarse_probs, bucket, skip)
            probs = self._decode(encoded).float().sigmoid()
            labels.append(F.pad(probs, (skip, 0)))
        return plan.unpad(labels) if labels else maps[0].new_zeros(0, dtype=torch.float32)

    def _encode(
        self,
        maps: Sequence[Tensor],
        reference_maps: Sequence[Tensor],
        rois: RoIs,
        nodes: QuadtreeNodes,
        coarse_probs: Sequence[Tensor],
        bucket: Bucket,
        skip: int,
    ) -> Tensor:
        flat = bucket.tokens.flatten()
        chosen = QuadtreeNodes(nodes.index[flat], nodes.level[flat], nodes.counts, nodes.grid_sizes)
        tokens, position = self.node_encoder(maps, reference_maps, rois, chosen, coarse_probs)
        shape = bucket.tokens.shape
        tokens = tokens.unflatten(0, shape)
        position = None if position is None else position.unflatten(0, shape)
        mask = None if bucket.padding_mask is None else ~bucket.padding_mask[:, None, None]
        if not self.joint:
            mask = same_level_mask(chosen.level.view(shape), bucket.padding_mask)
        return self.sequence_encoder(tokens, position, mask, skip)

    def _decode(self, encoded: Tensor) -> Tensor:
        """(n, S, E) to (n, S) logits."""
        for layer in self.decoder:
            if isinstance(layer, nn.Conv2d):
                encoded = F.linear(encoded, layer.weight.flatten(1), layer.bias)
            else:
                encoded = layer(encoded)
        return encoded.squeeze(-1)
