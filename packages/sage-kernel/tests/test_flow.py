"""Order, state, backpressure, stop and abort: invariants 2 to 5, each on every execution kind."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from executions import ExecutionKind

from sage.kernel.api import (
    Contract,
    IOSpec,
    JobState,
    LocalEnvironment,
    MapFunction,
    PipelineError,
    Resources,
    SinkFunction,
    SourceFunction,
)
from sage.kernel.graph import UnschedulableError
from sage.kernel.operators import BadRecord
from sage.kernel.runtime import JobHandle
from sage.kernel.runtime.task import Activity


def environment(tmp_path: Path, **config: Any) -> LocalEnvironment:
    return LocalEnvironment("flow", {"home": tmp_path, "watchdog_s": 10, "abort_grace_s": 2, **config})


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.005)
    return True


class Gate:
    """A sink or operator that lets items through only while it is open; counts those that came."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.items: list[Any] = []

    def __call__(self, item: Any) -> None:
        self.open.wait(30)
        self.items.append(item)


# -- order ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 3, None])
@pytest.mark.parametrize("fusion", [True, False])
def test_items_of_a_key_stay_in_order(
    execution: ExecutionKind, tmp_path: Path, capacity: int | None, fusion: bool
) -> None:
    """Through four keyed operators with different parallelism that wait at random."""
    env = environment(tmp_path, queue_capacity=capacity, fusion=fusion)
    pairs = [(number % 7, number) for number in range(300)]
    seen: dict[int, list[int]] = defaultdict(list)
    stream: Any = env.from_collection(pairs).key_by(lambda pair: pair[0])
    for parallelism in (3, 3, 1, 2):
        stream = stream.map(_waiting(execution), parallelism=parallelism, contract=execution.contract(concurrency=8))
    stream.sink(lambda pair: seen[pair[0]].append(pair[1]))
    env.submit()
    assert {key: list(range(key, 300, 7)) for key in range(7)} == dict(seen)


def _waiting(execution: ExecutionKind) -> Callable[[Any], Any]:
    if not execution.is_async:

        def blocking(item: Any) -> Any:
            if random.random() < 0.1:
                time.sleep(0.0005)
            return item

        return blocking

    async def waiting(item: Any) -> Any:
        await asyncio.sleep(random.random() * 0.002)
        return item

    return waiting


class Tagging(MapFunction[Any, Any]):
    """Says which replica it is, and numbers what it puts out."""

    def setup(self) -> None:
        self.number = 0

    def execute(self, item: Any) -> Any:
        self.number += 1
        return self.ctx.replica_index, self.number


class Receiving(SinkFunction[Any]):
    """Notes what each of its replicas gets, by producer."""

    received: dict[tuple[int, int], list[int]]

    def execute(self, item: Any) -> None:
        producer, number = item
        if random.random() < 0.05:
            time.sleep(0.0003 * (self.ctx.replica_index + 1))
        Receiving.received[producer, self.ctx.replica_index].append(number)


@pytest.mark.parametrize(("producers", "consumers"), [(1, 3), (3, 1), (4, 3), (3, 3)])
@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_each_producer_and_consumer_are_first_in_first_out(
    tmp_path: Path, producers: int, consumers: int, capacity: int
) -> None:
    Receiving.received = defaultdict(list)
    env = environment(tmp_path, queue_capacity=capacity, fusion=False)
    env.from_collection(range(1200)).map(Tagging, parallelism=producers, name="tag").sink(
        Receiving, parallelism=consumers
    )
    env.submit()
    received = Receiving.received
    assert sum(map(len, received.values())) == 1200
    for pair, numbers in received.items():
        assert numbers == sorted(numbers), f"producer, consumer {pair}"


class Counting(MapFunction[Any, Any]):
    """Counts per key in keyed state."""

    def execute(self, item: Any) -> Any:
        state = self.ctx.state
        state["n"] = state.get("n", 0) + 1
        return self.ctx.key, state["n"], self.ctx.replica_index


