"""Mask Frozen-DETR on the tiny detector: learns masks of the synthetic shapes on a CPU in minutes.

First train the detector with `configs/detectors/hdetr_tiny.py`; `train.init_checkpoint` is where
that leaves it by default.
"""

from ..common.schedule import cosine
from ..detectors.hdetr_tiny import dataloader, optimizer, train
from ..detectors.hdetr_tiny import model as _detector
from .mask_frozen_detr_hdetr_r50 import model

model.num_classes = 6
model.detector = _detector
model.detector.num_classes = "${..num_classes}"
model.mask_network.stage1_channels = 64
model.mask_network.encoder_layer = 2
model.mask_network.image_layers = 1
model.mask_network.roi_size = 16
model.mask_network.hidden_dim = 32
model.mask_network.region_layers = 1
model.mask_network.scaled_dot_product = True
model.criterion.point_sampler.num_points = 64
model.num_boxes = 50
model.max_detections = 50

train.max_iter = 1000
train.init_checkpoint = "output/hdetr_tiny/model_final.pth"
train.best_checkpoint.metric = "segm/AP"

lr_multiplier = cosine(train.max_iter, end=0.01, warmup_iters=60)
