"""Query-based Mask Transfiner on ResNet-50: 41.6 AP on COCO test-dev (Table 9).

The paper names DETR and gives no schedule; its box AP needs a deformable detector. Here that is
H-Deformable-DETR with its recipe of 36 epochs. Backbone maps get a pyramid for the mask head.
"""

from detectron2.config import LazyCall as L

from queryseg.mask_refinement.feature_pyramid import FeaturePyramid
from queryseg.mask_refinement.refined_detector import RefinedDetector

from ..detectors.hdetr_r50 import dataloader, lr_multiplier, optimizer, train
from ..detectors.hdetr_r50 import model as _detector
from .mask_transfiner_r50_all import model as _two_stage

_head = _two_stage.roi_heads.mask_head
_head.coarse_head.num_classes = "${...num_classes}"
_detector.num_classes = "${..num_classes}"

model = L(RefinedDetector)(
    num_classes=80,
    detector=_detector,
    pyramid=L(FeaturePyramid)(
        in_channels={"res2": 256, "res3": 512, "res4": 1024, "res5": 2048}, channels=256
    ),
    mask_head=_head,
    boxes_per_object=4,
    jitter=0.1,
)

dataloader.evaluator.tasks = ["bbox", "segm", "boundary"]
optimizer.params.lr_multipliers = {"backbone": 0.1, "sampling_offsets": 0.1}
train.best_checkpoint.metric = "segm/AP"
