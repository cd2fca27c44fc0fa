"""Filling a model from a checkpoint, and judging whether it fits."""

from torch import Tensor, nn

from queryseg.checkpoint.class_head import ClassHead, Reshaped, find_class_head
from queryseg.checkpoint.contents import CheckpointContents
from queryseg.checkpoint.errors import CheckpointError
from queryseg.checkpoint.recognition import RecognisedWeights, recognise
from queryseg.checkpoint.report import MIN_MATCHED, LoadReport

# Filled from the config, or counters that no result depends on: old files may lack them.
DISPENSABLE = ("pixel_mean", "pixel_std", "num_batches_tracked")
# Offsets of deformable convolutions start at zero; the plain backbones they build on have none.
ADDED_TO_BACKBONES = ("conv2_offset.weight", "conv2_offset.bias")
# Buffers that older Detectron2 files carry and newer models compute.
OUTDATED = ("anchor_generator.cell_anchors", "num_batches_tracked")


def load_into(
    model: nn.Module,
    contents: CheckpointContents,
    *,
    allow_partial: bool = False,
    complete: bool = False,
) -> LoadReport:
    """Load the parameters of a checkpoint into a model and say what matched.

    Args:
        model: filled in place.
        contents: what `read_contents` found.
        allow_partial: accept a file that fills less than 95 % of the model, but not none of it.
        complete: refuse a file that leaves any part of the model as initialised, or of which more
            than 5 % have no place in the model, as resuming and inference need.

    Returns:
        The load report.

    Raises:
        CheckpointError: less than 95 % of the model (of the backbone, for a backbone file) matched,
            or not all of it where it must be complete. The model has then been filled with what
            did match.
    """
    state = model.state_dict(keep_vars=True)
    recognised = recognise(contents, state)
    reshaped = [
        Reshaped(name, tuple(value.shape), tuple(state[name].shape))
        for name, value in recognised.weights.items()
        if name in state and value.shape != state[name].shape
    ]
    for entry in reshaped:
        del recognised.weights[entry.name]
    incompatible = model.load_state_dict(recognised.weights, strict=False)
    class_head = find_class_head(model, reshaped)
    report = _build_report(
        contents.path,
        recognised,
        state,
        missing=set(incompatible.missing_keys),
        unexpected=incompatible.unexpected_keys,
        reshaped=reshaped,
        class_head=class_head,
    )
    if not report.matched or (report.share < MIN_MATCHED and not allow_partial):
        raise CheckpointError(_misfit_message(model, contents, report))
    if complete and not (report.is_complete and report.share_used >= MIN_MATCHED):
        raise CheckpointError(_incomplete_message(model, report))
    return report


def _build_report(
    path: str,
    recognised: RecognisedWeights,
    state: dict[str, Tensor],
    *,
    missing: set[str],
    unexpected: list[str],
    reshaped: list[Reshaped],
    class_head: ClassHead | None,
) -> LoadReport:
    odd_shapes = {entry.name for entry in reshaped}
    head_names = set(class_head.names) if class_head else set()
    loaded = {id(state[name]) for name in recognised.weights if name in state}
    matched = [name for name in state if name in recognised.weights]
    absent = [
        name
        for name in state
        if name in missing - odd_shapes
        and name.startswith(recognised.covers)
        and not name.endswith(DISPENSABLE)
        and not (recognised.covers and name.endswith(ADDED_TO_BACKBONES))
        and id(state[name]) not in loaded  # a shared parameter that came under its other name
    ]
    other_shapes = tuple(entry for entry in reshaped if entry.name not in head_names)
    expected = [*matched, *absent, *(entry.name for entry in other_shapes)]
    return LoadReport(
        path=path,
        source=recognised.source,
        covers=recognised.covers,
        matched=tuple(matched),
        missing=tuple(absent),
        unexpected=tuple(n for n in unexpected if not any(old in n for old in OUTDATED)),
        reshaped=other_shapes,
        class_head=class_head,
        ignored=recognised.ignored,
        values_matched=sum(state[name].numel() for name in matched),
        values_expected=sum(state[name].numel() for name in expected),
    )


def _misfit_message(model: nn.Module, contents: CheckpointContents, report: LoadReport) -> str:
    part = f"the {report.part} of " if report.covers else ""
    modules = sorted({name.partition(".")[0] for name in contents.weights})
    shown = ", ".join(modules[:6]) + (", ..." if len(modules) > 6 else "")
    cure = "Use the config that this file was made with"
    if report.matched:
        cure += f"; to start from what fits, write '{contents.path}?allow_partial=True'"
    return (
        f"{contents.path} does not fit {part}{type(model).__name__}: {len(report.matched)} of "
        f"{report.entries_expected} entries match ({100 * report.share:.1f} %, at least "
        f"{100 * MIN_MATCHED:.0f} % are needed). It looks like this: {report.source}, with the "
        f"modules {shown}. {cure}."
    )


def _incomplete_message(model: nn.Module, report: LoadReport) -> str:
    kind, head = type(model).__name__, report.class_head
    cure = "Use the config that it was made with."
    if head:
        fault = f"was trained on {head.classes_in_file} classes, {kind} has {head.classes_in_model}"
        cure = f"Set model.num_classes={head.classes_in_file}."
    elif report.is_complete:
        fault = f"holds {len(report.unexpected)} entries that {kind} has no place for"
    else:
        fault = f"does not fill all of {kind}"
    return f"{report.path} {fault}. {cure}\n{report}"
