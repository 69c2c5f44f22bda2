"""SAGE itself, under the same contract as its peers. `seconds` counts compiling and starting as well."""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import process_workloads as work
import workloads
from contract import Options, Outcome, RssSampler, Workload, llm_outcome, run_peer

from sage.kernel.api import Contract, Execution, LocalEnvironment, Resources, SinkFunction


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
    """A running count per key; variants `replicas` spread the keys over four replicas, variants `ordered` take the
    counts in the order of the pairs. Variant `aggregate` calls the function that the peers call, once per pair; the
    others use the ready-made count, which calls none.
    """
    pairs = workloads.keyed_pairs(options.items)
    env = LocalEnvironment("keyed")
    counts: list[workloads.Pair] = []
    ordered = options.variant in ("ordered", "replicas-ordered")
    stream = env.from_collection(pairs).key_by(workloads.key_of)
    if options.variant == "aggregate":
        counted = stream.aggregate(0, workloads.count_up)
    else:
        counted = stream.count(parallelism=4 if options.variant.startswith("replicas") else 1)
    counted.sink(counts.append, ordered=ordered)
    seconds = _timed(env)
    if ordered:
        workloads.check_in_order([key for key, _ in counts], [key for key, _ in pairs])
    return Outcome(options.items, seconds, workloads.check_keyed(counts, pairs))


def join(options: Options) -> Outcome:
    """An inner join of all pairs with all that have the same key."""
    left, right = workloads.join_sides(options.items)
    env = LocalEnvironment("join")
    outputs: list[tuple[workloads.Pair, workloads.Pair]] = []
    one = env.from_collection(left, name="left").key_by(workloads.key_of)
    one.join(env.from_collection(right, name="right").key_by(workloads.key_of)).sink(outputs.append)
    seconds = _timed(env)
    return Outcome(options.items * 2, seconds, workloads.check_join(outputs, left, right))


def skew(options: Options) -> Outcome:
    """A call that waits, on four replicas by key; variant `uniform` has keys that are equally frequent."""
    exponent = 0.0 if options.variant == "uniform" else workloads.SKEW_EXPONENT
    pairs = workloads.skew_pairs(options.items, exponent)
    env = LocalEnvironment("skew")
    outputs: list[workloads.Pair] = []

    def wait(pair: workloads.Pair) -> workloads.Pair:
        time.sleep(workloads.SKEW_DELAY_SECONDS)
        return pair

    keyed_pairs = env.from_collection(pairs).key_by(workloads.key_of)
    keyed_pairs.map(wait, name="wait", parallelism=workloads.SKEW_REPLICAS).sink(outputs.append)
    start = time.perf_counter()
    job = env.submit()
    seconds = time.perf_counter() - start
    hot = next(each.hot_key for each in job.metrics().operators if each.operator == "wait")
    if sorted(outputs) != sorted(pairs):
        raise workloads.WrongResultError("skew must bring each pair through once")
    if (hot is None) != (options.variant == "uniform"):
        raise workloads.WrongResultError(f"the metrics name {hot} as the hot key")
    notes = "no hot key" if hot is None else f"hot key {hot.key} with {hot.share:.0%} of the items"
    return Outcome(options.items, seconds, len(outputs), notes)


def _llm(call: Callable[..., Any], options: Options, **arguments: Any) -> tuple[list[Any], float]:
    env = LocalEnvironment("llm")
    gather = Gather()
    ordered = options.variant == "ordered"
    answers = env.from_collection(range(options.items)).map(call, name="call", **arguments)
    answers.sink(gather, parallelism=1, ordered=ordered)
    seconds = _timed(env)
    if ordered:
        workloads.check_in_order(gather.items, [workloads.answer_of(item) for item in range(options.items)])
    return gather.items, seconds


def llm_async(options: Options) -> Outcome:
    """One replica of a coroutine operator with as many items in flight as allowed; variant `ordered` takes the
    answers in the order of the items, as it does in `llm_threads`.
    """
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


