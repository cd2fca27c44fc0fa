"""The operator benchmark measures what it says, under the names that others rely on."""

import json
import time
from contextlib import nullcontext
from datetime import datetime, timezone

import pytest
import torch

from queryseg.tools import benchmark
from queryseg.tools.console import ToolError
from queryseg.tools.op_benchmark import command, machine, ms_deform_attn_cases
from queryseg.tools.op_benchmark.case import Case, Contender, Cost
from queryseg.tools.op_benchmark.measure import measure, peak_memory, timed
from queryseg.tools.op_benchmark.ms_deform_attn_cases import contenders
from queryseg.tools.op_benchmark.ms_deform_attn_fused_cases import contenders as fused_contenders

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
    monkeypatch.setattr(command, "copy_bandwidth", lambda device: 1e10)


def test_ratio_is_baseline_time_over_ours(one_fake_case, capsys):
    threads = torch.get_num_threads()
    try:
        assert command.main(["--json", "--runs", "6", "--threads", "1"]) == 0
    finally:
        torch.set_num_threads(threads)
    found = json.loads(capsys.readouterr().out)
    assert found["ratios"]["fake/small/forward"] == pytest.approx(4, rel=0.25)
    assert found["milliseconds"]["fake/small/forward"]["ours"] == pytest.approx(2, rel=0.25)
    facts = command.build_info()
    assert found["kernels"] == {name: facts[name] for name in facts if name != "path"}
    assert found["machine"]["date"] == datetime.now(timezone.utc).strftime("%Y-%m-%d")
    assert found["machine"]["processor"]
    assert found["clock"] == "CPU time"


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


def test_the_tool_for_models_measures_operators_too(one_fake_case, capsys):
    assert benchmark.main(["--op", "fake", "--runs", "1"]) == 0
    assert f"Kernels chosen: {machine.kernel_variant('cpu')}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("info", "device", "expected"),
    [
        ({"problem": "no compiler"}, "cpu", "pure torch (no compiler)"),
        ({"cpu_capability": "avx2", "cuda": ""}, "cpu", "CPU, avx2"),
        ({"cuda": ""}, "cuda:0", "pure torch (the kernels were built without CUDA)"),
        ({"cuda": "13.0", "cuda_architectures": "9.0"}, "cuda:1", "CUDA 13.0 for 9.0"),
    ],
)
def test_the_chosen_kernels_are_named(monkeypatch, info, device, expected):
    monkeypatch.setattr(machine, "build_info", lambda: info)
    assert machine.kernel_variant(device) == expected


def test_the_object_is_written_to_a_file(one_fake_case, capsys, tmp_path):
    target = tmp_path / "results" / "fake.json"
    assert command.main(["--runs", "1", "--output", str(target)]) == 0
    assert json.loads(target.read_text())["ratios"].keys() == {"fake/small/forward"}


def test_other_contenders_come_before_the_baselines_of_the_case(one_fake_case, capsys):
    def extra(case, device, ours):
        assert (case.name, device.type, ours.name) == ("small", "cpu", "ours")
        return [Contender("first baseline", lambda: busy(0.02), passes=("forward",))]

    assert command.main(["--json", "--runs", "3"], extra=extra) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ratios"]["fake/small/forward"] == pytest.approx(10, rel=0.3)
    assert list(found["milliseconds"]["fake/small/forward"]) == [
        "ours",
        "first baseline",
        "baseline",
    ]


def test_floors_follow_from_bytes_and_bandwidths():
    cost = Cost(flops=1, bytes=2e6, gathered_bytes=3e6) + Cost(flops=1, bytes=1e6)
    assert cost.flops == 2
    found = machine.floors(cost, copy=1e9, l1=1e10)
    assert found == pytest.approx({"memory_ms": 3.0, "l1_ms": 0.3})
    assert machine.floors(cost, copy=1e9, l1=None).keys() == {"memory_ms"}


