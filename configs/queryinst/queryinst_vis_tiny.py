"""A QueryInst-VIS of three stages that learns the synthetic videos on a CPU in minutes.

A ResNet-18 without its last stage, trained from random weights, so its batch norms are ordinary
ones, and Detectron2's pyramid. As the paper's starts from COCO, this one is meant to start from
still shapes, of which `queryinst_tiny` makes a checkpoint with all but the track head:
`"train.init_checkpoint='output/queryinst_tiny/model_final.pth?allow_partial=True'"`. Without one it
learns everything from the videos.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import FPN, ResNet

from ..common.schedule import cosine
from ..common.small_set import use_small_set
from .queryinst_r50_vis import dataloader, model, optimizer, train

model.num_classes = 6
model.backbone._target_ = FPN
model.backbone.bottom_up.stem.norm = "BN"
model.backbone.bottom_up.stages = L(ResNet.make_default_stages)(depth=18, norm="BN")
model.backbone.bottom_up.freeze_at = 0
model.backbone.in_features = ["res2", "res3", "res4"]
model.decoder.embed_dim = 64
model.decoder.num_queries = 25
model.decoder.num_stages = 3
model.decoder.num_heads = 4
model.decoder.dynamic_dim = 16
model.decoder.ffn_dim = 128
model.decoder.box_init = "grid"
model.decoder.box_features.strides = [4, 8, 16]
model.decoder.box_features.finest_side = 28
model.mask_branch.num_convs = 2
model.track_head.track_dim = 128
model.track_head.pooling = "mask"
model.track_head.max_product = 10.0
model.track_head.box_features.resolution = 14
model.tracker.momentum = 0.9
model.track_loss.weight = 2.0
model.min_score = 0.1
model.nms_iou = 0.6
model.both_frames = True

use_small_set(
    dataloader,
    "moving_shapes",
    [
        L(T.RandomFlip)(prob=0.5, horizontal=True, vertical=False),
        L(T.RandomFlip)(prob=0.5, horizontal=False, vertical=True),
    ],
)
dataloader.train.mapper.recompute_boxes = True

optimizer.lr = 1e-3
optimizer.weight_decay = 0.05
optimizer.params.weight_decay_norm = 0.0
optimizer.params.weight_decay_bias = 0.0
optimizer.fused = True

train.max_iter = 1500
train.total_batch_size = 6
train.init_checkpoint = ""
train.eval_period = 0
train.checkpointer.period = 500

lr_multiplier = cosine(train.max_iter, end=0.01, warmup_iters=60)
