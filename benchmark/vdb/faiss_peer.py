"""faiss-cpu: HNSW32 with `efConstruction` 200, IVF-Flat with 1,024 lists, and flat; filters by `IDSelectorBitmap`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
import vector_data as data
from numpy.typing import NDArray
from vector_contract import K, run_engine


class Faiss:
    def __init__(self, shape: data.Shape) -> None:
        self._shape = shape
        self._metric = faiss.METRIC_INNER_PRODUCT if shape.metric == "cosine" else faiss.METRIC_L2
        self._index: Any = None

    def search(self, query: data.Floats) -> Any:
        return self._index.search(query[None], K)

    def ids(self, answer: Any) -> Sequence[int]:
        return answer[1][0]


class Filtered(Faiss):
    """With a filter: the bits of the rows."""

    def __init__(self, shape: data.Shape) -> None:
        super().__init__(shape)
        self._bits: Any = None
        self._selector: Any = None
        self._parameters: Any = None

    def allow(self, allowed: NDArray[np.bool_]) -> None:
        self._bits = np.packbits(allowed, bitorder="little")
        self._selector = faiss.IDSelectorBitmap(self._bits)

    def search_allowed(self, query: data.Floats) -> Any:
        return self._index.search(query[None], K, params=self._parameters)


class Hnsw(Faiss):
    def build(self, rows: data.Floats, threads: int) -> None:
        faiss.omp_set_num_threads(threads)
        self._index = faiss.IndexHNSWFlat(self._shape.dimension, 32, self._metric)
        self._index.hnsw.efConstruction = 200
        self._index.add(np.asarray(rows))

    def efforts(self) -> Sequence[int]:
        return [10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536]

    def set_effort(self, effort: int) -> None:
        faiss.omp_set_num_threads(1)
        self._index.hnsw.efSearch = effort


class Ivf(Filtered):
    def build(self, rows: data.Floats, threads: int) -> None:
        faiss.omp_set_num_threads(threads)
        quantizer = faiss.IndexFlat(self._shape.dimension, self._metric)
        lists = min(1024, len(rows) // 39)
        self._index = faiss.IndexIVFFlat(quantizer, self._shape.dimension, lists, self._metric)
        self._index.own_fields = False
        self._quantizer = quantizer
        self._index.train(np.asarray(rows))
        self._index.add(np.asarray(rows))

    def efforts(self) -> Sequence[int]:
        return [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]

    def set_effort(self, effort: int) -> None:
        faiss.omp_set_num_threads(1)
        self._index.nprobe = effort
        if self._selector is not None:
            self._parameters = faiss.SearchParametersIVF(sel=self._selector, nprobe=effort)


class Flat(Filtered):
    def build(self, rows: data.Floats, threads: int) -> None:
        self._index = faiss.IndexFlat(self._shape.dimension, self._metric)
        self._index.add(np.asarray(rows))

    def efforts(self) -> Sequence[int]:
        return [1]

    def set_effort(self, effort: int) -> None:
        faiss.omp_set_num_threads(1)
        if self._selector is not None:
            self._parameters = faiss.SearchParameters(sel=self._selector)


if __name__ == "__main__":
    sys.exit(run_engine("faiss", "faiss-cpu", {"hnsw32": Hnsw, "ivf": Ivf, "flat": Flat}))
