"""ROIAlign as a module."""

from torch import Tensor, nn
from torchvision.ops import roi_align

__all__ = ["ROIAlign", "roi_align"]


class ROIAlign(nn.Module):
    """Average bilinear samples of a feature map over the cells of each box.

    Args:
        output_size: (height, width) of the cell grid.
        spatial_scale: boxes are multiplied by this first (1 / stride of the feature map).
        sampling_ratio: samples per cell and axis; 0 = as many as there are pixels.
        aligned: pixel centres lie at +0.5, so boxes are shifted by -0.5 pixel before sampling.
            `False` keeps the half-pixel error of the first Detectron. (torchvision's own default.)
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = True,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Pool `rois` (N, 5), each (image index, x1, y1, x2, y2), out of `input` (B, C, H, W).

        Returns:
            (N, C, output height, output width) in the dtype of `input`.
        """
        assert rois.dim() == 2 and rois.size(1) == 5, f"expected (N, 5), got {tuple(rois.shape)}"
        return roi_align(
            input,
            rois.to(input.dtype),
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
        )

    def extra_repr(self) -> str:
        """The four arguments, as the constructor takes them."""
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )
