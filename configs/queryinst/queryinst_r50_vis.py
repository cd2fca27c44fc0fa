"""QueryInst-VIS on ResNet-50 for YouTube-VIS 2019: 34.6 AP, 36.2 with several scales (Table 3).

12 epochs at batch 16, an epoch being every frame with an object once (about 61,000), from a
checkpoint of COCO:
`"train.init_checkpoint='queryinst_r50_300q.pth?allow_partial=True'"`. Several scales:
`"dataloader.train.mapper.augmentations.0.short_edge_length=[360,480]"
dataloader.train.mapper.augmentations.0.max_size=960`.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from queryseg.data.mapper import InstanceMapper
from queryseg.data.registration import get_dataset_dicts
from queryseg.data.video_frames import (
    FramePairMapper,
    build_pair_loader,
    build_video_test_loader,
)
from queryseg.evaluation import VideoEvaluator
from queryseg.projects.queryinst.roi_features import BoxFeatures
from queryseg.projects.queryinst.track_head import TrackHead
from queryseg.projects.queryinst.track_loss import TrackLoss
from queryseg.projects.queryinst.tracker import OnlineTracker
from queryseg.projects.queryinst.vis_model import QueryInstVIS

from ..common.schedule import multi_step
from .queryinst_r50_100q_3x import dataloader, model, optimizer, train

model._target_ = QueryInstVIS
model.num_classes = 40
model.decoder.num_queries = 10
model.track_head = L(TrackHead)(
    embed_dim="${..decoder.embed_dim}",
    box_features=L(BoxFeatures)(resolution=7, strides="${...decoder.box_features.strides}"),
    track_dim=1024,
    pooling="cells",
    max_product=None,
)
model.track_loss = L(TrackLoss)(weight=1.0)
model.tracker = L(OnlineTracker)(
    weight_score=1.0, weight_iou=2.0, weight_class=10.0, max_objects=1000, momentum=0.0
)
model.min_score = 0.05
model.nms_iou = 1.0
model.both_frames = False

_resize = L(T.ResizeShortestEdge)(short_edge_length=360, max_size=640)
dataloader.train = L(build_pair_loader)(
    dataset=L(get_dataset_dicts)(names="ytvis_2019_train"),
    mapper=L(FramePairMapper)(
        is_train=True,
        augmentations=[
            L(T.ResizeShortestEdge)(short_edge_length=[360], max_size=640, sample_style="choice"),
            L(T.RandomFlip)(prob=0.5),
        ],
        recompute_boxes=False,
    ),
    total_batch_size="${train.total_batch_size}",
    num_workers=4,
    seed="${train.seed}",
    aspect_ratio_grouping=True,
)
dataloader.test = L(build_video_test_loader)(
    dataset=L(get_dataset_dicts)(names="ytvis_2019_val", filter_empty=False),
    mapper=L(InstanceMapper)(is_train=False, augmentations=[_resize]),
    num_workers=4,
)
dataloader.evaluator = L(VideoEvaluator)(
    dataset_name="${..test.dataset.names}", output_dir="${train.output_dir}/vis"
)

train.max_iter = 46_000
train.best_checkpoint.metric = "vis/AP"
train.checkpointer.period = 3833
train.eval_period = 0

lr_multiplier = multi_step(train.max_iter, (30_667, 42_167), warmup_iters=1000)
