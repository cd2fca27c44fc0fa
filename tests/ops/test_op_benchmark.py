"""The operator benchmark measures what it says, under the names that others rely on."""

import json
import time

import pytest
import torch

from queryseg.tools.console import ToolError
from queryseg.tools.op_benchmark import command
from queryseg.tools.op_benchmark.case import Case, Contender
from queryseg.tools.op_benchmark.measure import measure, peak_memory
from queryseg.tools.op_benchmark.ms_deform_attn_cases import contenders

MEGABYTE = 2**20


def busy(seconds: float) -> torch.Tensor:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return torch.ones(1)


def fake_case(device: torch.device) -> list[Contender]:
    return [
        Contender("ours", lambda: busy(0.002), passes=("forward",)),
        Contender("baseline", lambda: busy(0.008), passes=("forward",)),
    ]


@pytest.fixture
def one_fake_case(monkeypatch) -> None:
    cases = [Case("fake", "small", fake_case, passes=("forward",))]
    monkeypatch.setattr(command, "all_cases", lambda: cases)


def test_ratio_is_baseline_time_over_ours(one_fake_case, capsys):
    threads = torch.get_num_threads()
    try:
        assert command.main(["--json", "--runs", "6", "--threads", "1"]) == 0
    finally:
        torch.set_num_threads(threads)
    found = json.loads(capsys.readouterr().out)
    assert found["ratios"]["fake/small/forward"] == pytest.approx(4, rel=0.25)
    assert found["milliseconds"]["fake/small/forward"]["ours"] == pytest.approx(2, rel=0.25)
    assert found["kernels"] == command.build_info()


def test_table_shows_every_contender(one_fake_case, capsys):
    assert command.main(["--runs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "fake/small/forward" in printed
    assert "baseline" in printed


def test_the_promised_cases_exist(capsys):
    assert command.main(["--list"]) == 0
    listed = set(capsys.readouterr().out.split())
    promised = {"ms_deform_attn/encoder_800x1333", "ms_deform_attn/decoder_800x1333"}
    assert promised | {"dynamic_conv/n300"} <= listed


def test_an_unknown_operator_is_an_error_that_names_the_known_ones():
    with pytest.raises(ToolError, match="ms_deform_attn"):
        command.main(["--op", "no_such_op"])


def test_all_contenders_of_a_case_compute_the_same():
    ours, *others = contenders("480x640", 30, torch.device("cpu"))
    expected = others[0].run()
    for one in (ours, *others):
        error = (one.run().float() - expected).norm() / expected.norm()
        assert error < (5e-3 if "bfloat16" in one.name else 1e-5), one.name


def test_forward_backward_differentiates_by_all_inputs():
    inputs = (torch.randn(3), torch.randn(3))
    contender = Contender("product", lambda: inputs[0] * inputs[1], inputs)
    found = measure([contender], "forward_backward", torch.device("cpu"), runs=1, threads=1)
    assert found["product"].milliseconds > 0


def test_peak_memory_sees_what_a_run_frees_again():
    peak = peak_memory(lambda: torch.ones(64 * MEGABYTE, dtype=torch.uint8), torch.device("cpu"))
    if peak is None:
        pytest.skip("this system does not report the peak")
    assert 60 * MEGABYTE < peak < 80 * MEGABYTE
