"""Packed sequences of different lengths, as few padded batches of similar lengths."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TOKENS_AT_ONCE = 2**13


@dataclass(frozen=True)
class Bucket:
    """Some of the sequences, padded to the longest of them.

    Attributes:
        tokens: (n, longest) int64, the packed tokens; padding repeats a sequence's last token.
        padding_mask: (n, longest) bool, True at padding; None where all are equally long.
    """

    tokens: Tensor
    padding_mask: Tensor | None


@dataclass(frozen=True)
class SequenceBuckets:
    """How packed tokens (T, ...) are cut into padded batches, and put back.

    Sequences do not see each other, so a batch can pass through a whole network before the next
    one starts: memory is bounded by the batch, and sorting by length keeps the padding small.
    """

    buckets: tuple[Bucket, ...]
    place: Tensor  # (T,) int64: where each token lies among the padded ones, batch after batch

    @classmethod
    def from_lengths(
        cls,
        lengths: Sequence[int],
        device: torch.device,
        tokens_at_once: int = TOKENS_AT_ONCE,
    ) -> "SequenceBuckets":
        """Sort the sequences by length and cut them into batches.

        The lengths are numbers of the host: nothing here waits for the device.

        Args:
            lengths: of each sequence; those of length 0 are in no batch.
            device: of the tokens.
            tokens_at_once: padded tokens of a batch; a longer sequence is a batch of its own.

        >>> plan = SequenceBuckets.from_lengths([1, 2], torch.device("cpu"), tokens_at_once=4)
        >>> plan.buckets[0].tokens.tolist(), plan.place.tolist()
        ([[1, 2], [0, 0]], [2, 0, 1])
        """
        sizes = torch.tensor(lengths, dtype=torch.long)
        starts = sizes.cumsum(0) - sizes
        place = torch.empty(int(sizes.sum()), dtype=torch.long)
        buckets, done = [], 0
        for chosen in _cut(lengths, tokens_at_once):
            length, start = sizes[chosen], starts[chosen]
            columns = torch.arange(int(length[0]))
            inside = columns < length.unsqueeze(1)
            tokens = start.unsqueeze(1) + columns.minimum(length.unsqueeze(1) - 1)
            place[tokens[inside]] = done + inside.flatten().nonzero().squeeze(1)
            done += tokens.numel()
            padding = None if bool(inside.all()) else ~inside.to(device, non_blocking=True)
            buckets.append(Bucket(tokens.to(device, non_blocking=True), padding))
        return cls(tuple(buckets), place.to(device, non_blocking=True))

    def unpad(self, padded: Sequence[Tensor]) -> Tensor:
        """One tensor (n, longest, ...) of each batch to packed (T, ...)."""
        return torch.cat([one.flatten(0, 1) for one in padded]).index_select(0, self.place)


def _cut(lengths: Sequence[int], tokens_at_once: int) -> Iterator[list[int]]:
    """Groups of sequence numbers, longest first."""
    filled = (number for number, length in enumerate(lengths) if length)
    order = sorted(filled, key=lambda number: -lengths[number])
    group: list[int] = []
    for number in order:
        if group and (len(group) + 1) * lengths[group[0]] > tokens_at_once:
            yield group
            group = []
        group.append(number)
    if group:
        yield group
