"""What came of loading a checkpoint into a model."""

from dataclasses import dataclass

from queryseg.checkpoint.class_head import ClassHead, Reshaped
from queryseg.checkpoint.layout import Covers
from queryseg.checkpoint.name_matching import compact

# A model counts as loaded when this share of its parameters came from the file (both of the
# entries and of the values in them).
MIN_MATCHED = 0.95


@dataclass(frozen=True)
class LoadReport:
    """Matched, missing, unexpected and reshaped parameters of one loading.

    Attributes:
        path: the file.
        source: what the file was recognised as.
        covers: the part of the model it was judged on; "" is the whole model.
        matched: names (of the model) that took their values from the file.
        missing: names of the model that the file does not have, within `covers`.
        unexpected: names of the file that the model has no place for.
        reshaped: parameters of another shape, not loaded; without the class head.
        class_head: parameters left as initialised because the number of classes differs.
        ignored: names of the file that are dropped on purpose.
        values_matched: number of values in `matched`.
        values_expected: number of values in `matched`, `missing` and `reshaped`.
    """

    path: str
    source: str
    covers: Covers
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[Reshaped, ...]
    class_head: ClassHead | None
    ignored: tuple[str, ...]
    values_matched: int
    values_expected: int

    @property
    def entries_expected(self) -> int:
        """Number of entries of the model that the file should fill."""
        return len(self.matched) + len(self.missing) + len(self.reshaped)

    @property
    def part(self) -> str:
        """What `covers` stands for, in words."""
        prefixes = (self.covers,) if isinstance(self.covers, str) else self.covers
        return " and ".join(prefix.rstrip(".") for prefix in prefixes)

    @property
    def share(self) -> float:
        """The share of the model that was loaded: by entries or by values, whichever is less."""
        if not self.matched:
            return 0.0
        by_entries = len(self.matched) / self.entries_expected
        return min(by_entries, self.values_matched / max(self.values_expected, 1))

    @property
    def share_used(self) -> float:
        """The share of the file's entries that the model has a place for."""
        used = len(self.matched) + len(self.reshaped)
        return used / max(used + len(self.unexpected), 1)

    @property
    def is_complete(self) -> bool:
        """Whether nothing of the model was left out, class head and other parts included."""
        left_out = self.missing or self.reshaped or self.class_head or self.covers
        return bool(self.matched) and not left_out

    def as_dict(self) -> dict[str, object]:
        """The report as plain data, for JSON."""
        head = self.class_head
        return {
            "path": self.path,
            "source": self.source,
            "covers": self.part if self.covers else "whole model",
            "share": self.share,
            "matched": len(self.matched),
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
            "reshaped": [[r.name, list(r.in_file), list(r.in_model)] for r in self.reshaped],
            "class_head": [head.classes_in_file, head.classes_in_model] if head else None,
            "reinitialised": list(head.names) if head else [],
            "ignored": list(self.ignored),
        }

    def __str__(self) -> str:
        """The report as a few aligned lines; lines without content are left out."""
        part = f", judged on {self.part}" if self.covers else ""
        matched = (
            f"{len(self.matched)} of {self.entries_expected} entries, "
            f"{self.values_matched / 1e6:.2f} of {self.values_expected / 1e6:.2f} M values "
            f"({100 * self.share:.1f} %)"
        )
        rows = [("matched", matched), *self._details()]
        return "\n".join(
            [f"Loaded {self.path} ({self.source}{part})"]
            + [f"  {title:<11}{text}" for title, text in rows if text]
        )

    def _details(self) -> list[tuple[str, str]]:
        head = self.class_head
        return [
            (
                "class head",
                f"{head.classes_in_file} classes in the file, {head.classes_in_model} in the "
                f"model: re-initialised {compact(head.names)}"
                if head
                else "",
            ),
            (
                "reshaped",
                "; ".join(
                    f"{r.name} is {r.in_file} in the file, {r.in_model} in the model: not loaded"
                    for r in self.reshaped
                ),
            ),
            ("missing", _counted(self.missing)),
            ("unexpected", _counted(self.unexpected)),
            ("ignored", _counted(self.ignored)),
        ]


def _counted(names: tuple[str, ...]) -> str:
    return f"{len(names)}: {compact(names)}" if names else ""
