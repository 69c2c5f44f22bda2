"""Embedding models by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, model_validator

from sage.kernel.operators import validate_config

from .hashing import HashingEmbedder
from .minilm import MiniLMEmbedder
from .protocols import Embedder

__all__ = ["EMBEDDING_MODELS", "EmbeddingConfig", "create_embedder"]

# Name as written by users -> the model that it means.
EMBEDDING_MODELS: dict[str, str] = {
    "hashing": "hashing",
    "minilm": "minilm",
    "all-MiniLM-L6-v2": "minilm",
    "sentence-transformers/all-MiniLM-L6-v2": "minilm",
}
_HASHING_DIMENSION = 512
_MINILM_DIMENSION = 384


class EmbeddingConfig(BaseModel, extra="forbid", frozen=True):
    """Which embedding model, and how long its vectors are.

    Attributes:
        model: "hashing", "minilm" or "sentence-transformers/all-MiniLM-L6-v2".
        dimension: length of the vectors; free for "hashing" (512 by default), 384 for MiniLM.
    """

    model: str = "hashing"
    dimension: int | None = Field(default=None, ge=8, le=65_536)

    @model_validator(mode="after")
    def _known(self) -> EmbeddingConfig:
        if self.model not in EMBEDDING_MODELS:
            close = difflib.get_close_matches(self.model, EMBEDDING_MODELS, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"unknown embedding model {self.model!r}; {hint}known: {', '.join(EMBEDDING_MODELS)}")
        minilm = EMBEDDING_MODELS[self.model] == "minilm"
        if minilm and self.dimension not in {None, _MINILM_DIMENSION}:
            raise ValueError(f"{self.model} has the dimension {_MINILM_DIMENSION}, got {self.dimension}")
        return self


def create_embedder(config: Mapping[str, Any] | EmbeddingConfig | None = None) -> Embedder:
    """Return the embedder that `config` names; `{"model": "hashing"}` by default.

    Raises:
        ConfigError: an unknown model or key, or a dimension that the model does not have.
        MissingExtraError: the model needs an extra that is not installed.

    Example:
        >>> create_embedder({"model": "hashing", "dimension": 64}).name
        'hashing-64'
    """
    checked: EmbeddingConfig = validate_config("embedding", EmbeddingConfig, config)
    if EMBEDDING_MODELS[checked.model] == "minilm":
        return MiniLMEmbedder()
    return HashingEmbedder(checked.dimension or _HASHING_DIMENSION)
