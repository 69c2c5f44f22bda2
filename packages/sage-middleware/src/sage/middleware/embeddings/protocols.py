"""What every embedding model does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sage.common.errors import InvalidArgumentError

__all__ = ["Embedder", "FloatArray", "texts_checked"]

FloatArray: TypeAlias = NDArray[np.float32]


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors of length 1. The vector of a text does not depend on the texts beside it."""

    @property
    def name(self) -> str:
        """Name of the model; vectors of two names do not compare."""

    @property
    def dimension(self) -> int:
        """Length of the vectors."""

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Return float32 (n, dimension); each row has the norm 1."""


def texts_checked(owner: str, texts: Sequence[str]) -> list[str]:
    """Return `texts` as a list, each a string.

    Raises:
        InvalidArgumentError: it is one string, or holds something else.

    Example:
        >>> texts_checked("HashingEmbedder", "one")
        Traceback (most recent call last):
        ...
        sage.common.errors.InvalidArgumentError: HashingEmbedder: texts must be a list of strings, got one
        string
    """
    if isinstance(texts, str):
        raise InvalidArgumentError(f"{owner}: texts must be a list of strings, got one string")
    for text in texts:
        if not isinstance(text, str):
            raise InvalidArgumentError(f"{owner}: texts must be strings, got {type(text).__name__}")
    return list(texts)
