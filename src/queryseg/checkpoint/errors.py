"""What goes wrong with checkpoint files, in terms of what the user can do about it."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; the message names the file and the cure."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint holds something other than plain data and was refused before running it."""
