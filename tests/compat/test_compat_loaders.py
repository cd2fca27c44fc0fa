"""Data sets around data sets, and the loaders made of them."""

import itertools
import logging
import pickle
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from detectron2.data import (
    DatasetCatalog,
    DatasetFromList,
    MapDataset,
    MetadataCatalog,
    ToIterableDataset,
    build_batch_data_loader,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
    print_instances_class_histogram,
)
from detectron2.data.common import (
    AspectRatioGroupedDataset,
    set_default_dataset_from_list_serialize_method,
)
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from torch.utils.data import IterableDataset

SIZES = [(4, 3), (3, 4), (5, 3), (3, 3), (2, 9), (9, 2), (7, 5), (4, 4), (1, 2), (2, 1), (6, 1)]
IMAGES = [{"image_id": i, "width": w, "height": h} for i, (w, h) in enumerate(SIZES)]


def draw(sample: dict) -> dict:
    """A mapper that shows the state of all generators."""
    drawn = [np.random.randint(2**31), random.getrandbits(31), torch.randint(2**31, ()).item()]
    return sample | {"drawn": drawn}


def skip_two(number: int) -> int | None:
    return None if number == 2 else number * 10


class Stream(IterableDataset):
    def __init__(self, elements: list) -> None:
        self.elements = elements

    def __iter__(self) -> Iterator:
        return iter(self.elements)

    def __len__(self) -> int:
        return len(self.elements)


def ids(batches) -> list[list[int]]:
    return [[sample["image_id"] for sample in batch] for batch in batches]


@pytest.mark.parametrize("serialize", [True, False])
def test_elements_of_a_list_cannot_be_changed_from_outside(serialize: bool) -> None:
    dataset = DatasetFromList([{"a": [1]}, {"b": 2}], serialize=serialize)
    dataset[0]["a"].append(5)
    assert len(dataset) == 2 and dataset[0] == {"a": [1]} and dataset[-1] == {"b": 2}


def test_a_list_can_be_stored_in_other_ways() -> None:
    assert torch.equal(DatasetFromList([1, 2], serialize=torch.tensor)[1], torch.tensor(2))
    with set_default_dataset_from_list_serialize_method(torch.tensor):
        assert isinstance(DatasetFromList([1, 2])[1], torch.Tensor)
    assert DatasetFromList([1, 2])[1] == 2
    shared = [{"a": 1}]
    assert DatasetFromList(shared, copy=False, serialize=False)[0] is shared[0]
    with pytest.raises(TypeError):
        DatasetFromList([1], serialize="pickle")


def test_a_function_is_applied_and_failures_are_replaced() -> None:
    dataset = MapDataset(DatasetFromList([1, 2, 3, 4]), skip_two)
    assert len(dataset) == 4 and [dataset[i] for i in (0, 2, 3)] == [10, 30, 40]
    candidates = random.Random(42)
    expected = [candidates.sample([0, 2, 3], k=1)[0] for _ in range(6)]
    assert [dataset[1] for _ in range(6)] == [10 * (index + 1) for index in expected]
    with pytest.raises(ValueError):
        _ = MapDataset([2, 2], skip_two)[0]


def test_repeated_failures_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    dataset = MapDataset([2] * 20 + [1], skip_two)
    with caplog.at_level(logging.WARNING, logger="detectron2.data.common"):
        assert dataset[7] == 10
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert "7" in caplog.messages[0] and "3" in caplog.messages[0]
    assert dataset[20] == 10


def test_a_mapped_stream_leaves_failures_out() -> None:
    mapped = MapDataset(Stream([1, 2, 3]), skip_two)
    assert isinstance(mapped, IterableDataset)
    assert list(iter(mapped)) == [10, 30] and len(mapped) == 3


def test_a_mapped_data_set_survives_pickling_with_a_lambda() -> None:
    dataset = MapDataset(DatasetFromList([1, 2]), lambda number: number + 1)
    assert pickle.loads(pickle.dumps(dataset))[1] == 3


def test_batches_are_all_wide_or_all_high_and_rests_wait() -> None:
    grouped = AspectRatioGroupedDataset(IMAGES, 2)
    assert ids(grouped) == [[0, 2], [1, 3], [5, 6], [4, 7], [9, 10]]
    assert ids(itertools.islice(grouped, 2)) == [[8, 1], [0, 2]]
    assert ids(itertools.islice(grouped, 1)) == [[0, 2]]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_batches_equal_those_of_the_real_detectron2(stored, num_workers: int) -> None:
    ours: dict[str, object] = {}
    for grouping in (True, False):
        np.random.seed(1)
        random.seed(1)
        torch.manual_seed(1)
        loader = build_detection_train_loader(
            IMAGES,
            mapper=draw,
            total_batch_size=3,
            aspect_ratio_grouping=grouping,
            num_workers=num_workers,
            **({} if grouping else {"seed": 7}),
        )
        batches = list(itertools.islice(loader, 8))
        ours[f"ids_{grouping}"] = ids(batches)
        ours[f"drawn_{grouping}"] = [[sample["drawn"] for sample in batch] for batch in batches]
    for name, answer in stored(f"loader_{num_workers}_workers", ours).items():
        np.testing.assert_array_equal(ours[name], answer, err_msg=name)


