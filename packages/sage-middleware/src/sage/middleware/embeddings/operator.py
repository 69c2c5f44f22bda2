"""The operator that adds vectors to what passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from sage.common.errors import InvalidArgumentError
from sage.kernel.operators import MapFunction
from sage.libs.foundation.records import Chunk

from .factory import EmbeddingConfig, create_embedder
from .protocols import Embedder, FloatArray

__all__ = ["EmbeddedChunk", "EmbeddingMap"]


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedChunk:
    """A chunk and its vector (float32, length of the model's dimension).

    Example:
        >>> import numpy as np
        >>> EmbeddedChunk(Chunk("a#0", "a", "Hi", 0, 0, 2), np.zeros(4, np.float32)).chunk.id
        'a#0'
    """

    chunk: Chunk
    vector: FloatArray


class _Config(EmbeddingConfig, extra="forbid", frozen=True):
    text_field: str = Field(default="text", min_length=1)
    vector_field: str = Field(default="vector", min_length=1)


class EmbeddingMap(MapFunction[Any, Any]):
    """Adds a vector: a `Chunk` becomes an `EmbeddedChunk`, a mapping gets one more field, a string becomes a
    mapping.

    Config (with `model` and `dimension`, as in `EmbeddingConfig`):
        text_field: field of a mapping that has the text.
        vector_field: field of a mapping that gets the vector.

    Raises:
        InvalidArgumentError: the item has no text.

    Example:
        >>> embed = EmbeddingMap({"model": "hashing", "dimension": 16})
        >>> embed.setup()
        >>> item = embed.execute({"id": 1, "text": "hello"})
        >>> sorted(item), item["vector"].shape
        (['id', 'text', 'vector'], (16,))
    """

    Config: ClassVar[type[BaseModel] | None] = _Config
    _embedder: Embedder | None = None

    def setup(self) -> None:
        """Load the model."""
        self._embedder = create_embedder(EmbeddingConfig(model=self.config.model, dimension=self.config.dimension))

    def execute(self, item: Any) -> Any:
        """Return `item` with its vector."""
        if isinstance(item, Chunk):
            return EmbeddedChunk(item, self._vector(item.text))
        fields = {self.config.text_field: item} if isinstance(item, str) else item
        if not isinstance(fields, Mapping):
            raise InvalidArgumentError(f"EmbeddingMap takes a Chunk, a mapping or a str, got {type(item).__name__}")
        text = fields.get(self.config.text_field)
        if not isinstance(text, str):
            raise InvalidArgumentError(
                f"EmbeddingMap: item must have a text in {self.config.text_field!r}, got {text!r}; set text_field"
            )
        return {**fields, self.config.vector_field: self._vector(text)}

    def _vector(self, text: str) -> FloatArray:
        if self._embedder is None:
            raise InvalidArgumentError("EmbeddingMap: execute called before setup")
        vector: FloatArray = self._embedder.embed([text])[0]
        return vector
