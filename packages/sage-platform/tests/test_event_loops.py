"""The event loop of asyncio workers: timers, policies, many descriptors."""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator

import pytest

from sage.platform.event_loops import new_event_loop

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the loop is asyncio's own elsewhere")


def _lateness(loop: asyncio.AbstractEventLoop, delay_s: float, times: int) -> float:
    """Median seconds by which `asyncio.sleep(delay_s)` is late."""

    async def measure() -> list[float]:
        late = []
        for _ in range(times):
            start = time.perf_counter()
            await asyncio.sleep(delay_s)
            late.append(time.perf_counter() - start - delay_s)
        return late

    try:
        return statistics.median(loop.run_until_complete(measure()))
    finally:
        loop.close()


def test_timers_are_not_rounded_up_to_milliseconds() -> None:
    delay_s = 0.0022  # asyncio's own loop waits 3 ms for it
    assert _lateness(new_event_loop(), delay_s, 60) < _lateness(asyncio.SelectorEventLoop(), delay_s, 60)


def test_a_wake_up_from_another_thread_ends_the_wait() -> None:
    loop = new_event_loop()

    async def woken() -> float:
        event = asyncio.Event()
        start = time.perf_counter()
        handle = asyncio.get_running_loop().call_later(30, event.set)
        asyncio.get_running_loop().run_in_executor(
            None, lambda: (time.sleep(0.05), loop.call_soon_threadsafe(event.set))
        )
        await event.wait()
        handle.cancel()
        return time.perf_counter() - start

    try:
        assert 0.04 < loop.run_until_complete(woken()) < 10
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


class _OwnLoop(asyncio.SelectorEventLoop):
    pass


class _OwnPolicy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _OwnLoop()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="event loop policies are deprecated there")
def test_a_policy_of_the_program_is_respected() -> None:
    asyncio.set_event_loop_policy(_OwnPolicy())
    try:
        loop = new_event_loop()
        assert type(loop) is _OwnLoop
        loop.close()
    finally:
        asyncio.set_event_loop_policy(None)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """More open descriptors than `select()` can name."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1100:
        pytest.skip(f"no more than {hard} descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1040)]
    yield
    for descriptor in held:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_descriptors_that_select_cannot_name(many_descriptors: None) -> None:
    loop = new_event_loop()
    try:
        assert loop.run_until_complete(asyncio.sleep(0.005, "done")) == "done"
    finally:
        loop.close()
