"""SAGE: the graph index with its defaults, and with rows of float32."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import vector_data as data
from vector_contract import K, run_engine

from sage.middleware import _vdb


class Graph:
    def __init__(self, shape: data.Shape, rows: str) -> None:
        self._index = _vdb.GraphIndex(shape.dimension, shape.metric, rows=rows)
        self._effort = 10

    def build(self, rows: data.Floats, threads: int) -> None:
        self._index.insert(np.arange(len(rows)), rows, threads=threads)

    def efforts(self) -> Sequence[int]:
        return [10, 13, 16, 20, 26, 32, 40, 52, 64, 80, 104, 128, 160, 208, 256, 320, 416, 512]

    def set_effort(self, effort: int) -> None:
        self._effort = effort

    def search(self, query: data.Floats) -> Any:
        return self._index.search(query, K, self._effort)

    def ids(self, answer: Any) -> Sequence[int]:
        return answer[0]


if __name__ == "__main__":
    VARIANTS = {f"graph-{rows}": partial(Graph, rows=rows) for rows in ("float16", "float32")}
    sys.exit(run_engine("sage", None, VARIANTS))
