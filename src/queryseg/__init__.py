"""QuerySeg: query-based instance segmentation on Detectron2.

Importing this package decides which Detectron2 is in use (see `queryseg.detectron2_seam`), so
import `queryseg` before anything that imports `detectron2`.
"""

from queryseg.detectron2_seam import use_detectron2

__version__ = "0.1.0"

use_detectron2()
