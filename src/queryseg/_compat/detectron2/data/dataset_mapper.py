"""From the entry of a data set to the input of a model."""

import copy
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from detectron2._subset import NeedsRealDetectron2

from . import detection_utils as utils
from . import transforms as T

_logger = logging.getLogger(__name__)


class DatasetMapper:
    """Read the image, augment it along with its annotations, and make tensors of them.

    Args:
        is_train: keep annotations; for tests they are left out.
        augmentations: augmentations or transforms, in order.
        image_format: see `detection_utils.read_image`.
        use_instance_mask: keep segmentations.
        use_keypoint: keep keypoints; models with keypoints need the real Detectron2.
        instance_mask_format: "polygon" or "bitmask".
        keypoint_hflip_indices: see `detection_utils.transform_instance_annotations`.
        precomputed_proposal_topk: proposals from files need the real Detectron2.
        recompute_boxes: take the boxes around the masks after augmentation; a crop can make an
            object's box smaller than its old box within the crop.

    Raises:
        NeedsRealDetectron2: `precomputed_proposal_topk` is given.
    """

    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str,
        use_instance_mask: bool = False,
        use_keypoint: bool = False,
        instance_mask_format: str = "polygon",
        keypoint_hflip_indices: np.ndarray | None = None,
        precomputed_proposal_topk: int | None = None,
        recompute_boxes: bool = False,
    ) -> None:
        assert use_instance_mask or not recompute_boxes, "recompute_boxes needs use_instance_mask"
        if precomputed_proposal_topk is not None:
            raise NeedsRealDetectron2("DatasetMapper(precomputed_proposal_topk=...)")
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.use_instance_mask = use_instance_mask
        self.use_keypoint = use_keypoint
        self.instance_mask_format = instance_mask_format
        self.keypoint_hflip_indices = keypoint_hflip_indices
        self.recompute_boxes = recompute_boxes
        mode = "training" if is_train else "inference"
        _logger.info(f"Augmentations in {mode}: {augmentations}")

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one entry; the entry itself stays as it is.

        Args:
            dataset_dict: with "file_name" and, if annotated, "annotations" and
                "sem_seg_file_name".

        Returns:
            The entry with "image" (uint8, (C, H, W)), "height" and "width" of the original image
            and, in training, "instances" in the place of "annotations".
        """
        sample = copy.deepcopy(dataset_dict)
        image = utils.read_image(sample["file_name"], format=self.image_format)
        utils.check_image_size(sample, image)
        sem_seg = None
        if "sem_seg_file_name" in sample:
            sem_seg = utils.read_image(sample.pop("sem_seg_file_name"), "L").squeeze(2)

        augmented = T.AugInput(image, sem_seg=sem_seg)
        transforms = self.augmentations(augmented)
        channels_first = augmented.image.transpose(2, 0, 1)
        sample["image"] = torch.as_tensor(np.ascontiguousarray(channels_first))
        if augmented.sem_seg is not None:
            sample["sem_seg"] = torch.as_tensor(augmented.sem_seg.astype(np.int64))

        if not self.is_train:
            sample.pop("annotations", None)
        elif "annotations" in sample:
            self._transform_annotations(sample, transforms, augmented.image.shape[:2])
        return sample

    def _transform_annotations(
        self, sample: dict[str, Any], transforms: T.TransformList, image_size: tuple[int, int]
    ) -> None:
        transformed = []
        for annotation in sample.pop("annotations"):
            if annotation.get("iscrowd", 0) != 0:
                continue
            if not self.use_instance_mask:
                annotation.pop("segmentation", None)
            if not self.use_keypoint:
                annotation.pop("keypoints", None)
            transformed.append(
                utils.transform_instance_annotations(
                    annotation,
                    transforms,
                    image_size,
                    keypoint_hflip_indices=self.keypoint_hflip_indices,
                )
            )
        instances = utils.annotations_to_instances(
            transformed, image_size, mask_format=self.instance_mask_format
        )
        if self.recompute_boxes:
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        sample["instances"] = utils.filter_empty_instances(instances)
