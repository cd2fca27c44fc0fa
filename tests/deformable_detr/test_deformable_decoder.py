"""Decoder, box refinement and queries: what moves, what learns, what follows what."""

import math

import pytest
import torch
from torch import Tensor

from queryseg.deformable_detr import (
    DeformableDecoder,
    LearnedContent,
    LearnedQueries,
    ProposalQueries,
    PyramidTokens,
    Queries,
    ReferencePosition,
    TokenPyramid,
    inverse_sigmoid,
    refine_boxes,
)
from queryseg.layers import sine_box_encoding

SIZES, PADDED = [(48, 64), (30, 50)], (48, 64)


def memory() -> TokenPyramid:
    maps = [torch.randn(2, 8, 6, 8), torch.randn(2, 8, 3, 4)]
    return PyramidTokens(embed_dim=8, num_levels=2)(maps, SIZES, PADDED)


def decoder(**options: object) -> DeformableDecoder:
    sizes = {"num_layers": 3, "embed_dim": 8, "num_heads": 2, "num_levels": 2, "ffn_dim": 16}
    module = DeformableDecoder(**{**sizes, **options})  # type: ignore[arg-type]
    for head in module.box_heads:
        torch.nn.init.normal_(head.layers[-1].weight, std=0.3)
    return module


def queries(dim: int = 4) -> Queries:
    shape = (2, 5, 8)
    return Queries(torch.randn(shape), torch.randn(shape), 0.2 + 0.6 * torch.rand(2, 5, dim))


def test_inverse_sigmoid_undoes_the_sigmoid_and_clamps() -> None:
    x = torch.tensor([-8.0, -1.0, 0.5, 6.0], dtype=torch.float64)
    assert torch.allclose(inverse_sigmoid(x.sigmoid()), x, rtol=1e-9)
    assert float(inverse_sigmoid(torch.tensor(-3.0))) == pytest.approx(math.log(1e-5), rel=1e-6)


def test_boxes_move_in_logits_and_points_get_a_size() -> None:
    deltas = torch.randn(6, 4, dtype=torch.float64)
    boxes = 0.1 + 0.8 * torch.rand(6, 4, dtype=torch.float64)
    logits = (boxes / (1 - boxes)).log()
    assert torch.allclose(refine_boxes(deltas, boxes), (logits + deltas).sigmoid())
    moved = refine_boxes(deltas, boxes[:, :2])
    assert torch.allclose(moved[:, :2], (logits + deltas)[:, :2].sigmoid())
    assert torch.allclose(moved[:, 2:], deltas[:, 2:].sigmoid())


@pytest.mark.parametrize("dim", [4, 2])
def test_each_layer_starts_from_the_boxes_of_the_one_before(dim: int) -> None:
    decoded = decoder()(queries(dim), memory())
    assert len(decoded.boxes) == 3
    for before, after in zip(decoded.boxes, decoded.references[1:]):
        assert torch.equal(before.detach(), after) and not after.requires_grad


def test_without_refinement_all_layers_start_from_the_same_boxes() -> None:
    start = queries()
    decoded = decoder(refine=False)(start, memory())
    assert all(torch.equal(references, start.references) for references in decoded.references)


def _box_heads_reached(loss: Tensor, module: DeformableDecoder) -> list[bool]:
    loss.backward()
    return [head.layers[-1].weight.grad is not None for head in module.box_heads]


@pytest.mark.parametrize("twice", [True, False])
def test_looking_forward_twice_trains_the_head_of_the_layer_before(twice: bool) -> None:
    module = decoder(look_forward_twice=twice)
    start, pyramid = queries(), memory()
    decoded = module(start, pyramid)
    assert _box_heads_reached(decoded.boxes[2].sum(), module) == [False, twice, True]
    plain = decoder()
    plain.load_state_dict(module.state_dict())
    for a, b in zip(plain(start, pyramid).boxes, decoded.boxes):
        assert torch.allclose(a, b, atol=1e-6)


def test_norm_is_for_the_heads_and_not_for_the_next_layer() -> None:
    module = decoder(output_norm=True, share_box_heads=True)
    assert len(module.box_heads) == 1 and module.norm is not None
    torch.nn.init.constant_(module.norm.weight, 0.5)
    plain = decoder(share_box_heads=True)
    plain.load_state_dict(module.state_dict(), strict=False)
    start, pyramid = queries(), memory()
    normed, raw = module(start, pyramid), plain(start, pyramid)
    head = module.box_heads[0]
    for index in range(3):
        assert torch.equal(normed.references[index], raw.references[index])
        assert torch.allclose(normed.query_feats[index], module.norm(raw.query_feats[index]))
        boxes = refine_boxes(head(normed.query_feats[index]), raw.references[index])
        assert torch.allclose(normed.boxes[index], boxes)


def test_positions_can_follow_the_references_on_the_padded_image() -> None:
    position = ReferencePosition(embed_dim=8)
    module = decoder(query_position=position, num_layers=2)
    start, pyramid = queries(), memory()
    seen: list[Tensor] = []
    position.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    decoded = module(Queries(start.query_feats, None, start.references), pyramid)
    for boxes, references in zip(seen, decoded.references):
        ratios = pyramid.valid_ratios[:, 0].repeat(1, 2)
        assert torch.allclose(boxes, references * ratios[:, None])
    assert float(pyramid.valid_ratios[1, 0, 0]) == pytest.approx(7 / 8)


def test_positions_begin_with_y() -> None:
    module = ReferencePosition(embed_dim=8)
    box = torch.tensor([0.1, 0.2, 0.3, 0.4])
    code = []
    for number in (0.2, 0.1, 0.3, 0.4):
        for frequency in (1.0, 0.01):
            angle = 2 * math.pi * number * frequency
            code += [math.sin(angle), math.cos(angle)]
    assert torch.allclose(module(box), module.mlp(torch.tensor(code)), atol=1e-6)


def test_masked_queries_do_not_see_each_other() -> None:
    module, start, pyramid = decoder().eval(), queries(), memory()
    attend = torch.zeros(5, 5, dtype=torch.bool)
    attend[:3, :3] = attend[3:, 3:] = True
    alone = Queries(start.query_feats[:, :3], start.query_pos[:, :3], start.references[:, :3])  # type: ignore[index]
    together = module(start, pyramid, attend)
    single = module(alone, pyramid)
    assert torch.allclose(together.boxes[-1][:, :3], single.boxes[-1], atol=1e-6)
    assert not torch.allclose(module(start, pyramid).boxes[-1][:, :3], single.boxes[-1], atol=1e-6)


def test_queries_of_proposals_take_position_and_content_from_the_box() -> None:
    references = torch.rand(2, 5, 4)
    plain = ProposalQueries(embed_dim=8)
    made = plain(references)
    whole = plain.norm(plain.linear(sine_box_encoding(references, embed_dim=16)))
    assert made.query_pos is not None
    assert torch.equal(torch.cat((made.query_pos, made.query_feats), dim=-1), whole)
    mixed = ProposalQueries(embed_dim=8, num_learned=7)
    assert mixed.content is not None
    assert torch.equal(mixed(references).query_feats[1], mixed.content.weight[:5])
    learned = LearnedContent(embed_dim=8, num_queries=6)(references)
    assert learned.query_pos is None and learned.query_feats.shape == (2, 5, 8)


def test_learned_queries_train_their_reference_points() -> None:
    start = LearnedQueries(embed_dim=8, num_queries=5)
    decoder()(start(2), memory()).boxes[0].sum().backward()
    assert start.reference_points.weight.grad is not None
    assert start.reference_points.weight.grad.abs().sum() > 0
