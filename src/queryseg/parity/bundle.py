"""A kind of golden bundle, recognised by its file name, and how to run it."""

import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from queryseg.checkpoint import Layout
from queryseg.parity.fill import Adjust, fill_by_official_names
from queryseg.parity.report import ParityReport


@dataclass(frozen=True)
class Bundle:
    """One kind of golden bundle of a method.

    Args:
        pattern: regular expression for the whole file name without its ending.
        layout: official names of the model.
        run: feeds the filled model the bundle's inputs and compares everything the report holds.
        adjust: exceptions from the deterministic fill.
    """

    pattern: str
    layout: Layout
    run: Callable[[nn.Module, ParityReport], None]
    adjust: Adjust | None = None

    def compare(
        self,
        model: nn.Module,
        golden: Mapping[str, np.ndarray],
        dtype: torch.dtype = torch.float64,
    ) -> ParityReport:
        """Fill the model, run it and compare.

        Decisions on thresholds make rounding visible: a mask logit of 5e-6 beside values of 20, as
        golden data has it, opens or closes one pixel to a query and moves its outputs by 1e-2.
        Float64 takes the same decision on every machine; float32 depends on its kernels.

        Args:
            model: built from the config that the bundle belongs to; its weights and its dtype are
                replaced.
            golden: arrays of the bundle.
            dtype: in which the model runs.
        """
        report = ParityReport(golden)
        report.keys = fill_by_official_names(model, self.layout, self.adjust)
        self.run(model.to(dtype), report)
        return report


def known_bundles() -> Iterator[Bundle]:
    """`BUNDLES` of every `queryseg.projects.<method>.parity`."""
    projects = importlib.import_module("queryseg.projects")
    for project in pkgutil.iter_modules(projects.__path__, "queryseg.projects."):
        if project.ispkg and importlib.util.find_spec(f"{project.name}.parity") is not None:
            yield from importlib.import_module(f"{project.name}.parity").BUNDLES


def find_bundle(path: Path, model: nn.Module) -> Bundle:
    """The kind of bundle a file is, by its name.

    Two methods may give their bundles the same name; then the one whose official names cover the
    model is meant.

    Raises:
        ValueError: no method knows bundles of that name.
    """
    bundles = list(known_bundles())
    matching = [bundle for bundle in bundles if re.fullmatch(bundle.pattern, path.stem)]
    if not matching:
        known = ", ".join(bundle.pattern for bundle in bundles)
        raise ValueError(f"{path.name} is no golden bundle; known names: {known}")
    names = list(model.state_dict())
    return max(
        matching, key=lambda b: sum(b.layout.to_official(name) is not None for name in names)
    )
