"""Names of published checkpoints and where they are published; nothing here opens a connection."""

import difflib
from functools import cache

from queryseg.checkpoint.errors import CheckpointError
from queryseg.project_modules import project_modules

ZOO_PREFIX = "zoo://"

_DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/"
_TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/"
_SWIN = "https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
_COCO_SEGMENTATION = _DETECTRON2 + "COCO-InstanceSegmentation/"

# What several methods start from. The files of a method are listed in its `convert.RELEASES`.
SHARED_RELEASES = {
    "resnet50-torchvision": _DETECTRON2 + "ImageNetPretrained/torchvision/R-50.pkl",
    "resnet50-msra": _DETECTRON2 + "ImageNetPretrained/MSRA/R-50.pkl",
    "resnet101-msra": _DETECTRON2 + "ImageNetPretrained/MSRA/R-101.pkl",
    "resnet101-torchvision": "https://download.pytorch.org/models/resnet101-63fe2227.pth",
    "resnet50d-timm": _TIMM + "resnet50d_ra2-464e36ba.pth",
    "swin_tiny": _SWIN + "swin_tiny_patch4_window7_224.pth",
    "swin_small": _SWIN + "swin_small_patch4_window7_224.pth",
    "swin_base-22k": _SWIN + "swin_base_patch4_window7_224_22k.pth",
    "swin_large-22k": _SWIN + "swin_large_patch4_window7_224_22k.pth",
    "swin_large-384-22k": _SWIN + "swin_large_patch4_window12_384_22k.pth",
    "mask_rcnn_R_50_FPN_1x": _COCO_SEGMENTATION
    + "mask_rcnn_R_50_FPN_1x/137260431/model_final_a54504.pkl",
    "mask_rcnn_R_50_FPN_3x": _COCO_SEGMENTATION
    + "mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl",
    "mask_rcnn_R_101_FPN_3x": _COCO_SEGMENTATION
    + "mask_rcnn_R_101_FPN_3x/138205316/model_final_a3ec72.pkl",
}


@cache
def known_releases() -> dict[str, str]:
    """Name -> address of every checkpoint that can be asked for as `zoo://<name>`."""
    releases = dict(SHARED_RELEASES)
    for module in project_modules("convert"):
        releases.update(getattr(module, "RELEASES", {}))
    return releases


def resolve_zoo_name(path: str) -> str:
    """The address of `zoo://<name>`; any other path as it is.

    Raises:
        CheckpointError: there is no such name; the message has the nearest ones.
    """
    if not path.startswith(ZOO_PREFIX):
        return path
    name = path.removeprefix(ZOO_PREFIX)
    releases = known_releases()
    if name not in releases:
        near = difflib.get_close_matches(name, releases, n=3, cutoff=0.4) or sorted(releases)
        raise CheckpointError(
            f"{path} is not in the model zoo; known are, for example: {', '.join(near)}."
        )
    return releases[name]
