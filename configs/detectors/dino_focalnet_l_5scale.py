"""DINO on FocalNet-L (four focal levels), five scales: the paper's strongest detector.

Its authors' file, trained on Objects365 and COCO, reports 63.5 box AP on COCO val.
"""

from detectron2.config import LazyCall as L

from queryseg.backbones import FocalNet

from .dino_r50_4scale import dataloader, lr_multiplier, model, optimizer, train

model.backbone = L(FocalNet)(
    embed_dim=192,
    depths=[2, 2, 18, 2],
    focal_levels=4,
    focal_window=3,
    drop_path_rate=0.3,
    out_features=["res2", "res3", "res4", "res5"],
)
model.in_channels = {"res2": 192, "res3": 384, "res4": 768, "res5": 1536}
model.num_levels = 5
train.init_checkpoint = ""
