"""From queries to masks: a shared map, and a vector per instance that reads it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from queryseg.deformable_detr import Decoded, TokenPyramid
from queryseg.layers import MLP
from queryseg.matching import Assignment
from queryseg.projects.soit.instance_transformer import InstanceTransformer
from queryseg.projects.soit.mask_encoder import MaskEncoder


@dataclass(frozen=True)
class MaskFeatures:
    """The shared maps of a batch.

    Args:
        maps: (B, H, W, C_mask).
        valid_sizes: (B, 2) int64, rows and columns that are no padding.
    """

    maps: Tensor
    valid_sizes: Tensor


@dataclass(frozen=True)
class MatchedMasks:
    """Masks of all queries that stand for an instance, sorted by instance.

    Args:
        mask_logits: (N, H, W).
        tgt_idx: (N,) int64 instance within the batch, ascending.
        image_idx: (N,) int64 image, ascending too.
        layer_idx: (N,) int64 decoder layer.
        layers: the decoder layers that learn masks.
    """

    mask_logits: Tensor
    tgt_idx: Tensor
    image_idx: Tensor
    layer_idx: Tensor
    layers: range


class MaskBranch(nn.Module):
    """Mask encoder, mask head of the decoder layers, instance-aware transformer.

    Args:
        encoder: gives the shared maps.
        transformer: reads the maps with the vectors of the head.
        embed_dim: C of the queries.
        num_layers: how many of the last decoder layers learn masks (Table 5).
        share_head: one head for all of these layers, as in the release, instead of one each.
    """

    def __init__(
        self,
        *,
        encoder: MaskEncoder,
        transformer: InstanceTransformer,
        embed_dim: int = 256,
        num_layers: int = 6,
        share_head: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.transformer = transformer
        self.num_layers = num_layers
        self.heads = nn.ModuleList(
            MLP(
                input_dim=embed_dim,
                hidden_dim=embed_dim,
                output_dim=transformer.num_weights,
                num_layers=3,
            )
            for _ in range(1 if share_head else num_layers)
        )

    def features(self, memory: TokenPyramid) -> MaskFeatures:
        """The shared maps of an encoded pyramid."""
        return MaskFeatures(self.encoder(memory), memory.valid_sizes[:, 0])

    def final_masks(self, features: MaskFeatures, decoded: Decoded, query_idx: Tensor) -> Tensor:
        """Masks of the last layer.

        Args:
            features: of the whole batch.
            decoded: of the whole batch.
            query_idx: (N, 2) int64 image and query of each mask.

        Returns:
            (N, H, W) logits.
        """
        image_idx, src_idx = query_idx.unbind(1)
        query_feats = decoded.query_feats[-1][image_idx, src_idx]
        centres = decoded.boxes[-1][image_idx, src_idx, :2]
        return self._masks(features, self.heads[-1](query_feats), centres, image_idx)

    def matched_masks(
        self, features: MaskFeatures, decoded: Decoded, assignments: Sequence[Assignment]
    ) -> MatchedMasks:
        """Masks of the matched queries of the last layers, all in one call of the kernel.

        Args:
            features: of the whole batch.
            decoded: of the whole batch.
            assignments: of each decoder layer.
        """
        vectors, centres, images, targets, layer_idx = [], [], [], [], []
        layers = range(len(decoded.boxes))[-self.num_layers :]
        for layer in layers:
            pairs = assignments[layer]
            head = self.heads[min(layer - layers[0], len(self.heads) - 1)]
            vectors.append(head(decoded.query_feats[layer][pairs.image_idx, pairs.src_idx]))
            centres.append(decoded.boxes[layer][pairs.image_idx, pairs.src_idx, :2])
            images.append(pairs.image_idx)
            targets.append(pairs.tgt_idx)
            layer_idx.append(torch.full_like(pairs.tgt_idx, layer))
        tgt_idx, order = torch.cat(targets).sort(stable=True)
        image_idx = torch.cat(images)[order]
        mask_logits = self._masks(
            features, torch.cat(vectors)[order], torch.cat(centres)[order], image_idx
        )
        return MatchedMasks(mask_logits, tgt_idx, image_idx, torch.cat(layer_idx)[order], layers)

    def _masks(
        self, features: MaskFeatures, vectors: Tensor, centres: Tensor, image_idx: Tensor
    ) -> Tensor:
        return self.transformer(
            features.maps, vectors, centres.detach(), image_idx, features.valid_sizes
        )


def build_mask_branch(
    *,
    encoder: MaskEncoder,
    transformer: InstanceTransformer,
    embed_dim: int,
    num_layers: int,
    share_head: bool = True,
) -> MaskBranch | None:
    """A mask branch, or none where no layer learns masks (Table 5, stage 0); see `MaskBranch`."""
    if num_layers == 0:
        return None
    return MaskBranch(
        encoder=encoder,
        transformer=transformer,
        embed_dim=embed_dim,
        num_layers=num_layers,
        share_head=share_head,
    )
