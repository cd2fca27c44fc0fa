"""Batches of indices that belong to the same group."""

from collections.abc import Iterator, Sequence
from typing import NoReturn

import numpy as np
from torch.utils.data import BatchSampler, Sampler


class GroupedBatchSampler(BatchSampler):
    """Collect the indices of a sampler into batches of one group each, as early as possible.

    Indices that do not fill a batch yet wait, also over the end of an iteration.

    Args:
        sampler: gives indices in [0, N).
        group_ids: the group of each of the N elements.
        batch_size: indices in each batch.

    Raises:
        ValueError: `sampler` is no torch sampler.
    """

    def __init__(self, sampler: Sampler[int], group_ids: Sequence[int], batch_size: int) -> None:
        if not isinstance(sampler, Sampler):
            raise ValueError(f"sampler has to be a torch.utils.data.Sampler, not {sampler!r}")
        self.sampler = sampler
        self.group_ids = np.asarray(group_ids)
        assert self.group_ids.ndim == 1, "group_ids needs one number for each element"
        self.batch_size = batch_size
        self.buffer_per_group: dict[int, list[int]] = {
            group: [] for group in np.unique(self.group_ids).tolist()
        }

    def __iter__(self) -> Iterator[list[int]]:
        for index in self.sampler:
            waiting = self.buffer_per_group[self.group_ids[index]]
            waiting.append(index)
            if len(waiting) == self.batch_size:
                batch = waiting[:]
                waiting.clear()
                yield batch

    def __len__(self) -> NoReturn:
        raise NotImplementedError("The number of batches depends on the order of the groups.")
