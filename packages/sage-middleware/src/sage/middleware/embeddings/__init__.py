"""From text to vectors.

- `protocols`: `Embedder`
- `hashing`: `HashingEmbedder`, the default: no model, no download
- `minilm`: `MiniLMEmbedder`, all-MiniLM-L6-v2 in numpy (extra `minilm`)
- `factory`: `create_embedder` from configuration
- `operator`: `EmbeddingMap`
"""

from __future__ import annotations

from .factory import EmbeddingConfig, create_embedder
from .hashing import HashingEmbedder
from .minilm import MiniLMEmbedder
from .operator import EmbeddedChunk, EmbeddingMap
from .protocols import Embedder

__all__ = [
    "EmbeddedChunk",
    "Embedder",
    "EmbeddingConfig",
    "EmbeddingMap",
    "HashingEmbedder",
    "MiniLMEmbedder",
    "create_embedder",
]
