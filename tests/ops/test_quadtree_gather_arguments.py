"""Malformed calls of gather_nodes end in an error that names the argument."""

from collections.abc import Callable

import pytest
import torch
from quadtree_gather_cases import Case, make_case, operator_arguments

from queryseg.ops import has_kernels


def change(name: str, how: Callable) -> Callable[[Case], None]:
    def apply(case: Case) -> None:
        setattr(case, name, how(getattr(case, name)))

    return apply


def number(name: str, value: int, *place: int) -> Callable[[Case], None]:
    def apply(case: Case) -> None:
        getattr(case, name)[place] = value

    return apply


# case id: (what is changed, words of the message)
MALFORMED = {
    "no features": (change("features", lambda f: []), "at least one"),
    "a feature more": (change("features", lambda f: [*f, f[0]]), "features and scales"),
    "a scale more": (change("scales", lambda s: [*s, 1.0]), "features and scales"),
    "feature rank 3": (change("features", lambda f: [f[0][0], f[1]]), "features must have shape"),
    "feature rank 5": (change("features", lambda f: [f[0][None], f[1]]), "features must have"),
    "feature without rows": (change("features", lambda f: [f[0][:, :, :0], f[1]]), "must have"),
    "feature without columns": (change("features", lambda f: [f[0][..., :0], f[1]]), "must have"),
    "other channels": (change("features", lambda f: [f[0], f[1][:, :3]]), "equal B and C"),
    "other images": (change("features", lambda f: [f[0], f[1][:1]]), "equal B and C"),
    "features int": (change("features", lambda f: [one.int() for one in f]), "must all be float32"),
    "features bool": (change("features", lambda f: [one > 0 for one in f]), "must all be float32"),
    "features complex": (change("features", lambda f: [one + 0j for one in f]), "must all be"),
    "features of two dtypes": (change("features", lambda f: [f[0], f[1].float()]), "must all be"),
    "features on two devices": (change("features", lambda f: [f[0], f[1].to("meta")]), "are on"),
    "boxes rank 1": (change("boxes", lambda b: b[0]), "boxes_xyxy_abs must have shape"),
    "boxes rank 3": (change("boxes", lambda b: b[None]), "boxes_xyxy_abs must have shape"),
    "boxes of five": (change("boxes", lambda b: b[:, [0, 1, 2, 3, 3]]), "boxes_xyxy_abs must"),
    "boxes float32": (change("boxes", torch.Tensor.float), "boxes_xyxy_abs must be torch.float64"),
    "boxes half": (change("boxes", torch.Tensor.half), "boxes_xyxy_abs must be torch.float64"),
    "boxes int": (change("boxes", torch.Tensor.long), "boxes_xyxy_abs must be"),
    "boxes elsewhere": (change("boxes", lambda b: b.to("meta")), "boxes_xyxy_abs is on meta"),
    "a box less": (change("boxes", lambda b: b[1:]), "image_index must have shape"),
    "image rank 2": (change("image", lambda i: i[None]), "image_index must have shape"),
    "image int32": (change("image", torch.Tensor.int), "image_index must be int64"),
    "image elsewhere": (change("image", lambda i: i.to("meta")), "image_index is on meta"),
    "feature_level rank 1": (change("feature_level", lambda f: f[0]), "feature_level must have"),
    "a level less": (change("feature_level", lambda f: f[:, 1:]), "feature_level must have"),
    "feature_level float": (change("feature_level", torch.Tensor.float), "feature_level must be"),
    "feature_level elsewhere": (change("feature_level", lambda f: f.to("meta")), "is on meta"),
    "a grid more": (change("grid_sizes", lambda g: [*g, 16]), "feature_level must have shape"),
    "no grids": (change("grid_sizes", lambda g: []), "grid_sizes must hold"),
    "empty grid": (change("grid_sizes", lambda g: [2, 0, 8]), "grid_sizes must hold"),
    "negative grid": (change("grid_sizes", lambda g: [2, -4, 8]), "grid_sizes must hold"),
    "index rank 1": (change("index", lambda i: i[0]), "node_index must have shape"),
    "index of two": (change("index", lambda i: i[:, 1:]), "node_index must have shape"),
    "index int32": (change("index", torch.Tensor.int), "node_index must be int64"),
    "index float": (change("index", torch.Tensor.float), "node_index must be int64"),
    "index elsewhere": (change("index", lambda i: i.to("meta")), "node_index is on meta"),
    "a node more": (change("index", lambda i: torch.cat([i, i[:1]])), "node_index must have"),
    "level rank 0": (change("level", lambda n: n[0]), "node_index must have shape"),
    "level rank 2": (change("level", lambda n: n[:, None]), "node_level must have shape"),
    "level int32": (change("level", torch.Tensor.int), "node_level must be int64"),
    "level elsewhere": (change("level", lambda n: n.to("meta")), "node_level is on meta"),
    "negative sampling ratio": (change("sampling_ratio", lambda r: -1), "sampling_ratio must"),
    "huge sampling ratio": (change("sampling_ratio", lambda r: 10**9), "sampling_ratio must"),
}

