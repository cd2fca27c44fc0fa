"""Speed and memory of every operator: `python benchmarks/ops.py --device cpu --threads 1`."""

from functools import partial

from cuda_baseline import contenders

from queryseg.tools.console import run_tool
from queryseg.tools.op_benchmark.command import main

if __name__ == "__main__":
    run_tool(partial(main, extra=contenders))
