"""Boxes that layer after layer improves (Deformable DETR, appendix A.4)."""

import torch
from torch import Tensor, nn

from queryseg.layers import MLP


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logits of numbers in [0, 1]; x and 1 - x count as `eps` at least.

    >>> inverse_sigmoid(torch.tensor([0.5, 0.0, 2.0]))
    tensor([  0.0000, -11.5129,  11.5129])
    """
    x = x.clamp(0, 1)
    return (x.clamp(min=eps) / (1 - x).clamp(min=eps)).log()


def refine_boxes(deltas: Tensor, references: Tensor, eps: float = 1e-5) -> Tensor:
    """Move reference boxes, or give reference points a size.

    Args:
        deltas: (..., 4), added to the logits of the references.
        references: (..., 4) as cx, cy, w, h in [0, 1], or (..., 2) as cx, cy: then the size comes
            from the deltas alone.
        eps: bound of the references, as in `inverse_sigmoid`.

    Returns:
        (..., 4) boxes in [0, 1].
    """
    if references.shape[-1] == 4:
        return (deltas + inverse_sigmoid(references, eps)).sigmoid()
    centres, sizes = deltas.split(2, dim=-1)
    return torch.cat((centres + inverse_sigmoid(references, eps), sizes), dim=-1).sigmoid()


def box_head(embed_dim: int, size_bias: float = 0.0) -> MLP:
    """Three linear layers that give the change of a box: at first none.

    Args:
        embed_dim: C of the queries.
        size_bias: change of width and height at first; -2 where references are points.
    """
    head = MLP(input_dim=embed_dim, hidden_dim=embed_dim, output_dim=4, num_layers=3)
    last = head.layers[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    nn.init.constant_(last.bias[2:], size_bias)
    return head
