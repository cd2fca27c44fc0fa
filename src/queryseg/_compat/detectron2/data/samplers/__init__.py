"""The order in which a data set is visited."""

from detectron2._subset import outside

from .distributed_sampler import InferenceSampler, RepeatFactorTrainingSampler, TrainingSampler
from .grouped_batch_sampler import GroupedBatchSampler

__all__ = [
    "GroupedBatchSampler",
    "InferenceSampler",
    "RepeatFactorTrainingSampler",
    "TrainingSampler",
]

__getattr__ = outside(__name__, "RandomSubsetTrainingSampler")
