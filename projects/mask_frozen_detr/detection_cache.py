"""What a frozen detector says about training images, kept on disk."""

import hashlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from queryseg.checkpoint.atomic_file import write_atomically
from queryseg.data.registration import get_dataset_dicts
from queryseg.detectors import Detected

_logger = logging.getLogger("queryseg")
GIB = 2**30


class DetectionCache:
    """One file an image, named for its pixels and for the detector's weights.

    So it can never give what another detector, or the same one on a changed image, has said.
    Meant for trainings without random augmentation: every new view of an image is a new file.

    Args:
        folder: where the files are; it is made.
        num_images: images that the training has; more are refused.

    Raises:
        RuntimeError: in `get`, where the disk is too small, or more images come than there are.
    """

    def __init__(self, *, folder: str | Path, num_images: int) -> None:
        self.folder = Path(folder)
        self.num_images = num_images
        self._weights: str | None = None
        self._known: set[str] = set()

    def get(self, image: Tensor, detector: nn.Module, ask: Callable[[], Detected]) -> Detected:
        """What the detector says about an image.

        Args:
            image: (3, h, w) uint8, as the detector would get it.
            detector: the frozen detector.
            ask: has it look at the image.
        """
        path = self.folder / f"{self._key(image, detector)}.pt"
        if not path.is_file():
            return self._keep(path, ask())
        self._known.add(path.name)
        device = next(detector.parameters()).device
        return Detected(**torch.load(path, map_location=device, weights_only=True))

    def _key(self, image: Tensor, detector: nn.Module) -> str:
        if self._weights is None:
            self._weights = _fingerprint(detector.state_dict())
        kind = image.device.type if not torch.is_autocast_enabled("cpu") else "autocast"
        digest = hashlib.blake2b(f"{self._weights}{tuple(image.shape)}{kind}".encode())
        digest.update(image.cpu().contiguous().numpy())
        return digest.hexdigest()[:40]

    def _keep(self, path: Path, detected: Detected) -> Detected:
        state = {f.name: _plain(getattr(detected, f.name)) for f in fields(detected)}
        if not self._known:
            self._announce(state, detected.image_sizes[0])
        self._known.add(path.name)
        if len(self._known) > self.num_images:
            raise RuntimeError(
                f"{len(self._known)} different images came to a cache for {self.num_images}: the "
                "images change from epoch to epoch. Remove random augmentations from "
                "dataloader.train.mapper.augmentations, or set model.cache.folder=''"
            )
        write_atomically(path, lambda file: torch.save(state, file))
        return detected

    def _announce(self, state: dict[str, Any], size: tuple[int, int]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        each = _num_bytes(state)
        needed = each * self.num_images
        free = shutil.disk_usage(self.folder).free
        _logger.info(
            "Keeping what the detector says in %s: %.1f MiB for an image of %d x %d, about "
            "%.2f GiB for %d images; %.2f GiB are free",
            self.folder,
            each / 2**20,
            *size,
            needed / GIB,
            self.num_images,
            free / GIB,
        )
        if needed > free:
            raise RuntimeError(
                f"{self.folder} has {free / GIB:.1f} GiB free; what the detector says about "
                f"{self.num_images} images takes about {needed / GIB:.1f} GiB. Choose another "
                "model.cache.folder, or set it to ''"
            )


def build_cache(*, folder: str, dataset: str) -> DetectionCache | None:
    """A cache for the images of a registered data set; None where no folder is named."""
    if not folder:
        return None
    return DetectionCache(folder=folder, num_images=len(get_dataset_dicts(names=dataset)))


def _plain(value: Any) -> Any:
    """Tensors on the CPU, and containers that a safe loader reads."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [tuple(entry) for entry in value]
    return value


def _num_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(_num_bytes(entry) for entry in value.values())
    return 0


def _fingerprint(state: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b()
    for name, value in state.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
