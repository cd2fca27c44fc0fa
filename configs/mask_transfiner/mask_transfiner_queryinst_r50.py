"""The refiner on QueryInst, by config only: its boxes and pyramid, and refined masks."""

from detectron2.config import LazyCall as L

from queryseg.mask_refinement.refined_detector import RefinedDetector

from ..queryinst.queryinst_r50_300q_3x import dataloader, lr_multiplier, optimizer, train
from ..queryinst.queryinst_r50_300q_3x import model as _detector
from .mask_transfiner_r50_all import model as _two_stage

_head = _two_stage.roi_heads.mask_head
_head.coarse_head.num_classes = "${...num_classes}"
_detector.num_classes = "${..num_classes}"

model = L(RefinedDetector)(
    num_classes=80,
    detector=_detector,
    mask_head=_head,
    boxes_per_object=4,
    jitter=0.1,
)

dataloader.evaluator.tasks = ["bbox", "segm", "boundary"]
