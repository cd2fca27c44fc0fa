"""The endless order in which training images are seen, the same for any number of processes."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

SampleKey = tuple[int, int]


class TrainBatchSampler(Sampler[list[SampleKey]]):
    """Endless batches of `(dataset index, stream position)` that can start at any batch.

    One stream of shuffled epochs is cut into batches of `total_batch_size`, and each process takes
    its slice of every batch. So neither the order nor the batches depend on the number of
    processes, and batch `b` is the same whether or not the batches before it were drawn.

    The stream position numbers the samples from the first one ever drawn. Seeded with it, an
    augmentation depends on nothing else (see `queryseg.data.loader`).

    Args:
        num_samples: size of the dataset.
        total_batch_size: images of one batch over all processes.
        seed: seed of the shuffling.
        groups: for each image the number of the group it may share a batch with (for example by
            aspect ratio), or None for one group. Left-over images of a group wait for the next
            epoch; none is dropped.
        rank: number of this process.
        world_size: number of processes.
        start_batch: the batch to begin with, counted from the beginning of the training.

    Raises:
        ValueError: an empty dataset, or a batch that the processes cannot share evenly.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        total_batch_size: int,
        seed: int,
        groups: Sequence[int] | None = None,
        rank: int = 0,
        world_size: int = 1,
        start_batch: int = 0,
    ) -> None:
        if num_samples < 1:
            raise ValueError("the training set has no images")
        if total_batch_size < 1 or total_batch_size % world_size:
            raise ValueError(
                f"a total batch size of {total_batch_size} cannot be shared by {world_size} "
                "processes: set dataloader.train.total_batch_size to a multiple of their number"
            )
        if groups is not None and len(groups) != num_samples:
            raise ValueError(f"got {len(groups)} groups for {num_samples} images")
        self.num_samples = num_samples
        self.total_batch_size = total_batch_size
        self.seed = seed
        self.groups = [0] * num_samples if groups is None else list(groups)
        self.start_batch = start_batch
        share = total_batch_size // world_size
        self._slice = slice(rank * share, (rank + 1) * share)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        waiting: dict[int, list[SampleKey]] = {group: [] for group in self.groups}
        num_batches = 0
        for key in self._stream():
            batch = waiting[self.groups[key[0]]]
            batch.append(key)
            if len(batch) == self.total_batch_size:
                if num_batches >= self.start_batch:
                    yield batch[self._slice]
                batch.clear()
                num_batches += 1

    def _stream(self) -> Iterator[SampleKey]:
        position = 0
        for epoch in range(2**62):
            generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
            for index in torch.randperm(self.num_samples, generator=generator).tolist():
                yield index, position
                position += 1


def mixed_seed(*numbers: int) -> int:
    """One well-mixed 32-bit seed from several numbers, so that neighbours share no stream."""
    words = [number % 2**64 for number in numbers]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def aspect_ratio_groups(dataset_dicts: Sequence[dict[str, Any]]) -> list[int]:
    """1 for images wider than high, 0 for the others, from `width` and `height` of each dict.

    Images of one orientation need less padding together.

    Raises:
        ValueError: a dict without the image size.
    """
    groups = []
    for record in dataset_dicts:
        if "width" not in record or "height" not in record:
            raise ValueError(
                f"{record.get('file_name', 'an image')} has no width and height in the dataset: "
                "add them, or set dataloader.train.aspect_ratio_grouping=False"
            )
        groups.append(int(record["width"] > record["height"]))
    return groups
