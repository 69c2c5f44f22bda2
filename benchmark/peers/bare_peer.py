"""Python and its standard library alone: the work without any framework, and a chain of `queue.Queue`."""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from time import perf_counter

import process_workloads
import workloads
from contract import Options, Outcome, RssSampler, Workload, llm_outcome, run_peer


def noop(options: Options) -> Outcome:
    """One loop that calls the same functions."""
    # Locals, as anybody would who cares: a global look-up per call is not the work.
    add_one, double, keep = workloads.add_one, workloads.double, workloads.keep
    count = 0
    start = perf_counter()
    for item in range(options.items):
        if keep(double(add_one(item))):
            count += 1
    seconds = perf_counter() - start
    return Outcome(options.items, seconds, workloads.check_noop(count, options.items))


def keyed(options: Options) -> Outcome:
    """One loop over a dict that calls the same functions and keeps every output."""
    pairs = workloads.keyed_pairs(options.items)
    key_of, count_up = workloads.key_of, workloads.count_up
    counts: dict[str, int] = {}
    outputs: list[workloads.Pair] = []
    start = perf_counter()
    for pair in pairs:
        key = key_of(pair)
        counts[key] = count = count_up(counts.get(key, 0), pair)
        outputs.append((key, count))
    seconds = perf_counter() - start
    return Outcome(options.items, seconds, workloads.check_keyed(outputs, pairs))


async def _with_tasks(call: Callable[[int], Awaitable[int]], items: int, tasks: int) -> tuple[list[int], float]:
    """Run `call` over `range(items)` from `tasks` tasks sharing an iterator: the cheapest bound there is."""
    source = iter(range(items))
    outputs: list[int] = []

    async def work() -> None:
        for item in source:
            outputs.append(await call(item))

    start = perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(work())
    return outputs, perf_counter() - start


def llm_async(options: Options) -> Outcome:
    """As many tasks as calls may be in flight, on one event loop."""
    model = workloads.SimulatedModel()
    outputs, seconds = asyncio.run(_with_tasks(model.acall, options.items, options.in_flight))
    return llm_outcome(model, outputs, seconds, options, f"{options.in_flight} tasks over one iterator")


def llm_threads(options: Options) -> Outcome:
    """A thread pool of as many threads as calls may be in flight."""
    model = workloads.SimulatedModel()
    with ThreadPoolExecutor(options.in_flight) as pool:
        start = perf_counter()
        outputs = list(pool.map(model.call, range(options.items)))
        seconds = perf_counter() - start
    return llm_outcome(model, outputs, seconds, options, f"a pool of {options.in_flight} threads")


def async_zero(options: Options) -> Outcome:
    """The same tasks over a coroutine that returns at once."""
    outputs, seconds = asyncio.run(_with_tasks(workloads.echo, options.items, options.in_flight))
    result = workloads.check_async_zero(outputs, options.items)
    notes = "no task and no queue per item: a lower bound on the cost, not a framework"
    return Outcome(options.items, seconds, result, notes)


def hop(options: Options) -> Outcome:
    """Threads joined by `queue.Queue`; the next item starts when the last one has come out."""
    queues: list[queue.Queue[list[int] | None]] = [
        queue.Queue(options.queue_capacity) for _ in range(workloads.HOP_STAGES + 1)
    ]
    stamp = workloads.stamp

    def stage(source: queue.Queue[list[int] | None], target: queue.Queue[list[int] | None]) -> None:
        while (stamps := source.get()) is not None:
            target.put(stamp(stamps))
        target.put(None)

    threads = [
        threading.Thread(target=stage, args=(source, target), name=f"stage-{number}")
        for number, (source, target) in enumerate(pairwise(queues), start=1)
    ]
    for thread in threads:
        thread.start()
    outputs: list[list[int]] = []
    first, last = queues[0], queues[-1]
    start = perf_counter()
    for _ in range(options.items):
        first.put(stamp([]))
        arrived = last.get()
        if arrived is not None:
            outputs.append(arrived)
    seconds = perf_counter() - start
    first.put(None)
    for thread in threads:
        thread.join()
    details = workloads.hop_latencies_us(outputs)
    if len(outputs) != options.items:
        raise workloads.WrongResultError(f"hop must bring {options.items} items through, got {len(outputs)}")
    notes = f"{workloads.HOP_STAGES} thread stages, one item in flight; a hop is stamp to stamp"
    return Outcome(options.items, seconds, len(outputs), notes, details)


def slow_sink(options: Options) -> Outcome:
    """A producer thread and a slow consumer joined by one bounded `queue.Queue`."""
    channel: queue.Queue[int | None] = queue.Queue(options.queue_capacity)
    over = threading.Event()
    sink = workloads.SlowSink()

    def produce() -> None:
        for item in range(options.items):
            if over.is_set():
                break
            channel.put(item)
        channel.put(None)

    producer = threading.Thread(target=produce, name="source")
    with RssSampler() as sampler:
        start = perf_counter()
        deadline = start + options.run_seconds
        producer.start()
        while (item := channel.get()) is not None:
            if perf_counter() < deadline:
                sink(item)
            else:
                over.set()
                sink.discard(item)
        seconds = perf_counter() - start
    producer.join()
    notes = f"source of {options.items} items, stopped after {options.run_seconds:g} s"
    return Outcome(sink.taken, seconds, sink.taken, notes, sampler.thirds())


def compute(options: Options) -> Outcome:
    """One loop, in this very process."""
    texts = process_workloads.compute_texts(options.items)
    call = process_workloads.compute
    start = perf_counter()
    outputs = [call(text) for text in texts]
    seconds = perf_counter() - start
    return Outcome(options.items, seconds, process_workloads.check_compute(outputs, texts))


WORKLOADS = {
    "compute": Workload(compute, process_workloads.COMPUTE_ITEMS),
    "noop": Workload(noop, workloads.NOOP_ITEMS),
    "keyed": Workload(keyed, workloads.KEYED_ITEMS),
    "llm_async": Workload(llm_async, workloads.LLM_ITEMS),
    "llm_threads": Workload(llm_threads, workloads.LLM_ITEMS),
    "async_zero": Workload(async_zero, workloads.ASYNC_ZERO_ITEMS),
    "hop": Workload(hop, workloads.HOP_ITEMS),
    "slow_sink": Workload(slow_sink, workloads.SLOW_SINK_ITEMS),
}

if __name__ == "__main__":
    sys.exit(run_peer("bare", None, WORKLOADS))
