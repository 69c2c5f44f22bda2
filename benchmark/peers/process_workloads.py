"""The work between processes that SAGE and its peers do; as in `workloads`, only the machinery differs.

All processes are started, and have done something, before the clock starts: what is compared is the work, not how long
an interpreter takes to start.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from workloads import WrongResultError

COMPUTE_ITEMS = 400
COMPUTE_ROUNDS = 100_000
DICT_ITEMS = 60_000
HOP_ITEMS = 3_000
ARRAY_ITEMS = 400
ARRAY_BYTES = 1 << 20
FUTURES_CHUNK = 256

Array = npt.NDArray[np.float64]


# COMPUTE: pure Python, a few milliseconds per item


def compute_texts(items: int) -> list[str]:
    """Return `items` JSON texts of about 800 bytes.

    >>> [len(text) for text in compute_texts(2)]
    [800, 800]
    """
    return [json.dumps({"id": number % 10, "words": ["dataflow"] * 65}) for number in range(items)]


def compute(text: str, rounds: int = COMPUTE_ROUNDS) -> int:
    """Return a number that takes `rounds` steps of plain Python.

    >>> compute('{"id": 3, "words": []}', rounds=1)
    100
    """
    total = int(json.loads(text)["id"])
    for _ in range(rounds):
        total = (total * 31 + 7) % 1_000_003
    return total


def check_compute(outputs: Iterable[int], texts: Sequence[str]) -> int:
    """Return how many outputs came, if they are those of `texts` in any order.

    Raises:
        WrongResultError: They are not.
    """
    answers = {text: compute(text) for text in set(texts)}
    return _check_same(sorted(outputs), sorted(answers[text] for text in texts))


# DICTS: through one process that does nothing with them


def dicts_of_1_kb(items: int) -> list[dict[str, Any]]:
    """Return `items` dicts of a good 1,000 bytes each when pickled alone.

    >>> import pickle
    >>> 1000 < len(pickle.dumps(dicts_of_1_kb(1)[0])) < 1200
    True
    """
    return [
        {"id": number, "title": f"document {number}", "text": f"{number:06d}" * 160, "tags": ["a", "b"], "score": 0.5}
        for number in range(items)
    ]


def pass_on(item: Any) -> Any:
    """Return the item."""
    return item


def check_dicts(outputs: Sequence[dict[str, Any]], items: Sequence[dict[str, Any]]) -> int:
    """Return how many came, if they are equal to `items`, in order.

    Raises:
        WrongResultError: They are not.
    """
    return _check_same(list(outputs), list(items))


# ARRAYS: 1 MiB each, through one process that does nothing with them


def arrays_of_1_mb(items: int) -> list[Array]:
    """Return `items` arrays of 1 MiB; some are the same, so that the input fits into memory."""
    some = [np.random.default_rng(seed).standard_normal(ARRAY_BYTES // 8) for seed in range(8)]
    return [some[number % len(some)] for number in range(items)]


def digest(array: Array) -> tuple[float, float]:
    """Return the first and the last number: what is kept of an array that came out."""
    return float(array[0]), float(array[-1])


def check_arrays(outputs: Sequence[tuple[float, float]], arrays: Sequence[Array]) -> int:
    """Return how many came, if their digests are those of `arrays`, in order.

    Raises:
        WrongResultError: They are not.
    """
    return _check_same(list(outputs), [digest(array) for array in arrays])


def _check_same(got: list[Any], expected: list[Any]) -> int:
    if got != expected:
        raise WrongResultError(f"{len(expected)} items must come out as they are, got {len(got)} outputs")
    return len(got)
