"""Vector stores.

- `protocols`: `VectorStore`, what every store does
- `exact`: `ExactVectorStore`, exact search with the native distance kernels
"""

from __future__ import annotations

from .exact import ExactVectorStore
from .protocols import METRICS, FloatArray, VectorHit, VectorId, VectorStore

__all__ = ["METRICS", "ExactVectorStore", "FloatArray", "VectorHit", "VectorId", "VectorStore"]
