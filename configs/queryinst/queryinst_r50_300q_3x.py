"""QueryInst with 300 queries on ResNet-50, trained on crops: 41.4 mask AP on COCO val (release).

Without crops, at 640 to 800 pixels, 40.6 on test-dev (Table 1).
"""

from .queryinst_r50_100q_3x import dataloader, lr_multiplier, model, optimizer, train

model.decoder.num_queries = 300
dataloader.train.mapper.augmentations[0].crop = True
