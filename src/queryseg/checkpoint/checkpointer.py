"""The checkpointer that the trainer and the tools use, with either Detectron2."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from queryseg.checkpoint.atomic_file import remove_unfinished, write_atomically
from queryseg.checkpoint.contents import CheckpointContents, read_contents
from queryseg.checkpoint.loading import load_into
from queryseg.checkpoint.locate import list_checkpoints, locate, split_options
from queryseg.checkpoint.report import MIN_MATCHED, LoadReport
from queryseg.checkpoint.stamp import STAMP_KEY, make_stamp

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
        class_names: saved with the weights, so that whoever reads them can name the classes.
        allow_partial: accept files that fill less than 95 % of the model.
        complete: refuse files that do not fill all of the model, class head included; for
            inference. Resuming always asks for that.
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
        class_names: Sequence[str] | None = None,
        allow_partial: bool = False,
        complete: bool = False,
        untagged: tuple[str, ...] = ("model_best",),
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.class_names = class_names
        self.allow_partial = allow_partial
        self.complete = complete
        self.untagged = untagged
        self.last_report: LoadReport | None = None
        self._options: Mapping[str, bool] = {}
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
            _logger.info("No checkpoint given: the weights stay as they are")
            return {}
        file, self._options = split_options(os.fspath(path))
        if self._resuming and not os.path.isfile(file):
            raise FileNotFoundError(_gone_message(file, self.save_dir))
        try:
            return super().load(locate(file), checkpointables)
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
        data |= {**kwargs, STAMP_KEY: make_stamp(self.model, self.class_names)}
        file = Path(self.save_dir, f"{name}.pth")
        _logger.info("Saving checkpoint to %s", file)
        file.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(file.parent)
        write_atomically(file, lambda stream: torch.save(data, stream))
        if name not in self.untagged:
            self.tag_last_checkpoint(file.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Note, atomically, which file `--resume` starts from."""
        tag = last_filename_basename.encode()
        write_atomically(Path(self.save_dir, "last_checkpoint"), lambda stream: stream.write(tag))

    def _load_file(self, filename: str) -> dict[str, Any]:
        contents = read_contents(filename)
        contents.wants_matching |= self._options.get("matching_heuristics", False)
        return {**contents.extras, _CONTENTS_KEY: contents}

    def _load_model(self, checkpoint: dict[str, Any]) -> None:
        contents: CheckpointContents = checkpoint.pop(_CONTENTS_KEY)
        allow_partial = self.allow_partial or self._options.get("allow_partial", False)
        complete = self.complete or self._resuming
        report = load_into(self.model, contents, allow_partial=allow_partial, complete=complete)
        self.last_report = report
        as_expected = report.is_complete and report.share_used >= MIN_MATCHED
        level = logging.INFO if as_expected or report.covers else logging.WARNING
        _logger.log(level, "%s", report)


def _gone_message(file: str, save_dir: str) -> str:
    return (
        f"{file}, which {save_dir}/last_checkpoint names, does not exist. "
        f"{list_checkpoints(Path(save_dir))} Write the name of one of them into last_checkpoint, "
        "or delete it to start anew."
    )
