"""Images that were searched for some of the classes only (LVIS; Gupta et al., CVPR 2019)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

ImageId = int | str


@dataclass(frozen=True)
class FederatedLabels:
    """What the images of a federated set say of classes; the rules are those of the LVIS API.

    A class that was not looked for in an image is not judged there. Where only some of the objects
    of a class are annotated, a prediction that matches none of them is no error: it falls on a
    crowd that fills the image.

    Attributes:
        searched: classes that an image has objects of, or none for certain. An image that does not
            say was searched for all, and is not in it.
        unfinished: classes of which objects may lack annotations.
    """

    searched: dict[ImageId, frozenset[int]]
    unfinished: dict[ImageId, frozenset[int]]

    @classmethod
    def of(cls, images: Sequence[Mapping[str, Any]]) -> "FederatedLabels | None":
        """Of standard dataset dicts; None if no image says what it was searched for.

        Args:
            images: with `image_id`, `annotations`, and LVIS' `neg_category_ids` and
                `not_exhaustive_category_ids`, which count from 0.
        """
        if not any("neg_category_ids" in image for image in images):
            return None
        searched, unfinished = {}, {}
        for image in images:
            if "neg_category_ids" in image:
                present = {one["category_id"] for one in image.get("annotations", ())}
                searched[image["image_id"]] = frozenset(present.union(image["neg_category_ids"]))
            unfinished[image["image_id"]] = frozenset(image.get("not_exhaustive_category_ids", ()))
        return cls(searched, unfinished)

    def judged(self, predictions: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The predictions of classes that their images were searched for."""
        return [
            p
            for p in predictions
            if p["image_id"] not in self.searched
            or p["category_id"] in self.searched[p["image_id"]]
        ]

    def crowds(
        self, predictions: Sequence[Mapping[str, Any]], sizes: Mapping[ImageId, tuple[int, int]]
    ) -> list[dict[str, Any]]:
        """A crowd over the image for each unfinished class that something is predicted of.

        Args:
            predictions: with `image_id` and `category_id`.
            sizes: (H, W) of every image.
        """
        pairs = {(p["image_id"], p["category_id"]) for p in predictions}
        crowds = []
        for image_id, label in sorted(pairs, key=str):
            if label in self.unfinished[image_id]:
                height, width = sizes[image_id]
                crowds.append(
                    {
                        "image_id": image_id,
                        "category_id": label,
                        "iscrowd": 1,
                        "bbox": [0.0, 0.0, float(width), float(height)],
                        "segmentation": mask_util.encode(np.ones((height, width), np.uint8, "F")),
                        "area": float(height * width),
                    }
                )
        return crowds
