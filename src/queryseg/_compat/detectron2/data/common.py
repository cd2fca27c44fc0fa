"""Data sets around data sets: a list in shared memory, a mapped one, a stream, a batched stream."""

import contextlib
import copy as copying
import logging
import pickle
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

from detectron2.utils.serialize import PicklableWrapper

RETRIES_BEFORE_WARNING = 3

_logger = logging.getLogger(__name__)


class _MappedStream(IterableDataset):
    """A stream with a function applied to each element; elements mapped to None are left out."""

    def __init__(self, dataset: IterableDataset, map_func: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._map_func = PicklableWrapper(map_func)

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Any]:
        for mapped in map(self._map_func, self._dataset):
            if mapped is not None:
                yield mapped


class MapDataset(Dataset):
    """A data set with a function applied to each element.

    Where the function gives None, another element takes the place: a random one of those that did
    not fail so far or, for a stream (the result is a stream too), the next one.

    Args:
        dataset: a data set with an index, or a stream.
        map_func: the function; a lambda survives pickling.
    """

    def __new__(cls, dataset: Dataset, map_func: Callable[[Any], Any]) -> Dataset:
        if isinstance(dataset, IterableDataset):
            return _MappedStream(dataset, map_func)
        return super().__new__(cls)

    def __init__(self, dataset: Dataset, map_func: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._map_func = PicklableWrapper(map_func)
        self._rng = random.Random(42)
        self._fallback_candidates = set(range(len(dataset)))

    def __getnewargs__(self) -> tuple[Dataset, Callable[[Any], Any]]:
        return self._dataset, self._map_func

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, idx: int) -> Any:
        current, retries = int(idx), 0
        while True:
            mapped = self._map_func(self._dataset[current])
            if mapped is not None:
                self._fallback_candidates.add(current)
                return mapped
            self._fallback_candidates.discard(current)
            if not self._fallback_candidates:
                raise ValueError("The mapper gave None for every element of the data set.")
            current = self._rng.sample(list(self._fallback_candidates), k=1)[0]
            retries += 1
            if retries >= RETRIES_BEFORE_WARNING:
                _logger.warning(f"The mapper gave None {retries} times in place of element {idx}.")


class _TorchSerializedList:
    """A list whose pickled elements lie end to end in one tensor.

    Worker processes read the same memory: a list of objects would be copied bit by bit into each of
    them, because reading an object changes its reference count.
    """

    def __init__(self, lst: Sequence[Any]) -> None:
        pickled = [np.frombuffer(pickle.dumps(element, protocol=-1), np.uint8) for element in lst]
        lengths = np.array([len(data) for data in pickled], dtype=np.int64)
        self._ends = torch.from_numpy(np.cumsum(lengths))
        self._data = torch.from_numpy(np.concatenate(pickled))
        megabytes = len(self._data) / 2**20
        _logger.info(f"Serialized {len(pickled)} elements of the dataset into {megabytes:.2f} MiB")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, idx: int) -> Any:
        start = 0 if idx == 0 else self._ends[idx - 1].item()
        return pickle.loads(memoryview(self._data[start : self._ends[idx].item()].numpy()))


_default_serializer: Callable[[Sequence[Any]], Any] = _TorchSerializedList


@contextlib.contextmanager
def set_default_dataset_from_list_serialize_method(
    new: Callable[[Sequence[Any]], Any],
) -> Iterator[None]:
    """Within this context `DatasetFromList(serialize=True)` stores its list through `new`."""
    global _default_serializer
    before, _default_serializer = _default_serializer, new
    try:
        yield
    finally:
        _default_serializer = before


class DatasetFromList(Dataset):
    """A list as a data set.

    Args:
        lst: the elements.
        copy: give deep copies, so that changing an element leaves the list as it is. A serialized
            list gives new objects anyway.
        serialize: store the elements pickled in one tensor, which all worker processes share; or a
            function that stores the list in another way.

    Raises:
        TypeError: `serialize` is neither a bool nor callable.
    """

    def __init__(
        self,
        lst: Sequence[Any],
        copy: bool = True,
        serialize: bool | Callable[[Sequence[Any]], Any] = True,
    ) -> None:
        if not (isinstance(serialize, bool) or callable(serialize)):
            raise TypeError(f"serialize has to be a bool or a function, not {serialize!r}")
        self._serialize = serialize is not False
        self._copy = copy and not self._serialize
        if self._serialize:
            store = serialize if callable(serialize) else _default_serializer
            lst = store(lst)
        self._lst = lst

    def __len__(self) -> int:
        return len(self._lst)

    def __getitem__(self, idx: int) -> Any:
        element = self._lst[idx]
        return copying.deepcopy(element) if self._copy else element


class ToIterableDataset(IterableDataset):
    """A data set with an index as the stream in which a sampler visits it.

    Args:
        dataset: a data set with an index.
        sampler: gives the indices; every worker process runs through all of them.
        shard_sampler: keep only the share of this worker process. Off for samplers that do so
            themselves.
        shard_chunk_size: indices in a row that go to the same worker.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: Sampler[int],
        shard_sampler: bool = True,
        shard_chunk_size: int = 1,
    ) -> None:
        assert not isinstance(dataset, IterableDataset), dataset
        assert isinstance(sampler, Sampler), sampler
        self.dataset = dataset
        self.sampler = sampler
        self.shard_sampler = shard_sampler
        self.shard_chunk_size = shard_chunk_size

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        indices: Iterable[int] = self.sampler
        if self.shard_sampler:
            indices = _share_of_this_worker(indices, self.shard_chunk_size)
        for index in indices:
            yield self.dataset[index]


def _share_of_this_worker(indices: Iterable[int], chunk_size: int) -> Iterator[int]:
    worker = get_worker_info()
    for position, index in enumerate(indices):
        if worker is None or position // chunk_size % worker.num_workers == worker.id:
            yield index


class AspectRatioGroupedDataset(IterableDataset):
    """Batches of images that are all wider than high, or all not.

    Images that do not fill a batch yet wait in their group, also over the end of an iteration.

    Args:
        dataset: a stream of dicts with "width" and "height".
        batch_size: images in each batch.
    """

    def __init__(self, dataset: Iterable[dict[str, Any]], batch_size: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self._buckets: list[list[dict[str, Any]]] = [[], []]

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for sample in self.dataset:
            bucket = self._buckets[0 if sample["width"] > sample["height"] else 1]
            bucket.append(sample)
            if len(bucket) == self.batch_size:
                batch = bucket[:]
                bucket.clear()
                yield batch
