"""A SOIT that learns the synthetic shapes on a CPU in minutes.

A ResNet-18 without its last stage, from random weights, and a pyramid that begins at stride 4, so
masks are learnt at the full size of the image. The quick start writes images of 128 pixels; others
are shrunk to that.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import ResNet

from ..common.schedule import cosine
from ..common.small_set import ANY_QUARTER_TURN, use_small_set
from .soit_r50_50ep import dataloader, model, optimizer, train

model.num_classes = 6
model.backbone.stem.norm = "BN"
model.backbone.stages = L(ResNet.make_default_stages)(depth=18, norm="BN")
model.backbone.out_features = ["res2", "res3", "res4"]
model.backbone.freeze_at = 0
model.projection.in_channels = {"res2": 64, "res3": 128, "res4": 256}
model.encoder.num_layers = 1
model.queries.num_queries = 30
model.decoder.embed_dim = 64
model.decoder.num_layers = 2
model.decoder.num_levels = 3
model.decoder.num_heads = 4
model.decoder.ffn_dim = 128
model.decoder.dropout = 0.0
model.mask_branch.num_layers = 2

use_small_set(dataloader, augmentations=ANY_QUARTER_TURN)
dataloader.train.mapper.recompute_boxes = True

optimizer.lr = 1e-3
optimizer.fused = True
optimizer.params.lr_multipliers = {}

train.max_iter = 1300
train.total_batch_size = 8
train.seed = 0
train.init_checkpoint = ""
train.clip_grad.max_norm = 1.0
train.eval_period = 0
train.checkpointer.period = 500

lr_multiplier = cosine(train.max_iter, end=0.01, warmup_iters=60)
