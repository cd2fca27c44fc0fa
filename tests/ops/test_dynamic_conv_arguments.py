"""Malformed calls of dynamic_conv end in an error that names the argument."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from dynamic_conv_cases import Case, make_case, operator_arguments

from queryseg.ops import has_kernels

C, D = 8, 4


def change(name: str, how: Callable) -> Callable[[Case], Case]:
    return lambda case: replace(case, **{name: how(getattr(case, name))})


# case id: (what is changed, words of the message)
MALFORMED = {
    "features rank 0": (change("features", lambda f: f.sum()), "features must have shape"),
    "features rank 1": (change("features", lambda f: f.flatten()), "features must have shape"),
    "features rank 2": (change("features", lambda f: f.flatten(1)), "features must have shape"),
    "features rank 5": (change("features", lambda f: f[None]), "features must have shape"),
    "features int": (change("features", torch.Tensor.int), "features must be float32"),
    "features bool": (change("features", lambda f: f > 0), "features must be float32"),
    "features complex": (change("features", lambda f: f + 0j), "features must be float32"),
    "features of rows": (change("features", lambda f: f.flatten(2)), "dynamic_weights must have"),
    "a channel less": (change("features", lambda f: f[:, 1:]), "dynamic_weights must have shape"),
    "no channels": (change("features", lambda f: f[:, :0]), "at least one channel"),
    "an instance less": (change("features", lambda f: f[1:]), "dynamic_weights must have shape"),
    "no instances": (change("features", lambda f: f[:0]), "dynamic_weights must have shape"),
    "weights rank 1": (change("dynamic_weights", lambda w: w[0]), "dynamic_weights must have"),
    "weights rank 3": (change("dynamic_weights", lambda w: w[None]), "dynamic_weights must have"),
    "a weight less": (change("dynamic_weights", lambda w: w[:, 1:]), "dynamic_weights must have"),
    "half the weights": (change("dynamic_weights", lambda w: w[:, :32]), "dynamic_weights must"),
    "weights of one": (change("dynamic_weights", lambda w: w[:1]), "dynamic_weights must have"),
    "weights int": (change("dynamic_weights", torch.Tensor.int), "dynamic_weights must be float32"),
    "weights complex": (change("dynamic_weights", lambda w: w + 0j), "dynamic_weights must be"),
    "weights float32": (change("dynamic_weights", torch.Tensor.float), "the dtype of features"),
    "weights half": (change("dynamic_weights", torch.Tensor.half), "the dtype of features"),
    "weights elsewhere": (
        change("dynamic_weights", lambda w: w.to("meta")),
        "dynamic_weights is on meta",
    ),
    "norm_in_weight rank 0": (change("norm_in_weight", torch.Tensor.sum), "norm_in_weight must"),
    "norm_in_weight rank 2": (change("norm_in_weight", lambda n: n[None]), "norm_in_weight must"),
    "no norm_in_weight": (change("norm_in_weight", lambda n: n[:0]), r"shape \(d,\), d > 0"),
    "norm_in_weight shorter": (
        change("norm_in_weight", lambda n: n[1:]),
        "dynamic_weights must have shape",
    ),
    "norm_in_weight of C": (
        change("norm_in_weight", lambda n: torch.cat([n, n])),
        "dynamic_weights must have shape",
    ),
    **{
        f"{name} {what}": (change(name, how), f"{name} {words}")
        for name in ("norm_in_bias", "norm_out_weight", "norm_out_bias")
        for what, how, words in (
            ("rank 0", torch.Tensor.sum, "must have shape"),
            ("rank 2", lambda n: n[None], "must have shape"),
            ("shorter", lambda n: n[1:], "must have shape"),
            ("longer", lambda n: torch.cat([n, n]), "must have shape"),
            ("int", torch.Tensor.int, "must be of a floating dtype"),
            ("elsewhere", lambda n: n.to("meta"), "is on meta"),
        )
    },
    "eps zero": (change("eps", lambda e: 0.0), "eps must be positive"),
    "eps negative": (change("eps", lambda e: -1e-5), "eps must be positive"),
    "eps nan": (change("eps", lambda e: float("nan")), "eps must be positive"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_calls_name_the_argument(name):
    assert len(MALFORMED) >= 40
    apply, words = MALFORMED[name]
    with pytest.raises(ValueError, match=words):
        apply(make_case(0, channels=C, inner=D)).run()


# Changes to the arguments of the bare operator, which only the compiled kernels look at.
BARE = {
    "features rank 2": (0, lambda f: f.flatten(1), "features must have shape"),
    "features int": (0, torch.Tensor.int, "the dtype of features|float32"),
    "no channels": (0, lambda f: f[:, :0], "must be positive"),
    "an instance less": (0, lambda f: f[1:], "dynamic_weights must have shape"),
    "weights rank 1": (1, lambda w: w[0], "dynamic_weights must have shape"),
    "a weight less": (1, lambda w: w[:, 1:], "dynamic_weights must have shape"),
    "weights float32": (1, torch.Tensor.float, "dynamic_weights must have the dtype"),
    "norm_in_weight rank 2": (2, lambda n: n[None], "norm_in_weight must have shape"),
    "no norm_in_weight": (2, lambda n: n[:0], "must be positive"),
    "norm_in_weight float32": (2, torch.Tensor.float, "norm_in_weight must be float64"),
    "norm_in_bias shorter": (3, lambda n: n[1:], "norm_in_bias must have shape"),
    "norm_in_bias float32": (3, torch.Tensor.float, "norm_in_bias must be float64"),
    "norm_out_weight longer": (4, lambda n: torch.cat([n, n]), "norm_out_weight must have shape"),
    "norm_out_bias half": (5, torch.Tensor.half, "norm_out_bias must be float64"),
    "eps zero": (6, lambda e: 0.0, "eps must be positive"),
}


@pytest.mark.skipif(not has_kernels("cpu"), reason="the kernels are not built")
@pytest.mark.parametrize("name", BARE)
def test_the_bare_operators_check_what_keeps_them_inside_their_arrays(name):
    arguments = list(operator_arguments(make_case(0, channels=C, inner=D)))
    grad_output = torch.zeros(3, 9, C, dtype=torch.float64)
    place, how, words = BARE[name]
    arguments[place] = how(arguments[place])
    with pytest.raises(RuntimeError, match=words):
        torch.ops.queryseg.dynamic_conv(*arguments)
    with pytest.raises(RuntimeError, match=words):
        torch.ops.queryseg.dynamic_conv_backward(grad_output, *arguments)


@pytest.mark.parametrize("shape", [(3, 9), (3, 9, 7), (3, 8, 8), (2, 9, 8), (3, 8, 3, 3)])
def test_the_bare_backward_checks_the_gradient(shape):
    arguments = operator_arguments(make_case(0, channels=C, inner=D))
    with pytest.raises(RuntimeError, match="grad_output"):
        torch.ops.queryseg.dynamic_conv_backward(
            torch.zeros(shape, dtype=torch.float64), *arguments
        )
