"""QueryInst with 100 queries on ResNet-50, from COCO to Cityscapes: 39.4 mask AP on val (Table 2).

Set `train.init_checkpoint` to a COCO model of `queryinst_r50_100q_3x`; its class heads start anew.
Without it training starts from ImageNet. The paper gives the schedule; image sizes are those that
Mask R-CNN is trained with there.
"""

from detectron2.config import LazyCall as L

from queryseg.evaluation import CityscapesEvaluator

from ..common.schedule import multi_step
from .queryinst_r50_100q_3x import dataloader, model, optimizer, train

model.num_classes = 8

dataloader.train.dataset.names = "cityscapes_train"
dataloader.test.dataset.names = "cityscapes_val"
dataloader.evaluator = L(CityscapesEvaluator)(dataset_name="${..test.dataset.names}")
dataloader.train.mapper.augmentations[0].short_edge_length = list(range(800, 1025, 32))
dataloader.train.mapper.augmentations[0].max_size = 2048
dataloader.test.mapper.augmentations[0].short_edge_length = 1024
dataloader.test.mapper.augmentations[0].max_size = 2048

optimizer.lr = 1.25e-5

train.max_iter = 24_000
train.total_batch_size = 8
train.checkpointer.period = 2000
train.eval_period = 4000
lr_multiplier = multi_step(train.max_iter, (18_000,), warmup_iters=1000)
