"""Positions of queries from the boxes they refer to."""

from torch import Tensor, nn

from queryseg.layers import MLP, sine_box_encoding


class ReferencePosition(nn.Module):
    """Query positions that follow the boxes from layer to layer (DAB-DETR, DINO).

    Weights start Xavier-uniform, like all matrices of the official Transformer.

    Args:
        embed_dim: C.
        temperature: of the sines.
    """

    def __init__(self, *, embed_dim: int = 256, temperature: float = 10000.0) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.temperature = temperature
        self.mlp = MLP(
            input_dim=2 * embed_dim, hidden_dim=embed_dim, output_dim=embed_dim, num_layers=2
        )
        for parameter in self.mlp.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, references: Tensor) -> Tensor:
        """(B, Q, 4) boxes in [0, 1] of the padded image to (B, Q, C)."""
        yxwh = references[..., [1, 0, 2, 3]]
        code = sine_box_encoding(yxwh, embed_dim=2 * self.embed_dim, temperature=self.temperature)
        return self.mlp(code.to(next(self.mlp.parameters()).dtype))
