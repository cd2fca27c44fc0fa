"""Selection, resizing, scores and boxes of masks against loops."""

import pytest
import torch
import torch.nn.functional as F

from queryseg.postprocess import boxes_from_masks, mask_quality, resize_masks, top_classes


def test_best_pairs_of_query_and_class_come_first() -> None:
    probs = torch.rand(6, 4)
    scores, classes, query_idx = top_classes(probs, 9)
    pairs = sorted(((float(probs[q, k]), k, q) for q in range(6) for k in range(4)), reverse=True)[
        :9
    ]
    found = list(zip(scores.tolist(), classes.tolist(), query_idx.tolist()))
    assert found == pairs


def test_fewer_pairs_than_asked_for_are_all_kept() -> None:
    scores, _, _ = top_classes(torch.rand(2, 3), 100)
    assert len(scores) == 6


def test_boxes_enclose_every_pixel_of_the_mask() -> None:
    masks = torch.rand(20, 9, 13) > 0.9
    masks[0] = False
    masks[1] = False
    masks[1, 0, 0] = True
    masks[2] = True
    boxes = boxes_from_masks(masks)
    for mask, box in zip(masks, boxes.tolist()):
        pixels = [(y, x) for y in range(9) for x in range(13) if mask[y, x]]
        if not pixels:
            assert box == [0, 0, 0, 0]
            continue
        ys, xs = zip(*pixels)
        assert box == [min(xs), min(ys), max(xs) + 1, max(ys) + 1]
    assert boxes_from_masks(masks[:0]).shape == (0, 4)


def test_quality_is_the_mean_probability_of_the_foreground() -> None:
    logits = 3 * torch.randn(4, 5, 6)
    logits[0] = -4.0
    quality = mask_quality(logits, logits > 0)
    for index in range(1, 4):
        inside = [float(x.sigmoid()) for x in logits[index].flatten() if x > 0]
        assert float(quality[index]) == pytest.approx(sum(inside) / len(inside), rel=1e-5)
    assert quality[0] == 0


def test_masks_pass_the_padded_input_before_the_output_size() -> None:
    logits = torch.randn(3, 4, 8)
    resized = resize_masks(logits, padded_size=(32, 64), image_size=(30, 50), output_size=(60, 100))
    at_input = F.interpolate(logits[None], (32, 64), mode="bilinear")[..., :30, :50]
    expected = F.interpolate(at_input, (60, 100), mode="bilinear")[0]
    torch.testing.assert_close(resized, expected)
    directly = F.interpolate(logits[None], (60, 100), mode="bilinear")[0]
    assert not torch.allclose(resized, directly, atol=1e-2)


def test_output_of_the_input_size_is_not_resized_again() -> None:
    logits = torch.randn(1, 4, 4)
    sizes = {"padded_size": (32, 32), "image_size": (20, 32), "output_size": (20, 32)}
    at_input = F.interpolate(logits[None], (32, 32), mode="bilinear")[0, :, :20]
    assert torch.equal(resize_masks(logits, **sizes), at_input)
