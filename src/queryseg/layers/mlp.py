"""A stack of linear layers with ReLU between them."""

from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """`num_layers` linear layers, ReLU between them and none at the end.

    Args:
        input_dim: width of the input.
        hidden_dim: width between the layers.
        output_dim: width of the output.
        num_layers: number of linear layers, at least one.
    """

    def __init__(
        self, *, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int
    ) -> None:
        super().__init__()
        dims = [input_dim, *[hidden_dim] * (num_layers - 1), output_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """(..., input_dim) to (..., output_dim)."""
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)
