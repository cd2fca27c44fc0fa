"""Table 1's shares on masks whose errors are known."""

import torch
from detectron2.structures import BitMasks

from queryseg.tools.analyze_incoherence import Counts, fill_with_truth


def test_errors_along_an_odd_edge_lie_inside_and_are_filled() -> None:
    truth = torch.zeros(1, 112, 112, dtype=torch.bool)
    truth[:, :, :50] = True  # column 25 of 56 is odd: cells 24 and 25 make an incoherent column
    boxes = torch.tensor([[0.0, 0, 112, 112]])
    coarse = torch.zeros(1, 1, 112, 112)
    coarse[..., :48] = 1.0  # wrong in columns 48 and 49
    counts = Counts()
    filled = fill_with_truth(coarse, BitMasks(truth), boxes, counts)
    assert torch.equal(filled[:, 0] >= 0.5, truth)
    assert (counts.cells, counts.incoherent) == (112 * 112, 4 * 112)
    shares = counts.shares()
    assert shares["area"] == 100 * 4 / 112
    assert shares["errors inside"] == 100
    assert shares["accuracy inside"] == 50
    coarse[..., 90:92] = 1.0  # wrong outside of the region: stays wrong
    counts = Counts()
    filled = fill_with_truth(coarse, BitMasks(truth), boxes, counts)
    assert counts.shares()["errors inside"] == 50
    assert (filled[..., 90:92] == 1).all()
