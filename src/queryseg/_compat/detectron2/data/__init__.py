"""Data sets, what is done to their images, and loaders."""

from detectron2._subset import outside

from . import transforms
from .build import (
    build_batch_data_loader,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
    print_instances_class_histogram,
)
from .catalog import DatasetCatalog, Metadata, MetadataCatalog
from .common import DatasetFromList, MapDataset, ToIterableDataset
from .dataset_mapper import DatasetMapper

# The built-in names are registered by the import of `datasets`, which needs the catalogs above.
from . import datasets, samplers  # isort: skip

__all__ = [
    "DatasetCatalog",
    "DatasetFromList",
    "DatasetMapper",
    "MapDataset",
    "Metadata",
    "MetadataCatalog",
    "ToIterableDataset",
    "build_batch_data_loader",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "datasets",
    "get_detection_dataset_dicts",
    "print_instances_class_histogram",
    "samplers",
    "transforms",
]

__getattr__ = outside(__name__, "load_proposals_into_dataset")
