"""Exact vector search with the native distance kernels."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sage.common.errors import InvalidArgumentError
from sage.middleware._vdb import FlatIndex

from .protocols import FloatArray, VectorHit, VectorId

__all__ = ["ExactVectorStore"]

_STATE_VERSION = 1


class ExactVectorStore:
    """A `VectorStore` that looks at every vector: exact, no tuning, right up to some hundred thousand
    vectors.

    Any number of threads may search and change it; a search sees the store before or after a change, never in
    between two vectors of one.

    Args:
        dimension: length of the vectors, 1 to 65536.
        metric: "cosine", "inner_product" or "l2".

    Raises:
        InvalidArgumentError: dimension or metric out of range; see `VectorStore` for the methods.

    Example:
        >>> store = ExactVectorStore(2)
        >>> store.add(["x", "y"], [[1.0, 0.0], [0.0, 2.0]])
        >>> store.search([0.0, 1.0], k=1)
        [VectorHit(id='y', score=1.0)]
        >>> store.remove(["y", "z"]), len(store)
        (1, 1)
    """

    def __init__(self, dimension: int, metric: str = "cosine") -> None:
        self._index = FlatIndex(dimension, metric)
        self._rows: dict[VectorId, int] = {}
        self._ids: dict[int, VectorId] = {}
        self._next_row = 0
        # Guards the two dicts against changes from several threads; the index has a lock of its own.
        self._lock = threading.Lock()

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._index.dimension

    @property
    def metric(self) -> str:
        """How vectors are compared."""
        return self._index.metric

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, vector_id: object) -> bool:
        return vector_id in self._rows

    def add(self, ids: Sequence[VectorId], vectors: ArrayLike) -> None:
        """Add vectors (n, dimension) under new ids (n)."""
        with self._lock:
            names, matrix = self._checked(ids, vectors)
            for name in names:
                if name in self._rows:
                    raise InvalidArgumentError(f"vector id {name!r} is in the store already; use upsert to replace it")
            self._put(names, matrix)

    def upsert(self, ids: Sequence[VectorId], vectors: ArrayLike) -> None:
        """Add new ids and replace the vectors of known ones."""
        with self._lock:
            self._put(*self._checked(ids, vectors))

    def remove(self, ids: Iterable[VectorId]) -> int:
        """Remove ids and return how many there were."""
        with self._lock:
            names = [name for name in dict.fromkeys(ids) if name in self._rows]
            rows = [self._rows[name] for name in names]
            removed = self._index.remove(np.asarray(rows, dtype=np.int64))
            for name, row in zip(names, rows, strict=True):
                del self._rows[name], self._ids[row]
            return removed

    def search(self, query: ArrayLike, k: int) -> list[VectorHit]:
        """The best `k` for one query (dimension)."""
        vector = np.asarray(query, dtype=np.float32)
        if vector.ndim != 1:
            raise InvalidArgumentError(f"query must be one vector, got an array of shape {vector.shape}")
        return self.search_many(vector[np.newaxis], k)[0]

    def search_many(self, queries: ArrayLike, k: int) -> list[list[VectorHit]]:
        """The best `k` for each query (n, dimension)."""
        with self._lock:  # a pair that belongs together; the search itself holds no lock of ours
            index, known = self._index, self._ids
        rows, scores = index.search(self._matrix(queries), k)
        # A row may have been removed by another thread since the index looked.
        return [
            [VectorHit(known[row], score) for row, score in zip(line, values, strict=True) if row in known]
            for line, values in zip(rows.tolist(), scores.tolist(), strict=True)
        ]

    def get_state(self) -> dict[str, Any]:
        """Ids and vectors, in order of addition."""
        with self._lock:
            rows, vectors = self._index.rows()
            order = np.argsort(rows)
            return {
                "version": _STATE_VERSION,
                "dimension": self.dimension,
                "metric": self.metric,
                "ids": [self._ids[row] for row in rows[order].tolist()],
                "vectors": vectors[order],
            }

    def restore_state(self, state: dict[str, Any]) -> None:
        """Replace the content by what `get_state` returned."""
        match state:
            case {
                "version": 1,
                "dimension": dimension,
                "metric": metric,
                "ids": list() as ids,
                "vectors": vectors,
            }:
                pass
            case _:
                raise InvalidArgumentError(f"state is not one of ExactVectorStore, version {_STATE_VERSION}")
        if (dimension, metric) != (self.dimension, self.metric):
            raise InvalidArgumentError(
                f"state has dimension {dimension!r} and metric {metric!r}, the store {self.dimension} and"
                f" {self.metric!r}"
            )
        fresh = ExactVectorStore(self.dimension, self.metric)
        fresh.add(ids, vectors)
        with self._lock:
            self._index, self._rows, self._ids = fresh._index, fresh._rows, fresh._ids
            self._next_row = fresh._next_row

    def _matrix(self, vectors: ArrayLike) -> FloatArray:
        try:
            matrix = np.ascontiguousarray(vectors, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"vectors must be an array of numbers (n, {self.dimension}): {error}") from None
        if matrix.ndim != 2 or matrix.shape[1] != self.dimension:
            raise InvalidArgumentError(
                f"vectors must have the shape (n, {self.dimension}), got {matrix.shape}; was another"
                " embedding model used?"
            )
        return matrix

    def _checked(self, ids: Sequence[VectorId], vectors: ArrayLike) -> tuple[list[VectorId], FloatArray]:
        if isinstance(ids, str):
            raise InvalidArgumentError(f"ids must be a list of ids, got the string {ids!r}")
        names = list(ids)
        for name in names:
            if isinstance(name, bool) or not isinstance(name, str | int):
                raise InvalidArgumentError(f"vector id must be a string or an integer, got {name!r}")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidArgumentError(f"vector id {twice!r} is twice in one call")
        matrix = self._matrix(vectors) if names else np.empty((0, self.dimension), dtype=np.float32)
        if len(matrix) != len(names):
            raise InvalidArgumentError(f"one vector per id: got {len(names)} ids and {len(matrix)} vectors")
        return names, matrix

    def _put(self, names: list[VectorId], matrix: FloatArray) -> None:
        if not names:
            return
        rows: NDArray[np.int64] = np.empty(len(names), dtype=np.int64)
        fresh: dict[VectorId, int] = {}
        for place, name in enumerate(names):
            row = self._rows.get(name)
            if row is None:
                row = fresh[name] = self._next_row + len(fresh)
            rows[place] = row
        # Names first: a search that meets a new row must find its name. Taken back if the index refuses the
        # vectors.
        self._ids.update({row: name for name, row in fresh.items()})
        try:
            self._index.upsert(rows, matrix)
        except BaseException:
            for row in fresh.values():
                del self._ids[row]
            raise
        self._rows.update(fresh)
        self._next_row += len(fresh)
