"""What the queries of a decoder start from."""

from torch import Tensor, nn

from queryseg.deformable_detr.decoder import Queries
from queryseg.layers import sine_box_encoding


class ProposalQueries(nn.Module):
    """Queries made from proposed boxes (two-stage Deformable DETR, appendix A.4).

    Args:
        embed_dim: C.
        num_learned: None to take content and position from the box; or how many learned contents
            there are, attached by rank (mixed query selection of DINO; H-DETR does so too).
    """

    def __init__(self, *, embed_dim: int = 256, num_learned: int | None = None) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.linear = nn.Linear(2 * embed_dim, 2 * embed_dim)
        self.norm = nn.LayerNorm(2 * embed_dim)
        self.content = None if num_learned is None else nn.Embedding(num_learned, embed_dim)
        nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, references: Tensor) -> Queries:
        """(B, Q, 4) boxes as cx, cy, w, h in [0, 1] to queries."""
        code = sine_box_encoding(references, embed_dim=2 * self.embed_dim)
        code = self.norm(self.linear(code.to(self.linear.weight.dtype)))
        position, content = code.split(self.embed_dim, dim=-1)
        if self.content is not None:
            content = self.content.weight[: references.shape[1]].expand(len(references), -1, -1)
        return Queries(content, position, references)


class LearnedContent(nn.Module):
    """Learned contents attached to proposed boxes by rank, without positions (DINO).

    They start Xavier-uniform, like all matrices of the official Transformer.

    Args:
        embed_dim: C.
        num_queries: how many contents.
    """

    def __init__(self, *, embed_dim: int = 256, num_queries: int) -> None:
        super().__init__()
        self.content = nn.Embedding(num_queries, embed_dim)
        nn.init.xavier_uniform_(self.content.weight)

    def forward(self, references: Tensor) -> Queries:
        """(B, Q, 4) boxes as cx, cy, w, h in [0, 1] to queries."""
        content = self.content.weight[: references.shape[1]].expand(len(references), -1, -1)
        return Queries(content, None, references)


class LearnedQueries(nn.Module):
    """Learned contents, positions and reference points, the same for every image (one stage).

    Args:
        embed_dim: C.
        num_queries: Q.
    """

    def __init__(self, *, embed_dim: int = 256, num_queries: int = 300) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.embed = nn.Embedding(num_queries, 2 * embed_dim)
        self.reference_points = nn.Linear(embed_dim, 2)
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)

    def forward(self, batch_size: int) -> Queries:
        """Queries for a batch; references (B, Q, 2) are points."""
        position, content = (
            part.expand(batch_size, -1, -1)
            for part in self.embed.weight.split(self.embed_dim, dim=-1)
        )
        return Queries(content, position, self.reference_points(position).sigmoid())
