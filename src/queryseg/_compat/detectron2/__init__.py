"""The part of Detectron2's API that QuerySeg uses, for machines without the real package.

Independently written; module paths, state-dict names, numerics and the order of random draws equal
the real package's. What is outside this part raises `NeedsRealDetectron2`.
"""

import os

from detectron2._subset import name_the_cure_for_missing_modules

__version__ = "0.6+subset"

os.environ["OPENCV_OPENCL_RUNTIME"] = "disabled"  # OpenCL and CUDA disturb each other
name_the_cure_for_missing_modules()
