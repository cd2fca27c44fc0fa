"""COCO instance segmentation: a method changes `mapper.augmentations`, a user the names."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from queryseg.data.loader import build_test_loader, build_train_loader
from queryseg.data.mapper import InstanceMapper
from queryseg.data.registration import get_dataset_dicts
from queryseg.evaluation import COCOEvaluator

dataloader = OmegaConf.create()

dataloader.train = L(build_train_loader)(
    dataset=L(get_dataset_dicts)(names="coco_2017_train"),
    mapper=L(InstanceMapper)(
        is_train=True,
        augmentations=[
            L(T.ResizeShortestEdge)(
                short_edge_length=(640, 672, 704, 736, 768, 800),
                sample_style="choice",
                max_size=1333,
            ),
            L(T.RandomFlip)(horizontal=True),
        ],
    ),
    total_batch_size="${train.total_batch_size}",
    num_workers=4,
    seed="${train.seed}",
    aspect_ratio_grouping=True,
)

dataloader.test = L(build_test_loader)(
    dataset=L(get_dataset_dicts)(names="coco_2017_val", filter_empty=False),
    mapper=L(InstanceMapper)(
        is_train=False,
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)],
    ),
    num_workers=4,
)

dataloader.evaluator = L(COCOEvaluator)(dataset_name="${..test.dataset.names}")
