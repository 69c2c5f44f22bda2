"""Processes joined by `multiprocessing.Queue`, one message per item: what one writes with the standard library."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterable
from itertools import pairwise
from time import perf_counter
from typing import Any

import process_workloads as work
import workloads
from contract import Options, Outcome, Workload, run_peer


def _serve(call: Callable[[Any], Any], source: Any, target: Any) -> None:
    while (item := source.get()) is not None:
        target.put((call(item[0]),))
    target.put(None)


class _Chain:
    """Processes in a row; the first item through them is not counted."""

    def __init__(self, calls: Iterable[Callable[[Any], Any]], capacity: int, warm_up: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        calls = list(calls)
        self._queues = [context.Queue(capacity) for _ in range(len(calls) + 1)]
        self._processes = [
            context.Process(target=_serve, args=(call, source, target), daemon=True)
            for call, (source, target) in zip(calls, pairwise(self._queues), strict=True)
        ]
        for process in self._processes:
            process.start()
        self.put, self.get = self._queues[0].put, self._queues[-1].get
        self.put((warm_up,))
        self.get()

    def end(self) -> None:
        self.put(None)
        self.get()
        for process in self._processes:
            process.join()

    def run(self, items: Iterable[Any], keep: Callable[[Any], Any]) -> tuple[list[Any], float]:
        """Feed all items from a thread, keep what comes out; what was kept and the seconds."""
        items = list(items)

        def feed() -> None:
            for item in items:
                self.put((item,))

        feeder = threading.Thread(target=feed)
        start = perf_counter()
        feeder.start()
        outputs = [keep(self.get()[0]) for _ in items]
        seconds = perf_counter() - start
        feeder.join()
        self.end()
        return outputs, seconds


def process_dicts(options: Options) -> Outcome:
    """1 KB dicts, one message each."""
    items = work.dicts_of_1_kb(options.items)
    outputs, seconds = _Chain([work.pass_on], 1024, items[0]).run(items, work.pass_on)
    return Outcome(options.items, seconds, work.check_dicts(outputs, items))


def process_arrays(options: Options) -> Outcome:
    """1 MiB arrays, one message each."""
    items = work.arrays_of_1_mb(options.items)
    outputs, seconds = _Chain([work.pass_on], 64, items[0]).run(items, work.digest)
    return Outcome(options.items, seconds, work.check_arrays(outputs, items))


def process_hop(options: Options) -> Outcome:
    """Four processes in a row; the next item starts when the last one has come out."""
    chain = _Chain([workloads.stamp] * workloads.HOP_STAGES, options.queue_capacity, [])
    outputs = []
    start = perf_counter()
    for _ in range(options.items):
        chain.put((workloads.stamp([]),))
        outputs.append(chain.get()[0])
    seconds = perf_counter() - start
    chain.end()
    notes = f"{workloads.HOP_STAGES} process stages, one item in flight; a hop is stamp to stamp"
    return Outcome(options.items, seconds, len(outputs), notes, workloads.hop_latencies_us(outputs))


WORKLOADS = {
    "process_dicts": Workload(process_dicts, work.DICT_ITEMS),
    "process_arrays": Workload(process_arrays, work.ARRAY_ITEMS),
    "process_hop": Workload(process_hop, work.HOP_ITEMS),
}

if __name__ == "__main__":
    sys.exit(run_peer("queues", None, WORKLOADS))
