"""streamz: synchronous streams where nothing waits, `map_async` with bounded parallelism where it does.

Variant `batched` of `async_zero` emits lists by hand, gathers each in one call of `map_async`, and flattens.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import workloads
from contract import PLAIN, Options, Outcome, RssSampler, Workload, llm_outcome, run_peer
from streamz import Stream  # type: ignore[import-untyped]

BATCHED = "batched"
BUFFER_CAPACITY = 64


def noop(options: Options) -> Outcome:
    """`map`, `map`, `filter`, `sink`; without an event loop `emit` is a chain of plain calls."""
    count = 0

    def count_one(_: int) -> None:
        nonlocal count
        count += 1

    source = Stream()
    source.map(workloads.add_one).map(workloads.double).filter(workloads.keep).sink(count_one)
    emit = source.emit
    start = perf_counter()
    for item in range(options.items):
        emit(item)
    seconds = perf_counter() - start
    return Outcome(options.items, seconds, workloads.check_noop(count, options.items))


def keyed(options: Options) -> Outcome:
    """`accumulate` over a dict that is updated in place: streamz has no state per key of its own."""
    pairs = workloads.keyed_pairs(options.items)
    key_of, count_up = workloads.key_of, workloads.count_up

    def step(counts: dict[str, int], pair: workloads.Pair) -> tuple[dict[str, int], workloads.Pair]:
        key = key_of(pair)
        counts[key] = count = count_up(counts.get(key, 0), pair)
        return counts, (key, count)

    source = Stream()
    outputs: list[workloads.Pair] = source.accumulate(step, start={}, returns_state=True).sink_to_list()
    emit = source.emit
    start = perf_counter()
    for pair in pairs:
        emit(pair)
    seconds = perf_counter() - start
    return Outcome(options.items, seconds, workloads.check_keyed(outputs, pairs))


async def _through_map_async(
    call: Callable[[int], Awaitable[int]], items: int, in_flight: int, batch_size: int | None = None
) -> tuple[list[int], float]:
    """Send `range(items)` through one `map_async`, singly or in lists, and wait until every answer is out.

    Its queue holds `parallelism` started calls besides the one awaited: it starts one more than it is told.
    """
    source = Stream(asynchronous=True)
    outputs: list[int] = []
    done = asyncio.Event()

    def take(answer: int) -> None:
        outputs.append(answer)
        if len(outputs) == items:
            done.set()

    async def call_all(batch: list[int]) -> list[int]:
        return await asyncio.gather(*map(call, batch))

    if batch_size is None:
        stage = source.map_async(call, parallelism=max(1, in_flight - 1))
        stage.sink(take)
    else:
        stage = source.map_async(call_all, parallelism=max(1, in_flight // batch_size - 1))
        stage.flatten().sink(take)
    start = perf_counter()
    if batch_size is None:
        for item in range(items):
            await source.emit(item)
    else:
        for first in range(0, items, batch_size):
            await source.emit(list(range(first, min(first + batch_size, items))))
    await done.wait()
    seconds = perf_counter() - start
    stop_work, worker = stage.work_task
    # The worker waits for a next item for ever; `stop` alone would leave the task pending at the loop's end.
    stop_work.set()
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    return outputs, seconds


def llm_async(options: Options) -> Outcome:
    """`map_async` over the coroutine."""
    model = workloads.SimulatedModel()
    outputs, seconds = asyncio.run(_through_map_async(model.acall, options.items, options.in_flight))
    return llm_outcome(model, outputs, seconds, options, "map_async")


def llm_threads(options: Options) -> Outcome:
    """`map_async` over a thread pool's futures; streamz's own way to threads is Dask, not installed here."""
    model = workloads.SimulatedModel()
    with ThreadPoolExecutor(options.in_flight) as pool:

        async def call(item: int) -> int:
            return await asyncio.get_running_loop().run_in_executor(pool, model.call, item)

        outputs, seconds = asyncio.run(_through_map_async(call, options.items, options.in_flight))
    return llm_outcome(model, outputs, seconds, options, "map_async over run_in_executor")


def async_zero(options: Options) -> Outcome:
    """`map_async` over a coroutine that returns at once; `batched`: two lists of half of `in_flight`."""
    size: int | None = None
    if options.variant == BATCHED:
        size = options.batch_size or max(1, options.in_flight // 2)
    run = _through_map_async(workloads.echo, options.items, options.in_flight, size)
    outputs, seconds = asyncio.run(run)
    result = workloads.check_async_zero(outputs, options.items)
    how = "single items" if size is None else f"lists of {size}, gathered and flattened"
    return Outcome(options.items, seconds, result, f"map_async over {how}, {options.in_flight} in flight")


async def _slow_sink(options: Options) -> Outcome:
    sink = workloads.SlowSink()
    source = Stream(asynchronous=True)
    source.buffer(BUFFER_CAPACITY).sink(sink.acall)
    with RssSampler() as sampler:
        start = perf_counter()
        deadline = start + options.run_seconds
        for item in range(options.items):
            await source.emit(item)
            if perf_counter() >= deadline:
                break
        seconds = perf_counter() - start
    notes = f"source of {options.items} items, buffer({BUFFER_CAPACITY}), stopped after {options.run_seconds:g} s"
    return Outcome(sink.taken, seconds, sink.taken, notes, sampler.thirds())


def slow_sink(options: Options) -> Outcome:
    """A buffered stream into a sink that suspends; awaiting `emit` passes its pressure back."""
    return asyncio.run(_slow_sink(options))


WORKLOADS = {
    "noop": Workload(noop, workloads.NOOP_ITEMS),
    "keyed": Workload(keyed, workloads.KEYED_ITEMS),
    "llm_async": Workload(llm_async, workloads.LLM_ITEMS),
    "llm_threads": Workload(llm_threads, workloads.LLM_ITEMS),
    "async_zero": Workload(async_zero, workloads.ASYNC_ZERO_ITEMS, (PLAIN, BATCHED)),
    "slow_sink": Workload(slow_sink, workloads.SLOW_SINK_ITEMS),
}

if __name__ == "__main__":
    sys.exit(run_peer("streamz", "streamz", WORKLOADS))
