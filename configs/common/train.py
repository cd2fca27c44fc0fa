"""How a training run behaves. Every key is explained in docs/training.md.

`total_batch_size` is the number of images an optimizer step is written for; `max_iter` and
`optimizer.lr` belong to it. `train_net.py --batch-size N` rescales all three together.
"""

train = {
    "output_dir": "output",
    "init_checkpoint": "",
    "max_iter": 90_000,
    "total_batch_size": 16,
    "accumulate": 1,
    "seed": 0,
    "device": "auto",
    "amp": {"enabled": False, "dtype": "bfloat16"},
    "clip_grad": {"enabled": False, "mode": "full", "max_norm": 1.0},
    "ema": {"enabled": False, "decay": 0.9998},
    "checkpointer": {"period": 5000, "max_to_keep": 3},
    "best_checkpoint": {"metric": "segm/AP", "mode": "max"},
    "eval_period": 5000,
    "log_period": 20,
    "cudnn_benchmark": False,
    "ddp": {"broadcast_buffers": False, "find_unused_parameters": False, "fp16_compression": False},
}
