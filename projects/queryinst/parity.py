"""The golden bundles of the official QueryInst and what each is compared by."""

from functools import partial

from queryseg.parity import Bundle
from queryseg.projects.queryinst.convert import QUERYINST
from queryseg.projects.queryinst.parity_detections import compare_detections
from queryseg.projects.queryinst.parity_heads import compare_heads
from queryseg.projects.queryinst.parity_inputs import golden_weights
from queryseg.projects.queryinst.parity_training import compare_training
from queryseg.projects.queryinst.parity_units import compare_units

_MODEL = r"(r50|r101|swin_[tl]|x101\w*)_\d+q"

_STEPS = {
    "train": compare_training,
    "evalbn": partial(compare_training, batch_statistics=False),
    "train_img1_empty": partial(compare_training, empty=(1,)),
    "train_all_empty": partial(compare_training, empty=(0, 1)),
}

BUNDLES = (
    Bundle(rf"head_{_MODEL}", QUERYINST, compare_heads, golden_weights),
    *(
        Bundle(rf"loss_{_MODEL}_{case}", QUERYINST, compare, golden_weights)
        for case, compare in _STEPS.items()
    ),
    Bundle(rf"full_{_MODEL}", QUERYINST, compare_detections, golden_weights),
    Bundle(r"unit", QUERYINST, compare_units, golden_weights),
)
