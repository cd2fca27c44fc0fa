"""What the jsons of COCO and of YouTube-VIS have in common: lists of objects with ids."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from queryseg.data.problems import Effect, Problem

ANNOTATIONS = "annotations"


class MissingListsError(ValueError):
    """A json lacks lists of a format.

    Attributes:
        present: the lists that it has.
    """

    def __init__(self, message: str, present: Sequence[str]) -> None:
        super().__init__(message)
        self.present = tuple(present)


def read_lists(
    json_file: str | Path, format_name: str, required: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Read an annotation file and see that it has the lists of its format.

    Args:
        json_file: its path.
        format_name: for messages, e.g. "COCO".
        required: lists that must be there. The list `annotations` may lack, as in test sets.

    Returns:
        The file's content; other entries than the lists are left as they are.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a readable file, not JSON, or not of the format.
    """
    path = Path(json_file)
    content = _load(path)
    if not isinstance(content, dict):
        found = "a list" if isinstance(content, list) else "none"
        raise ValueError(
            f"{path} is not in {format_name} format: an object with the lists "
            f"{', '.join(required)} and {ANNOTATIONS} is needed, and this is {found}"
        )
    missing = [key for key in required if not isinstance(content.get(key), list)]
    if missing:
        present = [key for key in content if isinstance(content[key], list)]
        raise MissingListsError(
            f"{path} is not in {format_name} format: it lacks the list {' and '.join(missing)} "
            f"and has {', '.join(present) or 'none'}",
            present,
        )
    if content.get(ANNOTATIONS) is None:  # also written as null
        content.pop(ANNOTATIONS, None)
    if not isinstance(content.get(ANNOTATIONS, []), list):
        raise ValueError(f"{path} is not in {format_name} format: annotations is not a list")
    for key in (*required, ANNOTATIONS):
        for place, entry in enumerate(content.get(key, [])):
            if not isinstance(entry, dict):
                raise ValueError(
                    f"{path} is not in {format_name} format: {key}[{place}] is {entry!r:.40}, "
                    "not an object"
                )
    return content


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"no such annotation file: {path}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): give a JSON file") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from error


def as_id(value: Any) -> int | str | None:
    """An id as an int or a string; None if it cannot be one."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def as_side(value: Any) -> int | None:
    """A side in pixels; None if it cannot be one."""
    side = as_id(value)
    return side if isinstance(side, int) and side > 0 else None


def read_categories(raw: list[Any], problems: list[Problem]) -> dict[int, str]:
    """Category id to name, sorted by id; what is wrong is added to `problems`."""
    categories: dict[int, str] = {}

    def fatal(kind: str, message: str) -> None:
        problems.append(Problem(kind, Effect.FATAL, message))

    for entry in raw:
        category, name = as_id(entry.get("id")), entry.get("name")
        if not isinstance(category, int) or not isinstance(name, str):
            fatal("category-fields", f"category {entry!r:.80} needs an integer id and a name")
        elif category in categories:
            fatal("category-doubled", f"category id {category} occurs twice: renumber one")
        else:
            categories[category] = name
    if not raw:
        fatal("no-categories", "the list categories is empty: name the classes there")
    return dict(sorted(categories.items()))
