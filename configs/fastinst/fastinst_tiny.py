"""A FastInst-D1 that learns the synthetic shapes on a CPU in minutes.

A ResNet-18 without its last stage, so masks are predicted at a quarter of the image's side, from
random weights. The quick start writes images of 128 pixels; others are shrunk to that.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import ResNet

from ..common.schedule import cosine
from ..common.small_set import ANY_QUARTER_TURN, use_small_set
from .fastinst_r50_d3 import dataloader, model, optimizer, train

model.num_classes = 6
model.backbone.stem.norm = "BN"
model.backbone.stages = L(ResNet.make_default_stages)(depth=18, norm="BN")
model.backbone.out_features = ["res2", "res3", "res4"]
model.pixel_decoder.in_channels = {"res2": 64, "res3": 128, "res4": 256}
model.decoder.embed_dim = 64
model.decoder.num_layers = 1
model.decoder.num_heads = 4
model.decoder.ffn_dim = 128
model.decoder.queries.num_queries = 25
model.criterion.weights.proposal = 60.0
model.criterion.point_sampler.num_points = 1024

use_small_set(dataloader, augmentations=ANY_QUARTER_TURN)
dataloader.train.mapper.filter_empty = True

optimizer.lr = 1e-3
optimizer.fused = True
optimizer.params.lr_multipliers = {}
optimizer.params.weight_decay_bias = 0.0

train.max_iter = 1300
train.total_batch_size = 8
train.seed = 0
train.init_checkpoint = ""
train.amp.enabled = False
train.clip_grad.enabled = True
train.eval_period = 0
train.checkpointer.period = 500

lr_multiplier = cosine(train.max_iter, end=0.01, warmup_iters=60)
