"""Parts of Deformable DETR that several methods build on."""

from queryseg.deformable_detr.attention import DeformableAttention
from queryseg.deformable_detr.box_refinement import box_head, inverse_sigmoid, refine_boxes
from queryseg.deformable_detr.decoder import (
    Decoded,
    DeformableDecoder,
    DeformableDecoderLayer,
    Queries,
)
from queryseg.deformable_detr.encoder import DeformableEncoder, DeformableEncoderLayer
from queryseg.deformable_detr.projection import PyramidProjection
from queryseg.deformable_detr.proposals import EncoderProposals, Proposals, class_head
from queryseg.deformable_detr.pyramid import cell_centres, flatten_pyramid, split_pyramid
from queryseg.deformable_detr.queries import LearnedContent, LearnedQueries, ProposalQueries
from queryseg.deformable_detr.reference_position import ReferencePosition
from queryseg.deformable_detr.token_pyramid import PyramidTokens, TokenPyramid

__all__ = [
    "Decoded",
    "DeformableAttention",
    "DeformableDecoder",
    "DeformableDecoderLayer",
    "DeformableEncoder",
    "DeformableEncoderLayer",
    "EncoderProposals",
    "LearnedContent",
    "LearnedQueries",
    "ProposalQueries",
    "Proposals",
    "PyramidProjection",
    "PyramidTokens",
    "Queries",
    "ReferencePosition",
    "TokenPyramid",
    "box_head",
    "cell_centres",
    "class_head",
    "flatten_pyramid",
    "inverse_sigmoid",
    "refine_boxes",
    "split_pyramid",
]
