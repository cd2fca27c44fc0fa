"""Loaders for training (endless, can start anywhere) and for testing (every image once)."""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from queryseg.data.sampler import SampleKey, TrainBatchSampler, aspect_ratio_groups, mixed_seed

Sample = dict[str, Any]
Mapper = Callable[[Sample], Sample | None]
MAX_RETRIES = 10


class SeededDataset(Dataset[Sample]):
    """Maps a dataset dict under random numbers that depend only on the seed and the position.

    `random`, `numpy.random` and `torch` are seeded around the mapper and put back afterwards, so an
    augmentation depends neither on the worker that runs it nor on what ran before, and the model's
    random numbers do not depend on how many workers there are.

    Args:
        dataset: dataset dicts by index.
        mapper: turns a dataset dict into a training sample; None means that the image is not
            usable, and another one takes its place.
        seed: seed of the augmentations.
    """

    def __init__(self, dataset: Any, mapper: Mapper, seed: int) -> None:
        self.dataset = dataset
        self.mapper = mapper
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: SampleKey) -> Sample:
        index, position = key
        with seeded_rng(mixed_seed(self.seed, position)):
            for _ in range(MAX_RETRIES):
                record = copy.deepcopy(self.dataset[index])
                sample = self.mapper(record)
                if sample is not None:
                    return sample
                index = random.randrange(len(self.dataset))
        raise RuntimeError(
            f"the mapper found no usable image in {MAX_RETRIES} tries; the last was "
            f"{self.dataset[index].get('file_name', index)}: check the set with "
            "python -m queryseg.tools.check_dataset"
        )


class TrainLoader:
    """Endless training batches, each a list of samples. Built by `build_train_loader`.

    Attributes:
        start_batch: the batch that the next `iter()` begins with. The trainer sets it on resume.
        fingerprint: what the order of the data depends on; equal fingerprints, equal batches.
    """

    def __init__(
        self,
        dataset: SeededDataset,
        *,
        groups: Sequence[int] | None,
        total_batch_size: int,
        num_workers: int,
        start_method: str | None,
    ) -> None:
        self.dataset = dataset
        self.start_batch = 0
        self.fingerprint = {
            "num_images": len(dataset),
            "total_batch_size": total_batch_size,
            "seed": dataset.seed,
            "aspect_ratio_grouping": groups is not None,
        }
        self._groups = groups
        self._num_workers = num_workers
        self._start_method = start_method if num_workers else None
        self.sampler_at(0)  # reports a wrong batch size before the first step

    def sampler_at(self, start_batch: int) -> TrainBatchSampler:
        """This process's batches from `start_batch` on."""
        return TrainBatchSampler(
            len(self.dataset),
            total_batch_size=int(self.fingerprint["total_batch_size"]),
            seed=self.dataset.seed,
            groups=self._groups,
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
            start_batch=start_batch,
        )

    def __iter__(self) -> Iterator[list[Sample]]:
        loader = DataLoader(
            self.dataset,
            batch_sampler=self.sampler_at(self.start_batch),
            num_workers=self._num_workers,
            collate_fn=list,
            multiprocessing_context=self._start_method,
            generator=torch.Generator(),  # else iter() draws from the model's random numbers
        )
        return iter(loader)


def build_train_loader(
    dataset: Sequence[Sample],
    *,
    mapper: Mapper,
    total_batch_size: int,
    num_workers: int = 4,
    seed: int = 0,
    aspect_ratio_grouping: bool = True,
    start_method: str | None = None,
) -> TrainLoader:
    """The endless loader of training batches of this process.

    Args:
        dataset: dataset dicts in Detectron2's format.
        mapper: turns a dataset dict into a sample.
        total_batch_size: images of one step over all processes.
        num_workers: worker processes; 0 maps in this process.
        seed: seed of the order and, with each sample's place in it, of the augmentations.
        aspect_ratio_grouping: put only wide, or only high images into one batch.
        start_method: how workers are started, `"fork"`, `"spawn"` or `"forkserver"`; None takes
            Python's default.

    Raises:
        ValueError: an empty dataset, a batch size that the processes cannot share, or aspect-ratio
            grouping on dicts without sizes.
    """
    groups = aspect_ratio_groups(dataset) if aspect_ratio_grouping else None
    records = DatasetFromList(list(dataset), copy=False)
    return TrainLoader(
        SeededDataset(records, mapper, seed),
        groups=groups,
        total_batch_size=total_batch_size,
        num_workers=num_workers,
        start_method=start_method,
    )


class MappedDataset(Dataset[Sample]):
    """Dataset dicts through a mapper without random parts."""

    def __init__(self, dataset: Any, mapper: Mapper) -> None:
        self.dataset = dataset
        self.mapper = mapper

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self.mapper(copy.deepcopy(self.dataset[index]))
        if sample is None:
            raise RuntimeError(f"the test mapper returned nothing for {self.dataset[index]}")
        return sample


def build_test_loader(
    dataset: Sequence[Sample],
    *,
    mapper: Mapper,
    num_workers: int = 4,
    batch_size: int = 1,
    start_method: str | None = None,
) -> DataLoader[Sample]:
    """A loader that gives every image once, split in order over the processes.

    Args:
        dataset: dataset dicts in Detectron2's format.
        mapper: turns a dataset dict into a model input.
        num_workers: worker processes; 0 maps in this process.
        batch_size: images of one batch; results are comparable to the papers' with 1.
        start_method: as in `build_train_loader`.
    """
    return DataLoader(
        MappedDataset(DatasetFromList(list(dataset), copy=False), mapper),
        batch_size=batch_size,
        sampler=InferenceSampler(len(dataset)),
        num_workers=num_workers,
        collate_fn=list,
        multiprocessing_context=start_method if num_workers else None,
        generator=torch.Generator(),
    )


@contextmanager
def seeded_rng(seed: int) -> Iterator[None]:
    """Run under freshly seeded CPU random numbers and put the old state back."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs as well
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
