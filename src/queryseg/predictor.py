"""Instance segmentation of single images in three lines."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import transforms as T
from detectron2.structures import Instances
from omegaconf import DictConfig, OmegaConf

from queryseg.checkpoint import CheckpointError, load_into, open_checkpoint
from queryseg.class_names import dataset_class_names
from queryseg.data.augmentations import augment
from queryseg.data.image import read_image
from queryseg.engine.config import load_config
from queryseg.engine.run_setup import resolve_device
from queryseg.postprocess.mask_nms import mask_nms

_logger = logging.getLogger("queryseg.predictor")


class Predictor:
    """A trained model with its test-time image transform.

    >>> predictor = Predictor("fastinst/fastinst_r50_d3.py", "model.pth")  # doctest: +SKIP
    >>> instances = predictor("street.jpg")  # doctest: +SKIP
    >>> instances.pred_masks.shape  # (N, height, width) bool  # doctest: +SKIP

    Where the checkpoint was trained on another number of classes than the config says, the model is
    built for the checkpoint's.

    Args:
        config: a config file, the name of an installed one, or a loaded config.
        weights: a checkpoint: ours, an official release, or a model-zoo file.
        device: `auto`, `cpu`, `cuda`, ...
        score_thresh: instances below this score are left out. (AP is computed without one.)
        nms_iou: an instance whose mask overlaps a better one by more than this is left out; 1 keeps
            all, as AP does.

    Attributes:
        class_names: names by class index; empty where neither checkpoint nor data set tell.
        model: the model in evaluation mode.

    Raises:
        ConfigError, CheckpointError, FileNotFoundError: config and weights are wrong, do not fit
            each other, or do not exist.
    """

    def __init__(
        self,
        config: str | Path | DictConfig,
        weights: str | os.PathLike[str],
        *,
        device: str = "auto",
        score_thresh: float = 0.5,
        nms_iou: float = 1.0,
    ) -> None:
        cfg = config if isinstance(config, DictConfig) else load_config(config)
        if not weights:
            raise CheckpointError("no weights given: pass a checkpoint file or zoo://<name>")
        contents = open_checkpoint(weights)
        cfg = _with_class_count(cfg, contents.class_names)
        self.class_names = contents.class_names or dataset_class_names(cfg)
        self.score_thresh, self.nms_iou = score_thresh, nms_iou
        self.model = instantiate(cfg.model)
        report = load_into(self.model, contents, complete=True)
        _logger.info("%s", report)
        self.model.to(resolve_device(device)).eval()
        mapper = instantiate(cfg.dataloader.test.mapper)
        self.augmentations, self.image_format = mapper.augmentations, mapper.image_format

    def __call__(
        self, image: np.ndarray | str | os.PathLike[str], frame: int | None = None
    ) -> Instances:
        """Segment one image.

        Args:
            image: a file, or pixels (H, W, 3) uint8 in BGR order, as `cv2.imread` gives them.
            frame: its number in a video, for a model that follows objects: frames come in their
                order, and 0 starts a new video. Without it every image is a video of its own.

        Returns:
            Instances at the size of the image, on the CPU, by falling score: `pred_boxes`
            (xyxy in pixels), `scores`, `pred_classes`, `pred_masks` (N, H, W) bool; of a model that
            follows objects also `pred_track_ids`.

        Raises:
            BadImageError: the file is not a readable image, or one that cannot be resized.
            ValueError: pixels of another shape or type.
        """
        name = "the image"
        if isinstance(image, np.ndarray):
            pixels = _checked(image)[:, :, ::-1] if self.image_format == "RGB" else _checked(image)
        else:
            name = os.fspath(image)
            pixels = read_image(name, self.image_format)
        return self.segment(pixels, frame, name)

    @torch.inference_mode()
    def segment(
        self, pixels: np.ndarray, frame: int | None = None, name: str = "the image"
    ) -> Instances:
        """Segment pixels (H, W, 3) uint8 that are in the model's own channel order.

        Args:
            pixels: of the image.
            frame: its number in a video.
            name: what an error calls it.
        """
        height, width = pixels.shape[:2]
        aug_input = T.AugInput(np.ascontiguousarray(pixels))
        augment(self.augmentations, aug_input, name)
        image = torch.from_numpy(np.ascontiguousarray(aug_input.image.transpose(2, 0, 1)))
        inputs = {"image": image, "height": height, "width": width}
        outputs = self.model([inputs if frame is None else {**inputs, "frame": frame}])
        instances = outputs[0]["instances"].to("cpu")
        instances = instances[instances.scores >= self.score_thresh]
        if self.nms_iou < 1.0:
            return instances[mask_nms(instances.pred_masks, instances.scores, self.nms_iou)]
        return instances[torch.argsort(instances.scores, descending=True, stable=True)]


def _with_class_count(cfg: DictConfig, class_names: Sequence[str] | None) -> DictConfig:
    """The config with the number of classes that the checkpoint was trained on."""
    configured = OmegaConf.select(cfg, "model.num_classes")
    if class_names is None or configured is None or configured == len(class_names):
        return cfg
    _logger.info(
        "The config has %d classes; using the %d of the checkpoint.", configured, len(class_names)
    )
    changed = cfg.copy()
    changed.model.num_classes = len(class_names)
    return changed


def _checked(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(
            f"expected pixels (H, W, 3) uint8 in BGR order, got {pixels.shape} {pixels.dtype}; "
            "give a file name to have any kind of image converted"
        )
    return pixels
