"""QueryInst with 100 queries and five stages on ResNet-50: 39.9 mask AP on COCO test-dev
(Table 1)."""

from .queryinst_r50_100q_3x import dataloader, lr_multiplier, model, optimizer, train

model.decoder.num_stages = 5
