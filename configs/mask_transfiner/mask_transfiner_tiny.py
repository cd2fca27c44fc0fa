"""A Mask Transfiner that learns synthetic shapes on a CPU in minutes.

A ResNet-18 without its last stage and half as wide in all that follows, from random weights. The
coarse masks have 14 rows, so that small objects show what the refinement is for: it ends at 56.
`model.roi_heads.mask_head.refiner=null` is the same model without it.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import ResNet

from ..common.schedule import cosine
from ..common.small_set import use_small_set
from .mask_transfiner_r50_all import dataloader, model, optimizer, train

WIDTH = 64

model.num_classes = 6
model.backbone.bottom_up.stem.norm = "BN"
model.backbone.bottom_up.stages = L(ResNet.make_default_stages)(depth=18, norm="BN")
model.backbone.bottom_up.out_features = ["res2", "res3", "res4"]
model.backbone.bottom_up.freeze_at = 0
model.backbone.out_channels = WIDTH
model.backbone.top_block = None
model.pixel_std = [57.375, 57.12, 58.395]

_rpn = model.proposal_generator
_rpn.in_features = ["p2", "p3", "p4"]
_rpn.anchor_generator.sizes = [[20], [36], [60]]
_rpn.anchor_generator.strides = [4, 8, 16]
_rpn.batch_size_per_image = 64
_rpn.pre_nms_topk = (300, 200)
_rpn.post_nms_topk = (100, 50)

_heads = model.roi_heads
_heads.batch_size_per_image = 32
_heads.box_in_features = ["p2", "p3", "p4"]
_heads.box_pooler.scales = [1 / 4, 1 / 8, 1 / 16]
_heads.box_pooler.canonical_box_size = 48
_heads.box_pooler.canonical_level = 3
_heads.box_head.fc_dims = [128]
_heads.box_predictor.input_shape.channels = 128
_heads.box_predictor.test_topk_per_image = 20

_head = _heads.mask_head
_head.in_features = ["p2", "p3", "p4"]
_head.pyramid.strides = [4, 8, 16]
_head.pyramid.canonical_box_size = 48
_head.pyramid.canonical_level = 3
_head.pyramid.grid_sizes = [14, 28, 56]
_head.pyramid.reference_size = 7
_head.semantic.channels = WIDTH
_head.semantic.num_convs = 2
_head.coarse_head.in_channels = WIDTH
_head.coarse_head.conv_dim = WIDTH
_head.coarse_head.num_convs = 2
_head.coarse_head.pooled_size = 7
_head.detector.channels = WIDTH
_head.detector.hidden_dim = WIDTH
_head.refiner.embed_dim = WIDTH
_head.refiner.node_encoder.in_channels = WIDTH
_head.refiner.node_encoder.context_dim = 32
_head.refiner.sequence_encoder.num_layers = 2
_head.refiner.sequence_encoder.ffn_dim = 128
_head.refiner.sequence_encoder.dropout = 0.0
_head.sampler.nodes_per_level = 40

use_small_set(dataloader)
dataloader.train.mapper.recompute_boxes = True

optimizer.lr = 0.02
train.max_iter = 300
train.total_batch_size = 4
train.init_checkpoint = ""
train.clip_grad.enabled = True
train.clip_grad.max_norm = 5.0
train.eval_period = 0
train.checkpointer.period = 500

lr_multiplier = cosine(train.max_iter, end=0.01, warmup_iters=30)
