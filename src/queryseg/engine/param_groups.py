"""Which learning rate and weight decay each parameter gets."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

NORM_LAYERS = (
    nn.modules.batchnorm._NormBase,  # every BatchNorm, SyncBatchNorm and InstanceNorm
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


def get_param_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    lr_multipliers: Mapping[str, float] | None = None,
    weight_decay_norm: float | None = None,
    weight_decay_embed: float | None = None,
    weight_decay_bias: float | None = None,
    no_decay: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Group the trainable parameters of a model by learning rate and weight decay.

    Every parameter appears once, also where modules share it; frozen ones do not appear. Parameters
    that need the same treatment share a group, in the order in which the model lists them.

    Args:
        model: the model whose parameters are trained.
        lr: base learning rate.
        weight_decay: weight decay of every parameter that no other argument speaks of.
        lr_multipliers: factor on `lr` for each parameter whose dotted name contains the key, for
            example `{"backbone": 0.1}`. Of several keys that fit, the longest counts.
        weight_decay_norm: weight decay of normalisation layers, weight and bias.
        weight_decay_embed: weight decay of `nn.Embedding`.
        weight_decay_bias: weight decay of parameters called `bias`, outside normalisation layers.
        no_decay: parts of parameter names that get no weight decay, whatever else applies.

    Returns:
        The argument that a torch optimizer takes: one dict a group with `params`, `lr` and
        `weight_decay`.

    Raises:
        ValueError: a key of `lr_multipliers` or `no_decay` fits no parameter at all.
    """
    multipliers = dict(lr_multipliers or {})
    _check_patterns(model, [*multipliers, *no_decay])
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter, module in _trainable(model):
        fitting = [key for key in multipliers if key in name]
        rate = lr * multipliers[max(fitting, key=len)] if fitting else lr
        decay = weight_decay
        if isinstance(module, NORM_LAYERS):
            decay = decay if weight_decay_norm is None else weight_decay_norm
        elif isinstance(module, nn.Embedding):
            decay = decay if weight_decay_embed is None else weight_decay_embed
        elif name.rpartition(".")[2] == "bias":
            decay = decay if weight_decay_bias is None else weight_decay_bias
        if any(part in name for part in no_decay):
            decay = 0.0
        group = {"params": [], "lr": rate, "weight_decay": decay}
        groups.setdefault((rate, decay), group)["params"].append(parameter)
    return list(groups.values())


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    seen = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield f"{module_name}.{name}" if module_name else name, parameter, module


def _check_patterns(model: nn.Module, patterns: Sequence[str]) -> None:
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(pattern in name for name in names):
            raise ValueError(
                f"no parameter name contains '{pattern}' (lr_multipliers or no_decay of the "
                f"parameter groups): the top-level parts are "
                f"{', '.join(sorted({name.split('.')[0] for name in names}))}"
            )
