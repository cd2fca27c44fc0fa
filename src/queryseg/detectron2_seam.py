"""Which Detectron2 is in use: the real package wherever there is one, else the bundled subset."""

import importlib
import importlib.util
import logging
import sys
from pathlib import Path

COMPAT_ROOT = Path(__file__).parent / "_compat"
REAL_INSTALL_HINT = (
    "pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git'"
)

_logger = logging.getLogger("queryseg")


def use_detectron2() -> str:
    """Make `import detectron2` work and say which one it is.

    The question is put to `importlib` before `sys.path` changes: the finder of an editable install
    is asked after the path entries, so a path entry added first would hide it. A bare folder called
    `detectron2` (a git clone in the working directory) has no origin and does not count as real.

    Returns:
        `"real"` or `"subset"`.

    Raises:
        ImportError: a real Detectron2 is installed and its compiled part does not load. It is never
            replaced silently.
    """
    if str(COMPAT_ROOT) in sys.path:
        return "subset"
    if "detectron2" not in sys.modules:
        spec = importlib.util.find_spec("detectron2")
        if spec is None or spec.origin is None:
            sys.path.append(str(COMPAT_ROOT))
            importlib.invalidate_caches()
            _logger.info("No Detectron2 found: using the subset bundled with QuerySeg.")
            return "subset"
    _check_real()
    return "real"


def _check_real() -> None:
    try:
        importlib.import_module("detectron2._C")
    except ImportError as error:
        import torch

        spec = importlib.util.find_spec("detectron2")
        where = spec.origin if spec is not None else "unknown place"
        raise ImportError(
            f"Detectron2 at {where} does not load with torch {torch.__version__}: {error}. "
            f"Rebuild it for this torch ({REAL_INSTALL_HINT}), or uninstall it "
            "(pip uninstall detectron2) to use the subset bundled with QuerySeg."
        ) from error
