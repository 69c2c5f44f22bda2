"""faiss as another engine behind the face of a collection (extra `faiss`)."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sage.common.errors import InvalidArgumentError, MissingExtraError, StoreError

from .results import Hits, HitsBatch, VectorArray

__all__ = ["FaissCollection", "faiss_module"]

_EXTRA = "sage-middleware[faiss]"
_METRICS = ("cosine", "inner_product", "l2")


def faiss_module() -> Any:
    """The package faiss.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("faiss-cpu", _EXTRA) from error
    return faiss


class FaissCollection:
    """Vectors in any index that faiss' factory knows, with `add`, `upsert`, `delete`, `search` and `search_many` of a
    `Collection`.

    What it does not have: metadata and filters, texts, several vectors per document, durability (`save` and `load`
    write a file as a whole), and readers beside a writer: all calls take turns. Only `Flat` removes at once; the others
    hide what was deleted until `compact`, and search for as many more. One that has to be trained (IVF, PQ) is
    trained by `train`, or else with the first `add`.

    Args:
        dimension: length of the vectors.
        factory: what `faiss.index_factory` takes: "Flat", "HNSW32", "IVF256,Flat", "IVF64,PQ16", ...
        metric: "cosine" (vectors are normalised), "inner_product" or "l2" (squared distance).

    Raises:
        MissingExtraError: faiss-cpu is not installed.
        InvalidArgumentError: faiss refuses the factory string, or a rule of `Collection` is broken.

    Example:
        >>> vectors = FaissCollection(2, "HNSW16", metric="l2")
        >>> vectors.add(["a", "b"], [[0.0, 0.0], [3.0, 4.0]])
        >>> [(hit.id, hit.score) for hit in vectors.search([0.0, 0.0], k=2)]
        [('a', 0.0), ('b', 25.0)]
    """

    def __init__(self, dimension: int, factory: str = "HNSW32", *, metric: str = "cosine") -> None:
        if metric not in _METRICS:
            raise InvalidArgumentError(f"metric must be one of {', '.join(_METRICS)}, got {metric!r}")
        if isinstance(dimension, bool) or not isinstance(dimension, int) or dimension < 1:
            raise InvalidArgumentError(f"dimension must be an integer >= 1, got {dimension!r}")
        self.dimension, self.metric, self.factory = dimension, metric, factory
        self._faiss = faiss_module()
        self._lock = threading.Lock()
        self._index = self._empty()
        self._rows: dict[int | str, int] = {}
        self._ids: dict[int, int | str] = {}
        self._next = 0
        self._hidden = 0

    def _empty(self) -> Any:
        kind = self._faiss.METRIC_L2 if self.metric == "l2" else self._faiss.METRIC_INNER_PRODUCT
        try:
            inner = self._faiss.index_factory(self.dimension, self.factory, kind)
            return self._faiss.IndexIDMap2(inner)
        # The binding raises plain RuntimeErrors, and TypeErrors for what is no string.
        except (RuntimeError, TypeError) as error:
            raise InvalidArgumentError(f"faiss refuses the factory string {self.factory!r}: {error}") from None

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, document_id: object) -> bool:
        return document_id in self._rows

    def count(self) -> int:
        """How many vectors there are."""
        return len(self._rows)

    def train(self, vectors: ArrayLike) -> None:
        """Train the index with `vectors` (n, dimension)."""
        with self._lock:
            self._call("train", self._index.train, self._matrix(vectors))

    def add(self, ids: Sequence[int] | Sequence[str], vectors: ArrayLike) -> None:
        """Add new ids with their vectors (n, dimension); one that is there is an error."""
        with self._lock:
            names, matrix = self._checked(ids, vectors)
            for name in names:
                if name in self._rows:
                    raise InvalidArgumentError(f"id {name!r} is in the collection already; use upsert to replace it")
            self._put(names, matrix)

    def upsert(self, ids: Sequence[int] | Sequence[str], vectors: ArrayLike) -> None:
        """Add new ids and replace known ones."""
        with self._lock:
            names, matrix = self._checked(ids, vectors)
            self._ready(matrix)
            self._drop([name for name in names if name in self._rows])
            self._put(names, matrix)

    def delete(self, ids: Sequence[int] | Sequence[str]) -> int:
        """Remove ids; returns how many there were."""
        with self._lock:
            known = [name for name in dict.fromkeys(_plain(ids)) if name in self._rows]
            self._drop(known)
            return len(known)

    def search(self, query: ArrayLike, k: int = 10, *, parameters: Any = None) -> Hits:
        """The best `k` for one query (dimension); `parameters`: a `faiss.SearchParameters...`."""
        vector = np.asarray(query, dtype=np.float32)
        if vector.ndim != 1:
            raise InvalidArgumentError(f"query must be one vector, got the shape {vector.shape}")
        return self.search_many(vector[np.newaxis], k, parameters=parameters)[0]

    def search_many(self, queries: ArrayLike, k: int = 10, *, parameters: Any = None) -> HitsBatch:
        """The best `k` for each query (q, dimension)."""
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise InvalidArgumentError(f"k must be an integer >= 1, got {k!r}")
        matrix = self._matrix(queries)
        with self._lock:
            if not self._rows or not len(matrix):
                return HitsBatch(np.zeros(len(matrix) + 1, dtype=np.int64), Hits(self._id_array([])))
            many = min(k + self._hidden, int(self._index.ntotal))
            found = self._call("search", self._index.search, matrix, many, params=parameters)
            return self._answers(found[0], found[1], k)

    def _answers(self, scores: VectorArray, rows: NDArray[np.int64], k: int) -> HitsBatch:
        names: list[int | str] = []
        kept: list[float] = []
        offsets = [0]
        for line, values in zip(rows.tolist(), scores.tolist(), strict=True):
            pairs = [(self._ids[row], value) for row, value in zip(line, values, strict=True) if row in self._ids][:k]
            names.extend(name for name, _ in pairs)
            kept.extend(value for _, value in pairs)
            offsets.append(len(names))
        hits = Hits(self._id_array(names), scores=np.array(kept, dtype=np.float32))
        return HitsBatch(np.array(offsets, dtype=np.int64), hits)

    def compact(self) -> None:
        """Build the index anew without what was deleted, from the vectors as the index gives them back."""
        with self._lock:
            names, rows = list(self._rows), np.array(list(self._rows.values()), dtype=np.int64)
            lists = self._faiss.try_extract_index_ivf(self._index.index)
            if lists is not None:
                lists.make_direct_map()
            matrix = self._call("reconstruct", self._index.reconstruct_batch, rows) if len(rows) else None
            self._index, self._rows, self._ids, self._hidden = self._empty(), {}, {}, 0
            if matrix is not None:
                self._put(names, matrix)

    def stats(self) -> dict[str, Any]:
        """Size, hidden vectors, whether it is trained."""
        trained = bool(self._index.is_trained)
        return {"documents": len(self), "hidden": self._hidden, "trained": trained, "factory": self.factory}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write index and ids into the file `path`, whole or not at all."""
        target = Path(path)
        with self._lock:
            kinds = {"ids": np.array(list(self._rows)), "rows": np.array(list(self._rows.values()), dtype=np.int64)}
            head = {"factory": np.array(self.factory), "metric": np.array(self.metric)}
            index = self._faiss.serialize_index(self._index)
            fields = {**kinds, **head, "dimension": np.array(self.dimension), "index": index}
        unfinished = target.with_name(target.name + ".tmp")
        try:
            with unfinished.open("wb") as file:
                np.savez(file, allow_pickle=False, **fields)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(target)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise StoreError(f"cannot be written: {error.strerror}", path=target) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FaissCollection:
        """Read what `save` wrote. Only files that you trust: faiss reads them without checks."""
        try:
            with np.load(path, allow_pickle=False) as file:
                fields: Mapping[str, Any] = {name: file[name] for name in file.files}
            made = cls(int(fields["dimension"]), str(fields["factory"]), metric=str(fields["metric"]))
            made._index = made._faiss.deserialize_index(fields["index"])
            pairs = zip(fields["ids"].tolist(), fields["rows"].tolist(), strict=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise StoreError(f"is no file of FaissCollection: {error}", path=Path(path)) from error
        made._rows = dict(pairs)
        made._ids = {row: name for name, row in made._rows.items()}
        made._next = max(made._ids, default=-1) + 1
        made._hidden = int(made._index.ntotal) - len(made._rows)
        return made

    def _put(self, names: list[int | str], matrix: VectorArray) -> None:
        if not names:
            return
        self._ready(matrix)
        rows = np.arange(self._next, self._next + len(names), dtype=np.int64)
        self._call("add", self._index.add_with_ids, matrix, rows)
        self._next += len(names)
        for name, row in zip(names, rows.tolist(), strict=True):
            self._rows[name] = row
            self._ids[row] = name

    def _ready(self, matrix: VectorArray) -> None:
        if not self._index.is_trained:
            self._call("train", self._index.train, matrix)

    def _drop(self, names: list[int | str]) -> None:
        rows = np.array([self._rows[name] for name in names], dtype=np.int64)
        if len(rows):
            # HNSW cannot remove, and inverted lists do not move their numbers up as an IDMap expects. What is not in
            # _ids is not shown.
            if isinstance(self._faiss.downcast_index(self._index.index), self._faiss.IndexFlat):
                self._index.remove_ids(rows)
            else:
                self._hidden += len(rows)
        for name in names:
            del self._ids[self._rows.pop(name)]

    def _call(self, what: str, function: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except (RuntimeError, AssertionError) as error:
            raise InvalidArgumentError(f"faiss refuses to {what} with the index {self.factory!r}: {error}") from error

    def _matrix(self, vectors: ArrayLike) -> VectorArray:
        try:
            matrix = np.ascontiguousarray(vectors, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"vectors must be an array of numbers (n, {self.dimension}): {error}") from None
        if matrix.size == 0 and matrix.ndim < 2:
            matrix = matrix.reshape(0, self.dimension)
        if matrix.ndim != 2 or matrix.shape[1] != self.dimension:
            raise InvalidArgumentError(f"vectors must have the shape (n, {self.dimension}), got {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise InvalidArgumentError("vectors must be finite")
        if self.metric == "cosine":
            lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
            matrix = np.divide(matrix, lengths, out=np.zeros_like(matrix), where=lengths > 0)
        return matrix

    def _checked(self, ids: Any, vectors: ArrayLike) -> tuple[list[int | str], VectorArray]:
        names = _plain(ids)
        kinds = {type(name) for name in [*names, *([next(iter(self._rows))] if self._rows else [])]}
        if len(kinds) > 1 or not kinds <= {int, str}:
            raise InvalidArgumentError("ids must be all int or all str")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidArgumentError(f"ids must be distinct within a call, got {twice!r} twice")
        matrix = self._matrix(vectors)
        if len(matrix) != len(names):
            raise InvalidArgumentError(
                f"ids and vectors must have the same length, got {len(names)} ids and {len(matrix)} vectors"
            )
        return names, matrix

    def _id_array(self, names: list[int | str]) -> Any:
        texts = isinstance(next(iter(self._rows), 0), str)
        return names if texts else np.array(names, dtype=np.int64)


def _plain(ids: Any) -> list[int | str]:
    if isinstance(ids, str):
        raise InvalidArgumentError(f"ids must be a list of ids, got the str {ids!r}")
    return list(np.asarray(ids).tolist()) if isinstance(ids, np.ndarray) else list(ids)
