"""Counting parameters and finding those without use."""

from typing import Any

from fvcore.nn import parameter_count, parameter_count_table
from torch import nn

from detectron2._subset import outside

__all__ = ["find_unused_parameters", "parameter_count", "parameter_count_table"]

__getattr__ = outside(
    __name__, "FlopCountAnalysis", "activation_count_operators", "flop_count_operators"
)


def find_unused_parameters(model: nn.Module, inputs: Any) -> list[str]:
    """Return the names of the parameters that get no gradient from the losses.

    Args:
        model: a model in training mode; its gradients are cleared.
        inputs: its argument, or a tuple of its arguments.
    """
    assert model.training, "find_unused_parameters needs a model in training mode."
    model.zero_grad(set_to_none=True)
    losses = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    total = sum(losses.values()) if isinstance(losses, dict) else losses
    total.backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    model.zero_grad(set_to_none=True)
    return unused
