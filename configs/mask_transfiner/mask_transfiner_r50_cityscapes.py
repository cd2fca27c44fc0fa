"""Mask Transfiner on Cityscapes: 37.9 AP and 18.0 boundary AP on val (Table 10).

Starts from the COCO Mask R-CNN of Detectron2's model zoo; 8 images a step, 64 epochs.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from queryseg.evaluation import CityscapesEvaluator

from .mask_transfiner_r50_1x import dataloader, lr_multiplier, model, optimizer, train

model.num_classes = 8

dataloader.train.dataset.names = "cityscapes_train"
dataloader.test.dataset.names = "cityscapes_val"
dataloader.evaluator = L(CityscapesEvaluator)(dataset_name="${..test.dataset.names}", boundary=True)
dataloader.train.mapper.augmentations[0] = L(T.ResizeShortestEdge)(
    short_edge_length=list(range(800, 1025, 32)), sample_style="choice", max_size=2048
)
dataloader.test.mapper.augmentations[0] = L(T.ResizeShortestEdge)(
    short_edge_length=1024, max_size=2048
)

optimizer.lr = 0.01
train.max_iter = 24_000
train.total_batch_size = 8
train.init_checkpoint = (
    "detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"
    "?allow_partial=True"
)
lr_multiplier.scheduler.values = [1.0, 0.1]
lr_multiplier.scheduler.milestones = [18_000]
lr_multiplier.scheduler.num_updates = train.max_iter
lr_multiplier.warmup_length = 1000 / train.max_iter
