"""`concurrent.futures.ProcessPoolExecutor`: `map` with chunks, which pickles as many items at once."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from time import perf_counter
from typing import Any

import process_workloads as work
from contract import Options, Outcome, Workload, run_peer


def _mapped(
    call: Callable[[Any], Any], items: Sequence[Any], processes: int, chunk: int, keep: Callable[[Any], Any]
) -> tuple[list[Any], float]:
    with ProcessPoolExecutor(processes, multiprocessing.get_context("forkserver")) as pool:
        # As many tasks as processes, so that all of them are there when the clock starts.
        list(pool.map(call, items[: 4 * processes]))
        start = perf_counter()
        outputs = [keep(output) for output in pool.map(call, items, chunksize=chunk)]
        return outputs, perf_counter() - start


def compute(options: Options) -> Outcome:
    """Chunks of 4 items; variant `two` has two processes."""
    texts = work.compute_texts(options.items)
    outputs, seconds = _mapped(work.compute, texts, 2 if options.variant == "two" else 1, 4, work.pass_on)
    return Outcome(options.items, seconds, work.check_compute(outputs, texts))


def process_dicts(options: Options) -> Outcome:
    """1 KB dicts in chunks, 256 unless told."""
    items = work.dicts_of_1_kb(options.items)
    chunk = options.batch_size or work.FUTURES_CHUNK
    outputs, seconds = _mapped(work.pass_on, items, 1, chunk, work.pass_on)
    return Outcome(options.items, seconds, work.check_dicts(outputs, items), f"chunks of {chunk}")


def process_arrays(options: Options) -> Outcome:
    """1 MiB arrays in chunks of 4."""
    items = work.arrays_of_1_mb(options.items)
    outputs, seconds = _mapped(work.pass_on, items, 1, options.batch_size or 4, work.digest)
    return Outcome(options.items, seconds, work.check_arrays(outputs, items))


WORKLOADS = {
    "compute": Workload(compute, work.COMPUTE_ITEMS, ("plain", "two")),
    "process_dicts": Workload(process_dicts, work.DICT_ITEMS),
    "process_arrays": Workload(process_arrays, work.ARRAY_ITEMS),
}

if __name__ == "__main__":
    sys.exit(run_peer("futures", None, WORKLOADS))
