"""Norm and clipping of gradients."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

CLIP_MODES = ("full", "per_parameter")


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """L2 norm of all gradients together, a scalar tensor; 0 where nothing has a gradient."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


class GradientClipper:
    """Scales gradients down to a largest L2 norm, in place.

    Args:
        mode: `"full"` bounds the norm of all gradients together, `"per_parameter"` that of each
            parameter's gradient by itself.
        max_norm: the bound.

    Raises:
        ValueError: another mode, or a bound that is not positive.
    """

    def __init__(self, mode: str, max_norm: float) -> None:
        if mode not in CLIP_MODES:
            raise ValueError(f"train.clip_grad.mode is {mode!r}: use one of {CLIP_MODES}")
        if not max_norm > 0:
            raise ValueError(f"train.clip_grad.max_norm is {max_norm}: it must be positive")
        self.mode = mode
        self.max_norm = max_norm

    def __call__(self, parameters: Iterable[nn.Parameter], total_norm: Tensor) -> None:
        """Clip; `total_norm` is `gradient_norm(parameters)`."""
        if self.mode == "full":
            nn.utils.clip_grads_with_norm_(parameters, self.max_norm, total_norm)
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        for grad, norm in zip(grads, torch._foreach_norm(grads) if grads else ()):
            grad.mul_((self.max_norm / (norm + 1e-6)).clamp(max=1.0))
