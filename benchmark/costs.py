"""`python -m benchmark.costs`: what the design's decisions rest on, measured on this machine, as a table.

Each figure is the smallest of several repetitions, because everything else that runs only adds to it.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from sage.kernel.packet import Packet
from sage.kernel.runtime.heap import HeldHeap
from sage.platform import ChannelSpec, LocalChannel
from sage.platform.event_loops import new_event_loop

__all__ = ["COSTS", "measure"]

REPEATS = 7
CALLS = 100_000
HOPS = 3_000
PACKET_ITEMS = 1_024


def _best_ns(run: Callable[[], float], per: int) -> float:
    """Smallest of several runs, each of which says how many seconds it took, in ns per call."""
    return min(run() for _ in range(REPEATS)) / per * 1e9


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _same(value: int) -> int:
    return value


async def _same_async(value: int) -> int:
    return value


def call_in_place() -> float:
    """A call of a Python function out of a loop in Python, ns."""

    def work() -> None:
        function = _same
        for value in range(CALLS):
            function(value)

    return _best_ns(lambda: _seconds(work), CALLS)


def call_through_map() -> float:
    """The same call out of `map()`, ns."""
    return _best_ns(lambda: _seconds(lambda: sum(map(_same, range(CALLS)))), CALLS)


def _await(chain: Callable[[int], Coroutine[Any, Any, int]]) -> float:
    async def work() -> None:
        for value in range(CALLS):
            await chain(value)

    return _best_ns(lambda: _seconds(lambda: asyncio.run(work())), CALLS)


def await_in_place() -> float:
    """An `await` of a coroutine function that does not suspend, ns."""
    return _await(_same_async)


def await_four_frames() -> float:
    """The same behind three coroutine functions that only pass it on, ns."""

    async def one(value: int) -> int:
        return await _same_async(value)

    async def two(value: int) -> int:
        return await one(value)

    async def three(value: int) -> int:
        return await two(value)

    return _await(three)


def two_clock_readings() -> float:
    """Reading the monotonic clock twice, ns."""

    def work() -> None:
        now = time.monotonic_ns
        for _ in range(CALLS):
            now()
            now()

    return _best_ns(lambda: _seconds(work), CALLS)


def thread_start() -> float:
    """`Thread.start()` of a thread that waits for a lock, ns."""

    def run() -> float:
        gate = threading.Event()
        threads = [threading.Thread(target=gate.wait) for _ in range(64)]
        taken = _seconds(lambda: [thread.start() for thread in threads])
        gate.set()
        for thread in threads:
            thread.join()
        return taken

    return _best_ns(run, 64)


def _handover(items: int) -> float:
    there = LocalChannel[Packet](ChannelSpec("there", capacity=2 * items))
    back = LocalChannel[Packet](ChannelSpec("back", capacity=2 * items))

    def echo() -> None:
        for _ in range(HOPS):
            back.put(there.get(items))

    def run() -> float:
        thread = threading.Thread(target=echo)
        thread.start()
        values = list(range(items))

        def work() -> None:
            for _ in range(HOPS):
                there.put(Packet(values))
                back.get(items)

        taken = _seconds(work)
        thread.join()
        return taken

    return _best_ns(run, 2 * HOPS * items)


def handover_of_one() -> float:
    """One item from a thread that then waits to a thread that waits for it, ns."""
    return _handover(1)


def handover_of_many() -> float:
    """The same in packets of 1,024 items, ns per item."""
    return _handover(PACKET_ITEMS)


def full_collection() -> float:
    """A full garbage collection with SAGE imported and nothing else, ns."""
    return _best_ns(lambda: _seconds(gc.collect), 1)


def full_collection_held() -> float:
    """The same while the heap is held, ns."""
    heap = HeldHeap()
    heap.hold()
    try:
        return full_collection()
    finally:
        heap.release()


def _lateness(loop: asyncio.AbstractEventLoop) -> float:
    async def measure() -> list[float]:
        late = []
        for number in range(200):
            delay = 0.002 + number * 0.000_005  # 2 to 3 ms: all parts of a millisecond
            start = time.perf_counter()
            await asyncio.sleep(delay)
            late.append(time.perf_counter() - start - delay)
        return late

    try:
        return statistics.median(loop.run_until_complete(measure())) * 1e9
    finally:
        loop.close()


def timer_late_asyncio() -> float:
    """How late a timer of asyncio's own event loop is, median, ns."""
    return _lateness(asyncio.SelectorEventLoop())


def timer_late() -> float:
    """The same of the event loop that `async` operators run on, ns."""
    return _lateness(new_event_loop())


COSTS: tuple[Callable[[], float], ...] = (
    call_in_place,
    call_through_map,
    await_in_place,
    await_four_frames,
    two_clock_readings,
    thread_start,
    handover_of_one,
    handover_of_many,
    full_collection,
    full_collection_held,
    timer_late_asyncio,
    timer_late,
)


def measure(costs: tuple[Callable[[], float], ...] = COSTS) -> str:
    """The costs as a Markdown table."""
    lines = ["| what | |", "|---|---|"]
    for cost in costs:
        what = (
            (cost.__doc__ or cost.__name__)
            .strip()
            .rstrip(".")
            .removesuffix(", ns")
            .replace(", ns per item", ", per item")
        )
        lines.append(f"| {what} | {_shown(cost())} |")
    return "\n".join(lines) + "\n"


def _shown(nanoseconds: float) -> str:
    for unit, size in (("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds:.3g} ns"


if __name__ == "__main__":
    sys.stdout.write(measure())