PROCESS = Contract(execution=Execution.PROCESS)


def _through_processes(
    call: Callable[..., Any], items: list[Any], keep: Callable[[Any], Any], **arguments: Any
) -> tuple[list[Any], float]:
    """Through processes that an earlier job has started."""
    for given in (items[:8], items):
        env = LocalEnvironment("processes")
        outputs: list[Any] = []

        def take(output: Any, outputs: list[Any] = outputs) -> None:
            outputs.append(keep(output))

        env.from_collection(given).map(call, name="call", contract=PROCESS, **arguments).sink(take, parallelism=1)
        seconds = _timed(env)
    return outputs, seconds


def compute(options: Options) -> Outcome:
    """One process; variant `two` has two replicas."""
    texts = work.compute_texts(options.items)
    replicas = 2 if options.variant == "two" else 1
    outputs, seconds = _through_processes(work.compute, texts, work.pass_on, parallelism=replicas)
    return Outcome(options.items, seconds, work.check_compute(outputs, texts))


def process_dicts(options: Options) -> Outcome:
    """1 KB dicts through one process stage."""
    items = work.dicts_of_1_kb(options.items)
    outputs, seconds = _through_processes(work.pass_on, items, work.pass_on)
    return Outcome(options.items, seconds, work.check_dicts(outputs, items))


def process_arrays(options: Options) -> Outcome:
    """1 MiB arrays through one process stage."""
    items = work.arrays_of_1_mb(options.items)
    outputs, seconds = _through_processes(work.pass_on, items, work.digest)
    return Outcome(options.items, seconds, work.check_arrays(outputs, items))


def process_hop(options: Options) -> Outcome:
    """Four process stages, each in a process of its own; the source sends the next item when the sink has the last one.
    Variant `fused` leaves it to the compiler, which puts all four into one process.
    """
    env = LocalEnvironment("hop", {"fusion": options.variant == "fused"})
    arrived: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    outputs: list[list[int]] = []

    def source() -> Iterator[list[int]]:
        for _ in range(options.items):
            yield workloads.stamp([])
            outputs.append(arrived.get())

    stream = env.from_source(source)
    for number in range(1, workloads.HOP_STAGES + 1):
        stream = stream.map(workloads.stamp, name=f"stage-{number}", contract=PROCESS)
    stream.sink(arrived.put)
    seconds = _timed(env)
    notes = f"{workloads.HOP_STAGES} process stages, one item in flight; a hop is stamp to stamp"
    return Outcome(options.items, seconds, len(outputs), notes, workloads.hop_latencies_us(outputs))


WORKLOADS = {
    "compute": Workload(compute, work.COMPUTE_ITEMS, ("plain", "two")),
    "process_dicts": Workload(process_dicts, work.DICT_ITEMS),
    "process_arrays": Workload(process_arrays, work.ARRAY_ITEMS),
    "process_hop": Workload(process_hop, work.HOP_ITEMS, ("plain", "fused")),
    "noop": Workload(noop, workloads.NOOP_ITEMS, ("plain", "unfused")),
    "keyed": Workload(keyed, workloads.KEYED_ITEMS, ("plain", "aggregate", "replicas", "ordered", "replicas-ordered")),
    "join": Workload(join, workloads.JOIN_ITEMS),
    "skew": Workload(skew, workloads.SKEW_ITEMS, ("plain", "uniform")),
    "llm_async": Workload(llm_async, workloads.LLM_ITEMS, ("plain", "ordered")),
    "llm_threads": Workload(llm_threads, workloads.LLM_ITEMS, ("plain", "ordered")),
    "async_zero": Workload(async_zero, workloads.ASYNC_ZERO_ITEMS),
    "hop": Workload(hop, workloads.HOP_ITEMS),
    "slow_sink": Workload(slow_sink, workloads.SLOW_SINK_ITEMS),
}

if __name__ == "__main__":
    sys.exit(run_peer("sage", "sage-kernel", WORKLOADS))
