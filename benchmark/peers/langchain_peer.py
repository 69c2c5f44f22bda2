"""LangChain's expression language: chains of `RunnableLambda`, whole inputs by `batch` and `abatch`.

Variant `invoke` of `noop` calls the chain once per item in a loop instead: `batch` hands each item of each
step to a thread pool, which pays off for calls that wait and costs for those that do not.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter

# A machine that is set up for LangSmith would send a trace of every item.
os.environ["LANGSMITH_TRACING"] = "false"
os.environ["LANGCHAIN_TRACING_V2"] = "false"

import workloads
from contract import PLAIN, Options, Outcome, Workload, llm_outcome, run_peer
from langchain_core.runnables import RunnableConfig, RunnableLambda

INVOKE = "invoke"
NOOP_ITEMS = 5_000
KEYED_ITEMS = 5_000


def noop(options: Options) -> Outcome:
    """Three lambdas; there is no filter, so the last one answers whether the item is kept."""
    chain = RunnableLambda(workloads.add_one) | RunnableLambda(workloads.double) | RunnableLambda(workloads.keep)
    inputs = list(range(options.items))
    start = perf_counter()
    if options.variant == INVOKE:
        kept = [chain.invoke(item) for item in inputs]
    else:
        # One thread: steps that never wait gain nothing from more.
        kept = chain.batch(inputs, RunnableConfig(max_concurrency=1))
    seconds = perf_counter() - start
    return Outcome(options.items, seconds, workloads.check_noop(sum(kept), options.items), _bounded(options.items))


def keyed(options: Options) -> Outcome:
    """Two lambdas, the second over a dict; one `invoke` per item, as `batch` keeps no order in a step."""
    pairs = workloads.keyed_pairs(options.items)
    counts: dict[str, int] = {}

    def with_key(pair: workloads.Pair) -> tuple[str, workloads.Pair]:
        return workloads.key_of(pair), pair

    def count(keyed_pair: tuple[str, workloads.Pair]) -> workloads.Pair:
        key, pair = keyed_pair
        counts[key] = running = workloads.count_up(counts.get(key, 0), pair)
        return key, running

    chain = RunnableLambda(with_key) | RunnableLambda(count)
    start = perf_counter()
    outputs = [chain.invoke(pair) for pair in pairs]
    seconds = perf_counter() - start
    return Outcome(options.items, seconds, workloads.check_keyed(outputs, pairs), _bounded(options.items))


def _bounded(items: int) -> str:
    return f"{items} items, a rate to compare and not a total"


async def _abatch(call: Callable[[int], Awaitable[int]], items: int, in_flight: int) -> tuple[list[int], float]:
    chain: RunnableLambda[int, int] = RunnableLambda(call)
    inputs = list(range(items))
    start = perf_counter()
    outputs = await chain.abatch(inputs, RunnableConfig(max_concurrency=in_flight))
    return outputs, perf_counter() - start


def llm_async(options: Options) -> Outcome:
    """`abatch` with `max_concurrency`."""
    model = workloads.SimulatedModel()
    outputs, seconds = asyncio.run(_abatch(model.acall, options.items, options.in_flight))
    return llm_outcome(model, outputs, seconds, options, f"abatch, max_concurrency {options.in_flight}")


def llm_threads(options: Options) -> Outcome:
    """`batch` with `max_concurrency`."""
    model = workloads.SimulatedModel()
    chain = RunnableLambda(model.call)
    inputs = list(range(options.items))
    start = perf_counter()
    outputs = chain.batch(inputs, RunnableConfig(max_concurrency=options.in_flight))
    seconds = perf_counter() - start
    return llm_outcome(model, outputs, seconds, options, f"batch, max_concurrency {options.in_flight}")


def async_zero(options: Options) -> Outcome:
    """`abatch` over a coroutine that returns at once."""
    outputs, seconds = asyncio.run(_abatch(workloads.echo, options.items, options.in_flight))
    result = workloads.check_async_zero(outputs, options.items)
    return Outcome(options.items, seconds, result, f"abatch, max_concurrency {options.in_flight}")


WORKLOADS = {
    "noop": Workload(noop, NOOP_ITEMS, (PLAIN, INVOKE)),
    "keyed": Workload(keyed, KEYED_ITEMS),
    "llm_async": Workload(llm_async, workloads.LLM_ITEMS),
    "llm_threads": Workload(llm_threads, workloads.LLM_ITEMS),
    "async_zero": Workload(async_zero, workloads.ASYNC_ZERO_ITEMS),
}

if __name__ == "__main__":
    sys.exit(run_peer("langchain", "langchain-core", WORKLOADS))
