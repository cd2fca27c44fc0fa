"""The latency benchmark: what is counted, what is left out, what is printed."""

import json
import time

import pytest
import torch
from torch import nn

from queryseg.tools import benchmark
from queryseg.tools.benchmark import PostprocessingClock, measure
from queryseg.tools.console import ToolError

CPU = torch.device("cpu")


class Sleeper(nn.Module):
    def forward(self) -> str:
        time.sleep(0.002)
        return self.segment("raw")

    def segment(self, raw: str) -> str:
        time.sleep(0.004)
        return raw + " instances"


def test_the_warm_up_is_left_out_and_post_processing_is_told_apart():
    model = Sleeper()
    clock = PostprocessingClock(model, CPU)
    results = []
    seconds = measure(lambda: results.append(model()), clock, CPU, warm_up=2, runs=5)
    assert clock.found
    assert results == ["raw instances"] * 7
    assert len(seconds) == len(clock.seconds) == 5
    for total, after in zip(seconds, clock.seconds):
        assert after >= 0.004
        assert total - after >= 0.002


def test_a_model_without_that_method_is_measured_as_a_whole():
    clock = PostprocessingClock(nn.Linear(1, 1), CPU)
    assert not clock.found
    assert len(measure(lambda: None, clock, CPU, warm_up=0, runs=3)) == 3


def run(capsys, *more: str) -> str:
    options = ("--size", "48x64", "--runs", "2", "--warm-up", "1", "--device", "cpu")
    assert benchmark.main(["--config-file", "fastinst/fastinst_tiny.py", *options, *more]) == 0
    return capsys.readouterr().out


def test_a_model_is_measured_by_its_config(capsys):
    as_given = "dataloader.test.mapper.augmentations=[]"
    figures = json.loads(run(capsys, "--json", as_given))
    assert figures["input_hw"] == figures["output_hw"] == [48, 64]
    assert figures["runs"] == 2
    assert figures["threads"] == torch.get_num_threads()
    assert figures["params_m"] == pytest.approx(3.1, abs=0.1)
    assert 0 < figures["without_postprocessing"] < figures["median"] <= figures["p90"]
    assert figures["peak_memory_mib"] is None


def test_the_input_is_resized_as_in_testing(capsys):
    resize = "{_target_:detectron2.data.transforms.ResizeShortestEdge,short_edge_length:32}"
    override = f"dataloader.test.mapper.augmentations=[{resize}]"
    out = run(capsys, override, "--dtype", "bfloat16")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["input"] == "1 x 32 x 43 (height x width)"
    assert lines["output"] == "48 x 64"
    assert "bfloat16" in lines["device"]
    assert lines["median"].endswith("over 2 runs")


@pytest.mark.parametrize("size", ["480", "0x4", "ax5", "4x5x6"])
def test_a_size_that_is_none_is_refused(size: str):
    with pytest.raises(ToolError, match="write HEIGHTxWIDTH"):
        benchmark.parse_size(size)


def test_at_least_one_run_is_needed():
    with pytest.raises(ToolError, match="--runs must be at least 1"):
        benchmark.main(["--config-file", "fastinst/fastinst_tiny.py", "--runs", "0"])
