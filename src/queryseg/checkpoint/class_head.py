"""Which parameters of another size are class heads, told by their sizes alone."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

# How many rows a class head has for K classes: one per class, one more for "no object", four box
# coordinates per class.
ROWS_PER_CLASS = ((1, 0), (1, 1), (4, 0))


@dataclass(frozen=True)
class Reshaped:
    """A parameter that file and model have in different shapes."""

    name: str
    in_file: tuple[int, ...]
    in_model: tuple[int, ...]


@dataclass(frozen=True)
class ClassHead:
    """The parameters that depend on the number of classes, and both numbers."""

    classes_in_file: int
    classes_in_model: int
    names: tuple[str, ...]


def find_class_head(model: nn.Module, reshaped: Iterable[Reshaped]) -> ClassHead | None:
    """Find the parameters whose shapes differ only by the number of classes.

    A parameter belongs to the class head if its first dimension follows from the model's
    `num_classes` (K, K + 1 or 4 K rows), all other dimensions agree, and the number of classes that
    its rows in the file stand for is the one most of them agree on.

    Args:
        model: has `num_classes` on itself or on a submodule.
        reshaped: what differs in shape.

    Returns:
        None where nothing of the kind is found.
    """
    class_counts = {
        count for m in model.modules() if isinstance(count := getattr(m, "num_classes", None), int)
    }
    votes: dict[tuple[int, int], list[str]] = defaultdict(list)
    for entry in reshaped:
        for ours in class_counts:
            for theirs in _classes_in_file(entry, ours):
                votes[theirs, ours].append(entry.name)
    if not votes:
        return None
    (theirs, ours), names = max(votes.items(), key=lambda vote: len(vote[1]))
    return ClassHead(theirs, ours, tuple(names))


def _classes_in_file(entry: Reshaped, classes_in_model: int) -> set[int]:
    """Numbers of classes that the file's rows can stand for, given the model's."""
    if not entry.in_file or entry.in_file[1:] != entry.in_model[1:]:
        return set()
    return {
        (entry.in_file[0] - extra) // per_class
        for per_class, extra in ROWS_PER_CLASS
        if entry.in_model[0] == per_class * classes_in_model + extra
        and (entry.in_file[0] - extra) % per_class == 0
        and entry.in_file[0] > extra
    }
