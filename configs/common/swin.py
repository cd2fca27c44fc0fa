"""Swin Transformers of the paper's sizes. A config takes a copy and says which stages it returns.

Images are RGB with the ImageNet mean and standard deviation. `drop_path_rate` is that of the
official Swin detectors.
"""

from detectron2.config import LazyCall as L

from queryseg.backbones import Swin

swin_tiny = L(Swin)(
    embed_dim=96,
    depths=[2, 2, 6, 2],
    num_heads=[3, 6, 12, 24],
    window_size=7,
    drop_path_rate=0.2,
    out_features=["res2", "res3", "res4", "res5"],
)

swin_small = L(Swin)(
    embed_dim=96,
    depths=[2, 2, 18, 2],
    num_heads=[3, 6, 12, 24],
    window_size=7,
    drop_path_rate=0.2,
    out_features=["res2", "res3", "res4", "res5"],
)

swin_base = L(Swin)(
    embed_dim=128,
    depths=[2, 2, 18, 2],
    num_heads=[4, 8, 16, 32],
    window_size=7,
    drop_path_rate=0.3,
    out_features=["res2", "res3", "res4", "res5"],
)

swin_large = L(Swin)(
    embed_dim=192,
    depths=[2, 2, 18, 2],
    num_heads=[6, 12, 24, 48],
    window_size=7,
    drop_path_rate=0.3,
    out_features=["res2", "res3", "res4", "res5"],
)
