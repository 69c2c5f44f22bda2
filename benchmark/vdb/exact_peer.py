"""Exact search by each engine: one query a call, and 1,000 in one call, on one core.

    python benchmark/vdb/exact_peer.py DATA --variant sage|faiss|numpy [--core 1]
    python benchmark/vdb/exact_peer.py --list

The last line of stdout is one JSON object. Exit codes: 0 measured, 1 the answers are wrong, 2 the arguments are bad.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any, Protocol

# Before numpy loads its BLAS: everybody has one thread.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import vector_data as data

K = 10
ROUNDS = 7
SINGLES = 30


class Exact(Protocol):
    """One engine with the rows of a data set in it."""

    def one(self, query: data.Floats) -> Any:
        """The ids of the K nearest of one query (d), nearest first: the timed call."""

    def many(self, queries: data.Floats) -> Any:
        """Those of many queries (q, d): the timed call."""


class Sage:
    def __init__(self, dataset: data.DataSet) -> None:
        from sage.middleware import _vdb

        shape = dataset.shape
        self._index = _vdb.Index(shape.dimension, shape.metric, kind="flat")
        self._index.insert(np.arange(shape.rows), dataset.rows)

    def one(self, query: data.Floats) -> Any:
        return self._index.search(query, K)[0]

    def many(self, queries: data.Floats) -> Any:
        return self._index.search(queries, K, threads=1)[0]


class Faiss:
    def __init__(self, dataset: data.DataSet) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        metric = faiss.METRIC_INNER_PRODUCT if dataset.shape.metric == "cosine" else faiss.METRIC_L2
        self._index = faiss.IndexFlat(dataset.shape.dimension, metric)
        self._index.add(np.asarray(dataset.rows))

    def one(self, query: data.Floats) -> Any:
        return self._index.search(query[None], K)[1][0]

    def many(self, queries: data.Floats) -> Any:
        return self._index.search(queries, K)[1]


class Numpy:
    """One product with all rows, then the K smallest: under l2 the squares of the rows are known beforehand."""

    def __init__(self, dataset: data.DataSet) -> None:
        self._rows = np.array(dataset.rows)
        self._factor = 1.0
        self._addends = np.zeros(len(self._rows), dtype=np.float32)
        if dataset.shape.metric == "l2":
            self._factor = 2.0
            self._addends = np.einsum("nd,nd->n", self._rows, self._rows)

    def one(self, query: data.Floats) -> Any:
        return self.many(query[None])[0]

    def many(self, queries: data.Floats) -> Any:
        # As one product for all, or one for each where that is quicker, which it is for a single one.
        products = (self._rows @ queries[0])[None] if len(queries) == 1 else queries @ self._rows.T
        costs = self._addends - self._factor * products if self._factor != 1.0 else -products
        best = np.argpartition(costs, K, axis=1)[:, :K]
        return np.take_along_axis(best, np.argsort(np.take_along_axis(costs, best, axis=1), axis=1), axis=1)


VARIANTS: dict[str, Callable[[data.DataSet], Exact]] = {"sage": Sage, "faiss": Faiss, "numpy": Numpy}


def _best(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the quickest round: of the wall, and of the CPU."""
    call()
    walls, seconds = [], []
    for _ in range(ROUNDS):
        wall, start = perf_counter(), process_time()
        call()
        seconds.append(process_time() - start)
        walls.append(perf_counter() - wall)
    return min(walls), min(seconds)


def read_gb_per_s(rows: data.Floats) -> float:
    """What this core reads from memory: the largest of eight passes of numpy's `max` over the rows, viewed as ints."""
    words = np.array(rows).reshape(-1).view(np.int32)
    return float(words.nbytes / _best(words.max)[0] / 1e9)


def measure(engine: Exact, dataset: data.DataSet) -> dict[str, Any]:
    """Time both shapes of search and compare the answers with the true neighbours."""
    queries = np.ascontiguousarray(dataset.queries)
    singles = [np.ascontiguousarray(query) for query in queries[:SINGLES]]
    found = np.array([engine.one(query) for query in singles])
    true = dataset.neighbours[:, :K]
    agree_one = float(np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, true[:SINGLES], strict=True)]))
    agree_many = dataset.recall(np.asarray(engine.many(queries)), K)

    def one_by_one() -> None:
        for query in singles:
            engine.one(query)

    one_wall, one_cpu = _best(one_by_one)
    many_wall, many_cpu = _best(lambda: engine.many(queries))
    return {
        "agree": round(min(agree_one, agree_many), 4),
        "one_ms": round(1e3 * one_cpu / SINGLES, 4),
        "one_wall_ms": round(1e3 * one_wall / SINGLES, 4),
        "many_ms": round(1e3 * many_cpu, 2),
        "many_wall_ms": round(1e3 * many_wall, 2),
        "gb_per_s": round(dataset.rows.nbytes / (one_wall / SINGLES) / 1e9, 2),
    }


def main() -> int:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description="exact search")
    parser.add_argument("data", nargs="?", choices=sorted(data.SHAPES))
    parser.add_argument("--list", action="store_true", help="print the variants as JSON")
    parser.add_argument("--variant", choices=list(VARIANTS), default="sage")
    parser.add_argument("--core", type=int, default=1, help="the core that the queries run on (default 1)")
    given = parser.parse_args()
    if given.list:
        print(json.dumps(list(VARIANTS)))
        return 0
    if given.data is None:
        parser.error("a data set must be named")
    dataset = data.load(given.data)
    os.sched_setaffinity(0, {given.core} & os.sched_getaffinity(0) or os.sched_getaffinity(0))
    line = {"engine": "exact", "variant": given.variant, "data": given.data}
    line |= measure(VARIANTS[given.variant](dataset), dataset)
    if given.variant == "numpy":
        line["read_gb_per_s"] = round(read_gb_per_s(dataset.rows), 2)
    print(json.dumps(line), flush=True)
    return 0 if line["agree"] >= 0.999 else 1


if __name__ == "__main__":
    sys.exit(main())
