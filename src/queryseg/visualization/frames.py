"""The frames of a clip, one after the other: of a video file, or of a folder of images."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from queryseg.data.image import read_image
from queryseg.visualization.errors import PictureError
from queryseg.visualization.inputs import IMAGE_SUFFIXES

DEFAULT_FRAME_RATE = 25.0
TEXT_CODEC = cv2.VideoWriter.fourcc(*"ansi")
"""What FFmpeg calls a text file, which it would show as a terminal does."""

_logger = logging.getLogger("queryseg.visualization")


@dataclass(frozen=True)
class Frames:
    """A clip that is read while it is iterated over, once; one frame is held at a time.

    Attributes:
        name: of the file or folder.
        frame_rate: frames a second; `DEFAULT_FRAME_RATE` where nothing tells.
        length: how many frames there should be; None where a video does not say.
        pictures: (H, W, 3) uint8 RGB, all of one size.
    """

    name: str
    frame_rate: float
    length: int | None
    pictures: Iterator[np.ndarray]


def open_frames(path: Path) -> Frames:
    """Open a video file, or a folder whose images are the frames.

    Images of a folder are ordered by name, with numbers in it by value: `2.png` before `10.png`.

    Raises:
        PictureError: there is no such file or folder, the file is not a video, or the folder has no
            image. While iterating: an image differs in size from the first, or the video has no
            frame.
        BadImageError: while iterating: an image of the folder cannot be read.
    """
    if path.is_dir():
        files = frame_files(path)
        return Frames(path.name, DEFAULT_FRAME_RATE, len(files), _read_images(files))
    if not path.is_file():
        raise PictureError(f"{path}: no such file or folder")
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened() or int(capture.get(cv2.CAP_PROP_FOURCC)) == TEXT_CODEC:
        raise PictureError(f"{path}: not a video that OpenCV can read; convert it to .mp4")
    frame_rate = capture.get(cv2.CAP_PROP_FPS) or DEFAULT_FRAME_RATE
    length = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) or None
    return Frames(path.name, frame_rate, length, _read_video(capture, path, length))


def frame_files(folder: Path) -> list[Path]:
    """The images of a folder in the order of frames.

    Raises:
        PictureError: there is none.
    """
    files = [f for f in folder.iterdir() if f.is_file() and f.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise PictureError(f"{folder}: no image in it (known endings: {', '.join(IMAGE_SUFFIXES)})")
    return sorted(files, key=_numbers_by_value)


def _numbers_by_value(file: Path) -> tuple[str, str]:
    return re.sub(r"\d+", lambda number: number[0].zfill(20), file.name), file.name


def _read_images(files: list[Path]) -> Iterator[np.ndarray]:
    size: tuple[int, ...] | None = None
    for file in files:
        picture = read_image(file)
        size = size or picture.shape[:2]
        if picture.shape[:2] != size:
            raise PictureError(
                f"{file}: {picture.shape[1]} x {picture.shape[0]} pixels, but the first frame has "
                f"{size[1]} x {size[0]}: give each clip a folder of its own"
            )
        yield picture


def _read_video(
    capture: "cv2.VideoCapture", path: Path, length: int | None
) -> Iterator[np.ndarray]:
    count = 0
    try:
        while (read := capture.read())[0]:
            yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
            count += 1
    finally:
        capture.release()
    if count == 0:
        raise PictureError(f"{path}: the video has no frames that can be read")
    if length is not None and count < length:
        _logger.warning("%s: it should have %d frames, %d could be read", path, length, count)
