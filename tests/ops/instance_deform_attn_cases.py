"""Inputs for the tests of instance_deform_attn, and implementations that share no code with it."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from queryseg.ops.instance_deform_attn import instance_deform_attn, num_dynamic_weights


@dataclass
class Case:
    """Arguments of one call."""

    mask_feats: Tensor
    dynamic_weights: Tensor
    row_codes: Tensor
    column_codes: Tensor
    heads: int
    points: int
    image_index: Tensor | None
    valid_sizes: Tensor | None

    def call(self) -> Tensor:
        return instance_deform_attn(
            self.mask_feats,
            self.dynamic_weights,
            self.row_codes,
            self.column_codes,
            heads=self.heads,
            points=self.points,
            image_index=self.image_index,
            valid_sizes=self.valid_sizes,
        )

    def arguments(self) -> tuple:
        """Of the registered operator."""
        return (
            self.mask_feats,
            self.dynamic_weights,
            self.row_codes,
            self.column_codes,
            self.image_index,
            self.valid_sizes,
            self.heads,
            self.points,
        )

    def trainable(self) -> "Case":
        return replace(
            self,
            mask_feats=self.mask_feats.detach().requires_grad_(),
            dynamic_weights=self.dynamic_weights.detach().requires_grad_(),
        )

    def to(self, dtype: torch.dtype, feats_dtype: torch.dtype | None = None) -> "Case":
        return replace(
            self,
            mask_feats=self.mask_feats.to(feats_dtype or dtype),
            dynamic_weights=self.dynamic_weights.to(dtype),
            row_codes=self.row_codes.to(dtype),
            column_codes=self.column_codes.to(dtype),
        )

    def layers(self) -> tuple[Tensor, ...]:
        """(N, M, K, 2, C), (N, M, K, 2), (N, M, K, C), (N, M, K), (N, C), (N,)."""
        channels, heads, points = self.mask_feats.shape[3], self.heads, self.points
        shapes = [
            (heads, points, 2, channels),
            (heads, points, 2),
            (heads, points, channels),
            (heads, points),
            (channels,),
            (),
        ]
        parts, start = [], 0
        for shape in shapes:
            size = math.prod(shape)
            parts.append(self.dynamic_weights[:, start : start + size].unflatten(1, (*shape, 1)))
            start += size
        return tuple(part.squeeze(-1) for part in parts)


def make_case(
    seed: int,
    *,
    batch: int = 2,
    instances: int = 3,
    height: int = 4,
    width: int = 5,
    channels: int = 4,
    row_channels: int | None = None,
    heads: int = 2,
    points: int = 2,
    padded: bool = True,
    dtype: torch.dtype = torch.float64,
) -> Case:
    """Everything of order one; offsets of a few pixels, so that many samples leave the map."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)

    def whole(low: int, high: int, *size: int) -> Tensor:
        return torch.randint(low, high + 1, size, generator=generator)

    rows = channels // 2 if row_channels is None else row_channels
    sizes = torch.stack(
        [whole((height + 1) // 2, height, batch), whole((width + 1) // 2, width, batch)], 1
    )
    weights = normal(instances, num_dynamic_weights(channels, heads, points))
    return Case(
        normal(batch, height, width, channels),
        weights * (2 / channels) ** 0.5,
        normal(instances, height + 1, rows),
        normal(instances, width + 1, channels - rows),
        heads,
        points,
        whole(0, batch - 1, instances) if batch > 0 else torch.zeros(0, dtype=torch.int64),
        sizes if padded else None,
    )


def random_case(seed: int) -> Case:
    """Any number of images, instances, channels, heads and points, of any map, in any layout."""
    generator = torch.Generator().manual_seed(10_000 + seed)

    def pick(*options: int) -> int:
        return options[int(torch.randint(len(options), (), generator=generator))]

    heads = pick(1, 2, 3, 4, 8)
    channels = heads * pick(1, 2, 3, 4, 8)
    soit = seed % 4 == 0
    batch = pick(0, 1, 1, 2, 3, 7)
    case = make_case(
        seed,
        batch=batch,
        instances=pick(0, 1, 2, 5) if batch else 0,
        height=pick(1, 1, 2, 7, 11),
        width=pick(1, 3, 8, 17, 33),
        channels=8 if soit else channels,
        row_channels=None if soit else pick(0, channels // 2, channels),
        heads=4 if soit else heads,
        points=4 if soit else pick(1, 2, 3, 4, 6, 9),
        padded=bool(pick(0, 1)),
    )
    layout = pick(0, 1, 2)
    if layout == 1:  # as a convolution leaves its output
        case.mask_feats = case.mask_feats.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        case.dynamic_weights = case.dynamic_weights.T.contiguous().T
    elif layout == 2:
        case.mask_feats = torch.stack([case.mask_feats, case.mask_feats], dim=-1)[..., 1]
        case.row_codes = torch.cat([case.row_codes, case.row_codes], dim=1)[
            :, case.row_codes.shape[1] :
        ]
        if case.image_index is not None:
            case.image_index = case.image_index.repeat_interleave(2)[::2]
    return case


def naive(case: Case) -> Tensor:
    """The definition, one scalar at a time."""
    _, height, width, channels = case.mask_feats.shape
    share = channels // case.heads
    w_offset, b_offset, w_attn, b_attn, w_out, b_out = case.layers()
    logits = torch.zeros(case.dynamic_weights.shape[0], height, width, dtype=torch.float64)
    for n in range(logits.shape[0]):
        image = 0 if case.image_index is None else int(case.image_index[n])
        tall, wide = (
            (height, width) if case.valid_sizes is None else case.valid_sizes[image].tolist()
        )
        feats = case.mask_feats[image]
        for row in range(height):
            for column in range(width):
                by_row = case.row_codes[n, row if column < wide else height]
                by_column = case.column_codes[n, column if row < tall else width]
                z = feats[row, column] + torch.cat([by_row, by_column])
                logit = b_out[n].item()
                for m in range(case.heads):
                    scores = [
                        math.exp(w_attn[n, m, k] @ z + b_attn[n, m, k]) for k in range(case.points)
                    ]
                    h = torch.zeros(share, dtype=torch.float64)
                    for k in range(case.points):
                        dx, dy = (w_offset[n, m, k] @ z + b_offset[n, m, k]).tolist()
                        x, y = column + dx, row + dy
                        for r in (math.floor(y), math.floor(y) + 1):
                            for c in (math.floor(x), math.floor(x) + 1):
                                if 0 <= r < tall and 0 <= c < wide:
                                    near = (1 - abs(y - r)) * (1 - abs(x - c))
                                    pixel = feats[r, c, m * share : (m + 1) * share]
                                    h += scores[k] / sum(scores) * near * pixel
                    logit += float(h.clamp(min=0) @ w_out[n, m * share : (m + 1) * share])
                logits[n, row, column] = logit
    return logits


BUGS = (
    "corners aligned",
    "border repeated",
    "x and y swapped",
    "height and width swapped",
    "nearest pixel",
    "weights of another head",
    "half pixel shifted",
    "wrong image",
    "padding ignored",
    "no ReLU",
    "values with codes",
    "softmax over all heads",
    "padded codes ignored",
)


def gathered(case: Case, bug: str = "") -> Tensor:
    """All instances at once by indexing, with autograd; with one of `BUGS` when asked."""
    batch, height, width, channels = case.mask_feats.shape
    instances, heads, share = case.dynamic_weights.shape[0], case.heads, channels // case.heads
    w_offset, b_offset, w_attn, b_attn, w_out, b_out = case.layers()
    image = torch.zeros(instances, dtype=torch.long)
    if case.image_index is not None:
        image = case.image_index
    if bug == "wrong image":
        image = (image + 1) % batch
    sizes = torch.tensor([[height, width]] * batch)
    if case.valid_sizes is not None and bug != "padding ignored":
        sizes = case.valid_sizes
    tall, wide = (size.view(-1, 1, 1) for size in sizes[image].unbind(1))
    rows, columns = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
    code_row = torch.where(columns < wide, rows, height)
    code_column = torch.where(rows < tall, columns, width)
    if bug == "padded codes ignored":
        code_row, code_column = rows.expand_as(code_row), columns.expand_as(code_column)
    each = torch.arange(instances).view(-1, 1, 1)
    codes = torch.cat([case.row_codes[each, code_row], case.column_codes[each, code_column]], -1)
    feats = case.mask_feats[image]
    queries = feats + codes
    offsets = torch.einsum("nhwc,nmkdc->nhwmkd", queries, w_offset) + b_offset[:, None, None]
    scores = torch.einsum("nhwc,nmkc->nhwmk", queries, w_attn) + b_attn[:, None, None]
    if bug == "softmax over all heads":
        attn = scores.flatten(3).softmax(-1).view_as(scores)
    else:
        attn = scores.softmax(-1)
    if bug == "weights of another head":
        attn = attn.roll(1, 3)
    if bug == "x and y swapped":
        offsets = offsets.flip(-1)
    x = columns[..., None, None] + offsets[..., 0]
    y = rows[..., None, None] + offsets[..., 1]
    if bug == "half pixel shifted":
        x, y = x - 0.5, y - 0.5
    elif bug == "corners aligned":
        x, y = x * (width - 1) / width, y * (height - 1) / height
    elif bug == "nearest pixel":
        x, y = x.round(), y.round()
    values = (queries if bug == "values with codes" else feats).unflatten(3, (heads, share))
    tall, wide = tall[..., None, None], wide[..., None, None]
    if bug == "height and width swapped":
        tall, wide = wide, tall
    n, m = each[..., None, None], torch.arange(heads).view(1, 1, 1, -1, 1)
    hidden = values.new_zeros(instances, height, width, heads, share)
    for down in (0, 1):
        for right in (0, 1):
            r, c = y.floor().long() + down, x.floor().long() + right
            near = (1 - (y - r).abs()) * (1 - (x - c).abs())
            visible = (r >= 0) & (r < tall) & (c >= 0) & (c < wide)
            if bug == "border repeated":
                visible = torch.ones_like(visible)
                r, c = r.clamp(min=0).minimum(tall - 1), c.clamp(min=0).minimum(wide - 1)
            sample = values[n, r.clamp(0, height - 1), c.clamp(0, width - 1), m]
            hidden = hidden + ((attn * near * visible).unsqueeze(-1) * sample).sum(4)
    hidden = hidden if bug == "no ReLU" else hidden.relu()
    return torch.einsum("nhwc,nc->nhw", hidden.flatten(3), w_out) + b_out.view(-1, 1, 1)


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Of the whole tensors, in the L2 norm; zero if both are empty or zero."""
    expected = expected.double()
    scale = expected.norm().item()
    difference = (got.double() - expected).norm().item()
    return difference / scale if scale > 0 else difference
