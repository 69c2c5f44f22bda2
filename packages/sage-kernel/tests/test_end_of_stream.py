"""`finish` of sinks, and how soon a source that runs fused with slow operators looks up when the job is stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import environment
from executions import ExecutionKind

from sage.kernel.api import (
    Contract,
    ErrorPolicy,
    IOSpec,
    JobFailedError,
    JobState,
    LocalEnvironment,
    OnError,
    PipelineError,
    SinkFunction,
    SourceFunction,
)


class Log(SinkFunction[Any]):
    """Writes its life into a shared list."""

    life: list[tuple[int, Any]] = []

    def setup(self) -> None:
        self.life.append((self.ctx.replica_index, "setup"))

    def execute(self, item: Any) -> None:
        self.life.append((self.ctx.replica_index, item))

    def finish(self) -> None:
        self.life.append((self.ctx.replica_index, "finish"))

    def teardown(self) -> None:
        self.life.append((self.ctx.replica_index, "teardown"))


class AsyncLog(Log):
    async def execute(self, item: Any) -> None:  # type: ignore[override]
        self.life.append((self.ctx.replica_index, item))


@pytest.fixture(autouse=True)
def fresh_life() -> None:
    Log.life.clear()


@pytest.mark.parametrize("fusion", [True, False])
@pytest.mark.parametrize("parallelism", [1, 3])
def test_each_replica_finishes_once_behind_its_last_item(
    execution: ExecutionKind, fusion: bool, parallelism: int
) -> None:
    env = LocalEnvironment("ends", {"fusion": fusion})
    sink = AsyncLog if execution.name == "async" else Log
    keyed = env.from_collection([5, 5, 5]).key_by(lambda item: item)
    keyed.count(emit="final").sink(sink, parallelism=parallelism)
    env.submit()
    for replica in range(parallelism):
        life = [what for number, what in Log.life if number == replica]
        assert life in (["setup", (5, 3), "finish", "teardown"], ["setup", "finish", "teardown"])
    assert Log.life.count((0, "finish")) == 1


def test_a_failed_or_aborted_job_does_not_finish(tmp_path: Path) -> None:
    strict = Contract(io=IOSpec(errors=ErrorPolicy(on_error=OnError.FAIL)))
    env = environment(tmp_path)
    env.from_collection([1, 0]).map(lambda item: 1 // item, contract=strict).sink(Log)
    with pytest.raises(JobFailedError):
        env.submit()
    assert [what for _, what in Log.life] == ["setup", 1, "teardown"]
    Log.life.clear()
    env = environment(tmp_path)
    env.from_collection(range(10**9)).sink(Log)
    job = env.submit(wait=False)
    while len(Log.life) < 2:
        time.sleep(0.001)
    job.abort()
    assert job.wait(10).state is JobState.ABORTED
    assert "finish" not in [what for _, what in Log.life]


class Broken(SinkFunction[Any]):
    def execute(self, item: Any) -> None:
        pass

    def finish(self) -> None:
        raise OSError("no room for the footer")


class Later(SinkFunction[Any]):
    def execute(self, item: Any) -> None:
        pass

    async def finish(self) -> None:  # type: ignore[override]
        pass


def test_a_finish_that_raises_fails_the_job(tmp_path: Path) -> None:
    env = environment(tmp_path)
    env.from_collection([1]).sink(Broken, name="file")
    with pytest.raises(JobFailedError, match="finish of operator 'file' failed: OSError: no room for the footer"):
        env.submit()
    with pytest.raises(PipelineError, match="finish.. must be a plain method"):
        env.from_collection([1]).sink(Later)


# -- stopping -------------------------------------------------------------------------------------------------


class Ready(SourceFunction[int]):
    """Does not wait for anything, so many items are taken at once; says how far it has been read."""

    blocking = False

    def execute(self) -> Iterator[int]:
        for number in range(100_000):
            self.read = number + 1
            yield number

    def offset_after(self, count: int) -> int:
        return self.read


@pytest.mark.parametrize("kind", ["sequence", "ready", "set"])
def test_a_source_whose_operators_have_become_slow_looks_up_soon(tmp_path: Path, kind: str) -> None:
    """The first thousands are quick, so batches are large; then each takes 5 ms: a whole batch would take seconds."""
    env = environment(tmp_path)
    taken: list[int] = []

    def sink(item: int) -> None:
        taken.append(item)
        if len(taken) > 20_000:
            time.sleep(0.005)

    if kind == "ready":
        stream = env.from_source(Ready, name="numbers")
    else:
        stream = env.from_collection(range(100_000) if kind == "sequence" else set(range(100_000)), name="numbers")
    stream.filter(lambda item: True).sink(sink)
    job = env.submit(wait=False)
    while len(taken) < 20_010:
        time.sleep(0.001)
    job.stop()
    begun = time.monotonic()
    result = job.wait(10)
    assert time.monotonic() - begun < 0.5
    assert result.state is JobState.STOPPED
    assert taken == list(range(len(taken)))
    assert result.offsets == {"numbers": [len(taken)]}
    assert result.metrics.items_in == result.metrics.items_out == len(taken)
