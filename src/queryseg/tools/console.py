"""How the command-line tools talk: answers on stdout, progress and errors on stderr."""

import logging
import sys
from collections.abc import Callable, Sequence

# What a user can cause and mend; everything else is a bug of ours and keeps its traceback.
USER_ERRORS = (FileNotFoundError, NotADirectoryError, PermissionError)


class ToolError(Exception):
    """A tool cannot do what it was asked; the message says what to change."""


def say(text: object = "") -> None:
    """Write one answer to stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def apart(words: Sequence[str], is_file: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """Files, and the config overrides that stand right behind them on the command line.

    Args:
        words: what an option that takes many files was given.
        is_file: whether a word with an equals sign is a file nevertheless.

    >>> apart(["drawn.mp4", "a=b.mp4", "model.min_score=0.1"], lambda word: word.endswith("mp4"))
    (['drawn.mp4', 'a=b.mp4'], ['model.min_score=0.1'])
    """
    overrides = [word for word in words if "=" in word and not is_file(word)]
    return [word for word in words if word not in overrides], overrides


def log_to_stderr(level: int = logging.INFO) -> None:
    """Show the package's log lines on stderr, so that stdout holds answers only."""
    logger = logging.getLogger("queryseg")
    logger.setLevel(level)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname).1s %(message)s"))
        logger.addHandler(handler)


def run_tool(
    main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None
) -> None:
    """Run a tool and leave the process with its exit code.

    Args:
        main: takes the arguments (None: those of the process) and returns the exit code.
        argv: the arguments.

    Raises:
        SystemExit: always; 1 with a one-line message where the user made a mistake.
    """
    from queryseg.checkpoint import CheckpointError
    from queryseg.data.image import BadImageError
    from queryseg.engine.config import ConfigError
    from queryseg.visualization.errors import PictureError

    mistakes = (*USER_ERRORS, ToolError, CheckpointError, ConfigError, BadImageError, PictureError)
    log_to_stderr()
    try:
        sys.exit(main(argv))
    except mistakes as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # the reader of stdout has gone, as in `... | head`
        sys.exit(1)
