"""Reading and writing video frame by frame."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from queryseg.visualization.errors import PictureError

_DEFAULT_FPS = 25.0


def draw_video(source: Path, target: Path, draw: Callable[[np.ndarray], np.ndarray]) -> int:
    """Write a video whose frames are drawn one by one; only one frame is held at a time.

    Args:
        source: any video that OpenCV reads.
        target: an `.mp4` file to write.
        draw: frame (H, W, 3) uint8 RGB -> picture, always of the same size.

    Returns:
        The number of frames.

    Raises:
        PictureError: the video cannot be read or written.
    """
    capture = cv2.VideoCapture(str(source))
    try:
        if not capture.isOpened():
            raise PictureError(f"{source}: not a video that OpenCV can read; convert it to .mp4")
        fps = capture.get(cv2.CAP_PROP_FPS) or _DEFAULT_FPS
        total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        frames = tqdm(
            _frames(capture),
            total=max(total, 0) or None,
            unit="frame",
            desc=source.name,
            disable=None,
        )
        return _write(map(draw, frames), target, fps)
    finally:
        capture.release()


def _frames(capture: "cv2.VideoCapture") -> Iterator[np.ndarray]:
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def _write(pictures: Iterator[np.ndarray], target: Path, fps: float) -> int:
    writer, count = None, 0
    try:
        for picture in pictures:
            if writer is None:
                writer = _open_writer(target, fps, picture.shape[1], picture.shape[0])
            writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            count += 1
    finally:
        if writer is not None:
            writer.release()
    if count == 0:
        raise PictureError("the video has no frames")
    return count


def _open_writer(target: Path, fps: float, width: int, height: int) -> "cv2.VideoWriter":
    code = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(target), code, fps, (width, height))
    if not writer.isOpened():
        raise PictureError(f"{target}: OpenCV cannot write .mp4 here; draw single images instead")
    return writer
