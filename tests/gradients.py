"""Which parameters a backward pass did not reach."""

from torch import nn


def without_gradient(model: nn.Module) -> list[str]:
    """Names of the trainable parameters whose gradient is missing or not finite."""
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        and (parameter.grad is None or not parameter.grad.isfinite().all())
    ]
