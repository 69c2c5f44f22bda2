"""What a run says of itself: the times of a replica add up to its life, and counters say what happened."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from executions import ExecutionKind

from sage.kernel.api import Contract, IOSpec, LocalEnvironment, MapFunction


def lives(env: LocalEnvironment) -> tuple[float, dict[str, Any]]:
    result = env.submit().result
    assert result is not None
    return result.metrics.elapsed_s * 1000, {replica.task.split("[")[0]: replica for replica in result.metrics.replicas}


def wait(seconds: float) -> None:
    # Sleeping for no time gives the processor to whatever else the machine does.
    if seconds:
        time.sleep(seconds)


def slowly(count: int, seconds: float) -> Iterator[int]:
    for number in range(count):
        wait(seconds)
        yield number


def source_fast() -> Iterator[int]:
    return slowly(60, 0)


def source_slow() -> Iterator[int]:
    return slowly(60, 0.005)


@pytest.mark.parametrize(
    ("source", "work_s", "sink_s", "expected"),
    [
        (source_fast, 0.005, 0.0, {"source": "blocked", "work": "busy", "end": "idle"}),
        (source_fast, 0.0, 0.005, {"source": "blocked", "work": "blocked", "end": "busy"}),
        (source_slow, 0.0, 0.0, {"source": "idle", "work": "idle", "end": "idle"}),
    ],
)
def test_the_times_of_a_replica_add_up_to_its_life(
    execution: ExecutionKind, tmp_path: Path, source: Any, work_s: float, sink_s: float, expected: dict[str, str]
) -> None:
    contract = execution.contract(concurrency=1)
    # Processes are started by an earlier job: while they are, everybody else waits.
    LocalEnvironment("first").from_collection([1]).map(execution.operator(abs, -1), contract=contract).collect()
    env = LocalEnvironment("times", {"home": tmp_path, "fusion": False, "queue_capacity": 1})
    env.from_source(source, name="source").map(
        execution.operator(lambda n: n, work_s), contract=contract, name="work"
    ).sink(lambda _: wait(sink_s), name="end", contract=Contract(io=IOSpec(queue_capacity=1)))
    life_ms, replicas = lives(env)
    # The source ends while the last items are still on their way; to a process these are two batches more.
    apart_ms = 60 if execution.name == "process" else 15
    for name, replica in replicas.items():
        parts = {"busy": replica.busy_ms, "blocked": replica.blocked_ms, "idle": replica.idle_ms}
        if not execution.is_async or name != "work":
            assert sum(parts.values()) == pytest.approx(life_ms, rel=0.1, abs=apart_ms), f"{name} {parts} of {life_ms}"
        assert max(parts, key=lambda part: parts[part]) == expected[name], f"{name} {parts} of {life_ms}"


def test_work_at_the_end_of_the_stream_counts_as_busy(tmp_path: Path) -> None:
    env = LocalEnvironment("times", {"home": tmp_path, "fusion": False})

    def result(total: int) -> int:
        time.sleep(0.1)
        return total

    env.from_collection([1, 2, 3], name="source").key_by(lambda n: n, name="key").aggregate(
        0, lambda total, n: total + n, result, emit="final", name="fold"
    ).sink(lambda _: None, name="end")
    life_ms, replicas = lives(env)
    fold = replicas["fold"]
    assert fold.busy_ms == pytest.approx(300, rel=0.3)
    assert fold.busy_ms + fold.blocked_ms + fold.idle_ms == pytest.approx(life_ms, rel=0.1, abs=15)


@pytest.mark.parametrize("fusion", [True, False])
def test_what_is_emitted_at_the_end_has_a_latency_as_well(tmp_path: Path, fusion: bool) -> None:
    env = LocalEnvironment("final", {"home": tmp_path, "fusion": fusion})
    stream = env.from_collection([1, 2, 3, 3]).key_by(lambda n: n)
    stream.aggregate(0, lambda total, n: total + n, emit="final").sink(lambda _: None)
    result = env.submit().result
    assert result is not None
    assert (result.metrics.latency.count, result.metrics.items_out) == (3, 3)


class Counting(MapFunction[int, int]):
    """Counts for itself."""

    def execute(self, item: int) -> int:
        self.ctx.metrics.count("seen")
        self.ctx.metrics.count("sum", item)
        return item


class AsyncCounting(Counting):
    """The same on an event loop."""

    async def execute(self, item: int) -> int:  # type: ignore[override]
        return super().execute(item)


def test_an_operators_own_counters_are_summed_over_its_replicas(execution: ExecutionKind, tmp_path: Path) -> None:
    env = LocalEnvironment("own", {"home": tmp_path})
    counting = Counting if not execution.is_async else AsyncCounting
    env.from_collection(range(100)).map(counting, parallelism=3, name="count").sink(lambda _: None)
    result = env.submit().result
    assert result is not None
    found = next(operator for operator in result.metrics.operators if operator.operator == "count")
    assert found.counters == {"seen": 100, "sum": 4950}
    assert found.replicas == 3
    assert found.service.count > 0


def test_service_and_waiting_times(execution: ExecutionKind, tmp_path: Path) -> None:
    env = LocalEnvironment("times", {"home": tmp_path, "fusion": False})
    env.from_collection(range(20)).map(
        execution.operator(lambda n: n, 0.01), contract=execution.contract(concurrency=1), name="slow"
    ).sink(lambda _: None, name="end")
    result = env.submit().result
    assert result is not None
    slow = next(operator for operator in result.metrics.operators if operator.operator == "slow")
    assert slow.service.count == 20
    assert 9 < slow.service.p50_ms < 60
    assert 40 < slow.queue_wait.mean_ms < 1000, "an item waits for half of the others"
    assert result.metrics.latency.count == 20
    assert result.metrics.latency.p50_ms > 40
    assert result.metrics.throughput == pytest.approx(20 / result.metrics.elapsed_s)