class AsyncCounting(Counting):
    """The same, and gives the loop up in the middle of its change of state."""

    async def execute(self, item: Any) -> Any:
        state = self.ctx.state
        before = state.get("n", 0)
        await asyncio.sleep(random.random() * 0.001)
        state["n"] = before + 1
        return self.ctx.key, state["n"], self.ctx.replica_index


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_keyed_state(execution: ExecutionKind, tmp_path: Path, parallelism: int) -> None:
    keys = [None, 0, "", "x", (1, 2), -5, 2.5, b""]
    env = environment(tmp_path)
    counting = Counting if not execution.is_async else AsyncCounting
    outputs = (
        env.from_collection([keys[number % len(keys)] for number in range(400)])
        .key_by(lambda key: key)
        .map(counting, parallelism=parallelism)
        .collect()
    )
    by_key: dict[Any, list[int]] = defaultdict(list)
    replicas: dict[Any, set[int]] = defaultdict(set)
    for key, count, replica in outputs:
        by_key[key].append(count)
        replicas[key].add(replica)
    assert dict(by_key) == {key: list(range(1, 51)) for key in keys}
    assert all(len(found) == 1 for found in replicas.values()), "each key meets one replica"


# -- backpressure ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 4])
def test_a_stalled_sink_stalls_the_source(execution: ExecutionKind, tmp_path: Path, capacity: int) -> None:
    env = environment(tmp_path, queue_capacity=capacity, fusion=False)
    made: list[int] = []
    gate = Gate()

    def endless() -> Iterator[int]:
        number = 0
        while True:
            made.append(number)
            yield number
            number += 1

    stream = env.from_source(endless)
    for _ in range(3):
        stream = stream.map(execution.operator(lambda n: n, -1), contract=execution.contract(concurrency=2))
    stream.sink(gate)
    job = env.submit(wait=False)
    try:
        # 3 queues of operators and 1 of the sink; in each operator its items in flight and those put out meanwhile.
        bound = 4 * capacity + 4 * (2 + 2 * capacity) + 2
        time.sleep(0.3)
        first = len(made)
        time.sleep(0.2)
        assert first == len(made) <= bound, "the source goes on although the sink stands still"
        for replica in job.metrics().replicas:
            assert replica.queue_depth <= replica.queue_depth_max <= max(replica.queue_capacity, 0)
    finally:
        job.stop()
        gate.open.set()
        result = job.wait(10)
    assert result.state is JobState.STOPPED
    assert gate.items == made == list(range(len(made)))


# -- stop, drain, abort ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 2, None])
@pytest.mark.parametrize("fusion", [True, False])
def test_stop_delivers_everything_emitted_before(
    execution: ExecutionKind, tmp_path: Path, capacity: int | None, fusion: bool
) -> None:
    env = environment(tmp_path, queue_capacity=capacity, fusion=fusion)
    made: list[int] = []
    got: list[int] = []

    def endless() -> Iterator[int]:
        number = 0
        while True:
            made.append(number)
            yield number
            number += 1

    stream = env.from_source(endless, name="endless")
    stream = stream.map(
        execution.operator(lambda n: n, 0.0005), parallelism=3, contract=execution.contract(concurrency=4)
    )
    stream.flatmap(lambda n: [n, n]).sink(got.append)
    job = env.submit(wait=False)
    assert until(lambda: len(got) > 20)
    job.stop()
    job.stop()
    result = job.wait(10)
    assert result.state is JobState.STOPPED
    assert result.ok
    assert sorted(got) == sorted(made + made)
    assert result.offsets == {"endless": [len(made)]}


