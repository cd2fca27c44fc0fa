"""The order in which data sets are visited."""

import itertools
import math

import numpy as np
import pytest
import torch
from detectron2.data.samplers import (
    GroupedBatchSampler,
    InferenceSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils import comm
from torch.utils.data import SequentialSampler

FACTORS = torch.tensor([1.0, 2.5, 1.3, 3.0, 0.2])


def head(sampler, count: int = 60) -> list[int]:
    return list(itertools.islice(sampler, count))


def pretend_to_be(monkeypatch: pytest.MonkeyPatch, rank: int, world_size: int) -> None:
    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    monkeypatch.setattr(comm, "get_world_size", lambda: world_size)


def test_streams_equal_those_of_the_real_detectron2(stored) -> None:
    np.random.seed(4)
    ours = {
        "shuffled": head(TrainingSampler(11, seed=5)),
        "in_order": head(TrainingSampler(11, shuffle=False, seed=5)),
        "drawn_seed": head(TrainingSampler(11)),
        "repeated": head(RepeatFactorTrainingSampler(FACTORS, seed=5)),
        "repeated_in_order": head(RepeatFactorTrainingSampler(FACTORS, shuffle=False, seed=5)),
        "drawn_repeated": head(RepeatFactorTrainingSampler(FACTORS)),
        "numpy_afterwards": np.random.randint(2**31, size=1),
    }
    for name, answer in stored("samplers", ours).items():
        np.testing.assert_array_equal(ours[name], answer, err_msg=name)


def test_every_pass_visits_every_element_once() -> None:
    stream = head(TrainingSampler(10, seed=3), 30)
    passes = [stream[:10], stream[10:20], stream[20:]]
    assert all(sorted(indices) == list(range(10)) for indices in passes)
    assert passes[0] != passes[1] != passes[2]


def test_processes_share_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    makers = [
        lambda: TrainingSampler(7, seed=1),
        lambda: RepeatFactorTrainingSampler(FACTORS, seed=1),
    ]
    for make in makers:
        pretend_to_be(monkeypatch, 0, 1)
        whole = head(make(), 60)
        for rank in range(3):
            pretend_to_be(monkeypatch, rank, 3)
            assert head(make(), 20) == whole[rank::3]


def test_a_stream_starts_anew_each_time() -> None:
    sampler = TrainingSampler(13, seed=8)
    assert head(sampler) == head(sampler)


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-2, ValueError), (2.0, TypeError)])
def test_sizes_that_make_no_stream_are_refused(size: object, error: type) -> None:
    with pytest.raises(error):
        TrainingSampler(size)


def test_images_repeat_as_often_as_their_factors_say() -> None:
    passes = 1000
    counts = np.zeros(len(FACTORS))
    stream = iter(RepeatFactorTrainingSampler(FACTORS, shuffle=False, seed=0))
    for index in itertools.islice(stream, int(passes * FACTORS.sum())):
        counts[index] += 1
    # a factor's fraction is rounded by chance: standard deviation below 0.5 / sqrt(passes) = 0.016
    np.testing.assert_allclose(counts / passes, FACTORS, atol=0.08)


def test_factors_follow_the_rarest_category_of_an_image() -> None:
    shown = [[0, 0, 1], [0], [], [0, 2], [0]]
    images = [{"annotations": [{"category_id": c} for c in categories]} for categories in shown]
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency
    root = math.sqrt(0.4 / (1 / 5))
    torch.testing.assert_close(factors(images, 0.4), torch.tensor([root, 1, 1, root, 1]))
    torch.testing.assert_close(factors(images, 0.4, sqrt=False), torch.tensor([2.0, 1, 1, 2, 1]))
    torch.testing.assert_close(factors(images, 0.1), torch.ones(5))


@pytest.mark.parametrize(("size", "world_size"), [(1, 1), (8, 2), (9, 4), (2, 5), (23, 7)])
def test_testing_splits_the_elements_in_stretches(
    monkeypatch: pytest.MonkeyPatch, size: int, world_size: int
) -> None:
    stretches = []
    for rank in range(world_size):
        pretend_to_be(monkeypatch, rank, world_size)
        sampler = InferenceSampler(size)
        assert len(sampler) == len([*sampler])
        stretches.append([*sampler])
    assert [*itertools.chain(*stretches)] == list(range(size))
    lengths = [len(stretch) for stretch in stretches]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] - lengths[-1] <= 1
    with pytest.raises(AssertionError):
        InferenceSampler(0)


def test_batches_hold_one_group_and_rests_wait() -> None:
    groups = [0, 1, 1, 0, 2, 1, 0]
    sampler = GroupedBatchSampler(SequentialSampler(range(7)), groups, 2)
    assert list(iter(sampler)) == [[1, 2], [0, 3]]
    assert list(iter(sampler)) == [[6, 0], [5, 1], [4, 4], [2, 5], [3, 6]]
    with pytest.raises(NotImplementedError):
        len(sampler)
    with pytest.raises(ValueError):
        GroupedBatchSampler([0, 1], groups, 2)
