"""From names of data sets to loaders for training and testing."""

import itertools
import logging
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from termcolor import colored
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Sampler

from detectron2._subset import NeedsRealDetectron2, outside
from detectron2.utils.comm import get_world_size
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import log_first_n

from ._category_table import category_table
from .catalog import DatasetCatalog, MetadataCatalog
from .common import AspectRatioGroupedDataset, DatasetFromList, MapDataset, ToIterableDataset
from .detection_utils import check_metadata_consistency
from .samplers import InferenceSampler, TrainingSampler

LONGEST_NAME = 13  # letters of a category in the table of instances

_logger = logging.getLogger(__name__)

__getattr__ = outside(__name__, "filter_images_with_few_keypoints", "load_proposals_into_dataset")


def filter_images_with_only_crowd_annotations(
    dataset_dicts: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Leave out images without any annotated object, crowds not counted."""
    usable = [
        image
        for image in dataset_dicts
        if any(annotation.get("iscrowd", 0) == 0 for annotation in image["annotations"])
    ]
    num_left_out = len(dataset_dicts) - len(usable)
    _logger.info(f"Left out {num_left_out} images without objects; {len(usable)} are left.")
    return usable


def print_instances_class_histogram(
    dataset_dicts: Sequence[dict[str, Any]], class_names: Sequence[str]
) -> None:
    """Log how many objects each category has, crowds not counted."""
    annotations = itertools.chain.from_iterable(image["annotations"] for image in dataset_dicts)
    counts = Counter(a["category_id"] for a in annotations if not a.get("iscrowd", 0))
    for category_id in counts:
        assert 0 <= category_id < len(class_names), (
            f"category_id {category_id} is not among {len(class_names)} categories"
        )
    entries = [(_shorten(name), counts[index]) for index, name in enumerate(class_names)]
    if len(class_names) > 1:
        entries.append(("total", counts.total()))
    table = category_table(entries, "#instances", stralign="center")
    title = f"Objects in each of {len(class_names)} categories:\n"
    log_first_n(logging.INFO, title + colored(table, "cyan"), key="message")


def _shorten(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 2] + ".."


def get_detection_dataset_dicts(
    names: str | Sequence[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: Sequence[str] | None = None,
    check_consistency: bool = True,
) -> list[dict[str, Any]] | Dataset:
    """Read data sets by name and join them.

    Args:
        names: one name or several.
        filter_empty: leave out images without any annotated object.
        min_keypoints: keypoints need the real Detectron2.
        proposal_files: proposals need the real Detectron2.
        check_consistency: make sure that the data sets have the same categories, and log how many
            objects each category has.

    Returns:
        A list of dicts, or a torch data set if that is what was registered.

    Raises:
        KeyError: a name that is not registered.
    """
    if min_keypoints > 0 or proposal_files is not None:
        raise NeedsRealDetectron2("A data set with keypoints or proposals")
    names = [names] if isinstance(names, str) else names
    assert len(names), "no data set was named"
    datasets = [DatasetCatalog.get(name) for name in names]
    if isinstance(datasets[0], Dataset):
        return ConcatDataset(datasets) if len(datasets) > 1 else datasets[0]
    for name, dataset in zip(names, datasets, strict=True):
        assert len(dataset), f"data set '{name}' is empty"

    dataset_dicts = list(itertools.chain.from_iterable(datasets))
    if "annotations" in dataset_dicts[0]:
        if filter_empty:
            dataset_dicts = filter_images_with_only_crowd_annotations(dataset_dicts)
        if check_consistency:
            _check_and_log_categories(dataset_dicts, names)
    assert len(dataset_dicts), f"no image of {', '.join(names)} is left"
    return dataset_dicts


def _check_and_log_categories(dataset_dicts: list[dict[str, Any]], names: Sequence[str]) -> None:
    if all(hasattr(MetadataCatalog.get(name), "thing_classes") for name in names):
        check_metadata_consistency("thing_classes", names)
        print_instances_class_histogram(dataset_dicts, MetadataCatalog.get(names[0]).thing_classes)


def build_batch_data_loader(
    dataset: Dataset,
    sampler: Sampler[int] | None,
    total_batch_size: int,
    *,
    aspect_ratio_grouping: bool = False,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    drop_last: bool = True,
    single_gpu_batch_size: int | None = None,
    prefetch_factor: int = 2,
    persistent_workers: bool = False,
    pin_memory: bool = False,
    seed: int | None = None,
    **kwargs: Any,
) -> Iterable[list[Any]]:
    """Batches as lists of elements.

    Args:
        dataset: with an index, or a stream.
        sampler: the order for a data set with an index; None for a stream.
        total_batch_size: images in a batch over all processes.
        aspect_ratio_grouping: only wide or only high images in a batch, see
            `AspectRatioGroupedDataset`.
        num_workers: worker processes.
        collate_fn: what to make of the list of elements.
        drop_last: leave out a batch that is not full; needed for grouping.
        single_gpu_batch_size: images in a batch of each process, in place of `total_batch_size`.
        prefetch_factor, persistent_workers, pin_memory: as in torch's `DataLoader`.
        seed: of the generator from which worker processes get their seeds.
        **kwargs: more arguments of torch's `DataLoader`.

    Raises:
        ValueError: both batch sizes are given.
    """
    batch_size = _batch_size_of_process(total_batch_size, single_gpu_batch_size)
    _logger.info(f"Loading batches of {batch_size} in each process")
    if isinstance(dataset, IterableDataset):
        assert sampler is None, "a stream has its own order: no sampler"
    else:
        dataset = ToIterableDataset(dataset, sampler, shard_chunk_size=batch_size)
    kwargs |= {
        "num_workers": num_workers,
        "worker_init_fn": worker_init_reset_seed,
        "prefetch_factor": prefetch_factor if num_workers > 0 else None,
        "persistent_workers": persistent_workers,
        "pin_memory": pin_memory,
        "generator": None if seed is None else torch.Generator().manual_seed(seed),
    }
    if not aspect_ratio_grouping:
        collate_fn = collate_fn or trivial_batch_collator
        return DataLoader(
            dataset, batch_size=batch_size, drop_last=drop_last, collate_fn=collate_fn, **kwargs
        )
    assert drop_last, "grouping by aspect ratio cannot keep batches that are not full"
    elements = DataLoader(dataset, collate_fn=operator.itemgetter(0), **kwargs)
    batches = AspectRatioGroupedDataset(elements, batch_size)
    return batches if collate_fn is None else MapDataset(batches, collate_fn)


def _batch_size_of_process(total_batch_size: int, single_gpu_batch_size: int | None) -> int:
    if single_gpu_batch_size:
        if total_batch_size:
            raise ValueError("Give one of total_batch_size and single_gpu_batch_size, not both.")
        return single_gpu_batch_size
    world_size = get_world_size()
    assert total_batch_size > 0 and total_batch_size % world_size == 0, (
        f"a batch of {total_batch_size} cannot be divided among {world_size} processes"
    )
    return total_batch_size // world_size


def build_detection_train_loader(
    dataset: list[dict[str, Any]] | Dataset,
    *,
    mapper: Callable[[dict[str, Any]], Any] | None,
    sampler: Sampler[int] | None = None,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    **kwargs: Any,
) -> Iterable[list[Any]]:
    """An endless loader for training.

    Args:
        dataset: a list of dicts, a data set with an index or a stream.
        mapper: from an element to the input of a model.
        sampler: the order, a `TrainingSampler` unless given; None for a stream.
        total_batch_size, aspect_ratio_grouping, num_workers, collate_fn, **kwargs: see
            `build_batch_data_loader`.
    """
    dataset = _prepare(dataset, mapper)
    if sampler is None and not isinstance(dataset, IterableDataset):
        sampler = TrainingSampler(len(dataset))
    assert sampler is None or isinstance(sampler, Sampler), f"{type(sampler)} is no Sampler"
    return build_batch_data_loader(
        dataset,
        sampler,
        total_batch_size,
        aspect_ratio_grouping=aspect_ratio_grouping,
        num_workers=num_workers,
        collate_fn=collate_fn,
        **kwargs,
    )


def build_detection_test_loader(
    dataset: list[dict[str, Any]] | Dataset,
    *,
    mapper: Callable[[dict[str, Any]], Any] | None,
    sampler: Sampler[int] | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> DataLoader:
    """A loader that visits every element once.

    Args:
        dataset: a list of dicts, a data set with an index or a stream.
        mapper: from an element to the input of a model.
        sampler: the order, an `InferenceSampler` unless given; None for a stream.
        batch_size: images in a batch of each process.
        num_workers: worker processes.
        collate_fn: what to make of the list of elements.
    """
    dataset = _prepare(dataset, mapper)
    if isinstance(dataset, IterableDataset):
        assert sampler is None, "a stream has its own order: no sampler"
    elif sampler is None:
        sampler = InferenceSampler(len(dataset))
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=False,
        num_workers=num_workers,
        collate_fn=collate_fn or trivial_batch_collator,
    )


def _prepare(
    dataset: list[dict[str, Any]] | Dataset, mapper: Callable[[dict[str, Any]], Any] | None
) -> Dataset:
    if isinstance(dataset, list):
        dataset = DatasetFromList(dataset, copy=False)
    return dataset if mapper is None else MapDataset(dataset, mapper)


def trivial_batch_collator(batch: list[Any]) -> list[Any]:
    """The batch as it is: a list of elements."""
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    """Seed numpy, torch and random of a worker from torch's seed and the worker's number."""
    seed_all_rng(torch.initial_seed() % 2**31 + worker_id)
