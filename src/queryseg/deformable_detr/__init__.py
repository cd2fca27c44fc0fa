"""Parts of Deformable DETR that several methods build on."""

from queryseg.deformable_detr.attention import DeformableAttention
from queryseg.deformable_detr.encoder import DeformableEncoder, DeformableEncoderLayer
from queryseg.deformable_detr.pyramid import cell_centres, flatten_pyramid, split_pyramid

__all__ = [
    "DeformableAttention",
    "DeformableEncoder",
    "DeformableEncoderLayer",
    "cell_centres",
    "flatten_pyramid",
    "split_pyramid",
]
