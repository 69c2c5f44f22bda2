"""SAGE itself, under the same contract as its peers. `seconds` counts compiling and starting as well."""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import workloads
from contract import Options, Outcome, RssSampler, Workload, llm_outcome, run_peer

from sage.kernel.api import Contract, LocalEnvironment, Resources, SinkFunction


class Gather(SinkFunction[Any]):
    """Keeps every item in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Any] = []

    def execute(self, item: Any) -> None:
        """Keep the item."""
        self.items.append(item)


class Count(SinkFunction[Any]):
    """Counts items."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def execute(self, item: Any) -> None:
        """Count the item."""
        self.count += 1


def _timed(env: LocalEnvironment) -> float:
    start = time.perf_counter()
    env.submit()
    return time.perf_counter() - start


def noop(options: Options) -> Outcome:
    """Two maps, a filter and a counting sink; variant `unfused` gives each operator a thread of its own."""
    env = LocalEnvironment("noop", {"fusion": options.variant != "unfused"})
    count = Count()
    stream = env.from_collection(range(options.items)).map(workloads.add_one).map(workloads.double)
    stream.filter(workloads.keep).sink(count)
    seconds = _timed(env)
    return Outcome(options.items, seconds, workloads.check_noop(count.count, options.items))


def keyed(options: Options) -> Outcome:
    """A running count per key; variant `replicas` spreads the keys over four replicas."""
    pairs = workloads.keyed_pairs(options.items)
    env = LocalEnvironment("keyed")
    gather = Gather()
    stream = env.from_collection(pairs).key_by(workloads.key_of)
    stream.aggregate(0, workloads.count_up, parallelism=4 if options.variant == "replicas" else 1).sink(gather)
    seconds = _timed(env)
    return Outcome(options.items, seconds, workloads.check_keyed(gather.items, pairs))


def _llm(call: Callable[..., Any], options: Options, **arguments: Any) -> tuple[list[Any], float]:
    env = LocalEnvironment("llm")
    gather = Gather()
    env.from_collection(range(options.items)).map(call, name="call", **arguments).sink(gather, parallelism=1)
    seconds = _timed(env)
    return gather.items, seconds


def llm_async(options: Options) -> Outcome:
    """One replica of a coroutine operator with as many items in flight as allowed."""
    model = workloads.SimulatedModel()
    contract = Contract(resources=Resources(concurrency=options.in_flight))
    outputs, seconds = _llm(model.acall, options, contract=contract)
    return llm_outcome(model, outputs, seconds, options, f"concurrency={options.in_flight}")


def llm_threads(options: Options) -> Outcome:
    """As many thread replicas of a blocking operator as calls may be in flight."""
    model = workloads.SimulatedModel()
    outputs, seconds = _llm(model.call, options, parallelism=options.in_flight)
    return llm_outcome(model, outputs, seconds, options, f"parallelism={options.in_flight}")


def async_zero(options: Options) -> Outcome:
    """The same coroutine operator, returning at once."""
    contract = Contract(resources=Resources(concurrency=options.in_flight))
    outputs, seconds = _llm(workloads.echo, options, contract=contract)
    return Outcome(options.items, seconds, workloads.check_async_zero(outputs, options.items))


def hop(options: Options) -> Outcome:
    """Four unfused thread stages; the source sends the next item when the sink has the last one."""
    env = LocalEnvironment("hop", {"fusion": False})
    arrived: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    outputs: list[list[int]] = []

    def source() -> Iterator[list[int]]:
        for _ in range(options.items):
            yield workloads.stamp([])
            outputs.append(arrived.get())

    stream = env.from_source(source)
    for number in range(1, workloads.HOP_STAGES + 1):
        stream = stream.map(workloads.stamp, name=f"stage-{number}")
    stream.sink(arrived.put)
    seconds = _timed(env)
    notes = f"{workloads.HOP_STAGES} thread stages, one item in flight; a hop is stamp to stamp"
    return Outcome(options.items, seconds, len(outputs), notes, workloads.hop_latencies_us(outputs))


def slow_sink(options: Options) -> Outcome:
    """An endless source and a slow sink on threads of their own, stopped after a while."""
    env = LocalEnvironment("slow_sink", {"fusion": False})
    sink = workloads.SlowSink()
    deadline = time.perf_counter() + options.run_seconds

    def take(item: int) -> None:
        if time.perf_counter() < deadline:
            sink(item)
        else:
            sink.discard(item)

    env.from_collection(range(options.items)).sink(take)
    with RssSampler() as sampler:
        start = time.perf_counter()
        job = env.submit(wait=False)
        time.sleep(options.run_seconds)
        job.stop()
        job.wait()
        seconds = time.perf_counter() - start
    notes = f"source of {options.items} items, stopped after {options.run_seconds:g} s"
    return Outcome(sink.taken, seconds, sink.taken, notes, sampler.thirds())


WORKLOADS = {
    "noop": Workload(noop, workloads.NOOP_ITEMS, ("plain", "unfused")),
    "keyed": Workload(keyed, workloads.KEYED_ITEMS, ("plain", "replicas")),
    "llm_async": Workload(llm_async, workloads.LLM_ITEMS),
    "llm_threads": Workload(llm_threads, workloads.LLM_ITEMS),
    "async_zero": Workload(async_zero, workloads.ASYNC_ZERO_ITEMS),
    "hop": Workload(hop, workloads.HOP_ITEMS),
    "slow_sink": Workload(slow_sink, workloads.SLOW_SINK_ITEMS),
}

if __name__ == "__main__":
    sys.exit(run_peer("sage", "sage-kernel", WORKLOADS))
