"""A vector store over a collection of sage_db."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sage.common.errors import InvalidArgumentError
from sage.middleware.components import sage_db

from .protocols import FloatArray, VectorHit, VectorId

__all__ = ["CollectionVectorStore"]

_STATE_VERSION = 1
_ORDER = "order"
_BATCH = 10_000


class CollectionVectorStore:
    """A `VectorStore` whose vectors are in a collection of sage_db: in memory, or durable in a folder.

    The collection belongs to the store: its ids are the store's with a sign of their kind before them, and its only
    field is the order of addition. With an approximate index the hits are approximate too.

    Args:
        dimension: length of the vectors.
        metric: "cosine", "inner_product" or "l2".
        collection: an empty one, or one that a store filled before; by default one in memory.
        index: of that one in memory.

    Raises:
        InvalidArgumentError: the collection has another dimension or metric, or something else is in it; see
            `VectorStore` for the methods.

    Example:
        >>> store = CollectionVectorStore(2)
        >>> store.add(["x", 7], [[1.0, 0.0], [0.0, 2.0]])
        >>> store.search([0.0, 1.0], k=1)
        [VectorHit(id=7, score=1.0)]
        >>> store.remove(["x", "y"]), len(store)
        (1, 1)
    """

    def __init__(
        self,
        dimension: int,
        metric: str = "cosine",
        *,
        collection: sage_db.Collection | None = None,
        index: str = "auto",
    ) -> None:
        if collection is None:
            collection = sage_db.memory(background=index != "flat").create_collection(
                "vectors", dimension, metric=metric, index=index
            )
        if (collection.dimension, collection.metric) != (dimension, metric):
            raise InvalidArgumentError(
                f"the collection {collection.name!r} has dimension {collection.dimension} and metric"
                f" {collection.metric!r}, the store {dimension!r} and {metric!r}"
            )
        self._collection = collection
        # Writes take numbers of the order one after the other.
        self._lock = threading.Lock()
        self._next = 0
        for part in collection.pages(include=("metadata",)):
            for document in part:
                self._next = max(self._next, _order_of(document) + 1)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._collection.dimension

    @property
    def metric(self) -> str:
        """How vectors are compared."""
        return self._collection.metric

    def __len__(self) -> int:
        return len(self._collection)

    def __contains__(self, vector_id: object) -> bool:
        if isinstance(vector_id, bool) or not isinstance(vector_id, str | int):
            return False
        return _encoded(vector_id) in self._collection

    def add(self, ids: Sequence[VectorId], vectors: ArrayLike) -> None:
        """Add vectors (n, dimension) under new ids (n)."""
        with self._lock:
            names = self._names(ids)
            orders = [{_ORDER: self._next + place} for place in range(len(names))]
            self._collection.add(names, self._matrix(names, vectors), metadata=orders)
            self._next += len(names)

    def upsert(self, ids: Sequence[VectorId], vectors: ArrayLike) -> None:
        """Add new ids and replace the vectors of known ones."""
        with self._lock:
            names = self._names(ids)
            # Known ones keep their place in the order.
            known = {str(each.id): _order_of(each) for each in self._collection.get(names)} if names else {}
            orders = [known.get(name, self._next + place) for place, name in enumerate(names)]
            matrix = self._matrix(names, vectors)
            self._collection.upsert(names, matrix, metadata=[{_ORDER: order} for order in orders])
            self._next += len(names)

    def remove(self, ids: Iterable[VectorId]) -> int:
        """Remove ids and return how many there were."""
        names = [_encoded(each) for each in dict.fromkeys(ids)]
        return self._collection.delete(names) if names else 0

    def search(self, query: ArrayLike, k: int) -> list[VectorHit]:
        """The best `k` for one query (dimension)."""
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise InvalidArgumentError(f"k must be an integer >= 1, got {k!r}")
        # One more tells whether the last one has equals, of which the first added counts.
        found = self._collection.search(query, min(int(k) + 1, max(1, len(self))), include=("metadata",))
        if len(found) > k and found.scores[k - 1] == found.scores[k]:
            edge = float(found.scores[k - 1])
            found = self._collection.search(query, max(1, len(self)), radius=edge, recall=1.0, include=("metadata",))
        sign = 1.0 if self.metric == "l2" else -1.0
        scores = found.scores.tolist()
        ordered = sorted(
            (sign * score, _order_of(each), str(each.id)) for score, each in zip(scores, found, strict=True)
        )
        return [VectorHit(_decoded(name), sign * score) for score, _, name in ordered[:k]]

    def search_many(self, queries: ArrayLike, k: int) -> list[list[VectorHit]]:
        """The best `k` for each query (n, dimension)."""
        rows = np.asarray(queries)
        if rows.ndim != 2:
            raise InvalidArgumentError(f"queries must have the shape (n, {self.dimension}), got {rows.shape}")
        return [self.search(row, k) for row in rows]

    def get_state(self) -> dict[str, Any]:
        """Ids and vectors, in order of addition."""
        with self._lock:
            parts = list(self._collection.pages(include=("metadata", "vectors"), size=_BATCH))
        documents = sorted((each for part in parts for each in part), key=_order_of)
        rows = [each.vectors for each in documents if each.vectors is not None]
        return {
            "version": _STATE_VERSION,
            "dimension": self.dimension,
            "metric": self.metric,
            "ids": [_decoded(str(each.id)) for each in documents],
            "vectors": np.concatenate(rows) if rows else np.empty((0, self.dimension), dtype=np.float32),
        }

    def restore_state(self, state: dict[str, Any]) -> None:
        """Replace the content by what `get_state` returned; a search meanwhile may see the old content beside it."""
        match state:
            case {"version": 1, "dimension": dimension, "metric": metric, "ids": list() as ids, "vectors": vectors}:
                pass
            case _:
                raise InvalidArgumentError(f"state is not one of CollectionVectorStore, version {_STATE_VERSION}")
        if (dimension, metric) != (self.dimension, self.metric):
            raise InvalidArgumentError(
                f"state has dimension {dimension!r} and metric {metric!r}, the store {self.dimension} and"
                f" {self.metric!r}"
            )
        with self._lock:
            names = self._names(ids)
            matrix = self._matrix(names, vectors)
            orders = [{_ORDER: place} for place in range(len(names))]
            self._collection.upsert(names, matrix, metadata=orders)
            kept = set(names)
            gone = [str(each.id) for part in self._collection.pages(include=()) for each in part if each.id not in kept]
            if gone:
                self._collection.delete(gone)
            self._next = len(names)

    def _names(self, ids: Sequence[VectorId]) -> list[str]:
        if isinstance(ids, str):
            raise InvalidArgumentError(f"ids must be a list of ids, got the string {ids!r}")
        return [_encoded(each) for each in ids]

    def _matrix(self, names: list[str], vectors: ArrayLike) -> FloatArray:
        try:
            matrix = np.ascontiguousarray(vectors, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"vectors must be an array of numbers (n, {self.dimension}): {error}") from None
        return matrix if names or matrix.size else np.empty((0, self.dimension), dtype=np.float32)


def _encoded(vector_id: VectorId) -> str:
    if isinstance(vector_id, bool) or not isinstance(vector_id, str | int):
        raise InvalidArgumentError(f"vector id must be a string or an integer, got {vector_id!r}")
    return f"s{vector_id}" if isinstance(vector_id, str) else f"i{vector_id}"


def _decoded(name: str) -> VectorId:
    return name[1:] if name[0] == "s" else int(name[1:])


def _order_of(document: sage_db.Document) -> int:
    order = (document.metadata or {}).get(_ORDER)
    if not isinstance(order, int) or str(document.id)[:1] not in ("s", "i"):
        raise InvalidArgumentError(
            f"document {document.id!r} was not written by a CollectionVectorStore: give it a collection of its own"
        )
    return order
