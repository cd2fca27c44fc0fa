"""The machine a figure was measured on, and the bounds that it sets."""

import os
import platform
import re
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch

from queryseg.ops import build_info
from queryseg.tools.op_benchmark.case import Cost
from queryseg.tools.op_benchmark.measure import timed

COPIED_BYTES = 2**28  # far more than any cache holds
L1_BYTES_PER_CLOCK = 128  # of one multiprocessor, from Volta to Hopper


def describe_machine(device: str) -> dict[str, Any]:
    """Date, processor, memory, GPU, software and kernels, as one JSON-able object."""
    facts: dict[str, Any] = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kernels": {key: text for key, text in build_info().items() if key != "path"},
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        facts["gpu"] = properties.name
        facts["gpu_capability"] = f"{properties.major}.{properties.minor}"
        facts["gpu_memory_gib"] = round(properties.total_memory / 2**30, 1)
    return facts


def processor() -> str:
    """The name of the CPU as its maker gives it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def kernel_variant(device: str) -> str:
    """Which kernels serve a device, in words."""
    info = build_info()
    if "problem" in info:
        return f"pure torch ({info['problem']})"
    if not device.startswith("cuda"):
        return f"CPU, {info['cpu_capability']}"
    if not info["cuda"]:
        return "pure torch (the kernels were built without CUDA)"
    return f"CUDA {info['cuda']} for {info['cuda_architectures']}"


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second that a large copy reads and writes, the best of five."""
    source = torch.zeros(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(6):  # the first one touches the pages
        best = min(best, timed(partial(target.copy_, source), device, torch.get_num_threads()))
    return 2 * COPIED_BYTES / best


def l1_bandwidth(device: torch.device) -> float | None:
    """Bytes a second that the L1 caches of a GPU deliver at most; None on a CPU."""
    if device.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(device)
    hertz = 1e3 * properties.clock_rate
    return properties.multi_processor_count * L1_BYTES_PER_CLOCK * hertz


def floors(cost: Cost, copy: float, l1: float | None) -> dict[str, float]:
    """Milliseconds below which a pass cannot come.

    Args:
        cost: of the pass.
        copy: bandwidth of the memory in bytes a second.
        l1: that of the L1 caches, where it is known.

    Returns:
        `memory_ms`: every tensor moved once; `l1_ms`: every gathered corner read from L1.
    """
    found = {"memory_ms": 1e3 * cost.bytes / copy}
    if l1 is not None and cost.gathered_bytes:
        found["l1_ms"] = 1e3 * cost.gathered_bytes / l1
    return found
