"""Sequences of different lengths, stored one after the other without padding."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedSequences:
    """How T tokens are divided into N sequences.

    Token-wise layers work on the packed tokens (T, C). Attention takes them through `nested` (for
    kernels that know variable lengths) or through `pad` and `padding_mask`.
    """

    lengths: Tensor  # (N,) int64
    longest: int
    total: int  # T

    @classmethod
    def from_lengths(cls, lengths: Tensor) -> "PackedSequences":
        """Describe N sequences; the host waits for the device once, to know the longest.

        Args:
            lengths: (N,) int64.

        Raises:
            ValueError: lengths that are not (N,) int64, or negative.

        >>> packed = PackedSequences.from_lengths(torch.tensor([1, 2]))
        >>> packed.pad(torch.tensor([[5.0], [6.0], [7.0]])).flatten(1)
        tensor([[5., 0.],
                [6., 7.]])
        """
        if lengths.dim() != 1 or lengths.dtype != torch.int64:
            raise ValueError(
                f"lengths must be (N,) int64, got {tuple(lengths.shape)} {lengths.dtype}"
            )
        if not len(lengths):
            return cls(lengths, 0, 0)
        shortest, longest, total = torch.stack([*lengths.aminmax(), lengths.sum()]).tolist()
        if shortest < 0:
            raise ValueError(f"lengths must not be negative, got {shortest}")
        return cls(lengths, longest, total)

    @property
    def offsets(self) -> Tensor:
        """(N + 1,) int64: where each sequence begins, and T."""
        return torch.nn.functional.pad(self.lengths.cumsum(0), (1, 0))

    @property
    def padding_mask(self) -> Tensor:
        """(N, longest) bool, True at padding."""
        places = torch.arange(self.longest, device=self.lengths.device)
        return places >= self.lengths.unsqueeze(1)

    def pad(self, tokens: Tensor) -> Tensor:
        """Packed (T, ...) to (N, longest, ...), zeros behind the shorter sequences.

        Raises:
            ValueError: T is not the sum of the lengths.
        """
        if tokens.shape[0] != self.total:
            raise ValueError(f"tokens must be (T = {self.total}, ...), got {tuple(tokens.shape)}")
        padded = tokens.new_zeros(len(self.lengths) * self.longest, *tokens.shape[1:])
        padded = padded.index_copy(0, self._places(), tokens)
        return padded.view(len(self.lengths), self.longest, *tokens.shape[1:])

    def unpad(self, padded: Tensor) -> Tensor:
        """(N, longest, ...) to packed (T, ...).

        Raises:
            ValueError: another N or length.
        """
        shape = (len(self.lengths), self.longest)
        if padded.shape[:2] != shape:
            raise ValueError(f"padded must be {shape} and more, got {tuple(padded.shape)}")
        return padded.flatten(0, 1).index_select(0, self._places())

    def nested(self, tokens: Tensor) -> Tensor:
        """Packed (T, ...) as a nested (jagged) tensor that shares its memory."""
        return torch.nested.nested_tensor_from_jagged(tokens, self.offsets, max_seqlen=self.longest)

    def _places(self) -> Tensor:
        """(T,) int64: the place of each token among the N * longest padded ones."""
        device = self.lengths.device
        shift = torch.arange(len(self.lengths), device=device) * self.longest - self.offsets[:-1]
        by_token = shift.repeat_interleave(self.lengths, output_size=self.total)
        return by_token + torch.arange(self.total, device=device)
