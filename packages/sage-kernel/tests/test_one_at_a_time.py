"""Items that travel alone take a path of their own through a thread task; it must do what the common one does."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sage.kernel.api import (
    Backoff,
    Contract,
    ErrorPolicy,
    IOSpec,
    JobFailedError,
    JobHandle,
    LocalEnvironment,
    OnError,
)

ITEMS = 100  # more than one timed batch in 16


def _run(
    function: Callable[[int], Any], contract: Contract | None = None, **config: Any
) -> tuple[JobHandle, list[Any]]:
    """One item at a time through `function` and a second map, on threads of their own; a None asks for the next."""
    env = LocalEnvironment("alone", {"fusion": False, **config})
    arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
    outputs: list[Any] = []

    def source() -> Iterator[int]:
        for item in range(ITEMS):
            yield item
            try:
                outputs.append(arrived.get(timeout=0.3 if item == 50 else 5))
            except queue.Empty:
                outputs.append("nothing")

    stream = (
        env.from_source(source).map(function, name="first", contract=contract).map(lambda item: item, name="second")
    )
    stream.sink(arrived.put)
    job = env.submit(wait=False)
    return job, outputs


def _operator(job: JobHandle, name: str) -> Any:
    return next(operator for operator in job.metrics().operators if operator.operator == name)


def test_each_item_comes_out_and_is_counted() -> None:
    job, outputs = _run(lambda item: item * 2)
    result = job.wait(30)
    assert outputs == [item * 2 for item in range(ITEMS)]
    for name in ("first", "second"):
        operator = _operator(job, name)
        assert (operator.items_in, operator.items_out, operator.errors) == (ITEMS, ITEMS, 0)
        assert operator.queue_wait.count == ITEMS
    assert result.metrics.items_out == ITEMS


def test_none_is_an_output_like_any_other() -> None:
    job, outputs = _run(lambda item: None)
    job.wait(30)
    assert outputs == [None] * ITEMS


def test_an_item_that_raises_is_set_aside_alone(tmp_path: Any) -> None:
    def fails(item: int) -> int:
        if item == 50:
            raise ValueError("fifty")
        return item

    job, outputs = _run(fails, home=str(tmp_path))
    result = job.wait(30)
    assert outputs == [item if item != 50 else "nothing" for item in range(ITEMS)]
    first = _operator(job, "first")
    assert (first.items_in, first.items_out, first.errors, first.dead_letters) == (ITEMS, ITEMS - 1, 1, 1)
    assert result.dead_letters == 1


def test_a_retried_item_comes_out_once() -> None:
    tried: list[int] = []

    def flaky(item: int) -> int:
        if item == 50 and len(tried) < 2:
            tried.append(item)
            raise ValueError("not yet")
        return item

    errors = ErrorPolicy(retries=3, delay_s=0.001, backoff=Backoff.FIXED)
    job, outputs = _run(flaky, Contract(io=IOSpec(errors=errors)))
    job.wait(30)
    assert outputs == list(range(ITEMS))
    first = _operator(job, "first")
    assert (first.items_in, first.items_out, first.errors, first.retries) == (ITEMS, ITEMS, 2, 2)


def test_an_item_that_fails_the_job_is_named_and_counted() -> None:
    def fails(item: int) -> int:
        if item == 50:
            raise ValueError("fifty")
        return item

    job, _ = _run(fails, Contract(io=IOSpec(errors=ErrorPolicy(on_error=OnError.FAIL))))
    with pytest.raises(JobFailedError, match="'first'.*fifty|fifty.*'first'"):
        job.wait(30)
    first = _operator(job, "first")
    assert (first.items_in, first.items_out, first.errors) == (51, 50, 1)


def test_an_operator_that_never_returns_is_named_by_the_watchdog() -> None:
    released = threading.Event()

    def hangs(item: int) -> int:
        if item == 50:
            released.wait(30)
        return item

    job, _ = _run(hangs, watchdog_s=0.8, abort_grace_s=0.2)
    try:
        with pytest.raises(JobFailedError, match="in operator 'first'"):
            job.wait(30)
    finally:
        released.set()
        for thread in threading.enumerate():
            if thread.name.startswith("sage-alone"):
                thread.join(15)