def test_worker_processes_share_the_elements() -> None:
    for total, drop_last, expected in ((23, True, 20), (23, False, 23), (20, True, 20)):
        loader = build_batch_data_loader(
            DatasetFromList(list(range(total))),
            InferenceSampler(total),
            4,
            num_workers=2,
            drop_last=drop_last,
        )
        batches = list(loader)
        assert sorted(itertools.chain(*batches)) == list(range(expected))
        assert all(max(batch) - min(batch) == len(batch) - 1 for batch in batches)
        assert len(batches) == len(loader)


def test_a_stream_needs_no_sampler() -> None:
    stream = ToIterableDataset(DatasetFromList(IMAGES), TrainingSampler(11, seed=2))
    loader = build_detection_train_loader(stream, mapper=None, total_batch_size=2)
    assert all(
        (a["width"] > a["height"]) == (b["width"] > b["height"])
        for a, b in itertools.islice(loader, 6)
    )
    with pytest.raises(AssertionError):
        build_batch_data_loader(stream, TrainingSampler(11), 2)
    with pytest.raises(AssertionError):
        build_detection_train_loader(IMAGES, mapper=None, sampler=[0, 1], total_batch_size=2)


def test_test_batches_come_in_order_without_leaving_any_out() -> None:
    loader = build_detection_test_loader(IMAGES, mapper=draw)
    assert ids(loader) == [[i] for i in range(11)] and len(loader) == 11
    loader = build_detection_test_loader(IMAGES, mapper=None, batch_size=4)
    assert ids(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    counted = build_detection_test_loader(IMAGES, mapper=None, batch_size=4, collate_fn=len)
    assert list(counted) == [4, 4, 3]


def test_batch_sizes_are_checked() -> None:
    sampler, dataset = TrainingSampler(11, seed=0), DatasetFromList(IMAGES)
    with pytest.raises(ValueError):
        build_batch_data_loader(dataset, sampler, 2, single_gpu_batch_size=2)
    with pytest.raises(AssertionError):
        build_batch_data_loader(dataset, sampler, 0)
    with pytest.raises(AssertionError):
        build_batch_data_loader(dataset, sampler, 2, aspect_ratio_grouping=True, drop_last=False)
    single = build_batch_data_loader(dataset, sampler, 0, single_gpu_batch_size=3)
    assert len(next(iter(single))) == 3


NAMES = ["compat_loaders_a", "compat_loaders_b"]


@pytest.fixture
def two_sets() -> Iterator[list[str]]:
    crowd, thing = {"category_id": 0, "iscrowd": 1}, {"category_id": 1}
    sets = [[[crowd], [thing, thing]], [[], [crowd, thing]]]
    for number, (name, images) in enumerate(zip(NAMES, sets)):
        records = [{"image_id": 10 * number + i, "annotations": a} for i, a in enumerate(images)]
        DatasetCatalog.register(name, lambda records=records: records)
        MetadataCatalog.get(name).thing_classes = ["apple", "a pear of great beauty"]
    yield NAMES
    for name in NAMES:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_data_sets_are_joined_and_images_without_objects_left_out(two_sets: list[str]) -> None:
    joined = get_detection_dataset_dicts(two_sets)
    assert [image["image_id"] for image in joined] == [1, 11]
    everything = get_detection_dataset_dicts(two_sets, filter_empty=False)
    assert [image["image_id"] for image in everything] == [0, 1, 10, 11]
    assert len(get_detection_dataset_dicts(two_sets[0])) == 1
    with pytest.raises(KeyError):
        get_detection_dataset_dicts("compat_loaders_unknown")


def test_joined_data_sets_need_the_same_categories(two_sets: list[str]) -> None:
    MetadataCatalog.pop(two_sets[1])
    MetadataCatalog.get(two_sets[1]).thing_classes = ["pear", "apple"]
    with pytest.raises(ValueError):
        get_detection_dataset_dicts(two_sets)
    assert len(get_detection_dataset_dicts(two_sets, check_consistency=False)) == 2


def test_objects_of_each_category_are_counted(
    two_sets: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    images = get_detection_dataset_dicts(two_sets, check_consistency=False)
    names = [*MetadataCatalog.get(two_sets[0]).thing_classes, "compat histogram"]
    with caplog.at_level(logging.INFO):
        print_instances_class_histogram(images, names)
    table = caplog.messages[-1]
    cells = [cell.strip() for cell in table.split("|")]
    for name, count in (("apple", "0"), ("a pear of g..", "3"), ("compat hist..", "0")):
        assert cells[cells.index(name) + 1] == count
    assert cells[cells.index("total") + 1] == "3"
    with pytest.raises(AssertionError):
        print_instances_class_histogram(images, names[:1])