@pytest.mark.parametrize("capacity", [1, 2, 64])
def test_abort_is_prompt_wherever_the_tasks_are(execution: ExecutionKind, tmp_path: Path, capacity: int) -> None:
    """Queues are full, the sink stands in its operator; whoever waits is released."""
    env = environment(tmp_path, queue_capacity=capacity, fusion=False, abort_grace_s=4)
    release = threading.Event()
    stream = env.from_source(_naturals)
    for _ in range(2):
        stream = stream.map(
            execution.operator(lambda n: n, -1), parallelism=2, contract=execution.contract(concurrency=3)
        )
    stream.sink(lambda _: release.wait(20))
    job = env.submit(wait=False)
    try:
        assert until(lambda: _full(job, capacity))
        begun = time.monotonic()
        job.abort("enough")
        # All but the sink must end now; the sink is in user code until `release`.
        others = [worker for task, worker in job._workers.items() if not task.startswith("sink")]
        assert all(worker.join(1.5) for worker in others), "a task did not end although nothing holds it"
        assert time.monotonic() - begun < 1.5
    finally:
        release.set()
    result = job.wait(5)
    assert result.state is JobState.ABORTED
    assert result.reason == "enough"


def _naturals() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def _full(job: JobHandle, capacity: int) -> bool:
    """The sink's queue has been full. It may have given one item since: writers wait until half of it is free."""
    return any(
        replica.queue_depth_max == capacity for replica in job.metrics().replicas if replica.task.startswith("sink")
    )


@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_abort_while_the_last_outputs_wait_for_room(execution: ExecutionKind, tmp_path: Path, inputs: int) -> None:
    """The source has ended, the operator has worked all off and only sends: a full queue must not hold it."""
    env = environment(tmp_path, fusion=False, abort_grace_s=4)
    release = threading.Event()

    def last_gives(number: int) -> list[int]:
        return [number] * 5 if number == inputs - 1 else []

    if not execution.is_async:
        function: Any = last_gives
    else:

        async def function(number: int) -> list[int]:
            # They end one shortly after the other, when the stream behind them is known to have ended.
            await asyncio.sleep(0.05 + 0.002 * number)
            return last_gives(number)

    env.from_collection(range(inputs)).flatmap(function, contract=execution.contract(concurrency=8), name="many").sink(
        lambda _: release.wait(20), name="stuck", contract=Contract(io=IOSpec(queue_capacity=1))
    )
    job = env.submit(wait=False)
    try:
        sender = job._tasks["many[0]"]
        assert until(lambda: sender.activity is Activity.BLOCKED)
        time.sleep(0.1)
        job.abort("enough")
        assert job._workers["many[0]"].join(1.5), "the sending task did not end"
    finally:
        release.set()
    assert job.wait(8).state is JobState.ABORTED


def test_grace_period_ends_a_stop(execution: ExecutionKind, tmp_path: Path) -> None:
    env = environment(tmp_path, grace_s=0.3, queue_capacity=1, abort_grace_s=2)
    release, begun = threading.Event(), threading.Event()

    def stuck(_: int) -> None:
        begun.set()
        release.wait(20)

    env.from_source(_naturals).map(execution.operator(lambda n: n, -1), contract=execution.contract()).sink(stuck)
    job = env.submit(wait=False)
    assert begun.wait(5)
    job.stop()
    time.sleep(0.8)
    release.set()
    result = job.wait(5)
    assert result.state is JobState.ABORTED
    assert "grace period" in result.reason
    assert "in operator 'stuck'" in result.reason


def test_a_source_that_waits_for_ever_ends_within_grace(tmp_path: Path) -> None:
    env = environment(tmp_path, grace_s=0.2, abort_grace_s=0.3)
    release = threading.Event()

    def silent() -> Iterator[int]:
        yield 1
        release.wait(20)

    got: list[int] = []
    env.from_source(silent, name="silent").map(lambda n: n).sink(got.append)
    job = env.submit(wait=False)
    assert until(lambda: got == [1]), "an item of a source that then waits is delivered at once"
    begun = time.monotonic()
    job.stop()
    result = job.wait(5)
    assert time.monotonic() - begun < 2
    release.set()
    assert result.state is JobState.ABORTED
    assert "silent[0]" in result.reason
    assert all(worker.join(2) for worker in job._workers.values())


