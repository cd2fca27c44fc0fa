"""Cost of a mask network: `python benchmarks/mask_frozen_detr.py memory`, or `iterations`."""

from queryseg.projects.mask_frozen_detr.cost_benchmark import main
from queryseg.tools.console import run_tool

if __name__ == "__main__":
    run_tool(main)
