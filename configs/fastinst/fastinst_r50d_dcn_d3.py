"""FastInst-D3 on ResNet-50-d with deformable convolutions: 40.5 AP on COCO test-dev (Table 1)."""

from detectron2.config import LazyCall as L

from queryseg.backbones import ResNetD

from .fastinst_r50_d3 import dataloader, lr_multiplier, model, optimizer, train

model.backbone = L(ResNetD)(
    depth=50,
    norm="FrozenBN",
    deform_stages=["res4", "res5"],
    out_features=["res3", "res4", "res5"],
)
train.init_checkpoint = (
    "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights/"
    "resnet50d_ra2-464e36ba.pth"
)
