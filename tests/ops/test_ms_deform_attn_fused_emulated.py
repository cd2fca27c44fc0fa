"""The fused CUDA kernels, run on the host thread by thread, against the pure-torch reference."""

import ctypes

import pytest
import torch
from ms_deform_attn_cases import relative_error
from ms_deform_attn_fused_cases import in_one_layer, make_case
from test_cuda_kernels_emulated import ATOMIC_FLOATS, DTYPES, Shape, compiled, describe

from queryseg.ops.ms_deform_attn_fused import (
    ms_deform_attn_fused_backward_reference,
    ms_deform_attn_fused_reference,
)

POINTERS = ("value", "reference", "offsets", "logits", "output", "grad_output")
GRADS = ("grad_value", "grad_reference", "grad_offsets", "grad_logits")


class Call(ctypes.Structure):
    """`Call` of emulation/ms_deform_attn_fused.cpp."""

    _fields_ = [
        ("shape", ctypes.POINTER(Shape)),
        *((name, ctypes.c_void_p) for name in (*POINTERS, *GRADS)),
        ("reference_steps", ctypes.c_longlong * 4),
        ("row", ctypes.c_longlong),
        ("reference_dim", ctypes.c_int),
        ("number", ctypes.c_int),
    ]


@pytest.fixture(scope="module")
def emulated(tmp_path_factory, request) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("emulation")
    return compiled("ms_deform_attn_fused.cpp", folder, request.param)


# (reference_dim, dtype of offsets and logits beside values narrower than float64)
KINDS = {
    "points": (2, torch.float32),
    "boxes": (4, torch.float32),
    "half rows": (4, torch.float16),
    "bfloat16 rows": (2, torch.bfloat16),
}


@ATOMIC_FLOATS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("variant", "dtype"),
    [(0, torch.float32), (1, torch.float64), (1, torch.bfloat16), (2, torch.float16)],
    ids=["scalar", "vectors4 of float64", "vectors4 of bfloat16", "vectors8 of float16"],
)
def test_cuda_kernels_equal_the_reference(emulated, dtype, variant, kind):
    reference_dim, rows = KINDS[kind]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    rows = wide if wide == torch.float64 else rows
    case = in_one_layer(
        make_case(
            variant,
            queries=5,
            heads=3,
            channels=(5, 16, 40)[variant],
            points=3,
            reference_dim=reference_dim,
            shapes=[(5, 7), (3, 4), (1, 1)],
        ).to(rows)
    )
    case.value, case.reference = case.value.to(dtype), case.reference.to(wide)
    case.offsets[0, 0, 0, 0, 0] = float("nan")
    case.offsets[0, 1, 0, 0, 0] = float("inf")
    grad_output = torch.randn(2, 5, 3 * case.value.shape[3]).to(dtype)
    output = torch.full_like(grad_output, float("nan"))
    grads = {
        "grad_value": torch.zeros(case.value.shape, dtype=wide),
        "grad_reference": torch.zeros(case.reference.shape, dtype=wide),
        "grad_offsets": torch.full(case.offsets.shape, float("nan"), dtype=rows),
        "grad_logits": torch.full(case.logits.shape, float("nan"), dtype=wide),
    }
    shape = describe(case.sizes, case.value, case.offsets)
    tensors = (*case.tensors(), output, grad_output, *grads.values())
    call = Call(
        ctypes.pointer(shape),
        *(tensor.data_ptr() for tensor in tensors),
        (ctypes.c_longlong * 4)(*case.reference.stride()),
        case.logits.stride(1),
        reference_dim,
        DTYPES.index(rows),
    )
    emulated.forward_and_backward(ctypes.byref(call), DTYPES.index(dtype), variant)

    exact = [tensor.to(wide) for tensor in case.tensors()]
    arguments = (exact[0], case.sizes, *exact[1:])
    expected = ms_deform_attn_fused_reference(*arguments)
    wanted = ms_deform_attn_fused_backward_reference(grad_output.to(wide), *arguments, True)
    accuracy = 1e-12 if wide == torch.float64 else 1e-5
    rounding = {torch.float16: 1e-3, torch.bfloat16: 5e-3}
    assert relative_error(output, expected) < rounding.get(dtype, accuracy)
    for (name, got), other in zip(grads.items(), wanted):
        assert relative_error(got, other) < rounding.get(got.dtype, 10 * accuracy), name
