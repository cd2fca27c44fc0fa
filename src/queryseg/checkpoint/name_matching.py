"""Matching parameter names by their endings, as backbone files need."""

from collections import Counter
from collections.abc import Iterable

from queryseg.checkpoint.errors import CheckpointError


def match_by_ending(model_names: Iterable[str], file_names: Iterable[str]) -> dict[str, str]:
    """Find for each model parameter the longest file name that it ends in, whole parts only.

    `backbone.bottom_up.res2.0.conv1.weight` takes `res2.0.conv1.weight` of a backbone file, rather
    than `conv1.weight`, and never `onv1.weight`. This is Detectron2's rule for model-zoo files.

    Args:
        model_names: names in the model's state dict.
        file_names: names in the file.

    Returns:
        File name -> model name, for those that match.

    Raises:
        CheckpointError: one file name is the ending of several model names.

    >>> match_by_ending(["backbone.stem.conv1.weight"], ["conv1.weight", "stem.conv1.weight"])
    {'stem.conv1.weight': 'backbone.stem.conv1.weight'}
    """
    available = set(file_names)
    matched: dict[str, str] = {}
    for name in sorted(model_names):
        ending = _longest_ending(name, available)
        if ending is None:
            continue
        if ending in matched:
            raise CheckpointError(
                f"{ending!r} of the file fits both {matched[ending]!r} and {name!r} of the model."
            )
        matched[ending] = name
    return matched


def _longest_ending(name: str, available: set[str]) -> str | None:
    parts = name.split(".")
    endings = (".".join(parts[start:]) for start in range(len(parts)))
    return next((ending for ending in endings if ending in available), None)


def common_prefix(matched: dict[str, str]) -> str | None:
    """The one prefix that every matched model name has before its file name; None if they differ.

    >>> common_prefix({"conv1.weight": "backbone.conv1.weight", "fc.bias": "backbone.fc.bias"})
    'backbone.'
    """
    prefixes = {name[: len(name) - len(ending)] for ending, name in matched.items()}
    return prefixes.pop() if len(prefixes) == 1 else None


def compact(names: Iterable[str], limit: int = 8) -> str:
    """Names in one line of a report: by module, or by the modules above where those are many.

    >>> compact(["a.conv.weight", "a.conv.bias", "b"])
    'a.conv.{bias, weight}, b'
    >>> compact([f"layers.{i}.{m}.weight" for i in range(2) for m in "xyz"], limit=4)
    'layers.0.* (3), layers.1.* (3)'
    """
    names = list(names)
    modules: dict[str, list[str]] = {}
    for name in names:
        module, _, entry = name.rpartition(".")
        modules.setdefault(module, []).append(entry)
    if len(modules) <= limit:
        return ", ".join(_group(module, sorted(entries)) for module, entries in modules.items())
    for depth in range(max(name.count(".") for name in names), 0, -1):
        above = Counter(".".join(name.split(".")[:depth]) for name in names)
        if len(above) <= limit:
            break
    shown = [f"{prefix}.* ({count})" for prefix, count in above.most_common(limit)]
    return ", ".join(shown) + (", ..." if len(above) > limit else "")


def _group(module: str, entries: list[str]) -> str:
    last = entries[0] if len(entries) == 1 else "{" + ", ".join(entries) + "}"
    return f"{module}.{last}" if module else last
