"""bytewax, one worker: `plain` with the operators of its guide, `batched` with steps written over batches.

Both read from a source whose batch size was tuned by hand, since that is one argument (single items, as its
testing source emits them unless told, are tens of times slower). `batched` keeps the same steps, each a
`flat_map_batch` or a `StatefulBatchLogic`, which its reference names as the way to lower the cost per item.

bytewax runs no coroutines: an asynchronous step is a batch handed to an event loop of one's own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import islice
from time import perf_counter
from typing import Any

import bytewax.operators as op
import workloads
from bytewax.dataflow import Dataflow, Stream
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.operators import KeyedStream, StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import cluster_main, run_main
from contract import PLAIN, Options, Outcome, RssSampler, Workload, llm_outcome, run_peer

BATCHED = "batched"
WORKERS = "workers"
CONNECTOR_BATCH_SIZE = 1_000
# Tuned by hand over 1,000 to 1,000,000. A state operator calls Python once per key and batch, which is why
# `keyed` wants far larger batches than `noop`.
NOOP_BATCH_SIZE = 10_000
KEYED_BATCH_SIZE = 100_000
COLLECT_TIMEOUT = timedelta(seconds=1)


class _BatchPartition(StatelessSourcePartition[Any]):
    def __init__(self, items: Iterable[Any], batch_size: int) -> None:
        self._items = iter(items)
        self._batch_size = batch_size

    def next_batch(self) -> list[Any]:
        batch = list(islice(self._items, self._batch_size))
        if not batch:
            raise StopIteration
        return batch


class _Source(DynamicSource[Any]):
    """Emits any iterable in batches from the first worker."""

    def __init__(self, items: Iterable[Any], batch_size: int) -> None:
        self._items = items
        self._batch_size = batch_size

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _BatchPartition:
        return _BatchPartition(self._items if worker_index == 0 else (), self._batch_size)


class _CallPartition(StatelessSinkPartition[Any]):
    def __init__(self, write: Callable[[list[Any]], None]) -> None:
        self._write = write

    def write_batch(self, items: list[Any]) -> None:
        self._write(items)


class _Sink(DynamicSink[Any]):
    """Hands every batch to a function."""

    def __init__(self, write: Callable[[list[Any]], None]) -> None:
        self._write = write

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _CallPartition:
        return _CallPartition(self._write)


def _run(flow: Dataflow) -> float:
    start = perf_counter()
    run_main(flow)  # type: ignore[no-untyped-call]
    return perf_counter() - start


def noop(options: Options) -> Outcome:
    """`map`, `map`, `filter`; the sink adds up the lengths of its batches."""
    batched = options.variant == BATCHED
    size = options.batch_size or NOOP_BATCH_SIZE
    add_one, double, keep = workloads.add_one, workloads.double, workloads.keep
    count = 0

    def write(items: list[int]) -> None:
        nonlocal count
        count += len(items)

    flow = Dataflow("noop")
    stream: Stream[int] = op.input("source", flow, _Source(range(options.items), size))
    if batched:
        stream = op.flat_map_batch("add_one", stream, lambda batch: [add_one(item) for item in batch])
        stream = op.flat_map_batch("double", stream, lambda batch: [double(item) for item in batch])
        stream = op.flat_map_batch("keep", stream, lambda batch: [item for item in batch if keep(item)])
    else:
        stream = op.map("add_one", stream, add_one)
        stream = op.map("double", stream, double)
        stream = op.filter("keep", stream, keep)
    op.output("count", stream, _Sink(write))
    seconds = _run(flow)
    return Outcome(options.items, seconds, workloads.check_noop(count, options.items), f"batches of {size}")


class _RunningCount(StatefulBatchLogic[workloads.Pair, int, int]):
    def __init__(self, count: int) -> None:
        self._count = count

    def on_batch(self, values: list[workloads.Pair]) -> tuple[list[int], bool]:
        count = self._count
        count_up = workloads.count_up
        counts = [count := count_up(count, pair) for pair in values]
        self._count = count
        return counts, StatefulBatchLogic.RETAIN

    def snapshot(self) -> int:
        return self._count


def keyed(options: Options) -> Outcome:
    """`key_on`, `stateful_map`; batched: keys made per batch, a logic that counts a key's items at once."""
    batched = options.variant == BATCHED
    size = options.batch_size or KEYED_BATCH_SIZE
    pairs = workloads.keyed_pairs(options.items)
    key_of, count_up = workloads.key_of, workloads.count_up
    outputs: list[workloads.Pair] = []

    def step(count: int | None, pair: workloads.Pair) -> tuple[int | None, int]:
        count = count_up(0 if count is None else count, pair)
        return count, count

    flow = Dataflow("keyed")
    stream: Stream[workloads.Pair] = op.input("source", flow, _Source(pairs, size))
    counts: KeyedStream[int]
    if batched:
        by_key = op.flat_map_batch("key_of", stream, lambda batch: [(key_of(pair), pair) for pair in batch])
        counts = op.stateful_batch("count", by_key, lambda resumed: _RunningCount(resumed or 0))
    else:
        counts = op.stateful_map("count", op.key_on("key_of", stream, key_of), step)
    op.output("collect", counts, _Sink(outputs.extend))
    seconds = _run(flow)
    return Outcome(options.items, seconds, workloads.check_keyed(outputs, pairs), f"batches of {size}")


