"""Steps of a mapper: read the image, transform the annotations, make `Instances` of them."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import torch
from PIL import Image

from detectron2._subset import outside
from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    Instances,
    Keypoints,
    PolygonMasks,
    polygons_to_bitmask,
)
from detectron2.utils.file_io import PathManager

from . import transforms as T
from .catalog import MetadataCatalog

_EXIF_ORIENTATION = 274
_UPRIGHT = {
    2: Image.FLIP_LEFT_RIGHT,
    3: Image.ROTATE_180,
    4: Image.FLIP_TOP_BOTTOM,
    5: Image.TRANSPOSE,
    6: Image.ROTATE_270,
    7: Image.TRANSVERSE,
    8: Image.ROTATE_90,
}

_logger = logging.getLogger(__name__)

__getattr__ = outside(
    __name__,
    "annotations_to_instances_rotated",
    "build_augmentation",
    "build_transform_gen",
    "create_keypoint_hflip_indices",
    "get_fed_loss_cls_weights",
    "transform_proposals",
)


class SizeMismatchError(ValueError):
    """The image in the file is of another size than its annotation says."""


def read_image(file_name: str, format: str | None = None) -> np.ndarray:
    """Read an image file, turned upright as its EXIF data says.

    Args:
        file_name: path of the file.
        format: "BGR" or a Pillow mode such as "RGB" or "L"; the file's own mode if None.

    Returns:
        uint8 (H, W, C); "L" has one channel.
    """
    with PathManager.open(file_name, "rb") as file:
        return convert_PIL_to_numpy(_upright(Image.open(file)), format)


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # noqa: BLE001  (damaged EXIF data, whatever it raises, costs no image)
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def convert_PIL_to_numpy(image: Image.Image, format: str | None) -> np.ndarray:
    """A Pillow image as an array in the given format, see `read_image`."""
    if format is None:
        return np.asarray(image)
    array = np.asarray(image.convert("RGB" if format == "BGR" else format))
    if format == "BGR":
        return array[:, :, ::-1]
    return array[:, :, None] if format == "L" else array


def convert_image_to_rgb(image: np.ndarray | torch.Tensor, format: str) -> np.ndarray:
    """An image (H, W, C) in the given format, see `read_image`, as RGB."""
    array = image.cpu().numpy() if isinstance(image, torch.Tensor) else image
    if format == "BGR":
        return array[:, :, [2, 1, 0]]
    pixels = array.astype(np.uint8)
    picture = Image.fromarray(pixels[:, :, 0] if format == "L" else pixels, mode=format)
    return np.asarray(picture.convert("RGB"))


def check_image_size(dataset_dict: dict[str, Any], image: np.ndarray) -> None:
    """Compare "width" and "height" with the image, and set them where they are absent.

    Raises:
        SizeMismatchError: they differ.
    """
    height, width = image.shape[:2]
    said = (dataset_dict.get("width", width), dataset_dict.get("height", height))
    if said != (width, height):
        raise SizeMismatchError(
            f"Image {dataset_dict.get('file_name', '')} has (width, height) {(width, height)}, but "
            f"its annotation says {said}: correct the annotation."
        )
    dataset_dict.setdefault("width", width)
    dataset_dict.setdefault("height", height)


def transform_instance_annotations(
    annotation: dict[str, Any],
    transforms: T.Transform | Sequence[T.Transform],
    image_size: tuple[int, int],
    *,
    keypoint_hflip_indices: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Transform the box, the segmentation and the keypoints of one object, in place.

    Args:
        annotation: with "bbox" and "bbox_mode", and "segmentation" as polygons or as a dict of run
            lengths.
        transforms: what was applied to the image.
        image_size: (height, width) after the transforms.
        keypoint_hflip_indices: the keypoint that takes the place of each one in a mirrored image.

    Returns:
        The annotation: "bbox" as XYXY_ABS within the image, polygons flat, a bitmap (H, W) in the
        place of run lengths.

    Raises:
        ValueError: a segmentation of another type.
    """
    if isinstance(transforms, tuple | list):
        transforms = T.TransformList(transforms)
    height, width = image_size
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    box = transforms.apply_box(np.array([box]))[0].clip(min=0)
    annotation["bbox"] = np.minimum(box, [width, height, width, height])
    annotation["bbox_mode"] = BoxMode.XYXY_ABS
    if "segmentation" in annotation:
        segmentation = _transform_segmentation(annotation["segmentation"], transforms, image_size)
        annotation["segmentation"] = segmentation
    if "keypoints" in annotation:
        annotation["keypoints"] = transform_keypoint_annotations(
            annotation["keypoints"], transforms, image_size, keypoint_hflip_indices
        )
    return annotation


