"""What every vector store does, whatever holds the vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["METRICS", "FloatArray", "VectorHit", "VectorId", "VectorStore"]

VectorId: TypeAlias = str | int
FloatArray: TypeAlias = NDArray[np.float32]
METRICS = ("cosine", "inner_product", "l2")


class VectorHit(NamedTuple):
    """A vector that was found.

    Example:
        >>> VectorHit("a", 0.5).score
        0.5
    """

    id: VectorId
    score: float


@runtime_checkable
class VectorStore(Protocol):
    """Vectors by id, and search for the nearest.

    Ids are strings or integers; `1` and `"1"` are two ids. Scores: `cosine` and `inner_product` higher is
    better, `l2` is the squared distance, lower is better; hits come best first in any case. Equal scores come
    in order of first addition. Vectors are float32, finite, of `dimension` numbers. A call that raises has
    changed nothing.
    """

    @property
    def dimension(self) -> int:
        """Length of the vectors."""

    @property
    def metric(self) -> str:
        """How vectors are compared: one of `METRICS`."""

    def __len__(self) -> int: ...

    def __contains__(self, vector_id: object) -> bool: ...

    def add(self, ids: Sequence[VectorId], vectors: ArrayLike) -> None:
        """Add vectors (n, dimension) under new ids (n); an id that is taken or twice in `ids` is an
        InvalidArgumentError.
        """

    def upsert(self, ids: Sequence[VectorId], vectors: ArrayLike) -> None:
        """Add new ids and replace the vectors of known ones; an id that is twice in `ids` is an
        InvalidArgumentError.
        """

    def remove(self, ids: Iterable[VectorId]) -> int:
        """Remove ids and return how many there were; unknown ones are passed over."""

    def search(self, query: ArrayLike, k: int) -> list[VectorHit]:
        """The best `k` (>= 1) for one query (dimension), best first; fewer when the store has fewer."""

    def search_many(self, queries: ArrayLike, k: int) -> list[list[VectorHit]]:
        """The best `k` for each query (n, dimension)."""

    def get_state(self) -> dict[str, Any]:
        """All that is in the store, as a picklable value that shares nothing with it."""

    def restore_state(self, state: dict[str, Any]) -> None:
        """Replace the content by what `get_state` of a store of the same dimension and metric returned."""
