"""Which output of a class head stands for which class."""

from typing import Literal

import torch
from torch import Tensor, nn

NumberingKind = Literal["coco_ids", "contiguous"]

# The 80 category ids of COCO's detection task, in the order of Detectron2's contiguous classes.
_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_CATEGORY_IDS = tuple(i for i in range(1, 91) if i not in _UNUSED)
COCO_OUTPUTS = 91


class ClassNumbering(nn.Module):
    """Maps classes to the outputs of a head, and back.

    The official DETR family numbers classes by COCO's category ids: 91 outputs, 11 of which stand
    for nothing but take part in every ranking. Data with another number of classes than COCO's 80
    count from zero in any case.

    Args:
        num_classes: K.
        kind: "coco_ids" for 91 outputs if K is 80, "contiguous" for K outputs.

    Raises:
        ValueError: an unknown kind.
    """

    outputs: Tensor
    classes: Tensor

    def __init__(self, *, num_classes: int, kind: NumberingKind = "coco_ids") -> None:
        super().__init__()
        if kind not in ("coco_ids", "contiguous"):
            raise ValueError(f"class numbering is {kind!r}; expected 'coco_ids' or 'contiguous'")
        self.num_classes = num_classes
        by_ids = kind == "coco_ids" and num_classes == len(COCO_CATEGORY_IDS)
        self.num_outputs = COCO_OUTPUTS if by_ids else num_classes
        outputs = torch.tensor(COCO_CATEGORY_IDS if by_ids else range(num_classes))
        classes = torch.full((self.num_outputs,), -1)
        classes[outputs] = torch.arange(num_classes)
        self.register_buffer("outputs", outputs, persistent=False)
        self.register_buffer("classes", classes, persistent=False)
