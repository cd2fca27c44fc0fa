"""Sparse RoIAlign as a citizen of torch: opcheck, compile, export."""

import pytest
import torch
from quadtree_gather_cases import Case, make_case, operator_arguments, relative_error

from queryseg.ops import gather_nodes

CASES = {
    "float64": {},
    "float32": {"dtype": torch.float32, "channels": 33},
    "no nodes": {"dtype": torch.float32, "nodes": 0},
    "one map": {"dtype": torch.bfloat16, "shapes": [(9, 9)], "grid_sizes": [7]},
}


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_forward_passes_opcheck(name, grad):
    features, *nodes = operator_arguments(make_case(0, **CASES[name]))
    leaves = [feature.detach().requires_grad_(grad) for feature in features]
    result = torch.library.opcheck(torch.ops.queryseg.quadtree_gather.default, (leaves, *nodes))
    assert set(result.values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", CASES)
def test_backward_passes_opcheck(name):
    features, *nodes = operator_arguments(make_case(0, **CASES[name]))
    grad = features[0].new_ones(len(nodes[-1]), features[0].shape[3])
    sizes = [size for feature in features for size in feature.shape[1:3]]
    result = torch.library.opcheck(
        torch.ops.queryseg.quadtree_gather_backward.default,
        (grad, len(features[0]), sizes, *nodes),
    )
    assert set(result.values()) == {"SUCCESS"}


class Pooler(torch.nn.Module):
    """A module that pools two levels at given nodes."""

    def forward(self, fine, coarse, boxes, image, feature_level, index, level):
        features, grids = [2 * fine, coarse], [2, 4, 8]
        return gather_nodes(
            features, [0.25, 0.125], boxes, image, feature_level, grids, index, level
        )


def pooler_inputs(case: Case) -> tuple[torch.Tensor, ...]:
    nodes = (case.boxes, case.image, case.feature_level, case.index, case.level)
    return (*case.features, *nodes)


def test_compiles_to_one_graph_for_changing_sizes_and_trains():
    module = Pooler()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    for seed, (height, width) in enumerate(((16, 14), (12, 20), (8, 6))):
        shapes = [(height, width), (height // 2, width // 2)]
        case = make_case(seed, shapes=shapes, nodes=9 + seed, dtype=torch.float32)
        inputs = pooler_inputs(case)
        maps = [feature.requires_grad_() for feature in inputs[:2]]
        output, expected = compiled(*inputs), module(*inputs)
        assert torch.equal(output, expected)
        grads = torch.autograd.grad(output.sum(), maps)
        for one, other in zip(grads, torch.autograd.grad(expected.sum(), maps)):
            assert relative_error(one, other) < 1e-6


def test_compiles_under_autocast():
    module, inputs = Pooler(), pooler_inputs(make_case(0, dtype=torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = torch.compile(module, backend="aot_eager", fullgraph=True)(*inputs)
        assert output.dtype == torch.bfloat16
        assert torch.equal(output, module(*inputs))


def test_exports_with_any_number_of_nodes():
    nodes = torch.export.Dim("nodes", min=2, max=10_000)
    program = torch.export.export(
        Pooler(),
        pooler_inputs(make_case(0, dtype=torch.float32)),
        dynamic_shapes=(None, None, None, None, None, {0: nodes}, {0: nodes}),
    )
    inputs = pooler_inputs(make_case(1, nodes=31, dtype=torch.float32))
    assert torch.equal(program.module()(*inputs), Pooler()(*inputs))
    assert "queryseg.quadtree_gather" in program.graph_module.code
