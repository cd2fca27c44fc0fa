"""Names of ImageNet backbones that Detectron1 published."""

from typing import IO, Any

from detectron2._subset import NeedsRealDetectron2
from detectron2.utils.file_io import PathHandler, PathManager

__all__ = ["ModelCatalog", "ModelCatalogHandler"]


class ModelCatalog:
    """Addresses by name. The batch norms of these files are fused into affine layers."""

    S3_C2_DETECTRON_PREFIX = "https://dl.fbaipublicfiles.com/detectron"
    C2_IMAGENET_MODELS: dict[str, str] = {  # noqa: RUF012
        "MSRA/R-50": "ImageNetPretrained/MSRA/R-50.pkl",
        "MSRA/R-101": "ImageNetPretrained/MSRA/R-101.pkl",
        "FAIR/R-50-GN": "ImageNetPretrained/47261647/R-50-GN.pkl",
        "FAIR/R-101-GN": "ImageNetPretrained/47592356/R-101-GN.pkl",
        "FAIR/X-101-32x8d": "ImageNetPretrained/20171220/X-101-32x8d.pkl",
        "FAIR/X-101-64x4d": "ImageNetPretrained/FBResNeXt/X-101-64x4d.pkl",
        "FAIR/X-152-32x8d-IN5k": "ImageNetPretrained/25093814/X-152-32x8d-IN5k.pkl",
    }

    @staticmethod
    def get(name: str) -> str:
        """Address of the file called `name` ("ImageNetPretrained/MSRA/R-50")."""
        kind, _, model = name.partition("/")
        if kind == "Caffe2Detectron":
            raise NeedsRealDetectron2(f"Model {name}")
        if kind != "ImageNetPretrained" or model not in ModelCatalog.C2_IMAGENET_MODELS:
            raise RuntimeError(f"The catalog has no model {name!r}.")
        return f"{ModelCatalog.S3_C2_DETECTRON_PREFIX}/{ModelCatalog.C2_IMAGENET_MODELS[model]}"


class ModelCatalogHandler(PathHandler):
    """Reads `catalog://<name>`."""

    PREFIX = "catalog://"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        address = ModelCatalog.get(path.removeprefix(self.PREFIX))
        return PathManager.get_local_path(address, force=force, **kwargs)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        return PathManager.open(self._get_local_path(path), mode, buffering=buffering, **kwargs)


PathManager.register_handler(ModelCatalogHandler())
