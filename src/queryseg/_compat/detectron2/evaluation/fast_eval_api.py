"""The name of the real package's compiled evaluation; here it is that of pycocotools."""

from pycocotools.cocoeval import COCOeval

COCOeval_opt = COCOeval