def _transform_segmentation(
    segmentation: list[Any] | dict[str, Any], transforms: T.Transform, image_size: tuple[int, int]
) -> list[np.ndarray] | np.ndarray:
    if isinstance(segmentation, list):
        polygons = [np.asarray(polygon).reshape(-1, 2) for polygon in segmentation]
        return [polygon.reshape(-1) for polygon in transforms.apply_polygons(polygons)]
    if isinstance(segmentation, dict):
        mask = transforms.apply_segmentation(coco_mask.decode(segmentation))
        assert mask.shape[:2] == tuple(image_size), f"mask {mask.shape}, image {image_size}"
        return mask
    raise ValueError(
        f"Cannot transform a segmentation of type {type(segmentation)}: give a list of polygons, "
        "or COCO's run lengths as a dict."
    )


def transform_keypoint_annotations(
    keypoints: Sequence[float] | np.ndarray,
    transforms: T.TransformList,
    image_size: tuple[int, int],
    keypoint_hflip_indices: Sequence[int] | None = None,
) -> np.ndarray:
    """Transform the keypoints of one object; those that leave the image become unlabelled.

    Args:
        keypoints: x, y, visibility of K keypoints.
        transforms: what was applied to the image.
        image_size: (height, width) after the transforms.
        keypoint_hflip_indices: the keypoint that takes the place of each one in a mirrored image.

    Returns:
        float64 (K, 3), zeros for unlabelled keypoints.

    Raises:
        ValueError: the image was mirrored and the indices are absent or of another number.
    """
    points = np.asarray(keypoints, dtype=np.float64).reshape(-1, 3)
    moved = transforms.apply_coords(points[:, :2])
    height, width = image_size
    inside = ((moved >= 0) & (moved <= [width, height])).all(axis=1)
    points[:, :2] = moved
    points[~inside, 2] = 0
    num_flips = sum(isinstance(t, T.HFlipTransform) for t in transforms.transforms)
    if num_flips % 2 == 1:
        if keypoint_hflip_indices is None or len(keypoint_hflip_indices) != len(points):
            raise ValueError(
                f"Mirroring {len(points)} keypoints needs as many keypoint_hflip_indices, got "
                f"{keypoint_hflip_indices}."
            )
        points = points[np.asarray(keypoint_hflip_indices, dtype=np.int32)]
    points[points[:, 2] == 0] = 0
    return points


def annotations_to_instances(
    annos: Sequence[dict[str, Any]], image_size: tuple[int, int], mask_format: str = "polygon"
) -> Instances:
    """What models learn from: `gt_boxes`, `gt_classes` and, if annotated, `gt_masks`.

    Args:
        annos: the annotations of one image.
        image_size: (height, width).
        mask_format: "polygon" for `PolygonMasks` or "bitmask" for `BitMasks`.

    Raises:
        ValueError: a segmentation that cannot be brought to this format.
    """
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annos]
    target = Instances(image_size)
    target.gt_boxes = Boxes(np.stack(boxes) if boxes else np.zeros((0, 4)))
    classes = [int(annotation["category_id"]) for annotation in annos]
    target.gt_classes = torch.tensor(classes, dtype=torch.int64)
    if len(annos) and "segmentation" in annos[0]:
        segmentations = [annotation["segmentation"] for annotation in annos]
        target.gt_masks = _to_masks(segmentations, image_size, mask_format)
    if len(annos) and "keypoints" in annos[0]:
        target.gt_keypoints = Keypoints([annotation.get("keypoints", []) for annotation in annos])
    return target


