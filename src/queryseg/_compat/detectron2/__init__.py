"""The part of Detectron2's API that QuerySeg uses, for machines without the real package.

Independently written; module paths, state-dict names, numerics and the order of random draws equal
the real package's. What is outside this part raises `NeedsRealDetectron2`.
"""

import os
import warnings

from detectron2._subset import name_the_cure_for_missing_modules

with warnings.catch_warnings():
    # fvcore scripts its focal loss when it is first imported; nobody here can do anything about it.
    warnings.filterwarnings("ignore", r".*torch\.jit\.script", FutureWarning)
    import fvcore.nn  # noqa: F401

__version__ = "0.6+subset"

os.environ["OPENCV_OPENCL_RUNTIME"] = "disabled"  # OpenCL and CUDA disturb each other
name_the_cure_for_missing_modules()
