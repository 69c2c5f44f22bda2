"""Types of the native vector database, built from ``cpp/vdb``.

Vectors are taken without a copy when they are C-contiguous float32 arrays; float16, float64 and
integers, other memory orders and nested lists are converted into a copy. Ids likewise: int64, or other
integers. Nobody may change an array while a call reads it. Every call does its work with the GIL
released. Any number of searches, or one change, run at a time on a `FlatIndex`; the others wait. On a `GraphIndex`
searches run beside one change and never wait; two changes at a time are the caller's to avoid.

A broken rule raises `sage.common.errors.InvalidArgumentError` and has changed nothing.
"""

import os
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

@final
class FlatIndex:
    """Exact nearest-neighbour search: every search looks at every vector.

    Scores: ``cosine`` (within [-1, 1]) and ``inner_product``, higher is better; ``l2`` is the squared
    Euclidean distance, lower is better. Equal scores come in ascending order of id. Under cosine a zero
    vector scores 0 against everything. Vectors must be finite and not longer than 6.5e18, which keeps
    the scores finite.

    Args:
        dimension: Length of the vectors, 1 to 65536.
        metric: How vectors are compared.

    >>> index = FlatIndex(2, "inner_product")
    >>> index.add([7, 8], [[1.0, 0.0], [0.0, 2.0]])
    >>> ids, scores = index.search([[1.0, 1.0]], k=5)
    >>> ids.tolist(), scores.tolist()
    ([[8, 7]], [[2.0, 1.0]])
    """

    def __init__(self, dimension: int, metric: Literal["cosine", "inner_product", "l2"] | str = "cosine") -> None: ...
    def add(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """Add ``vectors`` (n, dimension) under ``ids`` (n), none of them known: all or nothing."""

    def upsert(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """Add new ids and replace the vectors of known ones: all or nothing."""

    def remove(self, ids: ArrayLike) -> int:
        """Remove ``ids``, return how many there were; unknown ones are passed over.

        The last rows move into the gaps.
        """

    def reserve(self, count: int) -> None:
        """Make room for ``count`` vectors in total."""

    def search(self, queries: ArrayLike, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return ids and scores of the best of each query, best first, both of shape (q, min(k, len(index))).

        Args:
            queries: Shape (q, dimension).
            k: At least 1; more than the index holds gives as many as it holds.
        """

    def get(self, id: int) -> NDArray[np.float32]:
        """Return a copy of the vector of ``id`` as it was given; an unknown id is an error."""

    def ids(self) -> NDArray[np.int64]:
        """Return a copy of all ids (n), in row order: the order of addition, until the first removal."""

    def vectors(self) -> NDArray[np.float32]:
        """Return a copy of all vectors (n, dimension), in row order."""

    def rows(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return ids (n) and vectors (n, dimension) of one moment, whatever other threads do."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""

    @property
    def metric(self) -> str:
        """``cosine``, ``inner_product`` or ``l2``."""

    def __len__(self) -> int: ...
    def __contains__(self, id: int) -> bool: ...

@final
class GraphIndex:
    """Approximate nearest-neighbour search: a graph over 8-bit codes, exact scores of the best candidates.

    Vectors lie under slots, dense numbers that the caller gives out. Scores are those of `FlatIndex`, computed from
    the rows as they are stored. With fewer than 1,000 vectors every search looks at all of them; then the index
    learns from what it holds and builds its graph.

    Args:
        dimension: Length of the vectors, 1 to 16384.
        metric: How vectors are compared.
        rows: ``float32``, ``float16`` (values up to 65504) or ``bfloat16``: how the vectors are kept.
        degree: Links per vector at most, 8 to 256.
        build_effort: Candidates kept while neighbours are looked for; more makes a better graph, slower.
        alpha: How much shorter a way round has to be to make a link needless, 1 to 4.
        code_dimension: Coordinates of the codes after projection; 0 chooses.

    >>> import numpy as np
    >>> index = GraphIndex(2, "l2")
    >>> index.insert([0, 1, 2], [[0.0, 0.0], [1.0, 0.0], [5.0, 5.0]])
    >>> slots, scores = index.search(np.array([0.75, 0.0], np.float32), k=2)
    >>> slots.tolist(), scores.tolist()
    ([1, 0], [0.0625, 0.5625])
    """

    def __init__(
        self,
        dimension: int,
        metric: Literal["cosine", "inner_product", "l2"] | str = "cosine",
        *,
        rows: Literal["float32", "float16", "bfloat16"] | str = "float16",
        degree: int = 64,
        build_effort: int = 80,
        alpha: float = 1.2,
        code_dimension: int = 0,
    ) -> None: ...
    def insert(self, slots: ArrayLike, vectors: ArrayLike, threads: int = 1) -> None:
        """Add ``vectors`` (n, dimension) under ``slots`` (n), all of them free: all or nothing."""

    def remove(self, slots: ArrayLike) -> int:
        """Remove ``slots``, return how many held a vector; they are found no more at once."""

    def consolidate(self, threads: int = 1) -> None:
        """Unlink all removed slots now; `remove` does it by and by."""

    def take_free(self) -> NDArray[np.int64]:
        """Return the removed slots that may be used again since the last call."""

    def search(
        self,
        queries: ArrayLike,
        k: int,
        effort: int = 64,
        allowed: NDArray[np.bool_] | NDArray[np.uint64] | None = None,
        threads: int = 1,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return slots and scores of the best of each query, best first.

        One float32 query of shape (dimension,) gives two arrays of shape (m,), m <= k: the fastest way. Queries of
        shape (q, dimension) give arrays of shape (q, min(k, len(index))), filled up with slot -1 and score nan
        where fewer are allowed.

        Args:
            queries: Shape (q, dimension) or (dimension,).
            k: At least 1.
            effort: Candidates kept on the way, at least k: more finds more of the true neighbours, slower.
            allowed: The slots that may be found: bool, one per slot, or uint64 words, bit i % 64 of word i // 64 for
                slot i. Slots behind its end are not allowed.
            threads: Threads that share the queries.
        """

    def effort_for(self, recall: float, k: int = 10) -> int:
        """Return the effort that was measured to find that share of the true best ``k``; 0 if none was yet.

        Measured with vectors before they became part of the graph: when it was built, and again when a fifth changed.
        """

    def get(self, slot: int) -> NDArray[np.float32]:
        """Return a copy of the vector of ``slot`` as it is stored: rounded, and of length 1 under cosine."""

    def stats(self) -> dict[str, int | float]:
        """Return size, removed, links, code_dimension (0: no graph yet), code_energy and memory_bytes."""

    def save(self) -> bytes:
        """Return the whole index as bytes."""

    @staticmethod
    def load(data: bytes | bytearray | memoryview) -> GraphIndex:
        """Return the index that `save` made ``data`` from; other bytes are an error, whatever they are."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""

    @property
    def metric(self) -> str:
        """``cosine``, ``inner_product`` or ``l2``."""

    def __len__(self) -> int: ...
    def __contains__(self, slot: int) -> bool: ...

@final
class Index:
    """Nearest-neighbour search over slots, which the caller gives out: dense row numbers from 0.

    Kinds: ``flat`` (exact), ``hnsw``, ``ivf_flat``, ``graph``, and ``auto``, which goes by ``expected_size``. Searches
    never wait; one change runs at a time, which the caller sees to.

    Args:
        dimension: Length of the vectors.
        metric: How vectors are compared.
        kind: ``auto``, ``flat``, ``hnsw``, ``ivf_flat`` or ``graph``.
        expected_size: How many vectors are expected; 0 is unknown.
        storage: ``float32``, ``float16``, ``bfloat16``, ``int8``, ``int4`` or ``bit1``.
        rerank: A second form of each row, from which the best candidates are scored again.
        rerank_factor: Candidates scored again per hit; 0 chooses.
        lists: Of ``ivf_flat`` at the beginning; 0 chooses.
        links: Of ``hnsw`` per node and level.
        build_effort: Candidates of ``hnsw`` while linking.
        degree: Of ``graph``.

    >>> index = Index(2, "l2", kind="flat")
    >>> index.insert([0, 1], [[0.0, 0.0], [3.0, 4.0]])
    >>> slots, scores = index.search([[0.0, 0.0]], k=2)
    >>> slots.tolist(), scores.tolist()
    ([[0, 1]], [[0.0, 25.0]])
    """

    def __init__(
        self,
        dimension: int,
        metric: Literal["cosine", "inner_product", "l2"] | str = "cosine",
        *,
        kind: str = "auto",
        expected_size: int = 0,
        storage: str = "float32",
        rerank: str | None = None,
        rerank_factor: int = 0,
        lists: int = 0,
        links: int = 16,
        build_effort: int = 100,
        degree: int = 64,
    ) -> None: ...
    def insert(self, slots: ArrayLike, vectors: ArrayLike, threads: int = 1) -> None:
        """Add ``vectors`` (n, dimension) under free ``slots`` (n): all or nothing."""

    def remove(self, slots: ArrayLike) -> int:
        """Remove ``slots``, return how many there were."""

    def consolidate(self, threads: int = 1) -> None:
        """Do now what is left to do about removed slots."""

    def take_free(self) -> NDArray[np.int64]:
        """Return removed slots that may be used again since the last call."""

    def search(
        self,
        queries: ArrayLike,
        k: int,
        effort: int = 64,
        allowed: NDArray[np.bool_] | NDArray[np.uint64] | None = None,
        threads: int = 1,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return slots and scores of the best of each query, best first.

        Args:
            queries: Shape (q, dimension), answered with (q, min(k, len(index))), -1 and NaN where there are fewer; or
                one float32 vector (dimension,), answered with one dimension.
            k: At least 1.
            effort: Candidates kept (``hnsw``, ``graph``) or lists looked at (``ivf_flat``).
            allowed: One bool per slot, or one uint64 per 64 slots.
            threads: For many queries.
        """

    def range_search(
        self,
        query: NDArray[np.float32],
        radius: float,
        effort: int = 64,
        allowed: NDArray[np.bool_] | NDArray[np.uint64] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return all that score at least ``radius`` (l2: at most), best first."""

    def get(self, slot: int) -> NDArray[np.float32]:
        """Return the vector of ``slot`` as it is stored; of length 1 under cosine."""

    def stats(self) -> dict[str, int]:
        """Return counts and sizes by name."""

    def explain(self) -> str:
        """Return in one sentence why this kind, and with which numbers."""

    def save(self) -> bytes:
        """Return the whole index as bytes of a versioned format."""

    @staticmethod
    def load(data: bytes | bytearray | memoryview) -> Index:
        """Return the index that `save` gave as bytes; other bytes are an error."""

    @property
    def kind(self) -> str:
        """What ``auto`` became, or what was asked for."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""

    @property
    def metric(self) -> str:
        """``cosine``, ``inner_product`` or ``l2``."""

    def __len__(self) -> int: ...
    def __contains__(self, slot: int) -> bool: ...

@final
class Filter:
    """A condition on metadata; `sage.middleware.components.sage_db.field` is the way to make one.

    Values are int (64 bits), float, bool, str, lists of str and datetime with a time zone. Fields and types are checked
    where it is used.

    >>> Filter.leaf(">=", "year", [2020])
    year >= 2020
    """

    @staticmethod
    def leaf(
        op: Literal["==", "!=", "<", "<=", ">", ">=", "between", "in", "not in", "contains", "exists", "starts_with"]
        | str,
        field: str,
        values: list[Any],
    ) -> Filter:
        """A comparison of ``field`` with as many ``values`` as ``op`` takes."""

    @staticmethod
    def all_of(parts: Sequence[Filter]) -> Filter:
        """True where all ``parts`` are; of none: everywhere."""

    @staticmethod
    def any_of(parts: Sequence[Filter]) -> Filter:
        """True where one of ``parts`` is; of none: nowhere."""

    @staticmethod
    def negate(part: Filter) -> Filter:
        """True where ``part`` is not."""

    @staticmethod
    def decode(data: bytes) -> Filter:
        """What `encode` gave; other bytes are refused."""

    def encode(self) -> bytes:
        """A versioned binary form."""

    def __eq__(self, other: object) -> bool: ...

_Documents: TypeAlias = tuple[
    NDArray[np.int64] | list[str],
    NDArray[np.float32] | None,
    NDArray[np.uint32] | None,
    list[dict[str, Any]] | None,
    list[str | None] | None,
]
_Found: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32], _Documents]

@final
class Collection:
    """Documents with vectors, metadata and text; `sage.middleware.components.sage_db.Collection` is its Python face.

    Documents come as ids (n), vectors (rows, dimension), rows of each (n), metadata (n) and texts (n); what was not
    asked for is None. Searches give offsets (q + 1), scores (hits) and documents (hits). It keeps its database open.
    """

    def add(
        self,
        ids: Any,
        vectors: ArrayLike | None = None,
        metadata: Sequence[dict[str, Any] | None] | None = None,
        texts: Sequence[str | None] | None = None,
        vector_counts: ArrayLike | None = None,
    ) -> None:
        """Add new documents: all or none."""

    def upsert(
        self,
        ids: Any,
        vectors: ArrayLike | None = None,
        metadata: Sequence[dict[str, Any] | None] | None = None,
        texts: Sequence[str | None] | None = None,
        vector_counts: ArrayLike | None = None,
    ) -> None:
        """Add new documents and replace known ones: all or none."""

    def update(
        self,
        ids: Any,
        vectors: ArrayLike | None = None,
        metadata: Sequence[dict[str, Any] | None] | None = None,
        texts: Sequence[str | None] | None = None,
        vector_counts: ArrayLike | None = None,
    ) -> None:
        """Change the given parts of known documents: all or none."""

    def remove(self, ids: Any) -> int:
        """Remove ids; return how many there were."""

    def remove_where(self, filter: Filter) -> int:
        """Remove what matches; return how many."""

    def count(self, filter: Filter | None = None) -> int:
        """Return how many documents there are, or match."""

    def get(self, ids: Any, vectors: bool, metadata: bool, texts: bool) -> _Documents:
        """Return those of the ids that are there, in this order."""

    def scroll(
        self, after: int | str | None, limit: int, filter: Filter | None, vectors: bool, metadata: bool, texts: bool
    ) -> _Documents:
        """Return a page in the order of the ids."""

    def search(self, queries: ArrayLike | None, texts: list[str] | None, options: dict[str, Any]) -> _Found:
        """Return the best documents for each query (q, dimension), for each text, or for both."""

    def search_pages(self, queries: ArrayLike | None, texts: list[str] | None, options: dict[str, Any]) -> SearchPages:
        """Return the answers to one query, in pages."""

    def explain(self, queries: ArrayLike | None, texts: list[str] | None, options: dict[str, Any]) -> dict[str, Any]:
        """Return what a search does, and why."""

    def stats(self) -> dict[str, Any]:
        """Return sizes, the index and the fields."""

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy this collection alone into another folder."""

    def compact(self, threads: int = 0) -> None:
        """Put every vector into the index now; 0 threads: all cores."""

    @property
    def name(self) -> str:
        """Its name in the database."""

    @property
    def options(self) -> dict[str, Any]:
        """What it was made with."""

    def __contains__(self, id: object) -> bool: ...

@final
class SearchPages:
    """Answers to one query in pages, none twice; it keeps the database open."""

    def next(self, count: int) -> _Found:
        """Return the next best; fewer only at the end."""

@final
class Database:
    """Named collections; `sage.middleware.components.sage_db.open` is the way to one."""

    @staticmethod
    def open(
        path: str | os.PathLike[str],
        sync: str = "group",
        read_only: bool = False,
        checkpoint_log_bytes: int = ...,
        checkpoint_at_close: bool = True,
        background: bool = True,
        index_threads: int = 1,
    ) -> Database:
        """Open a folder, or make it."""

    @staticmethod
    def in_memory(background: bool = True, index_threads: int = 1) -> Database:
        """Return a database without a folder."""

    @staticmethod
    def verify(path: str | os.PathLike[str]) -> dict[str, Any]:
        """Look at every byte of a folder."""

    def create_collection(
        self,
        name: str,
        dimension: int,
        metric: str = "cosine",
        index: str = "auto",
        storage: str = "float32",
        rerank: str | None = None,
        degree: int = ...,
        links: int = 16,
        lists: int = 0,
        build_effort: int = 0,
        k1: float = 1.2,
        b: float = 0.75,
    ) -> Collection:
        """Make a new collection."""

    def collection(self, name: str) -> Collection:
        """Return the collection of that name."""

    def has_collection(self, name: str) -> bool:
        """Return whether there is one of that name."""

    def collection_names(self) -> list[str]:
        """Return all names, sorted."""

    def drop_collection(self, name: str) -> None:
        """Remove a collection with its content."""

    def rename_collection(self, name: str, to: str) -> None:
        """Give it another name."""

    def checkpoint(self) -> None:
        """Write a snapshot and begin a new log."""

    def sync(self) -> None:
        """Wait until everything is durable."""

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy everything as of one moment into another folder."""

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Put the collections of a backup in the place of all, in one step."""

    def stats(self) -> dict[str, Any]:
        """Return numbers about the files."""

    def close(self) -> None:
        """Make a checkpoint and give the folder back."""

def index_kinds() -> list[str]:
    """Return the names that an index may have."""

def simd_level() -> str:
    """Return the instruction set of this process: ``scalar``, ``neon``, ``avx2`` or ``avx512``.

    It is chosen at first use: the best one, or what the environment variable ``SAGE_SIMD`` names. A name
    that this machine does not offer is an `InvalidArgumentError`, here and when an index is made.
    """

def available_simd_levels() -> list[str]:
    """Return what this build and this CPU offer, slowest first; ``scalar`` is always there."""
