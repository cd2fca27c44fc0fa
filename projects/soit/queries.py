"""Where the decoder's queries come from."""

from typing import Literal

from torch import nn

from queryseg.deformable_detr import (
    EncoderProposals,
    LearnedQueries,
    ProposalQueries,
    Proposals,
    Queries,
    TokenPyramid,
)

QueryKind = Literal["proposals", "learned"]


class TwoStageQueries(nn.Module):
    """Queries made of the best boxes that the encoder proposes (the release).

    Args:
        embed_dim: C.
        num_classes: K.
        num_queries: Q.
    """

    def __init__(self, *, embed_dim: int, num_classes: int, num_queries: int) -> None:
        super().__init__()
        self.proposals = EncoderProposals(
            embed_dim=embed_dim, num_classes=num_classes, num_queries=num_queries
        )
        self.queries = ProposalQueries(embed_dim=embed_dim)

    def forward(self, memory: TokenPyramid) -> tuple[Queries, Proposals]:
        """Queries from the encoded pyramid, and the proposals, which learn too."""
        proposals = self.proposals(memory)
        return self.queries(proposals.references), proposals


class OneStageQueries(nn.Module):
    """Learned queries (section 3.1).

    Args:
        embed_dim: C.
        num_queries: Q.
    """

    def __init__(self, *, embed_dim: int, num_queries: int) -> None:
        super().__init__()
        self.queries = LearnedQueries(embed_dim=embed_dim, num_queries=num_queries)

    def forward(self, memory: TokenPyramid) -> tuple[Queries, None]:
        """The same queries for every image of the batch."""
        return self.queries(len(memory.tokens)), None


def build_queries(
    *, kind: QueryKind, embed_dim: int, num_classes: int, num_queries: int
) -> TwoStageQueries | OneStageQueries:
    """A way of making queries by name, so that a config override can exchange it.

    Args:
        kind: "proposals" of the encoder (release) or "learned" (paper).
        embed_dim: C.
        num_classes: K.
        num_queries: Q.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "proposals":
        return TwoStageQueries(
            embed_dim=embed_dim, num_classes=num_classes, num_queries=num_queries
        )
    if kind == "learned":
        return OneStageQueries(embed_dim=embed_dim, num_queries=num_queries)
    raise ValueError(f"query kind is {kind!r}; expected 'proposals' or 'learned'")
