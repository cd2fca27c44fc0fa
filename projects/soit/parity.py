"""The golden bundles of the official SOIT and what each is compared by."""

from queryseg.parity import Bundle
from queryseg.projects.soit.convert import LAYOUTS
from queryseg.projects.soit.parity_evaluation import compare_evaluation
from queryseg.projects.soit.parity_parts import compare_instance_transformer, compare_mask_encoder
from queryseg.projects.soit.parity_training import compare_gradient_norms, compare_losses

(_LAYOUT,) = LAYOUTS

BUNDLES = (
    Bundle(r"golden_full_[AB]", _LAYOUT, compare_evaluation),
    Bundle(r"golden_iat", _LAYOUT, compare_instance_transformer),
    Bundle(r"golden_maskenc", _LAYOUT, compare_mask_encoder),
    Bundle(r"golden_loss", _LAYOUT, compare_losses),
    Bundle(r"golden_loss_gradnorms", _LAYOUT, compare_gradient_norms),
)
