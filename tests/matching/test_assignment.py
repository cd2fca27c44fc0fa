"""Optimal assignment against trying all of them."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from queryseg.matching import solve_assignments
from queryseg.matching.assignment import FORBIDDEN_COST, sanitize_costs


def _best_total(cost: Tensor) -> float:
    """The least total cost over all injective assignments, by trying them."""
    queries, instances = cost.shape
    if queries < instances:
        return _best_total(cost.T)
    columns = range(instances)
    return min(
        float(sum(cost[row, column] for row, column in zip(rows, columns)))
        for rows in permutations(range(queries), instances)
    )


@pytest.mark.parametrize("sizes", [(3, 2), (4, 0), (1, 4)])
def test_total_cost_is_the_least_possible(sizes: tuple[int, int]) -> None:
    cost = torch.randn(3, 2, 5, max(sizes))
    for one_cost, assignment in zip(cost, solve_assignments(cost, sizes)):
        for image, size in enumerate(sizes):
            src, tgt = assignment.of_image(image)
            assert sorted(tgt.tolist()) == list(range(size))
            total = float(one_cost[image, src, tgt].sum())
            assert total == pytest.approx(_best_total(one_cost[image, :, :size]), abs=1e-5)


def test_more_instances_than_queries_leaves_some_without_a_query() -> None:
    cost = torch.randn(1, 1, 2, 4)
    (assignment,) = solve_assignments(cost, (4,))
    assert assignment.src_idx.tolist() == [0, 1]
    total = float(cost[0, 0, assignment.src_idx, assignment.tgt_idx].sum())
    assert total == pytest.approx(_best_total(cost[0, 0]), abs=1e-6)


def test_instances_without_a_query_are_counted_in_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        "queryseg.matching.assignment.log_every_n_seconds",
        lambda level, message, n: said.append(message),
    )
    solve_assignments(torch.randn(3, 2, 5, 9), (9, 5))
    (message,) = said
    assert "4 of the 14 instances" in message
    assert "an image has 9" in message and "only 5 queries" in message
    solve_assignments(torch.randn(3, 2, 5, 5), (5, 0))
    assert len(said) == 1


def test_pairs_are_sorted_by_image_and_query_and_count_through_the_batch() -> None:
    cost = torch.full((1, 2, 3, 2), 1.0)
    cost[0, 0, 2, 0] = cost[0, 0, 1, 1] = cost[0, 1, 0, 0] = -1.0
    (assignment,) = solve_assignments(cost, (2, 1))
    assert assignment.image_idx.tolist() == [0, 0, 1]
    assert assignment.src_idx.tolist() == [1, 2, 0]
    assert assignment.tgt_idx.tolist() == [1, 0, 2]


def test_batch_without_instances_gives_no_pairs() -> None:
    (assignment,) = solve_assignments(torch.zeros(1, 2, 3, 0), (0, 0))
    assert len(assignment.src_idx) == 0
    assert assignment.src_idx.dtype == torch.int64


def test_costs_that_are_not_finite_are_avoided_and_counted() -> None:
    cost = torch.zeros(1, 1, 3, 2)
    cost[0, 0, 0] = float("nan")
    cost[0, 0, 1, 0] = -float("inf")
    cost[0, 0, 2, 1] = 5.0
    before = sanitize_costs.replaced
    (assignment,) = solve_assignments(cost, (2,))
    assert assignment.src_idx.tolist() == [1, 2]
    assert assignment.tgt_idx.tolist() == [1, 0]
    assert sanitize_costs.replaced == before + 3


def test_forbidden_cost_is_above_every_real_one_and_exact() -> None:
    assert torch.tensor(FORBIDDEN_COST).item() == FORBIDDEN_COST
    assert FORBIDDEN_COST > 100 * 1000.0
