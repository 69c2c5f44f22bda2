"""What searches and reads give: arrays for computing, records for reading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["Document", "Documents", "Explanation", "Hit", "Hits", "HitsBatch", "Ids", "VectorArray"]

VectorArray: TypeAlias = NDArray[np.float32]
Ids: TypeAlias = "NDArray[np.int64] | list[str]"


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """A document of a collection.

    Attributes:
        id: int or str.
        metadata: its fields; None when they were not asked for.
        text: its text; None when it has none or it was not asked for.
        vectors: its vectors (n, dimension) float32; None when they were not asked for.
    """

    id: int | str
    metadata: dict[str, Any] | None = None
    text: str | None = None
    vectors: VectorArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Hit(Document):
    """A document that was found.

    Attributes:
        score: of the metric (`cosine` and `inner_product` higher is better, `l2` the squared distance); of a search by
            text alone BM25's; of both the fused one.
    """

    score: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Documents(Sequence[Document]):
    """Documents in arrays; as a sequence, records.

    Attributes:
        ids: (n) int64, or a list of n str.
        metadata: n dicts, or None when not asked for.
        texts: n str or None, or None when not asked for.
        vectors: (rows, dimension) float32, the rows of each document one after the other; None when not asked for.
        vector_counts: (n) uint32, rows of each document; None when vectors were not asked for.

    Example:
        >>> from sage.middleware.components import sage_db
        >>> notes = sage_db.memory().create_collection("notes", dimension=2)
        >>> notes.add(["a"], [[1.0, 0.0]], texts=["Hello."])
        >>> [(each.id, each.text) for each in notes.get(["a", "unknown"])]
        [('a', 'Hello.')]
    """

    ids: Ids
    metadata: list[dict[str, Any]] | None = None
    texts: list[str | None] | None = None
    vectors: VectorArray | None = None
    vector_counts: NDArray[np.uint32] | None = None
    _ends: list[int] = attribute(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if self.vector_counts is not None:
            self._ends.extend(np.cumsum(self.vector_counts).tolist())

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> Document: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Document]: ...
    def __getitem__(self, place: int | slice) -> Document | Sequence[Document]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        return Document(*self._parts(place))

    def __iter__(self) -> Iterator[Document]:
        return (self[place] for place in range(len(self)))

    def _parts(self, place: int) -> tuple[int | str, dict[str, Any] | None, str | None, VectorArray | None]:
        if not -len(self) <= place < len(self):
            raise IndexError(f"there are {len(self)} documents, asked for {place}")
        place %= len(self)
        found = self.ids[place]
        vectors = None
        if self.vectors is not None:
            vectors = self.vectors[self._ends[place - 1] if place else 0 : self._ends[place]]
        return (
            found if isinstance(found, str) else int(found),
            None if self.metadata is None else self.metadata[place],
            None if self.texts is None else self.texts[place],
            vectors,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Hits(Documents):
    """The answer to one query, best first.

    Attributes:
        scores: (n) float32, beside the attributes of `Documents`.
    """

    scores: VectorArray = attribute(default_factory=lambda: np.empty(0, dtype=np.float32))

    @overload
    def __getitem__(self, place: int) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Hit]: ...
    def __getitem__(self, place: int | slice) -> Hit | Sequence[Hit]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        return Hit(*self._parts(place), score=float(self.scores[place]))

    def __iter__(self) -> Iterator[Hit]:
        return (self[place] for place in range(len(self)))


@dataclass(frozen=True, slots=True, eq=False)
class HitsBatch(Sequence[Hits]):
    """The answers to several queries: one `Hits` each, and the arrays of all.

    Attributes:
        offsets: (q + 1) int64; the hits of query i are those from offsets[i] to offsets[i + 1] - 1 of `hits`.
        hits: those of all queries, one after the other.
    """

    offsets: NDArray[np.int64]
    hits: Hits

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, place: int) -> Hits: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Hits]: ...
    def __getitem__(self, place: int | slice) -> Hits | Sequence[Hits]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(f"there are answers to {len(self)} queries, asked for {place}")
        place %= len(self)
        return hits_between(self.hits, int(self.offsets[place]), int(self.offsets[place + 1]))


def hits_between(hits: Hits, first: int, end: int) -> Hits:
    """The part of `hits` from `first` to `end` - 1; the arrays are views."""
    part = slice(first, end)
    vectors, counts = hits.vectors, hits.vector_counts
    if vectors is not None and counts is not None:
        begin = hits._ends[first - 1] if first else 0
        vectors = vectors[begin : hits._ends[end - 1] if end else 0]
        counts = counts[part]
    return Hits(
        ids=hits.ids[part],
        metadata=None if hits.metadata is None else hits.metadata[part],
        texts=None if hits.texts is None else hits.texts[part],
        vectors=vectors,
        vector_counts=counts,
        scores=hits.scores[part],
    )


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a search does, and why; `str()` is its form for people.

    Attributes:
        index: which answers: "flat", "graph", ...; and `index_reason`, a sentence.
        indexed: vectors in that index.
        recent: vectors that are looked at one by one until they are indexed.
        effort: candidates of the index.
        plan: "before" (evaluate the filter, score what matches), "in_index", "after", or "none" without a filter; and
            `plan_reason`.
        selectivity: expected share of the documents that match, within `matches_min` to `matches_max` documents.
    """

    index: str
    index_reason: str
    indexed: int
    recent: int
    effort: int
    plan: str
    plan_reason: str
    selectivity: float
    matches_min: int
    matches_max: int
    text: str = attribute(repr=False)

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Explanation:
        """From what the native collection says."""
        return cls(**found)

    def __str__(self) -> str:
        return self.text.rstrip("\n")
