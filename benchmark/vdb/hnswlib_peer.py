"""hnswlib: M=16 and M=32, `ef_construction` 200 as its documentation recommends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import hnswlib
import numpy as np
import vector_data as data
from numpy.typing import NDArray
from vector_contract import K, run_engine


class Hnswlib:
    """Rows are updated in place under their labels. Its filter is a function of Python, called for each candidate."""

    searches_meanwhile = False  # "add_items is not thread-safe with knn_query"

    def __init__(self, shape: data.Shape, links: int) -> None:
        self._links = links
        self._index = hnswlib.Index(space="ip" if shape.metric == "cosine" else "l2", dim=shape.dimension)
        self._allowed: list[bool] = []

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

    def allow(self, allowed: NDArray[np.bool_]) -> None:
        self._allowed = allowed.tolist()

    def search_allowed(self, query: data.Floats) -> Any:
        try:
            return self._index.knn_query(query, k=K, filter=self._allowed.__getitem__)
        except RuntimeError:  # it found fewer than k
            return (np.full((1, K), -1),)

    def upsert(self, ids: NDArray[np.int64], rows: data.Floats) -> None:
        self._index.add_items(rows, ids, num_threads=1)

    def delete(self, ids: NDArray[np.int64]) -> None:
        for label in ids.tolist():
            self._index.mark_deleted(label)


if __name__ == "__main__":
    sys.exit(run_engine("hnswlib", "hnswlib", {f"m{links}": partial(Hnswlib, links=links) for links in (16, 32)}))
