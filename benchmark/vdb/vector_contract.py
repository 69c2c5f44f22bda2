"""How an engine is measured: build, then one query per call through its Python interface, at rising effort.

    python benchmark/vdb/<engine>_peer.py DATA [--workload search] [--variant NAME] [--threads 2] [--core 1]
    python benchmark/vdb/<engine>_peer.py --list

The last line of stdout is one JSON object. Exit codes: 0 measured, 1 the engine failed or its answers are bad,
2 the arguments are.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Protocol

import numpy as np
import vector_data as data

K = 10
ROUNDS = 5
# A sweep ends at the first effort above it.
RECALL_ENOUGH = 0.9955
RECALL_LEAST = 0.80


class Engine(Protocol):
    """One index of one engine."""

    def build(self, rows: data.Floats, threads: int) -> None:
        """Take the rows under the ids 0, 1, ... and build on so many threads."""

    def efforts(self) -> Sequence[int]:
        """The settings to try, from the fastest to the most exact."""

    def set_effort(self, effort: int) -> None:
        """Use this setting from now on, on one thread."""

    def search(self, query: data.Floats) -> Any:
        """The ids of the `K` nearest to one query (d), as the engine gives them: the timed call."""

    def ids(self, answer: Any) -> Sequence[int]:
        """Ids out of an answer; not timed."""


def private_mb() -> float:
    """The memory of this process that no file backs, in MiB: mapped data sets are not counted."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024.0
    raise RuntimeError("/proc/self/status has no RssAnon line")


def interpolate(sweep: Sequence[Mapping[str, float]], recall: float) -> float | None:
    """Queries per second at `recall`, between the two efforts around it, linear in the logarithm of the rate.

    None where the sweep does not reach it. A sweep that starts above it gives its first rate.

    >>> interpolate([{"recall": 0.9, "qps": 1000.0}, {"recall": 1.0, "qps": 10.0}], 0.95)
    100.0
    """
    before: Mapping[str, float] | None = None
    for point in sweep:
        if point["recall"] >= recall:
            if before is None or point["recall"] == before["recall"]:
                return round(point["qps"], 1)
            share = (recall - before["recall"]) / (point["recall"] - before["recall"])
            logarithm = np.log(before["qps"]) + share * (np.log(point["qps"]) - np.log(before["qps"]))
            return round(float(np.exp(logarithm)), 1)
        before = point
    return None


def pin(core: int) -> None:
    """The calling thread alone on that core: pools of the engine may have threads of their own, which now sleep."""
    os.sched_setaffinity(0, {core} & os.sched_getaffinity(0) or os.sched_getaffinity(0))


def sweep(engine: Engine, dataset: data.DataSet, rounds: int = ROUNDS) -> list[dict[str, float]]:
    """Rates and recalls by effort.

    The rate of an effort is that of the best of `rounds` passes over all queries: what others do on the machine only
    slows. `qps` goes by the CPU time of the process, all its threads together: on a quiet core that is the time
    that passes (`wall_qps`), and on a busy one it is what can still be compared.
    """
    queries = [np.ascontiguousarray(query) for query in dataset.queries]
    points: list[dict[str, float]] = []
    for effort in engine.efforts():
        engine.set_effort(effort)
        search = engine.search
        answers = [search(query) for query in queries]
        found = np.array([np.asarray(engine.ids(answer))[:K] for answer in answers])
        recall = dataset.recall(found, K)
        if recall < RECALL_LEAST:
            continue
        walls, seconds = [], []
        for _ in range(rounds):
            wall, start = perf_counter(), process_time()
            for query in queries:
                search(query)
            seconds.append(process_time() - start)
            walls.append(perf_counter() - wall)
        points.append(
            {
                "effort": effort,
                "recall": round(recall, 5),
                "qps": round(len(queries) / min(seconds), 1),
                "wall_qps": round(len(queries) / min(walls), 1),
            }
        )
        if recall >= RECALL_ENOUGH:
            break
    return points


def measure(engine: Engine, dataset: data.DataSet, threads: int, core: int) -> dict[str, Any]:
    """Build and sweep; what the JSON line says."""
    rows = dataset.rows
    before = private_mb()
    start, started = perf_counter(), process_time()
    engine.build(rows, threads)
    build_seconds, build_cpu_seconds = perf_counter() - start, process_time() - started
    after = private_mb()
    pin(core)
    points = sweep(engine, dataset)
    return {
        "build_seconds": round(build_seconds, 2),
        "build_cpu_seconds": round(build_cpu_seconds, 2),
        "index_mb": round(after - before, 1),
        "qps_95": interpolate(points, 0.95),
        "qps_99": interpolate(points, 0.99),
        "sweep": points,
    }


def run_engine(name: str, distribution: str | None, variants: Mapping[str, Callable[[data.Shape], Engine]]) -> int:
    """Measure what the command line names, print its JSON line, and return the exit code."""
    parser = argparse.ArgumentParser(description=f"the vector benchmark on {name}")
    parser.add_argument("data", nargs="?", choices=sorted(data.SHAPES))
    parser.add_argument("--list", action="store_true", help="print the variants as JSON")
    parser.add_argument("--workload", choices=["search", "filter", "churn"], default="search")
    parser.add_argument("--variant", choices=list(variants), default=next(iter(variants)))
    parser.add_argument("--threads", type=int, default=2, help="threads of the build (default 2)")
    parser.add_argument("--core", type=int, default=1, help="the core that the queries run on (default 1)")
    given = parser.parse_args()
    if given.list:
        print(json.dumps(list(variants)))
        return 0
    if given.data is None or given.threads < 1:
        parser.error("a data set must be named, and --threads must be >= 1")
    dataset = data.load(given.data)
    engine = variants[given.variant](dataset.shape)
    # Imported here: that module needs this one.
    from vector_workloads import WORKLOADS

    result = WORKLOADS.get(given.workload, measure)(engine, dataset, given.threads, given.core)
    if not result.get("sweep", True):
        print(f"{name} {given.variant}: no effort reached a recall of {RECALL_LEAST}", file=sys.stderr)
        return 1
    line = {
        "engine": name,
        "variant": given.variant,
        "version": None if distribution is None else metadata.version(distribution),
        "data": given.data,
        "workload": given.workload,
        **result,
    }
    print(json.dumps(line), flush=True)
    return 0
