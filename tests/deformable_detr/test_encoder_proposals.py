"""Proposals of the encoder: anchors, ranking, and what counts as invalid."""

import math

import pytest
import torch

from queryseg.deformable_detr import EncoderProposals, PyramidTokens, TokenPyramid
from queryseg.deformable_detr.proposals import anchor_logits

SHAPES, SIZES, PADDED = [(6, 8), (3, 4)], [(48, 64), (30, 50)], (48, 64)


def memory() -> TokenPyramid:
    maps = [torch.randn(2, 8, *shape) for shape in SHAPES]
    return PyramidTokens(embed_dim=8, num_levels=2)(maps, SIZES, PADDED)


def test_anchors_are_squares_around_the_tokens_of_the_valid_part() -> None:
    anchors = anchor_logits(memory())
    valid = {0: [(6, 8), (3, 4)], 1: [(4, 7), (2, 4)]}  # tokens that begin in it
    for image in range(2):
        token = 0
        for level, (height, width) in enumerate(SHAPES):
            tall, wide = valid[image][level]
            for row in range(height):
                for column in range(width):
                    side = 0.05 * 2**level
                    box = ((column + 0.5) / wide, (row + 0.5) / tall, side, side)
                    inside = row < tall and column < wide and all(0.01 < x < 0.99 for x in box)
                    for axis, x in enumerate(box):
                        expected = math.log(x / (1 - x)) if inside else math.inf
                        found = float(anchors[image, token, axis])
                        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
                    token += 1


@pytest.mark.parametrize("ranking", ["first_class", "best_class"])
def test_best_tokens_are_ranked_by_the_chosen_logit(ranking: str) -> None:
    module = EncoderProposals(embed_dim=8, num_classes=3, num_queries=9, ranking=ranking)  # type: ignore[arg-type]
    proposals = module(memory())
    logits = proposals.class_logits.detach()
    scores = logits[..., 0] if ranking == "first_class" else logits.max(-1).values
    for image in range(2):
        expected = sorted(range(60), key=lambda token: -float(scores[image, token]))[:9]
        found = proposals.token_idx[image].tolist()
        assert scores[image, found].tolist() == scores[image, expected].tolist()


def test_evaluation_takes_the_same_references_as_training() -> None:
    module = EncoderProposals(embed_dim=8, num_classes=3, num_queries=9)
    torch.nn.init.normal_(module.box_head.layers[-1].weight)
    pyramid = memory()
    trained, evaluated = module.train()(pyramid), module.eval()(pyramid)
    assert torch.allclose(trained.references, evaluated.references, atol=1e-6)
    assert trained.boxes is not None and trained.boxes.shape == (2, 60, 4)
    assert evaluated.boxes is None and not trained.references.requires_grad


def test_padding_proposes_as_if_its_tokens_were_zero_and_has_finite_gradients() -> None:
    module = EncoderProposals(embed_dim=8, num_classes=3, num_queries=60)
    pyramid = memory()
    tokens = pyramid.tokens.clone().requires_grad_()
    proposals = module(pyramid.with_tokens(tokens))
    assert pyramid.padding_mask is not None and proposals.boxes is not None
    padding = pyramid.padding_mask
    empty = module.class_head(module.norm(module.linear(torch.zeros(8))))
    assert torch.allclose(proposals.class_logits[padding], empty, atol=1e-6)
    assert proposals.boxes[padding].eq(1).all()
    (proposals.boxes.sum() + proposals.class_logits.sum()).backward()
    assert tokens.grad is not None and tokens.grad.isfinite().all()
    assert tokens.grad[padding].eq(0).all()


def test_small_pyramid_gives_as_many_queries_as_tokens() -> None:
    assert EncoderProposals(embed_dim=8, num_classes=3)(memory()).token_idx.shape == (2, 60)


def test_every_class_starts_improbable() -> None:
    head = EncoderProposals(embed_dim=8, num_classes=3).class_head
    assert head.bias.sigmoid().tolist() == pytest.approx([0.01] * 3)
