"""Selection, positions, labels and packing of quadtree nodes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from queryseg.ops.packed_sequences import PackedSequences
from queryseg.ops.quadtree import (
    QuadtreeNodes,
    incoherent_masks,
    look_up_positions,
    propagate_labels,
    select_nodes,
    sine_position_table,
    write_labels,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "mask_transfiner"


def random_masks(seed: int, instances: int = 3, sizes=(2, 4, 8)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(instances, 1, size, size, generator=generator) < 0.3 for size in sizes]


@pytest.mark.parametrize("seed", range(5))
def test_selects_what_loops_over_instances_levels_and_pixels_select(seed):
    masks = random_masks(seed, instances=1 + seed)
    nodes = select_nodes(masks)
    expected = [
        (i, y, x, level)
        for i in range(1 + seed)
        for level, mask in enumerate(masks)
        for y in range(mask.shape[2])
        for x in range(mask.shape[3])
        if mask[i, 0, y, x]
    ]
    got = torch.cat([nodes.index, nodes.level.unsqueeze(1)], 1).tolist()
    assert got == [list(one) for one in expected]
    counts = [[int(mask[i].sum()) for mask in masks] for i in range(1 + seed)]
    assert nodes.counts.tolist() == counts
    assert nodes.lengths.tolist() == [sum(one) for one in counts]
    assert nodes.grid_sizes == (2, 4, 8)


@pytest.mark.parametrize("instances", [0, 2])
def test_no_incoherent_pixel_gives_no_node(instances):
    masks = [torch.zeros(instances, 1, size, size, dtype=torch.bool) for size in (2, 4)]
    nodes = select_nodes(masks)
    assert nodes.index.shape == (0, 3)
    assert nodes.counts.tolist() == [[0, 0]] * instances
    coarse = torch.rand(instances, 1, 2, 2)
    refined = propagate_labels(coarse, nodes, torch.zeros(0))
    assert refined.shape == (instances, 1, 4, 4)


def test_thresholds_apply_to_repeated_pixels():
    incoherence = torch.rand(2, 1, 4, 4)
    incoherence[0, 0, 1, 2] = 0.5
    masks = incoherent_masks(incoherence, [4, 8, 16], [0.1, 0.5, 0.7])
    for mask, threshold, times in zip(masks, (0.1, 0.5, 0.7), (1, 2, 4), strict=True):
        for y in range(4 * times):
            for x in range(4 * times):
                expected = incoherence[:, 0, y // times, x // times] >= threshold
                assert torch.equal(mask[:, 0, y, x], expected)


def test_golden_positions_of_all_grids():
    golden = np.load(GOLDEN / "pos_embed.npz")
    grids = (14, 28, 56, 112)
    table = sine_position_table(grids, 256)
    index = [torch.cartesian_prod(torch.zeros(1).long(), torch.arange(14), torch.arange(14))]
    level = [torch.zeros(196, dtype=torch.long)]
    expected = [golden["pos14_full"].reshape(256, 196)]
    for number, grid in enumerate(grids[1:], 1):
        index.append(torch.tensor([[0, 0, x] for x in range(grid)]))
        level.append(torch.full((grid,), number))
        expected.append(golden[f"pos{grid}_row0"])
    nodes = QuadtreeNodes(torch.cat(index), torch.cat(level), torch.zeros(1, 4).long(), grids)
    positions = look_up_positions(nodes, table)
    assert (positions.T - torch.from_numpy(np.concatenate(expected, 1))).abs().max() < 1e-5


def test_positions_follow_the_sine_formula():
    table = sine_position_table([5], 8)
    for j in range(5):
        angle = (j + 1) / (5 + 1e-6) * 2 * math.pi
        expected = [math.sin(angle), math.cos(angle), math.sin(angle / 100), math.cos(angle / 100)]
        assert torch.allclose(table[j], torch.tensor(expected), atol=1e-6)


def test_golden_propagation_of_the_official_head():
    golden = np.load(GOLDEN / "propagation_two_boxes.npz")
    logits, classes = torch.from_numpy(golden["coarse_logits"]), golden["pred_classes"]
    coarse = logits[torch.arange(2), torch.from_numpy(classes)].sigmoid().unsqueeze(1)
    incoherence = torch.from_numpy(golden["incoherence"])
    nodes = select_nodes(incoherent_masks(incoherence, [28, 56, 112], [1e-6, 0.125, 0.8]))
    assert nodes.lengths.tolist() == golden["n_per_box"].tolist()
    refined = propagate_labels(coarse, nodes, torch.from_numpy(golden["node_labels"]))
    assert (refined - torch.from_numpy(golden["pred_masks"])).abs().max() < 1e-6


def test_reference_tokens_do_not_change_the_masks():
    masks = random_masks(0, instances=2, sizes=(4, 8))
    nodes = select_nodes(masks)
    everywhere = torch.ones(2, 1, 2, 2, dtype=torch.bool)
    with_reference = select_nodes([everywhere, *masks])
    labels = torch.rand(len(with_reference.level))
    coarse = torch.rand(2, 1, 4, 4)
    expected = propagate_labels(coarse, nodes, labels[with_reference.level > 0])
    assert torch.equal(propagate_labels(coarse, with_reference, labels), expected)


def naive_nearest(coarse: torch.Tensor, nodes: QuadtreeNodes, labels: torch.Tensor):
    """Every finest pixel has the label of the finest node above it, else the coarse value."""
    size, finest = coarse.shape[-1], nodes.grid_sizes[-1]
    at = {
        (int(level), *index): label
        for index, level, label in zip(nodes.index.tolist(), nodes.level, labels)
    }
    output = torch.zeros(len(coarse), 1, finest, finest)
    for i in range(len(coarse)):
        for y in range(finest):
            for x in range(finest):
                value = coarse[i, 0, y * size // finest, x * size // finest]
                for level, grid in enumerate(nodes.grid_sizes):
                    key = (level, i, y * grid // finest, x * grid // finest)
                    value = at.get(key, value)
                output[i, 0, y, x] = value
    return output


def test_nearest_propagation_gives_each_pixel_the_finest_label_above_it():
    nodes = select_nodes(random_masks(1))
    coarse, labels = torch.rand(3, 1, 2, 2), torch.rand(len(nodes.level))
    refined = propagate_labels(coarse, nodes, labels, mode="nearest")
    assert torch.equal(refined, naive_nearest(coarse, nodes, labels))


def test_an_empty_middle_level_is_passed_over():
    masks = random_masks(2)
    masks[1][:] = False
    nodes = select_nodes(masks)
    coarse, labels = torch.rand(3, 1, 2, 2), torch.rand(len(nodes.level))
    expected = write_labels(coarse, nodes.index[nodes.level == 0], labels[nodes.level == 0])
    expected = torch.nn.functional.interpolate(
        expected, (8, 8), mode="bilinear", align_corners=True
    )
    finest = nodes.level == 2
    expected[nodes.index[finest, 0], 0, nodes.index[finest, 1], nodes.index[finest, 2]] = labels[
        finest
    ]
    assert torch.equal(propagate_labels(coarse, nodes, labels), expected)


def test_labels_are_differentiable_and_shadow_what_they_replace():
    nodes = select_nodes([torch.eye(3).view(1, 1, 3, 3) > 0])
    coarse = torch.rand(1, 1, 3, 3, requires_grad=True)
    labels = torch.rand(3, requires_grad=True)
    propagate_labels(coarse, nodes, labels).sum().backward()
    assert torch.equal(labels.grad, torch.ones(3))
    assert torch.equal(coarse.grad[0, 0], 1 - torch.eye(3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: select_nodes([]), "at least one"),
        (lambda: select_nodes([torch.zeros(1, 1, 2, 2)]), "bool"),
        (lambda: select_nodes([torch.zeros(1, 2, 2) > 0]), "masks must have shape"),
        (lambda: select_nodes([torch.zeros(1, 1, 2, 3) > 0]), "masks must have shape"),
        (lambda: select_nodes([*random_masks(0), *random_masks(0, instances=1)]), "equal N"),
        (lambda: incoherent_masks(torch.rand(1, 1, 4, 4), [4, 6], [0, 0]), "multiple of 4"),
        (lambda: incoherent_masks(torch.rand(1, 1, 4, 4), [4, 8], [0]), "threshold"),
        (lambda: incoherent_masks(torch.rand(1, 4, 4), [4], [0]), "incoherence must have"),
        (lambda: sine_position_table([4], 6), "multiple of 4"),
        (lambda: look_up_positions(select_nodes(random_masks(0)), torch.rand(13, 4)), "14 rows"),
        (lambda: propagate(torch.rand(3, 1, 3, 3)), "among"),
        (lambda: propagate(torch.rand(2, 1, 2, 2)), "3 instances"),
        (lambda: propagate(torch.rand(3, 1, 2, 2), labels=torch.rand(1)), "labels must have"),
        (lambda: propagate(torch.rand(3, 1, 2, 2), mode="bicubic"), "mode must be"),
        (lambda: PackedSequences.from_lengths(torch.tensor([1.0])), "int64"),
        (lambda: PackedSequences.from_lengths(torch.tensor([[1]])), r"\(N,\)"),
        (lambda: PackedSequences.from_lengths(torch.tensor([2, -1])), "negative"),
        (lambda: PackedSequences.from_lengths(torch.tensor([2])).pad(torch.ones(3)), "T = 2"),
        (
            lambda: PackedSequences.from_lengths(torch.tensor([2])).unpad(torch.ones(2, 2)),
            "padded must",
        ),
    ],
)
def test_malformed_calls_say_what_was_expected(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def propagate(coarse, labels=None, mode="bilinear"):
    nodes = select_nodes(random_masks(0))
    labels = torch.rand(len(nodes.level)) if labels is None else labels
    return propagate_labels(coarse, nodes, labels, mode=mode)


@pytest.mark.parametrize("lengths", [[3, 0, 5, 1], [2], [0, 0], []])
def test_packed_sequences_are_padded_and_unpadded(lengths):
    packed = PackedSequences.from_lengths(torch.tensor(lengths, dtype=torch.long))
    tokens = torch.rand(sum(lengths), 2, requires_grad=True)
    padded = packed.pad(tokens)
    longest = max(lengths, default=0)
    assert padded.shape == (len(lengths), longest, 2)
    for i, one in enumerate(tokens.split(lengths) if lengths else []):
        assert torch.equal(padded[i, : lengths[i]], one)
        assert not padded[i, lengths[i] :].any()
        assert packed.padding_mask[i].tolist() == [j >= lengths[i] for j in range(longest)]
    assert torch.equal(packed.unpad(padded), tokens)
    assert packed.offsets.tolist() == np.cumsum([0, *lengths]).tolist()
    packed.unpad(padded).sum().backward()
    assert torch.equal(tokens.grad, torch.ones_like(tokens))


def test_nested_sequences_share_the_packed_memory():
    packed = PackedSequences.from_lengths(torch.tensor([3, 1, 2]))
    tokens = torch.rand(6, 4)
    nested = packed.nested(tokens)
    assert nested.values().data_ptr() == tokens.data_ptr()
    for one, other in zip(nested.unbind(), tokens.split([3, 1, 2]), strict=True):
        assert torch.equal(one, other)
