"""From the resolution a model worked at to the resolution that was asked for."""

from torch import Tensor
from torch.nn import functional as F

from detectron2.structures import Instances, ROIMasks


def detector_postprocess(
    results: Instances, output_height: int, output_width: int, mask_threshold: float = 0.5
) -> Instances:
    """Scale boxes to another image size, drop empty ones and paste their masks.

    Args:
        results: with `pred_boxes` or `proposal_boxes`, on an image of `results.image_size`; its
            boxes are changed in place. `pred_masks` may be (N, 1, M, M) values or `ROIMasks`.
        output_height, output_width: the size to scale to.
        mask_threshold: of the pasted masks.

    Returns:
        Instances of the new size; `pred_masks` is (N, output_height, output_width) bool.
    """
    height, width = results.image_size
    scaled = Instances((output_height, output_width), **results.get_fields())
    assert scaled.has("pred_boxes") or scaled.has("proposal_boxes"), "results must have boxes"
    boxes = scaled.pred_boxes if scaled.has("pred_boxes") else scaled.proposal_boxes
    boxes.scale(output_width / width, output_height / height)
    boxes.clip(scaled.image_size)
    scaled = scaled[boxes.nonempty()]
    if scaled.has("pred_masks"):
        masks = scaled.pred_masks
        if not isinstance(masks, ROIMasks):
            masks = ROIMasks(masks[:, 0])
        scaled.pred_masks = masks.to_bitmasks(
            scaled.pred_boxes, output_height, output_width, mask_threshold
        ).tensor
    return scaled


def sem_seg_postprocess(
    result: Tensor, img_size: tuple[int, int], output_height: int, output_width: int
) -> Tensor:
    """Cut the padding off (C, H, W) class scores and resize them bilinearly.

    Args:
        result: (C, H, W) scores of a padded image.
        img_size: (height, width) of its real part.
        output_height, output_width: the size to resize to.

    Returns:
        (C, output_height, output_width).
    """
    real = result[None, :, : img_size[0], : img_size[1]]
    size = (output_height, output_width)
    return F.interpolate(real, size=size, mode="bilinear", align_corners=False)[0]
