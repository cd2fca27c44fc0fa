"""Dice and cross-entropy loss of masks at half the image's size, a few masks at a time."""

from collections.abc import Sequence
from math import nan

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from queryseg.projects.soit.mask_branch import MatchedMasks
from queryseg.projects.soit.upsampling import aligned_upsample


class MaskLoss(nn.Module):
    """The two mask losses of the release, over the whole padded canvas.

    Predictions are upsampled four times, the ground truth is shrunk to that size and stays soft.
    An image of 800x1333 with 93 objects gives 558 such masks of a megabyte in each of half a dozen
    steps; so masks are worked on in small groups, and the backward pass computes a group again
    instead of keeping it.

    Args:
        factor: how many times predictions are upsampled.
        pixels_at_once: upsampled pixels of a group; bounds the memory. On a CPU, arrays of less
            than 32 MiB, eight million pixels, are not given back to the system and pile up.
    """

    def __init__(self, *, factor: int = 4, pixels_at_once: int = 10 * 2**20) -> None:
        super().__init__()
        self.factor = factor
        self.pixels_at_once = pixels_at_once

    def forward(
        self,
        matched: MatchedMasks,
        gt_masks: Sequence[Tensor],
        *,
        padded_size: tuple[int, int],
        valid_sizes: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Compare each predicted mask with its instance.

        Args:
            matched: the predictions, sorted by instance.
            gt_masks: of each image (n, h, w) bool.
            padded_size: height and width of the batch.
            valid_sizes: (B, 2) int64, rows and columns of the predictions that are no padding.

        Returns:
            (N,) Dice losses and (N,) sums of the cross-entropy over the canvas, divided by the
            upsampled pixels that are no padding; of prediction after prediction. NaN for a
            prediction that is not finite.
        """
        # One broken mask must not stop the step before the trainer can name the loss that broke.
        broken = ~matched.mask_logits.isfinite().flatten(1).all(1)
        mask_logits = matched.mask_logits.masked_fill(broken[:, None, None], 0.0)
        groups = self._groups(matched, len(gt_masks))
        starts = torch.tensor([0, *(len(masks) for masks in gt_masks)]).cumsum(0).tolist()
        if not groups:  # nothing to learn, but the mask branch takes part in the step
            nothing = mask_logits.sum((1, 2))
            return nothing, nothing
        dice, bce = [], []
        parts = zip(
            mask_logits.split([size for _, size in groups]),
            matched.tgt_idx.split([size for _, size in groups]),
        )
        for (image, _), (logits, tgt_idx) in zip(groups, parts):
            chosen = tgt_idx - starts[image]
            losses = checkpoint(
                self._group,
                logits,
                gt_masks[image],
                chosen,
                padded_size,
                use_reentrant=False,
                preserve_rng_state=False,
            )
            dice.append(losses[0])
            bce.append(losses[1])
        pixels = self.valid_pixels(valid_sizes, tuple(mask_logits.shape[1:]))
        bce_of_pixel = torch.cat(bce) / pixels[matched.image_idx]
        return torch.cat(dice).masked_fill(broken, nan), bce_of_pixel.masked_fill(broken, nan)

    def targets(
        self, gt_masks: Tensor, padded_size: tuple[int, int], map_size: tuple[int, int]
    ) -> Tensor:
        """Soft masks (n, factor * H, factor * W) of bool masks (n, h, w) of one image."""
        height, width = gt_masks.shape[1:]
        padding = (0, padded_size[1] - width, 0, padded_size[0] - height)
        size = (self.factor * map_size[0], self.factor * map_size[1])
        masks = F.pad(gt_masks[None].float(), padding)
        return F.interpolate(masks, size, mode="bilinear", align_corners=True)[0]

    def valid_pixels(self, valid_sizes: Tensor, map_size: tuple[int, int]) -> Tensor:
        """(B,) upsampled pixels that read no padding, when the padding is upsampled likewise."""
        count = torch.ones(len(valid_sizes), device=valid_sizes.device)
        for valid, side in zip(valid_sizes.unbind(1), map_size):
            padding = torch.arange(side, device=valid.device) >= valid[:, None]
            large = F.interpolate(
                padding[:, None].float(), self.factor * side, mode="linear", align_corners=True
            )
            count = count * (large[:, 0] == 0).sum(1)
        return count

    def _groups(self, matched: MatchedMasks, num_images: int) -> list[tuple[int, int]]:
        """Image and length of each run of predictions that are worked on together."""
        height, width = matched.mask_logits.shape[1:]
        most = max(self.pixels_at_once // (self.factor**2 * height * width), 1)
        groups = []
        for image, count in enumerate(matched.image_idx.bincount(minlength=num_images).tolist()):
            groups += [(image, min(most, count - done)) for done in range(0, count, most)]
        return groups

    def _group(
        self, mask_logits: Tensor, gt_masks: Tensor, chosen: Tensor, padded_size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """(n,) Dice losses and (n,) sums of the cross-entropy of one image's masks."""
        probs = aligned_upsample(mask_logits, self.factor).sigmoid()
        instances, place = chosen.unique_consecutive(return_inverse=True)
        map_size = (mask_logits.shape[1], mask_logits.shape[2])
        targets = self.targets(gt_masks[instances], padded_size, map_size)[place].to(probs.dtype)
        return canvas_dice_loss(probs, targets), canvas_bce_loss(probs, targets)


def canvas_dice_loss(mask_probs: Tensor, mask_targets: Tensor, eps: float = 1e-5) -> Tensor:
    """One minus the Dice coefficient of each mask, with squares in the denominator (V-Net).

    Args:
        mask_probs: (N, H, W) in [0, 1].
        mask_targets: (N, H, W) in [0, 1].
        eps: keeps the division finite; a mask without target costs one whatever is predicted.

    Returns:
        (N,).

    >>> canvas_dice_loss(torch.tensor([[[0.5, 0.5]]]), torch.tensor([[[1.0, 0.0]]]))
    tensor([0.3333])
    """
    overlap = (mask_probs * mask_targets).sum((1, 2))
    total = mask_probs.square().sum((1, 2)) + mask_targets.square().sum((1, 2))
    return 1 - 2 * overlap / (total + eps)


def canvas_bce_loss(mask_probs: Tensor, mask_targets: Tensor) -> Tensor:
    """Sum over the canvas of the cross-entropy of each mask; logarithms are at least -100.

    Taken on probabilities, as in the release: where they round to 0 or 1 nothing is learnt.

    Args:
        mask_probs: (N, H, W) in [0, 1].
        mask_targets: (N, H, W) in [0, 1].

    Returns:
        (N,).

    >>> canvas_bce_loss(torch.tensor([[[0.5, 0.5]]]), torch.tensor([[[1.0, 0.0]]]))
    tensor([1.3863])
    """
    losses = F.binary_cross_entropy(mask_probs, mask_targets, reduction="none")
    return losses.sum((1, 2))
