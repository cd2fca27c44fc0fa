"""Telling by its content what a checkpoint is, and naming its parameters as the model does."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from queryseg.checkpoint.contents import CheckpointContents
from queryseg.checkpoint.errors import CheckpointError
from queryseg.checkpoint.layout import Covers, Layout
from queryseg.checkpoint.name_matching import common_prefix, match_by_ending
from queryseg.checkpoint.registry import fitting_layouts
from queryseg.checkpoint.resnet_layout import TORCHVISION_RESNET
from queryseg.checkpoint.swin_layout import SWIN_LAYOUTS

# Published classifiers whose names differ from those of the backbones here, or end in a head.
BACKBONE_LAYOUTS = (TORCHVISION_RESNET, *SWIN_LAYOUTS)

DETECTOR = "detector."
"""Where models that build on a detector keep it."""


@dataclass
class RecognisedWeights:
    """Parameters under the names of the model they are meant for.

    Attributes:
        source: what the file is, for the report.
        weights: model name -> tensor; entries without a place keep the name of the file.
        covers: prefixes of the part of the model that such a file fills; "" is all of it.
        ignored: names in the file that are dropped on purpose.
    """

    source: str
    weights: dict[str, Tensor]
    covers: Covers = ""
    ignored: tuple[str, ...] = ()

    def matches(self, model_names: set[str]) -> int:
        """How many of the model's names are there."""
        return sum(name in model_names for name in self.weights)


def recognise(contents: CheckpointContents, model_names: Iterable[str]) -> RecognisedWeights:
    """Find the reading of a checkpoint that fits the model best.

    Tried are the names as they stand, the official layouts of the projects, published ResNets and
    Swin Transformers, Caffe2 names, and matching by endings.

    Args:
        contents: a file that was read.
        model_names: names in the state dict of the model.

    Returns:
        The reading with most matches; the plainest one where several are equal.

    Raises:
        CheckpointError: a file that asks for matching by endings is ambiguous.
    """
    names = set(model_names)
    readings = [RecognisedWeights(_plain_source(contents), contents.weights)]
    readings += [
        _by_layout(contents.weights, layout) for layout in fitting_layouts(contents.weights)
    ]
    inside = {f"{DETECTOR}{name}": value for name, value in contents.weights.items()}
    readings.append(RecognisedWeights(_plain_source(contents), inside, DETECTOR))
    if contents.is_caffe2:
        renamed = _from_caffe2(contents.weights)
        readings.append(_by_ending("Caffe2 (Detectron 1) file", renamed, names, must_fit=True))
    else:
        readings += _by_endings(contents, names, anything_fits=readings[0].matches(names) > 0)
    return max(readings, key=lambda reading: reading.matches(names))


def _plain_source(contents: CheckpointContents) -> str:
    if contents.stamp:
        return f"QuerySeg checkpoint of {contents.stamp['model'].rpartition('.')[2]}"
    return f"model-zoo file by {contents.author}" if contents.author else "state dict"


def _by_layout(weights: dict[str, Tensor], layout: Layout) -> RecognisedWeights:
    ignored = tuple(name for name in weights if layout.is_ignored(name))
    return RecognisedWeights(layout.name, layout.convert(weights), layout.covers, ignored)


def _by_endings(
    contents: CheckpointContents, names: set[str], *, anything_fits: bool
) -> list[RecognisedWeights]:
    """Readings of files that hold a part of the model, most often a backbone."""
    readings = []
    weights = contents.weights
    layout = next((known for known in BACKBONE_LAYOUTS if known.recognises(weights)), None)
    ignored = tuple(name for name in weights if layout and layout.is_ignored(name))
    if layout:
        renamed = layout.convert(weights)
        readings.append(_by_ending(layout.name, renamed, names, must_fit=False))
    if contents.wants_matching or not anything_fits:
        used = {name: value for name, value in weights.items() if name not in ignored}
        must_fit = contents.wants_matching
        readings.append(_by_ending(_plain_source(contents), used, names, must_fit=must_fit))
    for reading in readings:
        reading.ignored = ignored
    return readings


def _by_ending(
    source: str, weights: dict[str, Tensor], names: set[str], *, must_fit: bool
) -> RecognisedWeights:
    try:
        matched = match_by_ending(names, weights)
    except CheckpointError:
        if must_fit:
            raise
        matched = {}
    renamed = OrderedDict((matched.get(name, name), value) for name, value in weights.items())
    prefix = common_prefix(matched) or ""
    covers = prefix if "backbone" in prefix.split(".") else ""
    return RecognisedWeights(source, renamed, covers)


def _from_caffe2(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names

    return convert_c2_detectron_names(weights)[0]