def join(options: Options) -> Outcome:
    """`join` of all values with all; bytewax emits what a key has at the end."""
    size = options.batch_size or KEYED_BATCH_SIZE
    sides = workloads.join_sides(options.items)
    outputs: list[tuple[workloads.Pair, workloads.Pair]] = []

    def write(items: list[tuple[str, tuple[workloads.Pair, workloads.Pair]]]) -> None:
        outputs.extend([pair for _, pair in items])

    flow = Dataflow("join")
    streams = [
        op.key_on(f"key_of_{name}", op.input(name, flow, _Source(side, size)), workloads.key_of)
        for name, side in zip(("left", "right"), sides, strict=True)
    ]
    joined = op.join("join", *streams, insert_mode="product", emit_mode="final")
    op.output("collect", joined, _Sink(write))
    seconds = _run(flow)
    return Outcome(options.items * 2, seconds, workloads.check_join(outputs, *sides), f"batches of {size}")


def _run_stage(call_all: Callable[[list[int]], Iterable[int]], options: Options) -> tuple[list[int], float]:
    """Run a waiting step over batches of `in_flight`, made by `collect` (plain) or the source (batched)."""
    outputs: list[int] = []
    flow = Dataflow("stage")
    if options.variant == BATCHED:
        # An item is a call, so a batch of the source must not be larger than the calls allowed in flight.
        size = min(options.batch_size or options.in_flight, options.in_flight)
        stream = op.input("source", flow, _Source(range(options.items), size))
        answers = op.flat_map_batch("call", stream, call_all)
    else:
        size = options.batch_size or CONNECTOR_BATCH_SIZE
        stream = op.input("source", flow, _Source(range(options.items), size))
        one_key = op.key_on("one_key", stream, lambda _: "all")
        batches = op.collect("collect", one_key, COLLECT_TIMEOUT, options.in_flight)
        answers = op.flat_map("call", batches, lambda keyed_batch: call_all(keyed_batch[1]))
    op.output("collect_answers", answers, _Sink(outputs.extend))
    return outputs, _run(flow)


def _run_async_stage(call: Callable[[int], Awaitable[int]], options: Options) -> tuple[list[int], float]:
    """Run `call` for a batch at a time on one event loop that lives as long as the dataflow."""

    async def gather(batch: list[int]) -> list[int]:
        return await asyncio.gather(*map(call, batch))

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        return _run_stage(lambda batch: loop.run_until_complete(gather(batch)), options)


