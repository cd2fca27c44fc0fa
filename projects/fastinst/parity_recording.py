"""What passes through the parts of a FastInst, kept for comparison."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from queryseg.matching import Assignment
from queryseg.projects.fastinst.decoder import Decoded
from queryseg.projects.fastinst.model import FastInst


@dataclass
class Recording:
    """What passed through the parts of a model during one forward.

    Args:
        features: backbone maps by name.
        pyramid: pixel decoder maps, finest first.
        decoded: the decoder's result.
        attend_masks: of every call of a decoder layer, in order.
        query_matches: results of the query matcher's calls.
        pixel_matches: results of the pixel matcher's calls.
    """

    features: dict[str, Tensor] = field(default_factory=dict)
    pyramid: list[Tensor] = field(default_factory=list)
    decoded: Decoded | None = None
    attend_masks: list[Tensor] = field(default_factory=list)
    query_matches: list[Assignment] = field(default_factory=list)
    pixel_matches: list[Assignment] = field(default_factory=list)


@contextmanager
def recorded(model: FastInst) -> Iterator[Recording]:
    """Record what the parts of a model hand on."""
    recording = Recording()

    def keep_decoded(module: nn.Module, inputs: Any, output: Decoded) -> None:
        recording.decoded = output

    def on(module: nn.Module, keep: Any) -> Any:
        return module.register_forward_hook(lambda _, __, output: keep(output))

    activation_matcher = model.criterion.activation_loss.matcher
    handles = [
        on(model.backbone, recording.features.update),
        on(model.pixel_decoder, recording.pyramid.extend),
        model.decoder.register_forward_hook(keep_decoded),
        on(model.criterion.matcher, recording.query_matches.extend),
        on(activation_matcher, recording.pixel_matches.append),
    ]
    for layer in model.decoder.layers:
        handles.append(
            layer.register_forward_pre_hook(
                lambda _, inputs: recording.attend_masks.append(inputs[4])
            )
        )
    try:
        yield recording
    finally:
        for handle in handles:
            handle.remove()
