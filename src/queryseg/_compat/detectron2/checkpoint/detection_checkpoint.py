"""A checkpointer that also reads the model zoo's files."""

import logging
import os
from typing import Any
from urllib.parse import parse_qs, urlparse

import torch.distributed as dist
from fvcore.common.checkpoint import Checkpointer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detectron2._subset import NeedsRealDetectron2
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

__all__ = ["DetectionCheckpointer"]


class DetectionCheckpointer(Checkpointer):
    """fvcore's `Checkpointer` for detection models.

    It reads `.pth` files and Detectron2's and Caffe2's `.pkl` files, without running what is
    pickled in them. `path?matching_heuristics=True` matches names by their endings. In a
    distributed run only the main process needs to see the file.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        """Keep what is saved and loaded.

        Args:
            model: the model; fvcore looks through a parallel wrapper.
            save_dir: where to save; "" saves nothing.
            save_to_disk: whether this process saves; only the main one does unless given.
            checkpointables: further objects with `state_dict` and `load_state_dict`.
        """
        if save_to_disk is None:
            save_to_disk = comm.is_main_process()
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.path_manager = PathManager
        self._is_distributed = isinstance(model, DistributedDataParallel)
        self._match_names = False

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load model and checkpointables from a path or URL, and return what else is in the file.

        Raises:
            OSError: the main process of a distributed run does not see the file.
            ValueError: the path has a query other than `?matching_heuristics=True`.
        """
        logging.getLogger(__name__).info("[DetectionCheckpointer] Loading from %s ...", path)
        self._match_names = False
        if path:
            path = self._split_query(path)
            path = self.path_manager.get_local_path(path)
        all_see_it = True
        if path and self._is_distributed:
            seen = comm.all_gather(os.path.isfile(path))
            if not seen[0]:
                raise OSError(f"File {path} not found on main worker.")
            all_see_it = all(seen)
            path = path if seen[comm.get_rank()] else ""
        rest = super().load(path, *args, **kwargs)
        if not all_see_it:
            self._broadcast_model()
        return rest

    def _split_query(self, path: str) -> str:
        url = urlparse(path)
        queries = parse_qs(url.query)
        self._match_names = queries.pop("matching_heuristics", ["False"]) == ["True"]
        if queries:
            raise ValueError(f"Unsupported query {queries} in {path}.")
        return url._replace(query="").geturl()

    def _broadcast_model(self) -> None:
        self.logger.warning("Not all processes see the checkpoint: they get rank 0's parameters.")
        for value in self.model.state_dict().values():
            dist.broadcast(value, src=0)

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".pyth"):
            raise NeedsRealDetectron2(f"Reading {filename}, a file of pycls,")
        content = self._torch_load(filename)
        if filename.endswith(".pkl"):
            if "model" in content and "__author__" in content:
                self.logger.info("Reading a file from %s", content["__author__"])
                return content
            blobs = content.get("blobs", content)
            weights = {k: v for k, v in blobs.items() if not k.endswith("_momentum")}
            return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}
        if "model" not in content:
            content = {"model": content}
        if self._match_names:
            content["matching_heuristics"] = True
        return content

    def _torch_load(self, filename: str) -> Any:
        from queryseg.checkpoint.safe_reading import read_checkpoint_file  # it imports this module

        return read_checkpoint_file(filename)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        if checkpoint.get("matching_heuristics", False):
            self._convert_ndarray_to_tensor(checkpoint["model"])
            checkpoint["model"] = align_and_update_state_dicts(
                self.model.state_dict(),
                checkpoint["model"],
                c2_conversion=checkpoint.get("__author__") == "Caffe2",
            )
        incompatible = super()._load_model(checkpoint)
        # The config sets the pixel statistics, and anchors are no longer saved.
        own_buffers = dict(self.model.named_buffers(recurse=False))
        incompatible.missing_keys[:] = [
            key
            for key in incompatible.missing_keys
            if not (key in ("pixel_mean", "pixel_std") and key in own_buffers)
        ]
        incompatible.unexpected_keys[:] = [
            key
            for key in incompatible.unexpected_keys
            if "anchor_generator.cell_anchors" not in key
        ]
        return incompatible
