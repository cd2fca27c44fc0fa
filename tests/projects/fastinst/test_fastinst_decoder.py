"""The decoder's order of updates, its guided pass and its heads."""

import pytest
import torch

from queryseg.projects.fastinst.build import build_positions, build_queries
from queryseg.projects.fastinst.decoder import FastInstDecoder
from queryseg.projects.fastinst.dual_path_layer import UPDATES, DualPathLayer

PYRAMID = [torch.randn(2, 8, 8, 12), torch.randn(2, 8, 4, 6), torch.randn(2, 8, 2, 3)]


def _decoder(num_layers: int = 2, **options: object) -> FastInstDecoder:
    shared = {"embed_dim": 8, "num_queries": 5}
    return FastInstDecoder(
        queries=build_queries(kind="activation", num_classes=3, **shared),
        positions=build_positions(kind="learned", **shared),
        embed_dim=8,
        num_classes=3,
        num_layers=num_layers,
        num_aux_queries=2,
        num_heads=2,
        ffn_dim=16,
        **options,
    )


@pytest.mark.parametrize("update", UPDATES)
def test_second_update_reads_what_the_first_has_written(update: str) -> None:
    layer = DualPathLayer(embed_dim=8, num_heads=2, ffn_dim=16, update=update)
    query, pixel = torch.randn(2, 5, 8), torch.randn(2, 7, 8)
    query_pos, pixel_pos = torch.randn(2, 5, 8), torch.randn(1, 7, 8)
    attend = torch.rand(2, 1, 5, 7) > 0.3
    attend[..., 0] = True
    q, x = query, pixel
    for part in {"pixel_then_query": "xq", "query_then_pixel": "qx"}.get(update, update[0]):
        if part in "xp":
            x = layer.pixel_update.cross_attention(
                x, q, position=pixel_pos, memory_position=query_pos
            )
            x = layer.pixel_update.ffn(x)
        else:
            q = layer.query_update.cross_attention(
                q, x, position=query_pos, memory_position=pixel_pos, attend_mask=attend
            )
            q = layer.query_update.self_attention(q, position=query_pos)
            q = layer.query_update.ffn(q)
    output = layer(query, pixel, query_pos, pixel_pos, attend)
    torch.testing.assert_close(output, (q, x))


def test_unknown_update_is_refused() -> None:
    with pytest.raises(ValueError, match="update is 'both'; expected one of pixel_then_query"):
        _decoder(update="both")


def test_masks_are_dot_products_of_query_and_pixel_embeddings() -> None:
    decoder = _decoder(num_layers=0)
    decoded = decoder(PYRAMID)
    head = decoder.heads[0]
    queries = head.mask_embed(head.query_norm(decoded.queries.feats))
    pixels = head.mask_features(PYRAMID[0].permute(0, 2, 3, 1))
    expected = torch.einsum("bqc,bhwc->bqhw", queries, pixels)
    torch.testing.assert_close(decoded.final.mask_logits, expected)


def test_evaluation_classifies_with_the_last_head_only() -> None:
    decoder = _decoder().eval()
    predictions = decoder(PYRAMID).predictions
    assert [p.class_logits is not None for p in predictions] == [False, False, True]
    assert all(p.class_logits is not None for p in decoder.train()(PYRAMID).predictions)


def test_pixel_updates_alone_need_no_masks_between_layers() -> None:
    decoder = _decoder(update="pixel_only").eval()
    assert not decoder.uses_masks
    assert len(decoder(PYRAMID).predictions) == 1
    assert len(decoder.train()(PYRAMID).predictions) == 3


def test_layer_sees_the_mask_of_the_head_before_it() -> None:
    decoder = _decoder()
    seen = []
    for layer in decoder.layers:
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[4]))
    predictions = decoder(PYRAMID).predictions
    for attend, prediction in zip(seen, predictions):
        inside = prediction.mask_logits.flatten(2) >= 0
        inside[~inside.any(-1)] = True
        assert torch.equal(attend[:, 0, :5], inside)
        assert attend[:, 0, 5:].all()


def test_guided_runs_start_from_the_normal_pass_and_do_not_feed_each_other() -> None:
    decoder = _decoder()
    decoded = decoder(PYRAMID)
    attend = torch.rand(2, 5, 96) > 0.5
    guided = decoder.guided(decoded, attend)
    assert len(guided) == 2
    mask = torch.cat((attend, torch.ones(2, 2, 96, dtype=torch.bool)), dim=1)[:, None]
    for index, prediction in enumerate(guided):
        streams = decoded.streams[index]
        query, pixel = decoder.layers[index](
            streams.query_feats, streams.pixel_feats, streams.query_pos, streams.pixel_pos, mask
        )
        again = decoder.heads[index + 1](query[:, :5], pixel, (8, 12), with_classes=True)
        torch.testing.assert_close(prediction.mask_logits, again.mask_logits)
        torch.testing.assert_close(prediction.class_logits, again.class_logits)


def test_auxiliary_queries_change_the_result_but_predict_nothing() -> None:
    decoder = _decoder()
    before = decoder(PYRAMID).final
    assert before.mask_logits.shape == (2, 5, 8, 12)
    assert before.class_logits is not None and before.class_logits.shape == (2, 5, 4)
    with torch.no_grad():
        decoder.aux_feats.weight.mul_(3.0)
    assert not torch.allclose(decoder(PYRAMID).final.mask_logits, before.mask_logits)
