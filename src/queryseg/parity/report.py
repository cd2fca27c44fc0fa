"""Comparing our arrays with those of a golden bundle, array by array."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from queryseg.parity.fill import KeyReport

Role = Literal["input", "output", "diagnostic"]

MIN_MASK_IOU = 0.999
"""Two thresholded masks that agree to this degree count as equal."""


@dataclass(frozen=True)
class ArrayComparison:
    """How one array compares.

    Args:
        role: "output" counts, "input" checks the recipe, "diagnostic" only informs.
        kind: what `max_abs` measures and `tolerance` bounds: "abs" and "exact" the largest
            difference, "rel" the largest relative one, "iou" one minus the smallest mask IoU.
        max_abs: largest deviation in the sense of `kind`; None where the shapes differ.
        rel_l2: norm of the difference over the norm of the golden array; None likewise.
        shape: of the golden array.
        tolerance: bound on `max_abs`.
    """

    role: Role
    kind: Literal["abs", "rel", "exact", "iou"]
    max_abs: float | None
    rel_l2: float | None
    shape: tuple[int, ...]
    tolerance: float

    @property
    def within(self) -> bool:
        """Whether the deviation is within the tolerance; NaN is not."""
        return self.max_abs is not None and self.max_abs <= self.tolerance

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "role": self.role,
            "kind": self.kind,
            "max_abs": self.max_abs,
            "rel_l2": self.rel_l2,
            "shape": list(self.shape),
            "tolerance": self.tolerance,
            "within": self.within,
        }


class ParityReport:
    """Collects the comparisons of one bundle and our arrays under the bundle's names and dtypes.

    Each method compares one golden array in one way; names that the bundle lacks are passed over.
    `dump` is what is stored as ours where it differs from what is compared, for example before
    queries were put into the golden order.

    Args:
        golden: the arrays of the bundle.
    """

    def __init__(self, golden: Mapping[str, np.ndarray]) -> None:
        self.golden = golden
        self.keys: KeyReport | None = None
        self.comparisons: dict[str, ArrayComparison] = {}
        self.ours: dict[str, np.ndarray] = {}
        self.excused: dict[str, str] = {}
        self.remarks: list[str] = []

    def by_value(
        self,
        name: str,
        ours: Any,
        tolerance: float,
        *,
        role: Role = "output",
        dump: Any = None,
    ) -> None:
        """Every value within an absolute tolerance."""
        self._compare(name, ours, tolerance, role, dump, relative=False)

    def by_ratio(
        self,
        name: str,
        ours: Any,
        tolerance: float,
        *,
        scale: Any = None,
        dump: Any = None,
    ) -> None:
        """Every value within a tolerance relative to its golden value, or to `scale`."""
        self._compare(name, ours, tolerance, "output", dump, relative=True, scale=scale)

    def exactly(self, name: str, ours: Any, *, role: Role = "output", dump: Any = None) -> None:
        """Integers or words, all equal."""
        if name not in self.golden:
            return
        ours = self._store(name, ours, dump)
        golden = np.asarray(self.golden[name])
        if ours.shape != golden.shape:
            self._add(name, "exact", role, None, None, 0.0)
        elif golden.dtype.kind in "US":
            unequal = float((ours != golden).any())
            self._add(name, "exact", role, unequal, unequal, 0.0)
        else:
            difference = ours.astype(np.float64) - golden.astype(np.float64)
            self._add(name, "exact", role, *_measures(difference, golden), 0.0)

    def diagnostic(self, name: str, ours: Any) -> None:
        """A recorded margin: shown beside ours, no bound."""
        self.by_value(name, ours, np.inf, role="diagnostic")

    def mask_bits(self, name: str, ours: np.ndarray, *, dump: Any = None) -> None:
        """Masks packed into bits, (n, ...), by the intersection over union of each."""
        if name not in self.golden:
            return
        ours = self._store(name, ours, dump)
        golden = np.asarray(self.golden[name])
        if ours.shape != golden.shape:
            self._add(name, "iou", "output", None, None, 1 - MIN_MASK_IOU)
            return
        a, b = (np.unpackbits(bits.reshape(len(bits), -1), axis=-1) > 0 for bits in (ours, golden))
        union = (a | b).sum(-1)
        iou = np.where(union > 0, (a & b).sum(-1) / np.maximum(union, 1), 1.0)
        rel_l2 = _measures(a.astype(float) - b.astype(float), b)[1]
        self._add(name, "iou", "output", float(1 - iou.min(initial=1.0)), rel_l2, 1 - MIN_MASK_IOU)

    def deviation(self, name: str, deviation: float, tolerance: float, *, dump: np.ndarray) -> None:
        """An array that has to be compared by what it refers to, as indices in an order."""
        if name not in self.golden:
            return
        self._store(name, dump, None)
        self._add(name, "abs", "output", deviation, None, tolerance)

    def excuse(self, name: str, reason: str) -> None:
        """Leave a golden array out on purpose."""
        if name in self.golden:
            self.excused[name] = reason

    def remark(self, text: str) -> None:
        """Say something that a reader of the report has to know."""
        self.remarks.append(text)

    @property
    def not_compared(self) -> list[str]:
        """Golden arrays that no comparison has used."""
        return [name for name in self.golden if name not in self.comparisons]

    @property
    def passed(self) -> bool:
        """Whether all inputs and outputs are there and within their tolerances."""
        forgotten = set(self.not_compared) - set(self.excused)
        counted = [c for c in self.comparisons.values() if c.role != "diagnostic"]
        keys_fit = self.keys is None or not (self.keys.missing or self.keys.unexpected)
        return bool(counted) and keys_fit and not forgotten and all(c.within for c in counted)

    def failures(self) -> list[str]:
        """One line for each array that is outside its tolerance or was not compared."""
        lines = [
            f"{name}: {c.kind} deviation {c.max_abs} is above {c.tolerance}"
            for name, c in self.comparisons.items()
            if c.role != "diagnostic" and not c.within
        ]
        lines += [f"{n}: not compared" for n in self.not_compared if n not in self.excused]
        return lines

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON."""
        return {
            "arrays": {name: c.as_dict() for name, c in self.comparisons.items()},
            "keys": self.keys.as_dict() if self.keys else {},
            "not_compared": self.not_compared,
            "excused": self.excused,
            "remarks": self.remarks,
            "passed": self.passed,
        }

    def _store(self, name: str, ours: Any, dump: Any) -> np.ndarray:
        ours = np.asarray(ours)
        kept = ours if dump is None else np.asarray(dump)
        self.ours[name] = kept.astype(np.asarray(self.golden[name]).dtype)
        return ours

    def _compare(
        self,
        name: str,
        ours: Any,
        tolerance: float,
        role: Role,
        dump: Any,
        relative: bool,
        scale: Any = None,
    ) -> None:
        if name not in self.golden:
            return
        ours = self._store(name, ours, dump)
        golden = np.asarray(self.golden[name], dtype=np.float64)
        kind: Literal["rel", "abs"] = "rel" if relative else "abs"
        if ours.shape != golden.shape:
            self._add(name, kind, role, None, None, tolerance)
            return
        difference = ours.astype(np.float64) - golden
        max_abs, rel_l2 = _measures(difference, golden)
        if relative:
            size = np.abs(golden if scale is None else np.asarray(scale, dtype=np.float64))
            ratios = np.abs(difference) / np.maximum(size, np.finfo(np.float32).tiny)
            max_abs = float(ratios.max(initial=0.0))
        self._add(name, kind, role, max_abs, rel_l2, tolerance)

    def _add(
        self,
        name: str,
        kind: Literal["abs", "rel", "exact", "iou"],
        role: Role,
        max_abs: float | None,
        rel_l2: float | None,
        tolerance: float,
    ) -> None:
        shape = np.asarray(self.golden[name]).shape
        self.comparisons[name] = ArrayComparison(role, kind, max_abs, rel_l2, shape, tolerance)


def _measures(difference: np.ndarray, golden: np.ndarray) -> tuple[float, float]:
    """Largest absolute difference, and the difference's norm relative to the golden norm."""
    norm = float(np.linalg.norm(np.asarray(golden, dtype=np.float64)))
    max_abs = float(np.abs(difference).max(initial=0.0))
    gap = float(np.linalg.norm(difference))
    return max_abs, gap / norm if norm > 0 else gap
