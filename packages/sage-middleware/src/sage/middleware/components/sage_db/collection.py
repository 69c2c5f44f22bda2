"""A collection: documents with vectors, metadata and text, and every way to search them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from sage.common.errors import InvalidArgumentError
from sage.middleware import _vdb

from .expressions import Where, to_filter
from .results import Document, Documents, Explanation, Hits, HitsBatch

__all__ = ["Collection", "Include"]

Include: TypeAlias = Iterable[str]
_PARTS = ("metadata", "text", "vectors")
_SCROLL = 1000
K_MAX = 1_000_000


class Collection:
    """Documents by id, each with one or more vectors, metadata and a text. `Database.create_collection` makes them.

    A write is one transaction: all of its documents or none, visible to every reader at once, and as durable as the
    database's `sync` says when the call returns. Any number of threads may read and write; readers never wait.

    Ids are integers (64 bits) or non-empty strings (up to 1024 bytes), the same kind in one collection. Vectors are
    taken without a copy when they are C-contiguous float32 arrays; others are converted into a copy. They must be
    finite. Metadata are int, float, bool, str, lists of str and datetime with a time zone; a field keeps the type of
    its first value, but that a float field takes whole numbers too.

    Raises:
        InvalidArgumentError: from every method, for input that breaks a rule and for what is not there; nothing was
            changed.
        StoreError: from writes: the files refuse; `StoreFullError`: no room.

    Example:
        >>> from sage.middleware.components import sage_db
        >>> from sage.middleware.components.sage_db import field
        >>> notes = sage_db.memory().create_collection("notes", dimension=2)
        >>> notes.add(["a", "b"], [[1.0, 0.0], [0.0, 1.0]], metadata=[{"year": 2019}, {"year": 2024}])
        >>> [(hit.id, hit.score) for hit in notes.search([1.0, 0.0], k=5)]
        [('a', 1.0), ('b', 0.0)]
        >>> [hit.id for hit in notes.search([1.0, 0.0], where=field("year") >= 2020)]
        ['b']
    """

    def __init__(self, native: _vdb.Collection) -> None:
        self._native = native

    @property
    def name(self) -> str:
        """Its name in the database."""
        return self._native.name

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return int(self._native.options["dimension"])

    @property
    def metric(self) -> str:
        """`cosine`, `inner_product` or `l2`."""
        return str(self._native.options["metric"])

    @property
    def options(self) -> dict[str, Any]:
        """What `create_collection` was given: dimension, metric, index, storage, ..."""
        return self._native.options

    def __len__(self) -> int:
        return self._native.count()

    def __contains__(self, document_id: object) -> bool:
        if isinstance(document_id, bool) or not isinstance(document_id, int | str | np.integer):
            return False
        return document_id in self._native

    def __repr__(self) -> str:
        options = self.options
        return (
            f"Collection({self.name!r}, dimension={options['dimension']}, metric={options['metric']!r},"
            f" documents={len(self)})"
        )

    # --- Writing ------------------------------------------------------------------------------------------------------

    def add(
        self,
        ids: Sequence[int] | Sequence[str] | ArrayLike,
        vectors: ArrayLike | Sequence[ArrayLike],
        *,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        texts: Sequence[str | None] | None = None,
    ) -> None:
        """Add new documents; an id that is there already is an error.

        Args:
            ids: n of them, distinct.
            vectors: (n, dimension); or for several vectors per document (n, m, dimension), or a list of n arrays
                (m_i, dimension).
            metadata: n dicts or None.
            texts: n str or None; a search for words finds them.

        Example:
            >>> import numpy as np
            >>> from sage.middleware.components import sage_db
            >>> pages = sage_db.memory().create_collection("pages", dimension=3)
            >>> pages.add([7], np.eye(3, dtype=np.float32)[None])  # one document with three vectors
            >>> pages.count(), pages.stats()["vectors"]
            (1, 3)
        """
        self._native.add(ids, *self._contents(ids, vectors, metadata, texts))

    def upsert(
        self,
        ids: Sequence[int] | Sequence[str] | ArrayLike,
        vectors: ArrayLike | Sequence[ArrayLike],
        *,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        texts: Sequence[str | None] | None = None,
    ) -> None:
        """Add new documents and replace known ones whole; the arguments are those of `add`."""
        self._native.upsert(ids, *self._contents(ids, vectors, metadata, texts))

    def update(
        self,
        ids: Sequence[int] | Sequence[str] | ArrayLike,
        vectors: ArrayLike | Sequence[ArrayLike] | None = None,
        *,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        texts: Sequence[str | None] | None = None,
    ) -> None:
        """Change parts of documents that are there, or raise.

        Vectors and texts that are given replace the old ones; metadata fields that are given are set, the others stay.

        Example:
            >>> from sage.middleware.components import sage_db
            >>> notes = sage_db.memory().create_collection("notes", dimension=1)
            >>> notes.add([1], [[1.0]], metadata=[{"year": 2019, "lang": "en"}])
            >>> notes.update([1], metadata=[{"year": 2020}])
            >>> notes.get([1])[0].metadata
            {'year': 2020, 'lang': 'en'}
        """
        self._native.update(ids, *self._contents(ids, vectors, metadata, texts))

    def delete(
        self, ids: Sequence[int] | Sequence[str] | ArrayLike | None = None, *, where: Where | None = None
    ) -> int:
        """Remove the given ids, or what matches; returns how many there were. Unknown ids are passed over."""
        if (ids is None) == (where is None):
            raise InvalidArgumentError("delete takes either ids or where")
        if ids is not None:
            return self._native.remove(ids)
        native = to_filter(where)
        assert native is not None
        return self._native.remove_where(native)

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy this collection alone, as of one moment, into a folder that holds no database.

        Example:
            >>> import tempfile
            >>> from sage.middleware.components import sage_db
            >>> notes = sage_db.memory().create_collection("notes", dimension=1)
            >>> notes.add(["a"], [[1.0]])
            >>> folder = tempfile.mkdtemp()
            >>> notes.backup(folder)
            >>> with sage_db.open(folder, read_only=True) as copy:
            ...     copy.collection("notes").count()
            1
        """
        self._native.backup(path)

    def compact(self, threads: int = 0) -> None:
        """Put every vector into the index now, and clear away what was removed; 0 threads: all cores."""
        self._native.compact(threads)

    # --- Reading ------------------------------------------------------------------------------------------------------

    def count(self, where: Where | None = None) -> int:
        """How many documents there are, or match."""
        return self._native.count(to_filter(where))

    def get(
        self,
        ids: Sequence[int] | Sequence[str] | ArrayLike,
        *,
        include: Include = ("metadata", "text"),
    ) -> Documents:
        """Those of `ids` that are there, in this order; `include` has "metadata", "text" and "vectors"."""
        return Documents(*_arranged(self._native.get(ids, **_included(include))))

    def page(
        self,
        *,
        after: int | str | None = None,
        limit: int = 100,
        where: Where | None = None,
        include: Include = ("metadata", "text"),
    ) -> Documents:
        """The first `limit` documents behind the id `after`, in the order of the ids."""
        found = self._native.scroll(after, limit, to_filter(where), **_included(include))
        return Documents(*_arranged(found))

    def documents(
        self, *, where: Where | None = None, include: Include = ("metadata", "text"), batch: int = _SCROLL
    ) -> Iterator[Document]:
        """All documents in the order of the ids, read `batch` at a time: changes meanwhile may or may not appear."""
        for part in self.pages(where=where, include=include, size=batch):
            yield from part

    def pages(
        self, *, where: Where | None = None, include: Include = ("metadata", "text"), size: int = _SCROLL
    ) -> Iterator[Documents]:
        """All documents in the order of the ids, `size` at a time."""
        wanted = tuple(include)
        part = self.page(limit=size, where=where, include=wanted)
        while len(part):
            yield part
            if len(part) < size:
                return
            part = self.page(after=part[-1].id, limit=size, where=where, include=wanted)

    def search(
        self,
        query: ArrayLike | None = None,
        k: int = 10,
        *,
        text: str | None = None,
        where: Where | None = None,
        include: Include = ("metadata", "text"),
        **how: Any,
    ) -> Hits:
        """The best `k` documents for one query, best first; fewer when there are fewer.

        Args:
            query: a vector (dimension); None searches by `text` alone.
            k: 1 to 1,000,000.
            text: words; with a query the two rankings are fused (hybrid search).
            where: a condition of `field`, or a dict of Chroma's kind.
            include: parts of the hits: "metadata", "text", "vectors".
            **how:
                recall: wanted share of the true best, 0.95; 1 looks at every vector. effort: how hard the index looks,
                instead of recall.
                radius: only what scores at least this (l2: at most), at most `k` of them.
                mmr: 0 to 1, maximal marginal relevance: 1 is the plain order, 0 the most diverse; fetch_k: candidates
                of it.
                group_by: the best `k` groups by the value of this field, and per_group (1) documents of each.
                fusion: "rrf" (reciprocal rank, with k0 = 60) or "weighted" (alpha = 0.5 for the vectors, the rest for
                the words); fusion_fetch_k: candidates of each side.
                plan: "automatic", "before", "in_index" or "after": when the filter is applied.

        Example:
            >>> from sage.middleware.components import sage_db
            >>> notes = sage_db.memory().create_collection("notes", dimension=2)
            >>> notes.add([1, 2, 3], [[1, 0], [1, 0.1], [0, 1]], texts=["red fox", "red hen", "blue jay"])
            >>> notes.search([1.0, 0.0], k=2).ids.tolist()
            [1, 2]
            >>> [hit.text for hit in notes.search(text="jay")]
            ['blue jay']
            >>> notes.search([1.0, 0.0], k=1, text="hen").ids.tolist()
            [2]
            >>> notes.search([1.0, 0.0], k=2, mmr=0.3).ids.tolist()
            [1, 3]
        """
        native = self._native.search(*self._asked(query, text), self._options(k, where, include, how))
        return _hits(native)

    def search_many(
        self,
        queries: ArrayLike | None = None,
        k: int = 10,
        *,
        texts: Sequence[str] | None = None,
        where: Where | None = None,
        include: Include = ("metadata", "text"),
        **how: Any,
    ) -> HitsBatch:
        """`search` for several queries on all cores: `queries` (q, dimension), `texts` q str.

        `threads` is how many are used at most (0: all).

        Example:
            >>> import numpy as np
            >>> from sage.middleware.components import sage_db
            >>> notes = sage_db.memory().create_collection("notes", dimension=2)
            >>> notes.add([1, 2], np.eye(2, dtype=np.float32))
            >>> found = notes.search_many(np.eye(2, dtype=np.float32), k=1)
            >>> found.hits.ids.reshape(2, 1).tolist(), [len(hits) for hits in found]
            ([[1], [2]], [1, 1])
        """
        options = self._options(k, where, include, how)
        if queries is None and texts is None:
            raise InvalidArgumentError("a search needs queries or texts, got neither")
        rows = None if queries is None else self._rows(queries, "queries")
        words = None if texts is None else list(texts)
        if (rows is None or not len(rows)) and not words:
            empty = Hits(np.empty(0, dtype=np.int64), metadata=[], texts=[])
            return HitsBatch(np.zeros(1, dtype=np.int64), empty)
        native = self._native.search(rows, words, options)
        return HitsBatch(native[0], _hits(native))

    def search_pages(
        self,
        query: ArrayLike | None = None,
        *,
        page: int = 10,
        text: str | None = None,
        where: Where | None = None,
        include: Include = ("metadata", "text"),
        **how: Any,
    ) -> Iterator[Hits]:
        """The answers to one query, `page` at a time, until all were given; none twice. Not with radius, mmr and
        group_by.

        Example:
            >>> from sage.middleware.components import sage_db
            >>> notes = sage_db.memory().create_collection("notes", dimension=1)
            >>> notes.add([1, 2, 3], [[1], [2], [3]])
            >>> [hits.ids.tolist() for hits in notes.search_pages([1.0], page=2)]
            [[1, 2], [3]]
        """
        options = self._options(1, where, include, how)
        pages = self._native.search_pages(*self._asked(query, text), options)
        if isinstance(page, bool) or not isinstance(page, int) or page < 1:
            raise InvalidArgumentError(f"page must be an integer >= 1, got {page!r}")

        def following() -> Iterator[Hits]:
            while True:
                hits = _hits(pages.next(page))
                if len(hits):
                    yield hits
                if len(hits) < page:
                    return

        return following()

    def explain(
        self,
        query: ArrayLike | None = None,
        k: int = 10,
        *,
        text: str | None = None,
        where: Where | None = None,
        **how: Any,
    ) -> Explanation:
        """What `search` with these arguments does, and why.

        Example:
            >>> from sage.middleware.components import sage_db
            >>> notes = sage_db.memory().create_collection("notes", dimension=1)
            >>> notes.add([1, 2], [[1], [2]], metadata=[{"year": 2019}, {"year": 2024}])
            >>> explained = notes.explain([1.0], where={"year": {"$gte": 2020}})
            >>> explained.index, explained.matches_max
            ('flat', 1)
        """
        return Explanation.of(self._native.explain(*self._asked(query, text), self._options(k, where, (), how)))

    def stats(self) -> dict[str, Any]:
        """Documents, vectors, texts, index, fields (name, type, count, distinct, bytes), memory."""
        return self._native.stats()

    # --- Arguments ----------------------------------------------------------------------------------------------------

    def _contents(
        self,
        ids: Any,
        vectors: Any,
        metadata: Sequence[Mapping[str, Any] | None] | None,
        texts: Sequence[str | None] | None,
    ) -> tuple[Any, list[Any] | None, list[str | None] | None, Any]:
        rows, counts = self._vectors_of(vectors)
        return rows, _listed(metadata, "metadata", ids), _listed(texts, "texts", ids), counts

    def _vectors_of(self, vectors: Any) -> tuple[Any, Any]:
        """Rows and how many of them each document has; None for the latter: one each."""
        if isinstance(vectors, np.ndarray):
            if vectors.ndim != 3:
                return vectors, None
            n, each, dimension = vectors.shape
            return vectors.reshape(n * each, dimension), np.full(n, each, dtype=np.int64)
        if not isinstance(vectors, list | tuple) or not vectors:
            return vectors, None
        if not any(_nested(each) for each in vectors):
            return vectors, None
        parts = [self._rows(each, f"vectors[{place}]") for place, each in enumerate(vectors)]
        return np.concatenate(parts), np.array([len(part) for part in parts], dtype=np.int64)

    def _rows(self, vectors: Any, name: str) -> np.ndarray[Any, Any]:
        try:
            rows = np.asarray(vectors)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"{name} must be an array of numbers (n, {self.dimension}): {error}") from None
        if rows.size == 0 and rows.ndim == 1:
            return np.empty((0, self.dimension), dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.dimension:
            raise InvalidArgumentError(
                f"{name} must have the shape (n, {self.dimension}), got {rows.shape}; was another embedding model used?"
            )
        return rows

    def _asked(self, query: ArrayLike | None, text: str | None) -> tuple[Any, list[str] | None]:
        if query is None and text is None:
            raise InvalidArgumentError("a search needs a vector or a text, got neither")
        if text is not None and not isinstance(text, str):
            raise InvalidArgumentError(f"text must be a str, got {text!r}; search_many takes several")
        rows = None
        if query is not None:
            try:
                vector = np.asarray(query)
            except (TypeError, ValueError) as error:
                raise InvalidArgumentError(f"query must be a vector of numbers: {error}") from None
            if vector.ndim != 1 or len(vector) != self.dimension:
                many = "; search_many takes several" if vector.ndim == 2 else "; was another embedding model used?"
                raise InvalidArgumentError(
                    f"query must be one vector of {self.dimension} numbers, got the shape {vector.shape}{many}"
                )
            rows = vector[np.newaxis]
        return rows, None if text is None else [text]

    def _options(self, k: int, where: Where | None, include: Include, how: Mapping[str, Any]) -> dict[str, Any]:
        unknown = set(how) - _HOW
        if unknown:
            raise InvalidArgumentError(
                f"unknown argument {min(unknown)!r} of a search; known: {', '.join(sorted(_HOW))}"
            )
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= K_MAX:
            raise InvalidArgumentError(f"k must be an integer between 1 and {K_MAX}, got {k!r}")
        if how.get("fetch_k") is not None and how.get("mmr") is None:
            raise InvalidArgumentError("fetch_k belongs to mmr, which is not given")
        if how.get("per_group") is not None and how.get("group_by") is None:
            raise InvalidArgumentError("per_group belongs to group_by, which is not given")
        wanted = _included(include)
        wanted["text"] = wanted.pop("texts")
        return {**how, **wanted, "k": int(k), "filter": to_filter(where)}


_HOW = {
    *("recall", "effort", "radius", "mmr", "fetch_k", "group_by", "per_group", "plan", "threads"),
    *("fusion", "k0", "alpha", "fusion_fetch_k"),
}


def _included(include: Include) -> dict[str, bool]:
    if isinstance(include, str):
        raise InvalidArgumentError(f"include must be a list of {', '.join(_PARTS)}, got the str {include!r}")
    wanted = set(include)
    unknown = wanted - set(_PARTS)
    if unknown:
        raise InvalidArgumentError(f"include has {', '.join(_PARTS)}, got {sorted(map(str, unknown))[0]!r}")
    return {"vectors": "vectors" in wanted, "metadata": "metadata" in wanted, "texts": "text" in wanted}


def _arranged(found: tuple[Any, ...]) -> tuple[Any, ...]:
    ids, vectors, counts, metadata, texts = found
    return ids, metadata, texts, vectors, counts


def _hits(native: tuple[Any, Any, tuple[Any, ...]]) -> Hits:
    ids, vectors, counts, metadata, texts = native[2]
    return Hits(ids, metadata, texts, vectors, counts, scores=native[1])


def _listed(values: Any, name: str, ids: Any) -> list[Any] | None:
    if values is None:
        return None
    if isinstance(values, str | Mapping):
        raise InvalidArgumentError(f"{name} must be a list with an entry for each id, got {values!r}")
    # The native part takes dicts, other mappings are copied; `type` first, because it is what nearly all are and fast.
    listed = [dict(each) if type(each) is not dict and isinstance(each, Mapping) else each for each in values]
    if not listed and isinstance(ids, Sized) and len(ids):  # the native part takes an empty list for none at all
        raise InvalidArgumentError(
            f"{name} must have an entry for each of the {len(ids)} ids, got none; or leave it out"
        )
    return listed


def _nested(value: Any) -> bool:
    """Whether it is more than one vector: an array of two dimensions, or a list of lists."""
    if isinstance(value, np.ndarray):
        return value.ndim == 2
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], list | tuple | np.ndarray)