def _to_masks(
    segmentations: list[Any], image_size: tuple[int, int], mask_format: str
) -> PolygonMasks | BitMasks:
    if mask_format == "polygon":
        try:
            return PolygonMasks(segmentations)
        except ValueError as error:
            raise ValueError(
                "mask_format='polygon' does not fit these annotations: try mask_format='bitmask'."
            ) from error
    assert mask_format == "bitmask", mask_format
    return BitMasks(np.stack([_to_bitmap(s, image_size) for s in segmentations]))


def _to_bitmap(
    segmentation: list[Any] | dict[str, Any] | np.ndarray, image_size: tuple[int, int]
) -> np.ndarray:
    if isinstance(segmentation, list):
        return polygons_to_bitmask(segmentation, *image_size)
    if isinstance(segmentation, dict):
        return coco_mask.decode(segmentation)
    if isinstance(segmentation, np.ndarray):
        assert segmentation.ndim == 2, f"a bitmap has 2 dimensions, not {segmentation.ndim}"
        return segmentation
    raise ValueError(
        f"Cannot make a bitmap of a segmentation of type {type(segmentation)}: give a list of "
        "polygons, COCO's run lengths as a dict, or an array (H, W)."
    )


def filter_empty_instances(
    instances: Instances,
    by_box: bool = True,
    by_mask: bool = True,
    box_threshold: float = 1e-5,
    return_mask: bool = False,
) -> Instances | tuple[Instances, torch.Tensor]:
    """Leave out objects without extent.

    Args:
        instances: with `gt_boxes`, and `gt_masks` if there are masks.
        by_box: look at the boxes: a side not longer than `box_threshold` is empty.
        by_mask: look at the masks.
        box_threshold: in pixels.
        return_mask: give also which objects were kept, bool (N,).
    """
    assert by_box or by_mask, "nothing to filter by"
    kept = []
    if by_box:
        kept.append(instances.gt_boxes.nonempty(threshold=box_threshold))
    if by_mask and instances.has("gt_masks"):
        kept.append(instances.gt_masks.nonempty())
    if not kept:
        return instances
    keep = torch.stack(kept).all(dim=0)
    return (instances[keep], keep) if return_mask else instances[keep]


def gen_crop_transform_with_instance(
    crop_size: tuple[int, int], image_size: tuple[int, int], instance: dict[str, Any]
) -> T.CropTransform:
    """Draw a window of `crop_size` (height, width) that holds the centre of one object's box."""
    crop = np.asarray(crop_size, dtype=np.int32)
    image = np.asarray(image_size, dtype=np.int32)
    left, top, right, bottom = BoxMode.convert(
        instance["bbox"], instance["bbox_mode"], BoxMode.XYXY_ABS
    )
    center = np.array([(top + bottom) * 0.5, (left + right) * 0.5])
    assert (image >= center).all(), "the centre of the object is outside of the image"
    assert (image >= crop).all(), f"a window of {crop_size} is larger than the image {image_size}"
    first = np.maximum(np.floor(center).astype(np.int32) - crop, 0)
    last = np.minimum(np.maximum(image - crop, 0), np.ceil(center).astype(np.int32))
    y0 = np.random.randint(first[0], last[0] + 1)
    x0 = np.random.randint(first[1], last[1] + 1)
    return T.CropTransform(x0, y0, crop[1], crop[0])


def check_metadata_consistency(key: str, dataset_names: Sequence[str]) -> None:
    """Make sure that data sets used together agree about one attribute of their metadata.

    Raises:
        AttributeError: a data set does not have the attribute.
        ValueError: the values differ.
    """
    values = [getattr(MetadataCatalog.get(name), key) for name in dataset_names]
    for name, value in zip(dataset_names, values, strict=True):
        if value != values[0]:
            _logger.error(f"Metadata '{key}' of '{dataset_names[0]}' is '{values[0]}'")
            _logger.error(f"Metadata '{key}' of '{name}' is '{value}'")
            raise ValueError(f"Data sets {dataset_names[0]} and {name} differ in metadata '{key}'.")
