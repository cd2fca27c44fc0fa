"""Ground truth of a batch."""

import torch

from queryseg.matching import MaskTargets


def _targets() -> MaskTargets:
    return MaskTargets.from_images(
        labels=[torch.tensor([3, 1]), torch.tensor([], dtype=torch.int64), torch.tensor([7])],
        masks=[torch.ones(2, 2, 3), torch.zeros(0, 4, 4), torch.ones(1, 4, 1, dtype=torch.bool)],
        padded_size=(4, 5),
    )


def test_masks_are_padded_at_the_right_and_the_bottom() -> None:
    targets = _targets()
    assert targets.masks.shape == (3, 4, 5)
    assert targets.masks.dtype == torch.bool
    assert targets.masks[0].int().tolist() == [[1, 1, 1, 0, 0]] * 2 + [[0] * 5] * 2
    assert targets.masks[2].int().tolist() == [[1, 0, 0, 0, 0]] * 4


def test_instances_know_their_image_and_place() -> None:
    targets = _targets()
    assert targets.sizes == (2, 0, 1)
    assert targets.image_idx.tolist() == [0, 0, 2]
    assert targets.slot_idx.tolist() == [0, 1, 0]


def test_values_are_laid_out_one_row_an_image() -> None:
    targets = _targets()
    assert targets.padded(targets.labels).tolist() == [[3, 1], [0, 0], [7, 0]]
    assert targets.padded(torch.ones(3, 2)).shape == (3, 2, 2)


def test_batch_without_instances_has_empty_rows() -> None:
    nothing = torch.tensor([], dtype=torch.int64)
    masks = torch.zeros(0, 2, 2)
    targets = MaskTargets.from_images([nothing, nothing], [masks, masks], (4, 4))
    assert targets.masks.shape == (0, 4, 4)
    assert targets.image_idx.shape == (0,)
    assert targets.padded(targets.labels).shape == (2, 0)
