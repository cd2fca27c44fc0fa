"""Mask Frozen-DETR on H-Deformable-DETR with ResNet-50: 44.1 mask AP on COCO val (Table 6).

Only the mask network learns, for 6 epochs. `train.init_checkpoint` is a file of the detector. The
family file: the other configs import it and change a few lines; the rows of the paper's tables are
overrides, listed in the method's README.
"""

from detectron2.config import LazyCall as L

from queryseg.losses import PointSampler
from queryseg.matching import BoxMatcher
from queryseg.projects.mask_frozen_detr.build import build_mask_network
from queryseg.projects.mask_frozen_detr.criterion import MaskCriterion
from queryseg.projects.mask_frozen_detr.detection_cache import build_cache
from queryseg.projects.mask_frozen_detr.model import MaskFrozenDETR

from ..common.schedule import multi_step
from ..detectors.hdetr_r50 import dataloader, optimizer, train
from ..detectors.hdetr_r50 import model as _detector

_detector.num_classes = "${..num_classes}"

model = L(MaskFrozenDETR)(
    num_classes=80,
    detector=_detector,
    mask_network=L(build_mask_network)(
        num_classes="${..num_classes}",
        embed_dim="${..detector.embed_dim}",
        num_levels="${..detector.num_levels}",
        stage1_channels=256,
        encoder_layer=4,
        image_block="deformable",
        image_layers=2,
        neck="conv",
        roi_align=True,
        roi_size=32,
        hidden_dim=128,
        region_block="deformable",
        region_layers=2,
        query_ffn=True,
        object_to_object=False,
        box_to_object=True,
        head="dot_product",
        scaled_dot_product=False,
        mask_scoring=True,
    ),
    matcher=L(BoxMatcher)(weight_class=2.0, weight_box=5.0, weight_giou=2.0),
    criterion=L(MaskCriterion)(
        weights={"mask": 5.0, "dice": 5.0, "iou": 1.0},
        point_sampler=L(PointSampler)(
            num_points=256, oversample_ratio=3.0, importance_sample_ratio=0.75
        ),
    ),
    num_boxes=100,
    max_detections=100,
    finetune="none",
    detect_singly=False,
    cache=L(build_cache)(folder="", dataset="${...dataloader.train.dataset.names}"),
)

optimizer.lr = 1.5e-4
optimizer.weight_decay = 5e-5
optimizer.params.lr_multipliers = {"detector": 0.1}

train.max_iter = 88_500
train.total_batch_size = 8
train.init_checkpoint = "zoo://hdetr_r50"
train.best_checkpoint.metric = "segm/AP"

lr_multiplier = multi_step(train.max_iter, (79_650, 84_075))
