"""The checks refuse wrong results, and a peer's process keeps its contract; needs no peer's packages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import workloads

PEERS = Path(__file__).parent


def run(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    start = [str(PEERS / "bare_peer.py")] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *start, *arguments],
        cwd=PEERS,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize(
    "check",
    [
        lambda w: w.check_noop(4, 10),
        lambda w: w.check_keyed([("a", 1)], [("a", 0), ("a", 1)]),
        lambda w: w.check_keyed([("a", 2), ("a", 1)], [("a", 0), ("a", 1)]),
        lambda w: w.check_keyed([("b", 1)], [("a", 0)]),
        lambda w: w.check_in_order([2, 1], [1, 2]),
        lambda w: w.check_async_zero([0, 0], 2),
        lambda w: w.check_async_zero([0], 2),
        lambda w: w.SimulatedModel().check([1, 3, 3], 3, 64),
        lambda w: w.hop_latencies_us([[1, 2, 3]] * 10, stages=3, warm_up=0),
        lambda w: w.hop_latencies_us([[1, 3, 2]] * 10, stages=2, warm_up=0),
        lambda w: w.hop_latencies_us([[1, 2]], stages=1, warm_up=1),
        lambda w: w.SlowSink(0.0)(1),
    ],
)
def test_a_wrong_result_is_refused(check: Callable[[ModuleType], object]) -> None:
    with pytest.raises(workloads.WrongResultError):
        check(workloads)


def test_too_many_calls_in_flight_are_refused() -> None:
    model = workloads.SimulatedModel(0.0)
    with model, model:
        pass
    assert model.check([1], items=1, in_flight=2) == 1
    with pytest.raises(workloads.WrongResultError, match="at most 1 calls may be in flight, got 2"):
        model.check([1], items=1, in_flight=1)


@pytest.mark.parametrize("workload", ["noop", "keyed", "llm_async", "llm_threads", "async_zero", "hop"])
def test_a_run_ends_with_one_json_line(workload: str) -> None:
    done = run(workload, "--items", "300")
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert (line["peer"], line["workload"], line["items"]) == ("bare", workload, 300)
    assert line["result"] == (150 if workload == "noop" else 300)
    # The seconds are printed in whole microseconds, and 300 items are through in a few dozen of them.
    rounding = 1e-6 / line["seconds"]
    assert line["items_per_second"] == pytest.approx(line["items"] / line["seconds"], rel=0.01 + rounding)
    assert line["peak_rss_mb"] > 1.0


def test_the_slow_sink_samples_memory_and_stops_in_time() -> None:
    line = json.loads(run("slow_sink", "--run-seconds", "0.6").stdout)
    assert line["seconds"] == pytest.approx(0.6, abs=0.4)
    assert 0 < line["result"] <= 600
    assert line["details"]["rss_first_third_mb"] > 1.0


def test_a_peer_that_drops_items_fails() -> None:
    code = (
        "import sys, workloads, bare_peer\n"
        "workloads.keep = lambda value: value % 8 == 0\n"
        "sys.exit(bare_peer.run_peer('bare', None, bare_peer.WORKLOADS))"
    )
    done = run("noop", "--items", "100", code=code)
    assert (done.returncode, done.stdout) == (1, "")
    assert "noop must count 50 of 100 items, got 25" in done.stderr


def test_the_peak_of_memory_is_not_that_of_the_caller() -> None:
    ballast = bytearray(200 << 20)
    line = json.loads(run("noop", "--items", "100").stdout)
    assert line["peak_rss_mb"] < len(ballast) / (1 << 20) / 2


@pytest.mark.parametrize("arguments", [("nope",), ("noop", "--items", "0"), ("noop", "--variant", "batched"), ()])
def test_bad_arguments_exit_with_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).returncode == 2
