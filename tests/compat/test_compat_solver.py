"""Parameter groups, gradient clipping and learning-rate curves."""

import copy
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.solver import LRMultiplier, WarmupParamScheduler, get_default_optimizer_params
from detectron2.solver.build import (
    _expand_param_groups,
    _generate_optimizer_class_with_gradient_clipping,
    maybe_add_gradient_clipping,
    reduce_param_groups,
)
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
    PolynomialDecayParamScheduler,
    StepWithFixedGammaParamScheduler,
)
from torch import nn


class Network(nn.Module):
    """One of each: convolution, norms, frozen layer, shared layer, own parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(3))
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.gn = nn.GroupNorm(2, 8)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.head = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Embedding(4, 8))
        self.shared = self.conv


def lr_factor(name: str) -> float:
    return 0.1 if name.startswith("head.0") else 0.5 if name == ".query" else 1.0


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "norm": {"base_lr": 0.1, "weight_decay": 1e-4, "weight_decay_norm": 0.0},
    "bias": {"base_lr": 0.1, "bias_lr_factor": 2.0, "weight_decay_bias": 0.0},
    "factor": {"base_lr": 0.1, "weight_decay_norm": 0.0, "lr_factor_func": lr_factor},
    "override": {"weight_decay": 0.1, "overrides": {"query": {"lr": 0.01, "weight_decay": 0.0}}},
    "override_first": {"weight_decay_norm": 0.0, "overrides": {"weight": {"lr": 0.01}}},
}


def described(groups: list[dict[str, Any]], model: nn.Module) -> list[str]:
    """One line for each group: its hyper-parameters in order, and its parameters in order."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [
        " ".join(f"{key}={value:g}" for key, value in group.items() if key != "params")
        + ": "
        + " ".join(names[parameter] for parameter in group["params"])
        for group in groups
    ]


def test_groups_are_those_of_the_real_package(stored: Callable[..., Any]) -> None:
    model = Network()
    groups = {
        name: described(get_default_optimizer_params(model, **setting), model)
        for name, setting in SETTINGS.items()
    }
    answers = stored("solver_groups", {name: np.array(lines) for name, lines in groups.items()})
    for name, lines in groups.items():
        assert lines == answers[name].tolist(), name


def test_norm_layers_get_their_own_decay_and_frozen_and_shared_ones_do_not_repeat() -> None:
    model = Network()
    plain, norm = get_default_optimizer_params(model, weight_decay=0.5, weight_decay_norm=0.0)
    assert (plain["weight_decay"], norm["weight_decay"]) == (0.5, 0.0)
    norms = [model.bn, model.gn, model.head[1]]
    assert norm["params"] == [parameter for layer in norms for parameter in layer.parameters()]
    others = [model.query, *model.conv.parameters(), *model.head[0].parameters()]
    assert plain["params"] == [*others, model.head[2].weight]


@pytest.mark.parametrize(
    "setting",
    [
        {"bias_lr_factor": 2.0},
        {"lr_factor_func": lr_factor},
        {"weight_decay_bias": 0.0, "overrides": {"bias": {"lr": 1.0}}},
    ],
)
def test_contradictory_settings_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"base_lr|bias"):
        get_default_optimizer_params(Network(), **setting)


def test_a_parameter_in_two_groups_takes_the_later_values() -> None:
    groups = [{"params": ["a", "b"], "lr": 1, "momentum": 3}, {"params": ["b"], "lr": 2}]
    assert _expand_param_groups(groups) == [
        {"params": ["a"], "lr": 1, "momentum": 3},
        {"params": ["b"], "lr": 2, "momentum": 3},
    ]


def test_equal_groups_are_merged_in_order_of_appearance_with_their_names() -> None:
    groups = [
        {"params": ["a"], "param_names": ["A"], "lr": 2},
        {"params": ["b"], "param_names": ["B"], "lr": 1},
        {"params": ["c", "d"], "param_names": ["C", "D"], "lr": 2},
    ]
    assert reduce_param_groups(groups) == [
        {"params": ["a", "c", "d"], "param_names": ["A", "C", "D"], "lr": 2},
        {"params": ["b"], "param_names": ["B"], "lr": 1},
    ]


def clipping(kind: str, value: float, norm_type: float = 2.0, enabled: bool = True) -> Any:
    settings = {"ENABLED": enabled, "CLIP_TYPE": kind, "CLIP_VALUE": value, "NORM_TYPE": norm_type}
    clip = SimpleNamespace(**settings)
    return SimpleNamespace(SOLVER=SimpleNamespace(CLIP_GRADIENTS=clip))


def two_parameters() -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))]
    parameters[0].grad = torch.tensor([3.0, -4.0])
    parameters[1].grad = torch.tensor([0.3, 0.4])
    return parameters


