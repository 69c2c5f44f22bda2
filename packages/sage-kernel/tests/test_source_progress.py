"""How far a source has come is known while it runs and when it is aborted; async generators are sources."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from sage.kernel.api import (
    Contract,
    Execution,
    IOSpec,
    JobHandle,
    LocalEnvironment,
    MapFunction,
    PipelineError,
    Resources,
)


def _endless() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def _slow_job() -> tuple[JobHandle, list[int]]:
    env = LocalEnvironment("progress", {"fusion": False, "queue_capacity": 4})
    seen: list[int] = []

    def slow(item: int) -> None:
        time.sleep(0.005)
        seen.append(item)

    env.from_source(_endless, name="numbers").sink(slow)
    return env.submit(wait=False), seen


def test_a_source_that_is_held_up_counts_what_it_has_made() -> None:
    job, seen = _slow_job()
    time.sleep(0.6)
    live, taken = job.metrics().items_in, len(seen)
    job.stop()
    job.wait(30)
    # What is on its way: a queue of 4, one at the sink, one in the hands of the source.
    assert taken - 4 <= live <= taken + 8, (live, taken)


def test_an_aborted_source_says_how_far_it_came() -> None:
    job, seen = _slow_job()
    time.sleep(0.4)
    job.abort()
    result = job.wait(30)
    (offset,) = result.offsets["numbers"]
    assert len(seen) <= result.metrics.items_in <= len(seen) + 8
    assert len(seen) - 1 <= offset <= len(seen) + 8


def test_the_times_of_an_async_replica_add_up_to_its_life() -> None:
    env = LocalEnvironment("times", {"queue_capacity": 1})

    async def quick(item: int) -> int:
        await asyncio.sleep(0.001)
        return item

    contract = Contract(execution=Execution.ASYNC, resources=Resources(concurrency=8), io=IOSpec(queue_capacity=16))
    env.from_collection(range(60)).map(quick, name="quick", contract=contract).sink(lambda _: time.sleep(0.004))
    job = env.submit()
    replica = next(each for each in job.metrics().replicas if each.task == "quick[0]")
    assert replica.blocked_ms > 20
    assert replica.busy_ms + replica.blocked_ms + replica.idle_ms <= job.metrics().elapsed_s * 1000 * 1.02 + 1


async def _three() -> AsyncIterator[int]:
    for number in range(3):
        await asyncio.sleep(0)
        yield number


def test_an_async_generator_is_a_source() -> None:
    env = LocalEnvironment("async-source")
    stream = env.from_source(_three)
    assert stream.collect() == [0, 1, 2]
    assert stream.collect() == [0, 1, 2]


def test_an_async_generator_is_closed_when_the_job_stops() -> None:
    closed: list[bool] = []

    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                await asyncio.sleep(0.001)
                yield 1
        finally:
            closed.append(True)

    env = LocalEnvironment("async-source")
    env.from_source(endless).sink(lambda _: None)
    job = env.submit(wait=False)
    time.sleep(0.1)
    job.stop()
    assert job.wait(10).metrics.items_out > 0
    assert closed == [True]


def test_a_coroutine_function_is_no_source() -> None:
    async def one() -> int:
        return 1

    with pytest.raises(PipelineError, match="async generator"):
        LocalEnvironment("async-source").from_source(one)


class _Adds(MapFunction[int, int]):
    def __init__(self) -> None:
        super().__init__()
        self.amount = 1

    def execute(self, item: int) -> int:
        return item + self.amount


def test_an_instance_that_has_run_can_get_replicas() -> None:
    adds = _Adds()
    assert LocalEnvironment("once").from_collection([1, 2]).map(adds).collect() == [2, 3]
    env = LocalEnvironment("twice")
    assert sorted(env.from_collection(range(9)).map(adds, parallelism=3).collect()) == list(range(1, 10))
    assert copy.copy(adds).amount == 1
