"""Parameter groups with their own learning rate and weight decay, and gradient clipping."""

import itertools
from collections.abc import Callable, Hashable, Iterable, Mapping
from enum import Enum
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from detectron2._subset import needs_real

__all__ = [
    "GradientClipType",
    "build_lr_scheduler",
    "build_optimizer",
    "get_default_optimizer_params",
    "maybe_add_gradient_clipping",
    "reduce_param_groups",
]

ParamGroup = dict[str, Any]
Clipper = Callable[[Any], object]

build_optimizer = needs_real("detectron2.solver.build_optimizer")
build_lr_scheduler = needs_real("detectron2.solver.build_lr_scheduler")

_LISTS = ("param_names", "params")
_NORM_LAYERS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


class GradientClipType(Enum):
    """Clip every gradient element, or the norm of every parameter's gradient."""

    VALUE = "value"
    NORM = "norm"


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0,
    weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: Mapping[str, Mapping[str, float]] | None = None,
) -> list[ParamGroup]:
    """Return the trainable parameters in groups of equal hyper-parameters.

    Later arguments win over earlier ones. Shared parameters appear once; groups come in the order
    of their first parameter, which a resumed optimizer relies on.

    Args:
        model: the model.
        base_lr: learning rate; the optimizer's unless given.
        weight_decay: weight decay; the optimizer's unless given.
        weight_decay_norm: weight decay of normalisation layers.
        bias_lr_factor: multiplies the learning rate of parameters called "bias".
        weight_decay_bias: weight decay of parameters called "bias".
        lr_factor_func: full parameter name to a factor on `base_lr`.
        overrides: last part of a parameter's name to hyper-parameters.

    Raises:
        ValueError: a factor without `base_lr`, or "bias" both in `overrides` and in an argument.
    """
    scales_bias = bias_lr_factor is not None and bias_lr_factor != 1.0
    if base_lr is None and scales_bias:
        raise ValueError("bias_lr_factor requires base_lr")
    if base_lr is None and lr_factor_func is not None:
        raise ValueError("lr_factor_func requires base_lr")
    by_name = dict(overrides or {})
    bias = _given(
        lr=base_lr * bias_lr_factor if scales_bias else None, weight_decay=weight_decay_bias
    )
    if bias:
        if "bias" in by_name:
            raise ValueError("'bias' is in overrides and also set by an argument.")
        by_name["bias"] = bias

    groups: list[ParamGroup] = []
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            group: ParamGroup = {"params": [parameter]}
            group |= _given(lr=base_lr, weight_decay=weight_decay)
            if isinstance(module, _NORM_LAYERS):
                group |= _given(weight_decay=weight_decay_norm)
            if lr_factor_func is not None:
                group["lr"] *= lr_factor_func(f"{module_name}.{name}")
            groups.append(group | dict(by_name.get(name, {})))
    return reduce_param_groups(groups)


def _given(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _expand_param_groups(params: Iterable[ParamGroup]) -> list[ParamGroup]:
    """One group per parameter; where a parameter is in several groups, later values win."""
    single: dict[Hashable, ParamGroup] = {}
    for group in params:
        shared = {key: value for key, value in group.items() if key not in _LISTS}
        for index, parameter in enumerate(group["params"]):
            lists = {key: [group[key][index]] for key in _LISTS if key in group}
            single.setdefault(parameter, {}).update({**lists, **shared})
    return list(single.values())


def reduce_param_groups(params: Iterable[ParamGroup]) -> list[ParamGroup]:
    """Merge groups of equal hyper-parameters, in the order of their first appearance.

    Few groups make multi-tensor optimizers fast.
    """
    merged: dict[tuple[tuple[str, Any], ...], ParamGroup] = {}
    for group in _expand_param_groups(params):
        shared = tuple((key, value) for key, value in group.items() if key not in _LISTS)
        into = merged.setdefault(shared, dict(shared))
        for key in _LISTS:
            if key in group:
                into.setdefault(key, []).extend(group[key])
    return list(merged.values())


def maybe_add_gradient_clipping(cfg: Any, optimizer: Any) -> Any:
    """Make an optimizer, or an optimizer class, clip every parameter's gradient before a step.

    Args:
        cfg: has `SOLVER.CLIP_GRADIENTS` with ENABLED, CLIP_TYPE ("value" or "norm"), CLIP_VALUE
            and NORM_TYPE.
        optimizer: an optimizer (its class is changed in place) or a class.

    Returns:
        The optimizer or a subclass of the class; what was given, if clipping is off.
    """
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if not clip.ENABLED:
        return optimizer
    limit, norm_type = clip.CLIP_VALUE, clip.NORM_TYPE
    is_value = GradientClipType(clip.CLIP_TYPE) is GradientClipType.VALUE

    def clipper(parameter: Any) -> None:
        if is_value:
            nn.utils.clip_grad_value_(parameter, limit)
        else:
            nn.utils.clip_grad_norm_(parameter, limit, norm_type)

    if isinstance(optimizer, Optimizer):
        optimizer.__class__ = _generate_optimizer_class_with_gradient_clipping(
            type(optimizer), per_param_clipper=clipper
        )
        return optimizer
    return _generate_optimizer_class_with_gradient_clipping(optimizer, per_param_clipper=clipper)


def _generate_optimizer_class_with_gradient_clipping(
    optimizer: type[Optimizer],
    *,
    per_param_clipper: Clipper | None = None,
    global_clipper: Clipper | None = None,
) -> type[Optimizer]:
    """Subclass `optimizer` with a `step` that clips each parameter, or all of them together."""
    assert (per_param_clipper is None) != (global_clipper is None), "Give one of the clippers."

    def step(self: Optimizer, closure: Callable[[], torch.Tensor] | None = None) -> Any:
        parameters = itertools.chain.from_iterable(group["params"] for group in self.param_groups)
        if global_clipper is not None:
            global_clipper(parameters)
        elif per_param_clipper is not None:
            for parameter in parameters:
                per_param_clipper(parameter)
        return optimizer.step(self, closure)

    return type(f"{optimizer.__name__}WithGradientClip", (optimizer,), {"step": step})
