"""From a dataset dict to the tensors that a model takes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances

from queryseg.data.augmentations import augment
from queryseg.data.image import IMAGE_FORMATS, read_image
from queryseg.data.masks import decode_transformed, moved_polygons
from queryseg.data.object_masks import ObjectMasks

FRAME_KEYS = ("video_id", "frame", "length")  # what a frame knows about its video
MIN_BOX_SIDE = 1e-5  # pixels; a box with a shorter side is empty


class InstanceMapper:
    """Reads an image, augments it, and makes bitmap masks of its objects.

    Polygons, compressed and uncompressed RLE and boolean arrays may be mixed in one image. Crowds
    are left out. Images without objects give zero instances with all fields present. Frames of a
    video (`queryseg.data.video_frames`) are images whose objects have track ids.

    Args:
        is_train: whether annotations are read.
        augmentations: Detectron2 augmentations or transforms, in their order.
        image_format: `RGB` or `BGR`.
        filter_empty: leave out objects that the augmentation removed. With False they stay, with an
            empty mask and a box of zeros, as in FastInst's official mapper.
        keep_polygons: give the masks as `ObjectMasks`, which keep the polygons beside the bitmaps:
            Mask R-CNN's targets are drawn from polygons where there are any.
        recompute_boxes: take the boxes from the transformed masks. With False the stated boxes are
            transformed and clipped (tight boxes stay tight without a crop or a rotation only);
            those without area still come from the mask.
    """

    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: Sequence[Any],
        image_format: str = "RGB",
        filter_empty: bool = True,
        recompute_boxes: bool = True,
        keep_polygons: bool = False,
    ) -> None:
        if image_format not in IMAGE_FORMATS:
            raise ValueError(f"image_format must be one of {IMAGE_FORMATS}, got {image_format!r}")
        self.is_train = is_train
        self.augmentations = T.AugmentationList(list(augmentations))
        self.image_format = image_format
        self.filter_empty = filter_empty
        self.recompute_boxes = recompute_boxes
        self.keep_polygons = keep_polygons

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one image.

        Args:
            dataset_dict: a standard dataset dict; it is not changed.

        Returns:
            `image` uint8 (3, H, W), `height` and `width` of the stored image, `file_name`,
            `image_id`, and for training `instances` with `gt_boxes` (x0, y0, x1, y1 in pixels of
            `image`), `gt_classes` (N,) int64 and `gt_masks` BitMasks (N, H, W). For a frame also
            `video_id`, `frame` and `length`, and in `instances` `gt_track_ids` (N,) int64.

        Raises:
            BadImageError: the image cannot be used.
            ValueError: a mask of another size than the image, or of an unknown notation.
        """
        pixels = self.read(dataset_dict)
        aug_input = T.AugInput(pixels)
        name = f"image {dataset_dict.get('image_id')} ({dataset_dict['file_name']})"
        transforms = augment(self.augmentations, aug_input, name)
        return self.assemble(dataset_dict, pixels.shape[:2], aug_input.image, transforms)

    def read(self, dataset_dict: dict[str, Any]) -> np.ndarray:
        """The stored image, (H, W, 3) uint8 in the mapper's channel order."""
        return read_image(
            dataset_dict["file_name"],
            self.image_format,
            _stated_size(dataset_dict),
            dataset_dict.get("image_id"),
        )

    def assemble(
        self,
        dataset_dict: dict[str, Any],
        before: tuple[int, int],
        image: np.ndarray,
        transforms: Any,
    ) -> dict[str, Any]:
        """The result of `__call__`, from an image that is transformed already.

        Args:
            dataset_dict: a standard dataset dict.
            before: (H, W) of the image as stored.
            image: (H', W', 3) uint8, transformed.
            transforms: what was done to it.
        """
        mapped = {
            "file_name": dataset_dict["file_name"],
            "image_id": dataset_dict.get("image_id"),
            "height": before[0],
            "width": before[1],
            "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
        }
        mapped |= {key: dataset_dict[key] for key in FRAME_KEYS if key in dataset_dict}
        if self.is_train:
            mapped["instances"] = self._instances(dataset_dict, transforms, before, image.shape[:2])
        return mapped

    def _instances(
        self,
        dataset_dict: dict[str, Any],
        transforms: Any,
        before: tuple[int, int],
        after: tuple[int, int],
    ) -> Instances:
        objects = [a for a in dataset_dict.get("annotations", ()) if not a.get("iscrowd", 0)]
        pixels = np.zeros((len(objects), *after), dtype=bool)
        for index, annotation in enumerate(objects):
            try:
                pixels[index] = decode_transformed(
                    annotation["segmentation"], transforms, before, after
                )
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise ValueError(
                    f"annotation {annotation.get('id')} of image {dataset_dict.get('image_id')} "
                    f"({dataset_dict['file_name']}) has no usable mask: {error}"
                ) from error
        masks = BitMasks(torch.from_numpy(pixels))
        boxes = masks.get_bounding_boxes()
        if not self.recompute_boxes and objects:
            boxes = _stated_boxes(objects, transforms, after, boxes)
        instances = Instances(after)
        instances.gt_boxes = boxes
        instances.gt_classes = torch.tensor([a["category_id"] for a in objects], dtype=torch.int64)
        instances.gt_masks = masks
        if "frame" in dataset_dict:
            track_ids = [a["track_id"] for a in objects]
            instances.gt_track_ids = torch.tensor(track_ids, dtype=torch.int64)
        if self.keep_polygons:
            moved = [moved_polygons(a["segmentation"], transforms) for a in objects]
            instances.gt_masks = ObjectMasks(masks.tensor, moved)
        if self.filter_empty and objects:
            instances = instances[masks.nonempty() & boxes.nonempty(threshold=MIN_BOX_SIDE)]
        return instances


def _stated_size(dataset_dict: dict[str, Any]) -> tuple[int, int] | None:
    if "height" in dataset_dict and "width" in dataset_dict:
        return dataset_dict["height"], dataset_dict["width"]
    return None


def _stated_boxes(
    objects: Sequence[dict[str, Any]], transforms: Any, after: tuple[int, int], from_masks: Boxes
) -> Boxes:
    height, width = after
    boxes = from_masks.tensor.clone()
    for index, annotation in enumerate(objects):
        if "bbox" not in annotation:
            continue
        box = BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYXY_ABS)
        moved = transforms.apply_box(np.array([box], dtype=np.float64))[0]
        clipped = np.clip(moved, 0, [width, height, width, height])
        if clipped[2] > clipped[0] and clipped[3] > clipped[1]:
            boxes[index] = torch.from_numpy(clipped).to(boxes)
    return Boxes(boxes)
