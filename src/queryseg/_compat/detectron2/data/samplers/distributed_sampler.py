"""Samplers that share one stream of indices among all training or test processes."""

import itertools
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

from detectron2.utils import comm

_logger = logging.getLogger(__name__)


class _InfiniteSampler(Sampler[int]):
    """An endless stream, made alike in all processes; each process takes every n-th index of it."""

    def __init__(self, shuffle: bool, seed: int | None) -> None:
        self._shuffle = shuffle
        self._seed = int(comm.shared_random_seed() if seed is None else seed)
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self._infinite_indices(), self._rank, None, self._world_size)

    def _infinite_indices(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self._seed)
        while True:
            indices = self._get_epoch_indices(generator)
            if self._shuffle:
                indices = indices[torch.randperm(len(indices), generator=generator)]
            yield from indices.tolist()

    def _get_epoch_indices(self, generator: torch.Generator) -> torch.Tensor:
        """The indices of one pass through the data set, before they are shuffled."""
        raise NotImplementedError(f"{type(self)} has to say which indices make a pass.")


class TrainingSampler(_InfiniteSampler):
    """Shuffled passes through the data set, one after the other, without end.

    Args:
        size: number of elements in the data set.
        shuffle: a new order for each pass; otherwise 0, 1, 2, ... every time.
        seed: equal in all processes; drawn and shared among them if None.

    Raises:
        TypeError: `size` is no integer.
        ValueError: `size` is not positive.
    """

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None) -> None:
        if not isinstance(size, int):
            raise TypeError(f"the size of a data set is an int, not a {type(size)}")
        if size <= 0:
            raise ValueError(f"nothing to sample from a data set of size {size}")
        super().__init__(shuffle, seed)
        self._size = size

    def _get_epoch_indices(self, generator: torch.Generator) -> torch.Tensor:
        return torch.arange(self._size)


class RepeatFactorTrainingSampler(_InfiniteSampler):
    """Shuffled passes in which an image may come up several times.

    A factor of 2.3 means two times, and a third time in three passes of ten.

    Args:
        repeat_factors: float (N,), how often each image comes up in a pass.
        shuffle: a new order for each pass.
        seed: equal in all processes; drawn and shared among them if None.
    """

    def __init__(
        self, repeat_factors: torch.Tensor, *, shuffle: bool = True, seed: int | None = None
    ) -> None:
        super().__init__(shuffle, seed)
        self._whole = torch.trunc(repeat_factors)
        self._fraction = repeat_factors - self._whole

    @staticmethod
    def repeat_factors_from_category_frequency(
        dataset_dicts: Sequence[dict[str, Any]], repeat_thresh: float, sqrt: bool = True
    ) -> torch.Tensor:
        """Factors that show images of rare categories more often (LVIS paper, appendix B.2).

        With f(c) the share of images that show category c, the category repeats
        max(1, sqrt(t / f(c))) times, and an image as often as its most repeated category.

        Args:
            dataset_dicts: images with their annotations.
            repeat_thresh: t, the share below which a category is repeated.
            sqrt: take the root; without it the factor is max(1, t / f(c)).

        Returns:
            float32 (N,), one factor for each image.
        """
        shown = [
            {annotation["category_id"] for annotation in image["annotations"]}
            for image in dataset_dicts
        ]
        counts = Counter(itertools.chain.from_iterable(shown))
        factors = {}
        for category, count in sorted(counts.items()):
            frequency = count / len(shown)
            ratio = repeat_thresh / frequency
            factors[category] = max(1.0, math.sqrt(ratio) if sqrt else ratio)
            _logger.info(f"Cat ID {category}: freq={frequency:.2f}, rep={factors[category]:.2f}")
        per_image = [max((factors[c] for c in categories), default=1.0) for categories in shown]
        return torch.tensor(per_image, dtype=torch.float32)

    def _get_epoch_indices(self, generator: torch.Generator) -> torch.Tensor:
        """Each index as often as its factor says, rounded up by chance in this pass."""
        rounded_up = torch.rand(len(self._fraction), generator=generator) < self._fraction
        repeats = (self._whole + rounded_up).to(torch.int64)
        return torch.arange(len(repeats)).repeat_interleave(repeats)


class InferenceSampler(Sampler[int]):
    """Every element exactly once over all processes, each process one stretch in order.

    Args:
        size: number of elements in the data set; the first processes take what does not divide.
    """

    def __init__(self, size: int) -> None:
        assert size > 0, "there is nothing to evaluate in an empty data set"
        self._local_indices = self._get_local_indices(size, comm.get_world_size(), comm.get_rank())

    @staticmethod
    def _get_local_indices(total_size: int, world_size: int, rank: int) -> range:
        share, left = divmod(total_size, world_size)
        begin = rank * share + min(rank, left)
        return range(begin, begin + share + (rank < left))

    def __iter__(self) -> Iterator[int]:
        return iter(self._local_indices)

    def __len__(self) -> int:
        return len(self._local_indices)
