"""The checkpointer that the trainer and the tools use, with either Detectron2."""

import logging
import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from torch import nn

import queryseg
from queryseg.checkpoint.atomic_file import remove_unfinished, write_atomically
from queryseg.checkpoint.contents import STAMP_KEY, CheckpointContents, read_contents
from queryseg.checkpoint.errors import CheckpointError
from queryseg.checkpoint.loading import load_into
from queryseg.checkpoint.report import LoadReport
from queryseg.checkpoint.zoo import resolve_zoo_name

_QUERIES = ("matching_heuristics", "allow_partial")
_CONTENTS_KEY = "_contents"
_logger = logging.getLogger("queryseg.checkpoint")


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer with safe loading, a load report and atomic saving.

    It reads, by content, our own files, official releases (the projects' layouts), Detectron2 and
    Caffe2 model-zoo files, and torchvision or timm ResNets. A path may be a local file, a web
    address, `detectron2://...`, or `zoo://<name>`, and may end in `?allow_partial=True` or
    `?matching_heuristics=True`.

    Args:
        model: what to load into and save from; a parallel wrapper is looked through.
        save_dir: folder of the checkpoints.
        save_to_disk: whether this process writes; by default only the main one does.
        allow_partial: accept files that fill less than 95 % of the model.
        untagged: names of checkpoints that `--resume` shall not start from.
        **checkpointables: further objects with `state_dict` and `load_state_dict`.

    Attributes:
        last_report: the report of the last loading.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        allow_partial: bool = False,
        untagged: tuple[str, ...] = ("model_best",),
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.allow_partial = allow_partial
        self.untagged = untagged
        self.last_report: LoadReport | None = None
        self._options: dict[str, bool] = {}
        self._resuming = False

    def load(
        self, path: str | os.PathLike[str], checkpointables: list[str] | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint and log the report.

        Args:
            path: see the class; empty loads nothing.
            checkpointables: names of the further objects to load; None loads all that are there.

        Returns:
            What else the file holds (`iteration`, ...).

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: the file is unsafe, damaged, or does not fit the model.
        """
        if not path:
            return super().load("", checkpointables)
        file, self._options = _split_options(os.fspath(path))
        try:
            return super().load(self._fetch(file), checkpointables)
        finally:
            self._options = {}
            # Detectron2 forgets this after an error and would then refuse every further load.
            self._parsed_url_during_load = None

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from the last checkpoint where there is one, else load the weights of `path`.

        Resuming needs every parameter; a checkpoint that leaves one out is an error.
        """
        self._resuming = resume and self.has_checkpoint()
        try:
            return super().resume_or_load(path, resume=resume)
        finally:
            self._resuming = False

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `<save_dir>/<name>.pth` atomically and make it the one to resume from.

        Args:
            name: file name without ending.
            **kwargs: further entries of the file.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data |= {key: value.state_dict() for key, value in self.checkpointables.items()}
        data |= {**kwargs, STAMP_KEY: _stamp(self.model)}
        file = Path(self.save_dir, f"{name}.pth")
        _logger.info("Saving checkpoint to %s", file)
        remove_unfinished(file.parent)
        write_atomically(file, lambda stream: torch.save(data, stream))
        if name not in self.untagged:
            self.tag_last_checkpoint(file.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Note, atomically, which file `--resume` starts from."""
        tag = last_filename_basename.encode()
        write_atomically(Path(self.save_dir, "last_checkpoint"), lambda stream: stream.write(tag))

    def _fetch(self, file: str) -> str:
        """The local path of a file; under DDP only the main process must see it."""
        address = resolve_zoo_name(file)
        if "://" in address:
            return self._download(address)
        if not os.path.isfile(address) and comm.is_main_process():
            raise FileNotFoundError(_not_found_message(address, self.save_dir, self._resuming))
        return address

    def _download(self, address: str) -> str:
        try:
            return self.path_manager.get_local_path(address)
        except Exception as error:
            raise CheckpointError(
                f"{address} could not be fetched ({error}). Without network, download it elsewhere "
                "and give the path of the file."
            ) from error

    def _load_file(self, filename: str) -> dict[str, Any]:
        contents = read_contents(filename)
        contents.wants_matching |= self._options.get("matching_heuristics", False)
        return {**contents.extras, _CONTENTS_KEY: contents}

    def _load_model(self, checkpoint: dict[str, Any]) -> None:
        contents: CheckpointContents = checkpoint.pop(_CONTENTS_KEY)
        allow_partial = self.allow_partial or self._options.get("allow_partial", False)
        report = load_into(self.model, contents, allow_partial=allow_partial)
        self.last_report = report
        if self._resuming and not report.is_complete:
            raise CheckpointError(f"Cannot resume: the model has changed since.\n{report}")
        level = logging.INFO if report.is_complete else logging.WARNING
        _logger.log(level, "%s", report)


def _stamp(model: nn.Module) -> dict[str, str]:
    kind = type(model)
    return {"version": queryseg.__version__, "model": f"{kind.__module__}.{kind.__qualname__}"}


def _split_options(path: str) -> tuple[str, dict[str, bool]]:
    """`"a.pth?allow_partial=True"` -> `("a.pth", {"allow_partial": True})`."""
    file, mark, query = path.rpartition("?")
    if not mark or os.path.isfile(path):
        return path, {}
    options = {key: values[-1] == "True" for key, values in parse_qs(query).items()}
    unknown = sorted(set(options) - set(_QUERIES))
    if unknown or not options:
        raise CheckpointError(
            f"'?{query}' behind {file} is not understood; known are "
            + " and ".join(f"?{name}=True" for name in _QUERIES)
            + "."
        )
    return file, options


def _not_found_message(path: str, save_dir: str, resuming: bool) -> str:
    folder = Path(path).parent
    there = sorted(file.name for file in folder.glob("*.p[tk][hl]")) if folder.is_dir() else []
    found = f"In {folder} there are: {', '.join(there)}." if there else f"{folder} has none."
    if resuming:
        return (
            f"{path}, which {save_dir}/last_checkpoint names, does not exist. {found} Write the "
            "name of one of them into last_checkpoint, or delete it to start anew."
        )
    return f"Checkpoint {path} does not exist. {found} Check the path, or give zoo://<name>."
