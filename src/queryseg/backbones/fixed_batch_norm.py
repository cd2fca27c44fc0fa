"""Batch norm of a pretrained backbone: statistics stay, scale and shift are trained."""

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


class FixedBatchNorm(_BatchNorm):
    """Batch norm that always uses its running statistics and never updates them.

    mmdetection's backbones train so (`norm_eval=True` with `requires_grad=True`). Detectron2's
    FrozenBN keeps scale and shift constant too. `ResNet.freeze` stops their training in the frozen
    stages; they stay parameters there.
    """

    def train(self, mode: bool = True) -> "FixedBatchNorm":
        """Stay in evaluation mode whatever the model is in."""
        return super().train(False)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() != 4:
            raise ValueError(f"expected (B, C, H, W), got {tuple(input.shape)}")
