"""Finding the images and videos that a user names on the command line."""

import glob
from collections.abc import Iterable
from pathlib import Path

from queryseg.visualization.errors import PictureError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its ending."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(names: Iterable[str]) -> list[Path]:
    """Expand files, folders and patterns to files.

    Args:
        names: files of any ending, folders (their images and videos, not those of folders inside),
            or patterns such as `photos/*.jpg`.

    Returns:
        Files in the given order, those of a folder or pattern sorted, none twice.

    Raises:
        PictureError: a name stands for nothing.
    """
    found: dict[Path, None] = {}
    for name in names:
        files = _expand(name)
        if not files:
            raise PictureError(
                f"{name}: no such file or folder, or no image in it "
                f"(known endings: {', '.join(IMAGE_SUFFIXES + VIDEO_SUFFIXES)})"
            )
        found.update(dict.fromkeys(files))
    return list(found)


def _expand(name: str) -> list[Path]:
    path = Path(name)
    if path.is_file():
        return [path]
    inside = path.iterdir() if path.is_dir() else map(Path, glob.glob(name, recursive=True))
    known = IMAGE_SUFFIXES + VIDEO_SUFFIXES
    return sorted(file for file in inside if file.is_file() and file.suffix.lower() in known)