def _stage_notes(options: Options) -> str:
    how = "batches of the source" if options.variant == BATCHED else "collect()"
    return f"{how} of {options.in_flight}; equal delays hide that a batch waits for its slowest call"


def llm_async(options: Options) -> Outcome:
    """A batch at a time, gathered on an event loop."""
    model = workloads.SimulatedModel()
    outputs, seconds = _run_async_stage(model.acall, options)
    return llm_outcome(model, outputs, seconds, options, _stage_notes(options))


def llm_threads(options: Options) -> Outcome:
    """A batch at a time on a thread pool; as `workers`: `redistribute` over one worker thread per call."""
    model = workloads.SimulatedModel()
    if options.variant == WORKERS:
        outputs, seconds = _run_workers(model.call, options)
        notes = f"redistribute over {options.in_flight} workers"
        return llm_outcome(model, outputs, seconds, options, notes)
    with ThreadPoolExecutor(options.in_flight) as pool:
        outputs, seconds = _run_stage(lambda batch: pool.map(model.call, batch), options)
    return llm_outcome(model, outputs, seconds, options, _stage_notes(options))


def _run_workers(call: Callable[[int], int], options: Options) -> tuple[list[int], float]:
    outputs: list[int] = []
    flow = Dataflow("workers")
    stream = op.input("source", flow, _Source(range(options.items), options.batch_size or 1))
    answers = op.map("call", op.redistribute("spread", stream), call)
    op.output("collect_answers", answers, _Sink(outputs.extend))
    start = perf_counter()
    cluster_main(flow, [], 0, worker_count_per_proc=options.in_flight)  # type: ignore[no-untyped-call]
    return outputs, perf_counter() - start


def async_zero(options: Options) -> Outcome:
    """As `llm_async`, over a coroutine that returns at once."""
    outputs, seconds = _run_async_stage(workloads.echo, options)
    result = workloads.check_async_zero(outputs, options.items)
    return Outcome(options.items, seconds, result, f"batches of {options.in_flight}, gathered")


def slow_sink(options: Options) -> Outcome:
    """An endless source into a sink that sleeps per item; when the time is over, the source ends."""
    size = options.batch_size or CONNECTOR_BATCH_SIZE
    sink = workloads.SlowSink()
    deadline = float("inf")

    def until_deadline() -> Iterator[int]:
        for item in range(options.items):
            if perf_counter() >= deadline:
                return
            yield item

    def write(items: list[int]) -> None:
        for item in items:
            if perf_counter() < deadline:
                sink(item)
            else:
                sink.discard(item)

    flow = Dataflow("slow_sink")
    op.output("sink", op.input("source", flow, _Source(until_deadline(), size)), _Sink(write))
    with RssSampler() as sampler:
        deadline = perf_counter() + options.run_seconds
        seconds = _run(flow)
    notes = f"source of {options.items} items in batches of {size}, stopped after {options.run_seconds:g} s"
    return Outcome(sink.taken, seconds, sink.taken, notes, sampler.thirds())


WORKLOADS = {
    "noop": Workload(noop, workloads.NOOP_ITEMS, (PLAIN, BATCHED)),
    "keyed": Workload(keyed, workloads.KEYED_ITEMS, (PLAIN, BATCHED)),
    "join": Workload(join, workloads.JOIN_ITEMS),
    "llm_async": Workload(llm_async, workloads.LLM_ITEMS, (PLAIN, BATCHED)),
    "llm_threads": Workload(llm_threads, workloads.LLM_ITEMS, (PLAIN, BATCHED, WORKERS)),
    "async_zero": Workload(async_zero, workloads.ASYNC_ZERO_ITEMS, (PLAIN, BATCHED)),
    "slow_sink": Workload(slow_sink, workloads.SLOW_SINK_ITEMS),
}

if __name__ == "__main__":
    sys.exit(run_peer("bytewax", "bytewax", WORKLOADS))
