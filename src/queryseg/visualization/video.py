"""Writing video frame by frame."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from tqdm import tqdm

from queryseg.visualization.errors import PictureError
from queryseg.visualization.frames import open_frames


class VideoWriter:
    """An `.mp4` file that grows picture by picture; a context manager.

    Nothing is written before the first picture, which decides the size.

    Args:
        target: the file.
        frame_rate: frames a second.
    """

    def __init__(self, target: Path, frame_rate: float) -> None:
        self.target = target
        self.frame_rate = frame_rate
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> "VideoWriter":
        return self

    def write(self, picture_rgb: np.ndarray) -> None:
        """Append a picture (H, W, 3) uint8 RGB, of the size of the first.

        Raises:
            PictureError: the file cannot be written.
        """
        if self._writer is None:
            self._writer = self._open(picture_rgb.shape[1], picture_rgb.shape[0])
        self._writer.write(cv2.cvtColor(picture_rgb, cv2.COLOR_RGB2BGR))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.release()

    def _open(self, width: int, height: int) -> "cv2.VideoWriter":
        self.target.parent.mkdir(parents=True, exist_ok=True)
        code = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(self.target), code, self.frame_rate, (width, height))
        if not writer.isOpened():
            raise PictureError(
                f"{self.target}: OpenCV cannot write .mp4 here; draw single images instead"
            )
        return writer


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
    frames, count = open_frames(source), 0
    shown = tqdm(frames.pictures, frames.name, frames.length, unit="frame", disable=None)
    with VideoWriter(target, frames.frame_rate) as writer:
        for picture in shown:
            writer.write(draw(picture))
            count += 1
    return count