def test_stop_before_the_start_and_after_the_end(tmp_path: Path) -> None:
    env = environment(tmp_path)
    got: list[int] = []
    env.from_source(_naturals).sink(got.append)
    job = env.submit(wait=False)
    job.stop()
    assert job.wait(5).state is JobState.STOPPED
    job.stop()
    job.abort()
    assert job.wait(1).state is JobState.STOPPED
    assert got == list(range(len(got)))


def test_abort_during_setup(execution: ExecutionKind, tmp_path: Path) -> None:
    release = threading.Event()

    class Slow(MapFunction[int, int]):
        def setup(self) -> None:
            release.wait(10)

        def execute(self, item: int) -> int:
            return item

    env = environment(tmp_path)
    env.from_source(_naturals).map(Slow).map(execution.operator(lambda n: n, -1), contract=execution.contract()).sink(
        lambda _: None
    )
    job = env.submit(wait=False)
    time.sleep(0.05)
    job.abort("no")
    release.set()
    assert job.wait(5).state is JobState.ABORTED
    assert job.result is not None
    assert job.result.metrics.items_in == 0


# -- placement and many replicas ------------------------------------------------------------------------------


def test_what_fits_nowhere_is_refused_at_once(tmp_path: Path) -> None:
    env = environment(tmp_path)
    env.from_collection([1]).map(lambda n: n, contract=Contract(resources=Resources(cpu=100_000)), name="big").sink(
        lambda _: None
    )
    begun = time.monotonic()
    with pytest.raises(UnschedulableError, match=r"cpu 100000, node .* \(operator 'big', .*test_flow.py:\d+\)"):
        env.submit()
    assert time.monotonic() - begun < 1


def test_64_replicas(execution: ExecutionKind, tmp_path: Path) -> None:
    env = environment(tmp_path)
    stream = env.from_collection(range(500)).map(
        execution.operator(lambda n: n, 0.001), parallelism=64, contract=execution.contract(concurrency=2)
    )
    assert sorted(stream.collect()) == list(range(500))


@pytest.mark.parametrize("items", [0, 1])
def test_hardly_any_items_through_many_hops(execution: ExecutionKind, tmp_path: Path, items: int) -> None:
    env = environment(tmp_path, fusion=False)
    stream: Any = env.from_collection(range(items))
    for _ in range(6):
        stream = stream.map(execution.operator(lambda n: n, -1), contract=execution.contract(), parallelism=2)
    out = stream.key_by(lambda n: n).aggregate(0, lambda count, _: count + 1, emit="final", parallelism=2).collect()
    assert out == [(0, 1)] * items


# -- offsets --------------------------------------------------------------------------------------------------


class Numbers(SourceFunction[int]):
    """Replica i of n makes i, i + n, i + 2n, ..."""

    def execute(self) -> Iterator[int]:
        yield from range(self.ctx.replica_index, 2000, self.ctx.parallelism)


@pytest.mark.parametrize("source", ["class", "list"])
@pytest.mark.parametrize("parallelism", [1, 3])
def test_stopped_and_resumed_is_whole(execution: ExecutionKind, tmp_path: Path, source: str, parallelism: int) -> None:
    got: list[int] = []

    def slowly(number: int) -> None:
        time.sleep(0.0002)
        got.append(number)

    offsets: Any = None
    states = []
    for _ in range(8):
        env = environment(tmp_path, queue_capacity=4)
        if source == "class":
            stream = env.from_source(Numbers, parallelism=parallelism, name="numbers")
        else:
            stream = env.from_collection(list(range(2000)), parallelism=parallelism, name="numbers")
        limit = len(got) + 300
        stream.map(execution.operator(lambda n: n, -1), contract=execution.contract()).sink(slowly)
        job = env.submit(wait=False, offsets=offsets)
        until(lambda limit=limit: len(got) >= limit or job.result is not None)  # type: ignore[misc]
        job.stop()
        result = job.wait(10)
        states.append(result.state)
        offsets = result.offsets
    assert JobState.STOPPED in states
    env = environment(tmp_path)
    if source == "class":
        stream = env.from_source(Numbers, parallelism=parallelism, name="numbers")
    else:
        stream = env.from_collection(list(range(2000)), parallelism=parallelism, name="numbers")
    stream.sink(got.append)
    last = env.submit(offsets=offsets)
    assert sorted(got) == list(range(2000)), "union of all runs is the whole, nothing twice"
    assert last.result is not None
    # Every replica says where it is, also one that had nothing left to read.
    resumed = env.submit(offsets=last.result.offsets)
    assert resumed.result is not None
    assert resumed.result.offsets == last.result.offsets
    assert sorted(got) == list(range(2000))


