"""The golden bundles of the official FastInst and what each is compared by."""

from functools import partial

from queryseg.parity import Bundle
from queryseg.projects.fastinst.convert import LAYOUTS
from queryseg.projects.fastinst.parity_evaluation import compare_evaluation
from queryseg.projects.fastinst.parity_instances import compare_postprocessing
from queryseg.projects.fastinst.parity_training import compare_training


def _bundles_of(tag: str, block: int) -> tuple[Bundle, Bundle]:
    evaluation = partial(compare_evaluation, block=block)
    training = partial(compare_training, block=block)
    return (
        Bundle(rf"golden_eval_{tag}", LAYOUTS[0], evaluation),
        Bundle(rf"golden_train_{tag}", LAYOUTS[0], training),
    )


BUNDLES = (
    *_bundles_of(r"R(50|101)_D\d+", block=48),
    *_bundles_of(r"R50-vd-dcn_D\d+", block=16),
    Bundle(r"golden_postproc", LAYOUTS[0], compare_postprocessing),
)
