"""Retrieval without a backend.

- `bm25`: `BM25Index`, an inverted index that can be updated
- `fusion`: one ranking out of several
"""

from __future__ import annotations

from .bm25 import BM25Hit, BM25Index
from .fusion import reciprocal_rank_fusion, weighted_fusion

__all__ = ["BM25Hit", "BM25Index", "reciprocal_rank_fusion", "weighted_fusion"]
