"""What is measured beside plain searches: searches with a filter, and changes of a built index.

`filter`: 1 % and 10 % of the rows are allowed, drawn by chance; rates by effort at recall@10 among those.

`churn`: a fifth of the rows is replaced in batches of 256 while another thread searches, and the recall at the efforts
that gave 0.95 and 0.99 before is taken again; then 10,000 upserts and deletes one by one and in batches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from time import thread_time
from typing import Any, Protocol, runtime_checkable

import numpy as np
import vector_data as data
from numpy.typing import NDArray
from vector_contract import Engine, K, interpolate, pin, sweep

SHARES = (0.01, 0.1)
FILTER_QUERIES = 200
REPLACED = 0.2
BATCH = 256
CHANGES = 10_000


@runtime_checkable
class Filtering(Protocol):
    """An engine whose searches take a filter."""

    def allow(self, allowed: NDArray[np.bool_]) -> None:
        """From now on `search_allowed` finds only these rows (n)."""

    def search_allowed(self, query: data.Floats) -> Any:
        """The nearest allowed rows, as the engine gives them: the timed call."""


@runtime_checkable
class Changing(Protocol):
    """An engine whose index can be changed."""

    searches_meanwhile: bool  # whether its documentation allows searches and changes at the same time

    def upsert(self, ids: NDArray[np.int64], rows: data.Floats) -> None:
        """Replace or add rows (n, d) under ids (n), on the calling thread."""

    def delete(self, ids: NDArray[np.int64]) -> None:
        """Remove ids (n), on the calling thread."""


class _Allowed:
    """An engine under a filter, as `sweep` drives it."""

    def __init__(self, engine: Engine, filtering: Filtering) -> None:
        self._engine = engine
        self.search = filtering.search_allowed
        self.build, self.set_effort, self.ids = engine.build, engine.set_effort, engine.ids

    def efforts(self) -> Sequence[int]:
        return self._engine.efforts()


def nearest(shape: data.Shape, rows: data.Floats, queries: data.Floats, count: int) -> NDArray[np.int64]:
    """Places in `rows` of the `count` nearest of each query, in no order. By BLAS, in float32."""
    costs = -2.0 * (queries @ rows.T)
    if shape.metric == "l2":
        costs += np.einsum("ij,ij->i", rows, rows)
    return np.asarray(np.argpartition(costs, count, axis=1)[:, :count], np.int64)


def measure_filter(engine: Engine, dataset: data.DataSet, threads: int, core: int) -> dict[str, Any]:
    """Rates at 0.95 under each filter."""
    if not isinstance(engine, Filtering):
        raise TypeError(f"{type(engine).__name__} has no filter")
    engine.build(dataset.rows, threads)
    pin(core)
    queries = dataset.queries[:FILTER_QUERIES]
    line: dict[str, Any] = {}
    for share in SHARES:
        allowed = np.random.default_rng(3).random(len(dataset.rows)) < share
        places = np.flatnonzero(allowed)
        near = places[nearest(dataset.shape, np.asarray(dataset.rows)[places], queries, K)]
        engine.allow(allowed)
        points = sweep(_Allowed(engine, engine), data.DataSet(dataset.shape, dataset.rows, queries, near), rounds=3)
        line[f"filter_{share}"] = interpolate(points, 0.95)
        line[f"filter_{share}_sweep"] = points
    return line


class _Searching:
    """A thread that searches until it is told to stop."""

    def __init__(self, engine: Engine, queries: data.Floats, lock: AbstractContextManager[Any]) -> None:
        self._engine, self._queries, self._lock = engine, queries, lock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="searching")
        self._failure: BaseException | None = None
        self.count = 0

    def __enter__(self) -> _Searching:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with self._lock:
                    self._engine.search(self._queries[self.count % len(self._queries)])
                self.count += 1
                # Some hundred searches per second: load, and no contest for the interpreter.
                self._stop.wait(0.002)
        except BaseException as failure:  # handed to the caller by __exit__
            self._failure = failure


class _Churn:
    """A data set whose rows change, and what an engine makes of it."""

    def __init__(self, engine: Engine, changing: Changing, dataset: data.DataSet) -> None:
        self.engine, self.changing, self.dataset = engine, changing, dataset
        rows = np.asarray(dataset.rows)
        self.kept = int(len(rows) / (1.0 + REPLACED))
        order = np.random.default_rng(1).permutation(len(rows))
        self.rows, self.spare = rows[order[: self.kept]].copy(), rows[order[self.kept :]]
        self.lock: AbstractContextManager[Any] = nullcontext() if changing.searches_meanwhile else threading.Lock()
        self.random = np.random.default_rng(2)

    def recalls(self, efforts: Sequence[int]) -> list[float]:
        queries = self.dataset.queries
        near = nearest(self.dataset.shape, self.rows, queries, K)
        recalls = []
        for effort in efforts:
            self.engine.set_effort(effort)
            found = [self.engine.ids(self.engine.search(np.ascontiguousarray(query)))[:K] for query in queries]
            hits = sum(len(np.intersect1d(ids, true)) for ids, true in zip(found, near, strict=True))
            recalls.append(hits / near.size)
        return recalls

    def timed(self, change: Callable[..., None], *arguments: Any) -> float:
        """CPU seconds of this thread: what others do meanwhile, and waiting for them, does not count."""
        with self.lock:
            start = thread_time()
            change(*arguments)
            return thread_time() - start

    def replace(self) -> float:
        """Changes per second of replacing a fifth in place."""
        ids = self.random.permutation(self.kept)[: len(self.spare)]
        seconds = 0.0
        for first in range(0, len(ids), BATCH):
            part, rows = ids[first : first + BATCH], self.spare[first : first + BATCH]
            seconds += self.timed(self.changing.upsert, part, rows)
            self.rows[part] = rows
        return len(ids) / seconds

    def changes(self, batch: int) -> tuple[float, float]:
        """Upserts and deletes per second of CPU time: half of `CHANGES` each, deleted ids among the upserted ones."""
        count = CHANGES // 2
        ids = self.random.permutation(self.kept)[:count]
        rows = self.spare[self.random.integers(0, len(self.spare), count)]
        seconds = [0.0, 0.0]
        for first in range(0, count, batch):
            part = ids[first : first + batch]
            seconds[1] += self.timed(self.changing.delete, part)
            seconds[0] += self.timed(self.changing.upsert, part, rows[first : first + batch])
        return count / seconds[0], 2 * count / sum(seconds)


def measure_churn(engine: Engine, dataset: data.DataSet, threads: int, core: int) -> dict[str, Any]:
    """Recall lost by replacing a fifth, in points, and rates of changes."""
    if not isinstance(engine, Changing):
        raise TypeError(f"{type(engine).__name__} cannot be changed")
    churn = _Churn(engine, engine, dataset)
    engine.build(churn.rows, threads)
    pin(core)
    efforts = list(engine.efforts())
    before = churn.recalls(efforts)
    line: dict[str, Any] = {}
    chosen = {
        recall: next((i for i, reached in enumerate(before) if reached >= recall), len(efforts) - 1)
        for recall in (0.95, 0.99)
    }
    with _Searching(engine, dataset.queries, churn.lock) as searching:
        line["replaced_per_second"] = round(churn.replace(), 1)
    after = churn.recalls([efforts[i] for i in chosen.values()])
    for (recall, i), now in zip(chosen.items(), after, strict=True):
        line[f"lost_{recall}"] = round(100.0 * (before[i] - now), 3)
    with _Searching(engine, dataset.queries, churn.lock) as more:
        for name, batch in (("single", 1), ("batch", BATCH)):
            upserts, changes = churn.changes(batch)
            line[f"upserts_{name}"], line[f"changes_{name}"] = round(upserts, 1), round(changes, 1)
    line["searches_meanwhile"] = searching.count + more.count
    return line


WORKLOADS = {"filter": measure_filter, "churn": measure_churn}