def test_the_costs_of_the_encoder_are_those_counted_on_paper():
    costs = ms_deform_attn_cases.costs("800x1333", None)
    assert costs["forward"].bytes == pytest.approx(79.6e6, rel=1e-3)
    assert costs["forward"].flops == pytest.approx(0.73e9, rel=1e-2)
    assert costs["forward"].gathered_bytes == pytest.approx(1456e6, rel=1e-3)
    backward = costs["forward_backward"].bytes - costs["forward"].bytes
    assert backward == pytest.approx(136.5e6, rel=1e-3)


def test_every_case_counts_what_its_passes_need():
    for case in command.all_cases():
        costs = case.costs()
        assert set(case.passes) <= set(costs), case.key
        assert all(one.flops > 0 and one.bytes > 0 for one in costs.values()), case.key


def test_memory_bandwidth_is_measured_in_a_sane_range(monkeypatch):
    monkeypatch.setattr(machine, "COPIED_BYTES", 2**24)
    assert 1e8 < machine.copy_bandwidth(torch.device("cpu")) < 1e12


def test_an_unknown_operator_is_an_error_that_names_the_known_ones():
    with pytest.raises(ToolError, match="ms_deform_attn"):
        command.main(["--op", "no_such_op"])


@pytest.mark.parametrize("build", [contenders, fused_contenders])
def test_all_contenders_of_a_case_compute_the_same(build):
    ours, *others = build("480x640", 30, torch.device("cpu"))
    expected = others[0].run()
    for one in (ours, *others):
        error = (one.run().float() - expected).norm() / expected.norm()
        # Rounding the offsets of the linear layer itself moves the points.
        limit = 5e-2 if "all bfloat16" in one.name else 5e-3 if "bfloat16" in one.name else 1e-5
        assert error < limit, one.name


def test_forward_backward_differentiates_by_all_inputs():
    inputs = (torch.randn(3), torch.randn(3))
    contender = Contender("product", lambda: inputs[0] * inputs[1], inputs)
    found = measure([contender], "forward_backward", torch.device("cpu"), runs=1, threads=1)
    assert found["product"].milliseconds > 0


def test_what_holds_the_result_is_no_extra_memory():
    def large() -> torch.Tensor:
        return torch.ones(64 * MEGABYTE, dtype=torch.uint8)

    contender = Contender("ones", large, passes=("forward",))
    found = measure([contender], "forward", torch.device("cpu"), runs=1, threads=1)["ones"]
    assert found.result_bytes == 64 * MEGABYTE
    if found.extra_bytes is not None:
        assert found.extra_bytes < 20 * MEGABYTE < found.peak_bytes


def test_the_output_and_all_gradients_are_no_extra_memory():
    tensor = torch.randn(8 * MEGABYTE)
    contender = Contender("twice", lambda: tensor * 2, (tensor,))
    found = measure([contender], "forward_backward", torch.device("cpu"), runs=1, threads=1)
    assert found["twice"].result_bytes == 3 * tensor.nbytes
    if found["twice"].extra_bytes is not None:
        assert found["twice"].extra_bytes < tensor.nbytes < found["twice"].peak_bytes


def test_peak_memory_sees_what_a_run_frees_again():
    peak = peak_memory(lambda: torch.ones(64 * MEGABYTE, dtype=torch.uint8), torch.device("cpu"))
    if peak is None:
        pytest.skip("this system does not report the peak")
    assert 60 * MEGABYTE < peak < 80 * MEGABYTE


def test_what_the_host_takes_to_launch_a_run_is_no_gpu_time(monkeypatch):
    """A GPU in words: what reaches it, in its order."""
    queue: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: str) -> None:
            queue.append(f"event on {stream}")

        def elapsed_time(self, end: "Event") -> float:
            return 3.0

    def synchronize(device: torch.device) -> None:
        queue.append("read")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "_sleep", lambda clocks: queue.append("wait"))
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    seconds = timed(lambda: queue.append("run"), torch.device("cuda:1"), threads=1)
    assert seconds == pytest.approx(3e-3)
    event = "event on stream of cuda:1"
    assert queue == ["wait", event, "run", event, "read"]
