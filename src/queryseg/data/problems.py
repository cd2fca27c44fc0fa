"""What can be wrong with a data set, and how a list of it is told to the user."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

_IDS_SHOWN = 5

CHECK_HINT = (
    "`python -m queryseg.tools.check_dataset --json JSON --images FOLDER` lists every problem"
)


class Effect(Enum):
    """What a problem does to training."""

    FATAL = "stops loading"
    DROPPED = "left out"
    HANDLED = "handled"


@dataclass(frozen=True)
class Problem:
    """One finding.

    Attributes:
        kind: a short name, the same for all findings of a sort.
        effect: what it does to training.
        message: what is wrong, with the cure where the user has to act.
        image_id: of the image concerned, if any.
        annotation_id: of the annotation concerned, if any.
        file_name: of the image concerned, if any.
        unit: what `image_id` counts: images, or videos.
    """

    kind: str
    effect: Effect
    message: str
    image_id: int | str | None = None
    annotation_id: int | str | None = None
    file_name: str | None = None
    unit: Literal["image", "video"] = "image"

    def __str__(self) -> str:
        parts = []
        if self.annotation_id is not None:
            parts.append(f"annotation {self.annotation_id}")
        if self.image_id is not None:
            parts.append(f"{self.unit} {self.image_id}")
        if self.file_name is not None:
            parts.append(self.file_name)
        where = ", ".join(parts)
        return f"{where}: {self.message}" if where else self.message


def of_effect(problems: Iterable[Problem], effect: Effect) -> list[Problem]:
    """The problems with this effect, in their order."""
    return [p for p in problems if p.effect is effect]


def summarise(problems: Sequence[Problem]) -> str:
    """One phrase per kind: how many, what, and the first ids.

    Returns:
        e.g. `3 x polygon-points (annotations 5, 7, 9); 1 x rle-size (annotation 12)`.
    """
    by_kind: dict[str, list[Problem]] = {}
    for problem in problems:
        by_kind.setdefault(problem.kind, []).append(problem)
    return "; ".join(f"{len(found)} x {kind} ({_ids(found)})" for kind, found in by_kind.items())


def _ids(problems: Sequence[Problem]) -> str:
    of_annotations = problems[0].annotation_id is not None
    ids = [p.annotation_id if of_annotations else p.image_id for p in problems]
    noun = ("annotation" if of_annotations else problems[0].unit) + ("s" if len(ids) > 1 else "")
    shown = ", ".join(str(i) for i in ids[:_IDS_SHOWN])
    return f"{noun} {shown}{', ...' if len(ids) > _IDS_SHOWN else ''}"


def raise_if_fatal(problems: Sequence[Problem], source: str) -> None:
    """Raise one error that names the first fatal problems and their number.

    Raises:
        ValueError: at least one problem is fatal.
    """
    fatal = of_effect(problems, Effect.FATAL)
    if not fatal:
        return
    shown = "".join(f"\n  {problem}" for problem in fatal[:_IDS_SHOWN])
    more = f"\n  ... and {len(fatal) - _IDS_SHOWN} more" if len(fatal) > _IDS_SHOWN else ""
    raise ValueError(f"{source} cannot be used:{shown}{more}\n{CHECK_HINT}.")
