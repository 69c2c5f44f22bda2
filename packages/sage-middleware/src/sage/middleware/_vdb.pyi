"""Types of the native vector index, built from ``cpp/vdb``.

Vectors are taken without a copy when they are C-contiguous float32 arrays; float16, float64 and
integers, other memory orders and nested lists are converted into a copy. Ids likewise: int64, or other
integers. Nobody may change an array while a call reads it. Every call does its work with the GIL
released. Any number of searches, or one change, run at a time on an index; the others wait.

A broken rule raises `sage.common.errors.InvalidArgumentError` and has changed nothing.
"""

from typing import Literal, final

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

def simd_level() -> str:
    """Return the instruction set of this process: ``scalar``, ``neon``, ``avx2`` or ``avx512``.

    It is chosen at first use: the best one, or what the environment variable ``SAGE_SIMD`` names. A name
    that this machine does not offer is an `InvalidArgumentError`, here and when an index is made.
    """

def available_simd_levels() -> list[str]:
    """Return what this build and this CPU offer, slowest first; ``scalar`` is always there."""
