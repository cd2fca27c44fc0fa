"""Recommended for new training: all boxes refined, and where the release and the paper differ the
better founded of both. The reasons stand in the method's README.
"""

from .mask_transfiner_r50_3x import dataloader, lr_multiplier, model, optimizer, train

_head = model.roi_heads.mask_head
_head.max_boxes_train = None
_head.max_boxes_test = None
_head.region.train_thresholds = [0.125, 0.125, 0.5]
_head.region.thresholds = [0.125, 0.125, 0.5]
_head.refiner.node_encoder.context_dim = 64
_head.sampler.min_nodes = 0
_head.nodes_of_truth = True
_head.propagation.mode = "half_pixel"
_head.propagation.skip_empty_levels = False
_head.align_foreground = True
_head.criterion.probability_form = False
_head.criterion.reference_labels = False

dataloader.train.mapper.keep_polygons = False