@pytest.mark.parametrize(
    ("kind", "norm_type", "expected"),
    [
        ("value", 2.0, [[1.0, -1.0], [0.3, 0.4]]),
        ("norm", 2.0, [[0.6, -0.8], [0.3, 0.4]]),
        ("norm", math.inf, [[0.75, -1.0], [0.3, 0.4]]),
    ],
)
def test_every_parameter_is_clipped_by_itself(
    kind: str, norm_type: float, expected: list[list[float]]
) -> None:
    parameters = two_parameters()
    optimizer = maybe_add_gradient_clipping(clipping(kind, 1.0, norm_type), torch.optim.SGD)(
        parameters, lr=1.0
    )
    assert isinstance(optimizer, torch.optim.SGD)
    optimizer.step()
    got = torch.stack([-parameter.detach() for parameter in parameters])
    assert torch.allclose(got, torch.tensor(expected), rtol=1e-5)


def test_an_optimizer_is_changed_in_place_and_left_alone_if_clipping_is_off() -> None:
    optimizer = torch.optim.SGD(two_parameters(), lr=1.0)
    assert (
        maybe_add_gradient_clipping(clipping("value", 1.0, enabled=False), optimizer) is optimizer
    )
    assert type(optimizer) is torch.optim.SGD
    assert maybe_add_gradient_clipping(clipping("value", 1.0), optimizer) is optimizer
    assert type(optimizer).__name__ == "SGDWithGradientClip"


def test_a_global_clipper_sees_all_parameters() -> None:
    def clip_all(parameters: Any) -> None:
        torch.nn.utils.clip_grad_norm_(list(parameters), 0.5)

    parameters = two_parameters()
    kind = _generate_optimizer_class_with_gradient_clipping(
        torch.optim.SGD, global_clipper=clip_all
    )
    kind(parameters, lr=1.0).step()
    moved = torch.cat([parameter.detach() for parameter in parameters])
    assert math.isclose(moved.norm().item(), 0.5, rel_tol=1e-5)


SCHEDULES: dict[str, ParamScheduler] = {
    "multistep_linear": WarmupParamScheduler(
        MultiStepParamScheduler([1, 0.1, 0.01], milestones=[60, 80], num_updates=90), 0.001, 10 / 90
    ),
    "multistep_rescaled_updates": WarmupParamScheduler(
        MultiStepParamScheduler([1, 0.1, 0.01], milestones=[600, 800], num_updates=900), 0.1, 0.2
    ),
    "cosine_linear": WarmupParamScheduler(CosineParamScheduler(1, 0.05), 0.01, 0.1),
    "cosine_constant": WarmupParamScheduler(CosineParamScheduler(1, 0), 0.2, 0.1, "constant"),
    "polynomial_linear": WarmupParamScheduler(PolynomialDecayParamScheduler(1, 0.9), 0.0, 0.05),
    "fixed_gamma_rescaled": WarmupParamScheduler(
        StepWithFixedGammaParamScheduler(1.0, 4, 0.1, num_updates=90), 0.01, 0.2, "linear", True
    ),
}


def curve(schedule: ParamScheduler, iterations: int = 90) -> list[list[float]]:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [parameters[0]], "lr": 0.2}, {"params": [parameters[1]], "lr": 5.0}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    scheduler = LRMultiplier(optimizer, schedule, max_iter=iterations)
    rates = []
    for _ in range(iterations):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        if len(rates) < iterations:
            scheduler.step()
    return rates


def test_learning_rates_are_those_of_the_real_package(stored: Callable[..., Any]) -> None:
    curves = {name: np.array(curve(schedule)) for name, schedule in SCHEDULES.items()}
    for name, answer in stored("solver_curves", curves).items():
        assert np.array_equal(curves[name], answer), name


def test_warm_up_ends_on_the_schedule_it_precedes() -> None:
    rates = np.array(curve(SCHEDULES["cosine_linear"]))[:, 1] / 5.0
    cosine = [0.05 + 0.475 * (1 + math.cos(math.pi * i / 90)) for i in range(90)]
    assert np.allclose(rates[9:], cosine[9:], rtol=1e-12)
    line = [0.01 + (cosine[9] - 0.01) * i / 9 for i in range(9)]
    assert np.allclose(rates[:9], line, rtol=1e-12)


def test_only_known_schedules_are_taken() -> None:
    with pytest.raises(ValueError, match="quadratic"):
        WarmupParamScheduler(CosineParamScheduler(1, 0), 0.1, 0.1, "quadratic")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match="ParamScheduler"):
        LRMultiplier(optimizer, lambda where: where, 10)


def test_a_restored_schedule_goes_on_where_it_stopped() -> None:
    def build() -> tuple[torch.optim.Optimizer, LRMultiplier]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
        return optimizer, LRMultiplier(optimizer, SCHEDULES["cosine_linear"], max_iter=90)

    optimizer, scheduler = build()
    for _ in range(40):
        optimizer.step()
        scheduler.step()
    states = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    assert states[1] == {"base_lrs": [2.0], "last_epoch": 40}
    again, restored = build()
    again.load_state_dict(states[0])
    restored.load_state_dict(states[1])
    for one, other in ((optimizer, scheduler), (again, restored)):
        one.step()
        other.step()
    assert again.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
