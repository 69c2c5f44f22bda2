"""Vector stores.

- `protocols`: `VectorStore`, what every store does
- `exact`: `ExactVectorStore`, exact search with the native distance kernels
- `collection`: `CollectionVectorStore`, a collection of sage_db, in memory or durable
"""

from __future__ import annotations

from .collection import CollectionVectorStore
from .exact import ExactVectorStore
from .protocols import METRICS, FloatArray, VectorHit, VectorId, VectorStore

__all__ = ["METRICS", "CollectionVectorStore", "ExactVectorStore", "FloatArray", "VectorHit", "VectorId", "VectorStore"]
