"""usearch: connectivity 32, float32 and int8 storage."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import vector_data as data
from numpy.typing import NDArray
from usearch.index import Index
from vector_contract import K, run_engine


class Usearch:
    searches_meanwhile = False  # its removals are not safe beside searches

    def __init__(self, shape: data.Shape, dtype: str) -> None:
        metric = "ip" if shape.metric == "cosine" else "l2sq"
        self._index = Index(ndim=shape.dimension, metric=metric, dtype=dtype, connectivity=32, expansion_add=200)

    def build(self, rows: data.Floats, threads: int) -> None:
        self._index.add(np.arange(len(rows), dtype=np.uint64), rows, threads=threads)

    def efforts(self) -> Sequence[int]:
        return [10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536]

    def set_effort(self, effort: int) -> None:
        self._index.expansion_search = effort

    def search(self, query: data.Floats) -> Any:
        return self._index.search(query, K, threads=1)

    def ids(self, answer: Any) -> Sequence[int]:
        return answer.keys

    def upsert(self, ids: NDArray[np.int64], rows: data.Floats) -> None:
        self.delete(ids)
        self._index.add(ids.astype(np.uint64), rows, threads=1)

    def delete(self, ids: NDArray[np.int64]) -> None:
        self._index.remove(ids.astype(np.uint64))


if __name__ == "__main__":
    sys.exit(run_engine("usearch", "usearch", {"f32": partial(Usearch, dtype="f32")}))
