"""SAGE: the graph index with its defaults, and with rows of float32."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import vector_data as data
from numpy.typing import NDArray
from vector_contract import K, run_engine

from sage.middleware import _vdb


class Graph:
    """Ids are slots, until rows are replaced: a new row of an id gets another slot, since searches go on meanwhile."""

    searches_meanwhile = True

    def __init__(self, shape: data.Shape, rows: str) -> None:
        self._index = _vdb.GraphIndex(shape.dimension, shape.metric, rows=rows)
        self._effort = 10
        self._words = np.zeros(0, np.uint64)
        self._slot_of = np.zeros(0, np.int64)
        self._id_of = np.zeros(0, np.int64)
        self._free: list[int] = []
        self._slot_end = 0

    def build(self, rows: data.Floats, threads: int) -> None:
        self._index.insert(np.arange(len(rows)), rows, threads=threads)
        self._slot_end = len(rows)
        self._slot_of = np.arange(len(rows))
        self._id_of = np.arange(2 * len(rows))

    def efforts(self) -> Sequence[int]:
        return [10, 13, 16, 20, 26, 32, 40, 52, 64, 80, 104, 128, 160, 208, 256, 320, 416, 512]

    def set_effort(self, effort: int) -> None:
        self._effort = effort

    def search(self, query: data.Floats) -> Any:
        return self._index.search(query, K, self._effort)

    def ids(self, answer: Any) -> Sequence[int]:
        return self._id_of[answer[0]]

    def allow(self, allowed: NDArray[np.bool_]) -> None:
        bits = np.packbits(allowed, bitorder="little")
        self._words = np.concatenate([bits, np.zeros(-len(bits) % 8, np.uint8)]).view(np.uint64)

    def search_allowed(self, query: data.Floats) -> Any:
        return self._index.search(query, K, self._effort, self._words)

    def upsert(self, ids: NDArray[np.int64], rows: data.Floats) -> None:
        self.delete(ids)
        self._free += self._index.take_free().tolist()
        slots = self._free[: len(ids)]
        del self._free[: len(ids)]
        more = len(ids) - len(slots)
        slots += range(self._slot_end, self._slot_end + more)
        self._slot_end += more
        if self._slot_end > len(self._id_of):
            self._id_of = np.resize(self._id_of, 2 * self._slot_end)
        self._slot_of[ids] = slots
        self._id_of[slots] = ids
        self._index.insert(slots, rows)

    def delete(self, ids: NDArray[np.int64]) -> None:
        self._index.remove(self._slot_of[ids])


if __name__ == "__main__":
    VARIANTS = {f"graph-{rows}": partial(Graph, rows=rows) for rows in ("float16", "float32")}
    sys.exit(run_engine("sage", None, VARIANTS))
