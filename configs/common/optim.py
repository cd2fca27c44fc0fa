"""Optimizers. The trainer fills in `params.model` before it builds one."""

from detectron2.config import LazyCall as L
from torch.optim import SGD, AdamW

from queryseg.engine.param_groups import get_param_groups

adamw = L(AdamW)(
    params=L(get_param_groups)(
        lr="${..lr}",
        weight_decay="${..weight_decay}",
        lr_multipliers={"backbone": 0.1},
        weight_decay_norm=0.0,
        weight_decay_embed=0.0,
    ),
    lr=1e-4,
    betas=(0.9, 0.999),
    weight_decay=0.05,
)

sgd = L(SGD)(
    params=L(get_param_groups)(
        lr="${..lr}", weight_decay="${..weight_decay}", weight_decay_norm=0.0
    ),
    lr=0.02,
    momentum=0.9,
    weight_decay=1e-4,
)
