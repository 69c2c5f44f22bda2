"""Haystack: one pipeline run per item, since a run is its unit of work; concurrency comes from outside.

Its components often take lists (of documents), and a component that loops over all integers in one run would
be as fast as the bare loop; it would measure that loop, and not Haystack.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

# Haystack reports its use over the network unless told not to, and reads this while it is imported.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

import workloads
from contract import Options, Outcome, Workload, llm_outcome, run_peer
from haystack import Pipeline, component

NOOP_ITEMS = 10_000
KEYED_ITEMS = 10_000


@component
class _AddOne:
    @component.output_types(value=int)
    def run(self, value: int) -> dict[str, int]:
        return {"value": workloads.add_one(value)}


@component
class _Double:
    @component.output_types(value=int)
    def run(self, value: int) -> dict[str, int]:
        return {"value": workloads.double(value)}


@component
class _Keep:
    """Routes each item to one of two outputs: with a single one, every dropped item would log a warning."""

    @component.output_types(kept=int, dropped=int)
    def run(self, value: int) -> dict[str, int]:
        return {"kept" if workloads.keep(value) else "dropped": value}


@component
class _KeyOf:
    @component.output_types(key=str, pair=tuple[str, int])
    def run(self, pair: tuple[str, int]) -> dict[str, Any]:
        return {"key": workloads.key_of(pair), "pair": pair}


@component
class _RunningCount:
    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    @component.output_types(key=str, count=int)
    def run(self, key: str, pair: tuple[str, int]) -> dict[str, Any]:
        self._counts[key] = count = workloads.count_up(self._counts.get(key, 0), pair)
        return {"key": key, "count": count}


@component
class _Model:
    """Offers both forms, as Haystack's generators do; the pipeline's `run_async` takes the asynchronous."""

    def __init__(self, call: Callable[[int], int], acall: Callable[[int], Awaitable[int]]) -> None:
        self._call = call
        self._acall = acall

    @component.output_types(answer=int)
    def run(self, item: int) -> dict[str, int]:
        return {"answer": self._call(item)}

    @component.output_types(answer=int)
    async def run_async(self, item: int) -> dict[str, int]:
        return {"answer": await self._acall(item)}


def noop(options: Options) -> Outcome:
    """Three connected components; the last one's output tells whether the item is kept."""
    pipeline = Pipeline()
    pipeline.add_component("add_one", _AddOne())
    pipeline.add_component("double", _Double())
    pipeline.add_component("keep", _Keep())
    pipeline.connect("add_one.value", "double.value")
    pipeline.connect("double.value", "keep.value")
    count = 0
    start = perf_counter()
    for item in range(options.items):
        if "kept" in pipeline.run({"add_one": {"value": item}})["keep"]:
            count += 1
    seconds = perf_counter() - start
    return Outcome(options.items, seconds, workloads.check_noop(count, options.items), _per_run(options.items))


def keyed(options: Options) -> Outcome:
    """A component that holds the counts."""
    pairs = workloads.keyed_pairs(options.items)
    pipeline = Pipeline()
    pipeline.add_component("key_of", _KeyOf())
    pipeline.add_component("count", _RunningCount())
    pipeline.connect("key_of.key", "count.key")
    pipeline.connect("key_of.pair", "count.pair")
    outputs: list[workloads.Pair] = []
    start = perf_counter()
    for pair in pairs:
        counted = pipeline.run({"key_of": {"pair": pair}})["count"]
        outputs.append((counted["key"], counted["count"]))
    seconds = perf_counter() - start
    return Outcome(options.items, seconds, workloads.check_keyed(outputs, pairs), _per_run(options.items))


def _per_run(items: int) -> str:
    return f"one run per item; {items} items, a rate to compare and not a total"


def _model_pipeline(call: Callable[[int], int], acall: Callable[[int], Awaitable[int]]) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("model", _Model(call, acall))
    return pipeline


async def _run_concurrently(pipeline: Pipeline, items: int, tasks: int) -> tuple[list[int], float]:
    """Await one `run_async` per item from `tasks` tasks: `concurrency_limit` bounds one run, not several."""
    source = iter(range(items))
    outputs: list[int] = []

    async def work() -> None:
        for item in source:
            outputs.append((await pipeline.run_async({"model": {"item": item}}))["model"]["answer"])

    start = perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(work())
    return outputs, perf_counter() - start


def llm_async(options: Options) -> Outcome:
    """One `run_async` per item, as many at once as may be in flight."""
    model = workloads.SimulatedModel()
    pipeline = _model_pipeline(model.call, model.acall)
    outputs, seconds = asyncio.run(_run_concurrently(pipeline, options.items, options.in_flight))
    return llm_outcome(model, outputs, seconds, options, f"{options.in_flight} tasks of run_async")


def llm_threads(options: Options) -> Outcome:
    """One `run` per item on a thread pool."""
    model = workloads.SimulatedModel()
    pipeline = _model_pipeline(model.call, model.acall)

    def run(item: int) -> int:
        answer: int = pipeline.run({"model": {"item": item}})["model"]["answer"]
        return answer

    with ThreadPoolExecutor(options.in_flight) as pool:
        start = perf_counter()
        outputs = list(pool.map(run, range(options.items)))
        seconds = perf_counter() - start
    return llm_outcome(model, outputs, seconds, options, f"run on a pool of {options.in_flight} threads")


def async_zero(options: Options) -> Outcome:
    """As `llm_async`, over a coroutine that returns at once."""
    pipeline = _model_pipeline(lambda item: item, workloads.echo)
    outputs, seconds = asyncio.run(_run_concurrently(pipeline, options.items, options.in_flight))
    result = workloads.check_async_zero(outputs, options.items)
    return Outcome(options.items, seconds, result, f"{options.in_flight} tasks of run_async")


WORKLOADS = {
    "noop": Workload(noop, NOOP_ITEMS),
    "keyed": Workload(keyed, KEYED_ITEMS),
    "llm_async": Workload(llm_async, workloads.LLM_ITEMS),
    "llm_threads": Workload(llm_threads, workloads.LLM_ITEMS),
    "async_zero": Workload(async_zero, workloads.ASYNC_ZERO_ITEMS),
}

if __name__ == "__main__":
    sys.exit(run_peer("haystack", "haystack-ai", WORKLOADS))
