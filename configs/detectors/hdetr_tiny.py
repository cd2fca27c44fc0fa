"""An H-Deformable-DETR that learns to find the synthetic shapes on a CPU in minutes.

The detector under `mask_frozen_detr_tiny`: a ResNet-18 without its last stage, 64 channels and two
layers of encoder and decoder.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import ResNet

from ..common.schedule import cosine
from ..common.small_set import ANY_QUARTER_TURN, use_small_set
from .hdetr_r50 import dataloader, model, optimizer, train

model.num_classes = 6
model.backbone.stem.norm = "BN"
model.backbone.stages = L(ResNet.make_default_stages)(depth=18, norm="BN")
model.backbone.out_features = ["res2", "res3", "res4"]
model.backbone.freeze_at = 0
model.in_channels = {"res3": 128, "res4": 256}
model.num_levels = 3
model.embed_dim = 64
model.num_heads = 4
model.ffn_dim = 128
model.encoder_layers = 2
model.decoder_layers = 2
model.num_queries = 30
model.num_one_to_many = 60
model.repeats = 4
model.max_detections = 50

use_small_set(dataloader, augmentations=ANY_QUARTER_TURN)
dataloader.train.dataset.filter_empty = True
dataloader.train.mapper.filter_empty = True
dataloader.train.mapper.recompute_boxes = True

optimizer.lr = 1e-3
optimizer.weight_decay = 1e-4
optimizer.fused = True
optimizer.params.lr_multipliers = {}

train.max_iter = 800
train.total_batch_size = 8
train.init_checkpoint = ""
train.clip_grad.max_norm = 1.0
train.eval_period = 0
train.checkpointer.period = 200

lr_multiplier = cosine(train.max_iter, end=0.01, warmup_iters=60)