# Numbers that refer to nothing: found where the values are read.
DANGLING = {
    "image too large": (number("image", 2, 0), "image 2"),
    "image negative": (number("image", -1, 0), "image -1"),
    "map too large": (number("feature_level", 2, 0, 0), "feature map 2"),
    "map negative": (number("feature_level", -1, 0, 0), "feature map -1"),
    "instance too large": (number("index", 3, 0, 0), "instance 3"),
    "instance negative": (number("index", -1, 0, 0), "instance -1"),
    "level too large": (number("level", 3, 0), "level 3"),
    "level negative": (number("level", -1, 0), "level -1"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_calls_name_the_argument(name):
    assert len(MALFORMED) >= 40
    case = make_case(0)
    apply, words = MALFORMED[name]
    apply(case)
    with pytest.raises(ValueError, match=words):
        case.gather()


@pytest.mark.host
@pytest.mark.parametrize("name", DANGLING)
def test_numbers_that_refer_to_nothing_are_errors(name):
    case = make_case(0)
    apply, words = DANGLING[name]
    apply(case)
    with pytest.raises(RuntimeError, match=words):
        case.gather()
    _, *nodes = operator_arguments(case)
    with pytest.raises(RuntimeError, match=words):
        torch.ops.queryseg.quadtree_gather_backward(
            torch.zeros(12, 4, dtype=torch.float64), 2, [16, 14, 8, 7], *nodes
        )


@pytest.mark.parametrize("place", [10**12, -(10**12)])
def test_cells_outside_their_grid_lie_outside_the_map(place):
    case = make_case(0)
    case.index[:, 1] = place
    assert not case.gather().any()


# Changes to the arguments of the bare operator, which only the compiled kernels look at.
BARE = {
    "no features": (0, lambda f: [], "at least one feature map"),
    "feature rank 3": (0, lambda f: [f[0][0]], r"features must have shape \(B, H, W, C\)"),
    "other channels": (0, lambda f: [f[0], f[1][..., :2]], "features must have shape"),
    "other dtype": (0, lambda f: [f[0], f[1].float()], "the same dtype"),
    "features int": (0, lambda f: [one.int() for one in f], "windows must be|float32, float64"),
    "windows rank 2": (1, lambda w: w[0], "windows must have shape"),
    "windows of three": (1, lambda w: w[..., :3], "windows must have shape"),
    "windows float32": (1, torch.Tensor.float, "windows must be float64"),
    "bins of three": (2, lambda b: b[..., :3], "bins must have shape"),
    "bins int32": (2, torch.Tensor.int, "bins must be int64"),
    "index of two": (3, lambda i: i[:, 1:], "node_index must have shape"),
    "index int32": (3, torch.Tensor.int, "node_index must be int64"),
    "level rank 2": (4, lambda n: n[None], "node_level must have shape"),
    "level int32": (4, torch.Tensor.int, "node_level must be int64"),
}


@pytest.mark.skipif(not has_kernels("cpu"), reason="the kernels are not built")
@pytest.mark.parametrize("name", BARE)
def test_the_bare_operator_checks_what_keeps_it_inside_its_arrays(name):
    arguments = list(operator_arguments(make_case(0)))
    place, how, words = BARE[name]
    arguments[place] = how(arguments[place])
    with pytest.raises(RuntimeError, match=words):
        torch.ops.queryseg.quadtree_gather(*arguments)


@pytest.mark.skipif(not has_kernels("cpu"), reason="the kernels are not built")
@pytest.mark.parametrize(
    ("grad", "images", "sizes", "words"),
    [
        ((12, 4, 1), 2, [16, 14, 8, 7], "grad_output must have shape"),
        ((11, 4), 2, [16, 14, 8, 7], "grad_output must have shape"),
        ((12, 4), -1, [16, 14, 8, 7], "negative number of images"),
        ((12, 4), 2, [], "map_sizes must hold"),
        ((12, 4), 2, [16, 14, 8], "map_sizes must hold"),
        ((12, 4), 2, [16, 14, 0, 7], "at least one pixel"),
        ((12, 4), 2, [16, 14, 8, 2**31], "less than 2"),
        pytest.param((12, 4), 2, [16, 14], "feature map 1", marks=pytest.mark.host),
    ],
)
def test_the_bare_backward_checks_its_arguments(grad, images, sizes, words):
    _, *nodes = operator_arguments(make_case(0))
    with pytest.raises(RuntimeError, match=words):
        torch.ops.queryseg.quadtree_gather_backward(
            torch.zeros(grad, dtype=torch.float64), images, sizes, *nodes
        )