def test_offsets_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    env = environment(tmp_path)
    env.from_collection([1, 2], name="numbers").sink(lambda _: None)
    with pytest.raises(PipelineError, match=r"offsets of 'numbers' must be a list with one entry .* 1 replica"):
        env.submit(offsets={"numbers": [1, 2]})
    with pytest.raises(PipelineError, match="'nobody'"):
        env.submit(offsets={"nobody": [1]})


# -- latency, timed sources, records --------------------------------------------------------------------------


class Late(SourceFunction[Any]):
    """Its items should have come 5 s ago."""

    timed = True

    def execute(self) -> Iterator[Any]:
        for number in range(20):
            yield number, time.perf_counter_ns() - 5_000_000_000


@pytest.mark.parametrize("fusion", [True, False])
def test_latency_is_measured_from_the_intended_arrival(execution: ExecutionKind, tmp_path: Path, fusion: bool) -> None:
    env = environment(tmp_path, fusion=fusion)
    env.from_source(Late).map(execution.operator(lambda n: n, -1), contract=execution.contract()).sink(lambda _: None)
    job = env.submit()
    assert job.result is not None
    latency = job.result.metrics.latency
    assert latency.count == 20
    assert 4900 < latency.p50_ms < 8000


def test_latency_of_every_item_that_passed_a_retry(execution: ExecutionKind, tmp_path: Path) -> None:
    from sage.kernel.api import ErrorPolicy

    env = environment(tmp_path, fusion=False)
    failed: set[int] = set()

    def once(number: int) -> int:
        if number not in failed:
            failed.add(number)
            raise ValueError(number)
        return number

    env.from_source(Late).map(
        execution.operator(once, -1), contract=execution.contract(errors=ErrorPolicy(retries=1, delay_s=0))
    ).sink(lambda _: None)
    job = env.submit()
    assert job.result is not None
    assert job.result.metrics.latency.count == 20
    assert job.result.metrics.latency.p50_ms > 4900


class Broken(SourceFunction[Any]):
    """Every third record cannot be read."""

    def execute(self) -> Iterator[Any]:
        for number in range(9):
            yield BadRecord(f"line {number}", ValueError("torn")) if number % 3 == 0 else number


class TimedBroken(Broken):
    """The same with intended arrivals."""

    timed = True

    def execute(self) -> Iterator[Any]:
        for record in super().execute():
            yield record, time.perf_counter_ns()


@pytest.mark.parametrize("source", [Broken, TimedBroken])
@pytest.mark.parametrize("fusion", [True, False])
def test_bad_records_become_dead_letters_and_the_source_goes_on(
    tmp_path: Path, source: type[SourceFunction[Any]], fusion: bool
) -> None:
    env = environment(tmp_path, fusion=fusion)
    got: list[Any] = []
    env.from_source(source, name="broken").sink(got.append)
    job = env.submit()
    assert job.result is not None
    assert got == [1, 2, 4, 5, 7, 8]
    assert job.result.dead_letters == 3
    assert not job.result.ok
    assert job.first_dead_letter.item == "'line 0'"
    assert job.result.offsets == {"broken": [9]}, "a bad record is read once"
