"""Training: the loop, its hooks, the usual set-up of a job, and its processes."""

from detectron2.engine.defaults import *  # noqa: F403
from detectron2.engine.hooks import *  # noqa: F403
from detectron2.engine.launch import *  # noqa: F403
from detectron2.engine.train_loop import *  # noqa: F403
