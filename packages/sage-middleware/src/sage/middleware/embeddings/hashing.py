"""Embedding without a model: hashed words and parts of words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sage.common.errors import InvalidArgumentError
from sage.libs.text.tokens import STOPWORDS, stem, tokenize

from .protocols import FloatArray, texts_checked

__all__ = ["HashingEmbedder"]

_Features: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float64]]
_GRAM_SIZES = (3, 4, 5)
_GRAMS_WEIGHT = 0.5
_STOPWORD_WEIGHT = 0.05
_WORD_CHARACTERS_MAX = 64


def _hash(feature: str) -> int:
    # Not `hash()`: that differs from process to process.
    return int.from_bytes(blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


@lru_cache(maxsize=65_536)
def _word_features(word: str, dimension: int) -> _Features:
    """Places and signed weights of a word: itself, and its character n-grams, which it shares with its
    relatives.
    """
    marked = f"<{word[:_WORD_CHARACTERS_MAX]}>"
    grams = [marked[at : at + size] for size in _GRAM_SIZES for at in range(len(marked) - size + 1)]
    weight = _STOPWORD_WEIGHT if word in STOPWORDS else 1.0
    features = [(f"w{stem(word)}", weight)]
    features += [(f"g{gram}", weight * _GRAMS_WEIGHT / math.sqrt(len(grams))) for gram in grams]
    codes = [_hash(feature) for feature, _ in features]
    places = np.array([(code >> 1) % dimension for code in codes], dtype=np.int64)
    weights = np.array([w if code & 1 else -w for code, (_, w) in zip(codes, features, strict=True)])
    return places, weights


class HashingEmbedder:
    """Vectors of hashed words (with light stemming) and character n-grams of 3 to 5, signed, weighted by 1 +
    ln(count).

    Texts are near when they share words or parts of words; meaning beyond that is not seen. The same text
    gives the same vector in every process and on every machine. Source: Weinberger et al., "Feature Hashing
    for Large Scale Multitask Learning" (2009).

    Args:
        dimension: length of the vectors, 8 to 65536.

    Example:
        >>> near, far = HashingEmbedder().embed(["indexing documents", "a purple fish"])
        >>> query = HashingEmbedder().embed(["index of a document"])[0]
        >>> bool(query @ near > 0.3 > query @ far)
        True
    """

    def __init__(self, dimension: int = 512) -> None:
        if not 8 <= dimension <= 65_536:
            raise InvalidArgumentError(f"dimension must be an integer from 8 to 65536, got {dimension!r}")
        self._dimension = dimension

    @property
    def name(self) -> str:
        """`hashing-<dimension>`."""
        return f"hashing-{self._dimension}"

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._dimension

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Return float32 (n, dimension), each row of norm 1; a text without words gets one fixed vector."""
        rows = np.empty((len(texts), self._dimension), dtype=np.float32)
        for number, text in enumerate(texts_checked("HashingEmbedder", texts)):
            rows[number] = self._vector(text)
        return rows

    def _vector(self, text: str) -> NDArray[np.float64]:
        counts = Counter(tokenize(text))
        total: NDArray[np.float64] = np.zeros(self._dimension)
        if counts:
            features = [_word_features(word, self._dimension) for word in counts]
            boosts = np.repeat([1.0 + math.log(n) for n in counts.values()], [len(places) for places, _ in features])
            places = np.concatenate([places for places, _ in features])
            weights = np.concatenate([weights for _, weights in features])
            np.add.at(total, places, weights * boosts)
        norm = float(np.linalg.norm(total))
        if norm < 1e-12:
            # No words, or words that cancel out: a vector of norm 1 all the same, far from the others.
            total = np.zeros(self._dimension)
            total[_hash("no words") % self._dimension] = norm = 1.0
        return total / norm
