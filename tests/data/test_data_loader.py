"""Order, sharding, restart and seeding of the training loader; order of the test loader."""

import itertools
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.utils import comm

from queryseg.data.loader import build_test_loader, build_train_loader, seeded_rng
from queryseg.data.sampler import TrainBatchSampler, aspect_ratio_groups, mixed_seed


def take(iterable: Any, num: int) -> list[Any]:
    return list(itertools.islice(iterable, num))


def records(num: int) -> list[dict[str, Any]]:
    return [
        {"image_id": i, "file_name": f"{i}.png", "width": 9 if i % 3 else 5, "height": 7}
        for i in range(num)
    ]


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """A mapper that uses all three generators."""
    numbers = (random.random(), float(np.random.rand()), float(torch.rand(1)))
    return {"image_id": record["image_id"], "numbers": numbers}


def test_every_epoch_has_every_image_once_in_another_order() -> None:
    sampler = TrainBatchSampler(12, total_batch_size=4, seed=1)
    keys = list(itertools.chain(*take(sampler, 6)))
    assert [position for _, position in keys] == list(range(24))
    first, second = [i for i, _ in keys[:12]], [i for i, _ in keys[12:]]
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert first != list(range(12))


def test_the_order_depends_on_the_seed_alone() -> None:
    orders = [take(TrainBatchSampler(12, total_batch_size=4, seed=s), 4) for s in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("groups", [None, [0, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1]])
def test_starting_at_a_batch_equals_skipping_those_before_it(groups: list[int] | None) -> None:
    def sampler(start_batch: int) -> TrainBatchSampler:
        return TrainBatchSampler(
            11, total_batch_size=4, seed=5, groups=groups, start_batch=start_batch
        )

    batches = take(sampler(0), 40)
    for start in (1, 7, 23):
        assert take(sampler(start), 17) == batches[start : start + 17]


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_shares_of_the_processes_make_up_the_batches_of_one(world_size: int) -> None:
    groups = [i % 2 for i in range(10)]

    def batches(rank: int, world_size: int) -> list[Any]:
        sampler = TrainBatchSampler(
            10, total_batch_size=4, seed=0, groups=groups, rank=rank, world_size=world_size
        )
        return take(sampler, 9)

    shares = [batches(rank, world_size) for rank in range(world_size)]
    assert [list(itertools.chain(*parts)) for parts in zip(*shares)] == batches(0, 1)


def test_batches_hold_one_orientation_and_no_image_is_lost() -> None:
    groups = aspect_ratio_groups(records(11))
    assert groups == [0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1]
    sampler = TrainBatchSampler(11, total_batch_size=3, seed=0, groups=groups)
    batches = take(sampler, 110)  # 30 epochs, give or take what waits for its batch
    assert all(len({groups[index] for index, _ in batch}) == 1 for batch in batches)
    counts = Counter(index for batch in batches for index, _ in batch)
    assert set(counts) == set(range(11))
    assert max(counts.values()) - min(counts.values()) <= 1


def test_a_batch_that_the_processes_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="a multiple of their number"):
        TrainBatchSampler(4, total_batch_size=3, seed=0, world_size=2)
    with pytest.raises(ValueError, match="no images"):
        TrainBatchSampler(0, total_batch_size=3, seed=0)
    with pytest.raises(ValueError, match="3 groups for 4 images"):
        TrainBatchSampler(4, total_batch_size=1, seed=0, groups=[0, 1, 1])


def test_a_record_without_its_size_is_named_with_the_cure() -> None:
    with pytest.raises(ValueError, match=r"x\.png has no width and height.*grouping=False"):
        aspect_ratio_groups([{"file_name": "x.png"}])


def test_mixed_seeds_of_neighbouring_numbers_differ() -> None:
    seeds = {mixed_seed(seed, position) for seed in range(30) for position in range(300)}
    assert len(seeds) >= 8999  # 9000 draws from 2^32: a collision has probability 1 %
    assert mixed_seed(1, 2) == mixed_seed(1, 2) != mixed_seed(2, 1)


@pytest.mark.parametrize("workers", [(1, "fork"), (3, "fork"), (1, "spawn")])
def test_augmentations_depend_on_the_place_in_the_stream_not_on_the_worker(
    workers: tuple[int, str],
) -> None:
    def batches(num_workers: int, start_method: str | None, start_batch: int = 0) -> list[Any]:
        loader = build_train_loader(
            records(10),
            mapper=draw,
            total_batch_size=4,
            num_workers=num_workers,
            seed=7,
            start_method=start_method,
        )
        loader.start_batch = start_batch
        return take(loader, 6 - start_batch)

    expected = batches(0, None)
    assert len({sample["numbers"] for batch in expected for sample in batch}) == 24
    assert batches(*workers) == expected
    if workers == (1, "fork"):
        assert batches(*workers, start_batch=4) == expected[4:]


def test_loading_leaves_the_models_random_numbers_alone() -> None:
    def numbers(load: bool) -> tuple[float, float, float]:
        random.seed(3), np.random.seed(3), torch.manual_seed(3)
        if load:
            take(build_train_loader(records(6), mapper=draw, total_batch_size=2, num_workers=0), 3)
            list(build_test_loader(records(6), mapper=dict, num_workers=0))
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    assert numbers(load=True) == numbers(load=False)


def test_seeded_rng_puts_the_state_back_after_an_error() -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with pytest.raises(KeyError), seeded_rng(5):
        draw({"image_id": 0})
        raise KeyError
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected


def test_an_unusable_image_is_replaced_the_same_way_each_time() -> None:
    def only_even(record: dict[str, Any]) -> dict[str, Any] | None:
        return draw(record) if record["image_id"] % 2 == 0 else None

    def samples() -> list[Any]:
        loader = build_train_loader(records(8), mapper=only_even, total_batch_size=4, num_workers=0)
        return list(itertools.chain(*take(loader, 6)))

    assert all(sample["image_id"] % 2 == 0 for sample in samples())
    assert samples() == samples()


def test_a_set_without_a_usable_image_ends_in_an_error_that_names_one() -> None:
    loader = build_train_loader(
        records(3), mapper=lambda record: None, total_batch_size=1, num_workers=0
    )
    with pytest.raises(RuntimeError, match=r"no usable image in 10 tries.*\d\.png.*check_dataset"):
        next(iter(loader))


def test_a_mapper_may_change_its_record_without_changing_the_dataset() -> None:
    def greedy(record: dict[str, Any]) -> dict[str, Any]:
        return {"seen": record.pop("file_name")}

    loader = build_train_loader(records(2), mapper=greedy, total_batch_size=2, num_workers=0)
    assert len(take(loader, 3)) == 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_test_loader_gives_every_image_once_in_order(num_workers: int) -> None:
    loader = build_test_loader(records(7), mapper=draw, num_workers=num_workers, batch_size=3)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert [sample["image_id"] for batch in batches for sample in batch] == list(range(7))


def test_processes_split_the_test_set_without_gap_or_overlap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        loader = build_test_loader(records(7), mapper=draw, num_workers=0)
        shares.append([sample["image_id"] for batch in loader for sample in batch])
    assert list(itertools.chain(*shares)) == list(range(7))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_test_mapper_that_gives_nothing_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"returned nothing for .*0\.png"):
        next(iter(build_test_loader(records(1), mapper=lambda record: None, num_workers=0)))
