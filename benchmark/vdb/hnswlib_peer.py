"""hnswlib: M=16 and M=32, `ef_construction` 200 as its documentation recommends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import hnswlib
import vector_data as data
from vector_contract import K, run_engine


class Hnswlib:
    def __init__(self, shape: data.Shape, links: int) -> None:
        self._links = links
        self._index = hnswlib.Index(space="ip" if shape.metric == "cosine" else "l2", dim=shape.dimension)

    def build(self, rows: data.Floats, threads: int) -> None:
        self._index.init_index(max_elements=len(rows), M=self._links, ef_construction=200)
        self._index.add_items(rows, num_threads=threads)

    def efforts(self) -> Sequence[int]:
        return [10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1280, 1920]

    def set_effort(self, effort: int) -> None:
        self._index.set_num_threads(1)
        self._index.set_ef(effort)

    def search(self, query: data.Floats) -> Any:
        return self._index.knn_query(query, k=K)

    def ids(self, answer: Any) -> Sequence[int]:
        return answer[0][0]


if __name__ == "__main__":
    sys.exit(run_engine("hnswlib", "hnswlib", {f"m{links}": partial(Hnswlib, links=links) for links in (16, 32)}))
