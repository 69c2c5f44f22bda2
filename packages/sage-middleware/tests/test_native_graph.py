"""The native graph index through its Python binding: recall against numpy, scores, filters, bad input, threads."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sage.common.errors import InvalidArgumentError
from sage.middleware import _vdb

METRICS = ("cosine", "inner_product", "l2")
Floats = NDArray[np.float32]


def clustered(count: int, dimension: int, seed: int) -> Floats:
    centres = np.random.default_rng(0).standard_normal((30, dimension))
    random = np.random.default_rng(seed)
    spread = random.standard_normal((count, dimension))
    return np.asarray(centres[random.integers(0, 30, count)] + 0.7 * spread, dtype=np.float32)


def reference(metric: str, queries: Floats, rows: Floats) -> NDArray[np.float64]:
    """Scores (q, n), higher is better for all of them, in double precision."""
    q, r = queries.astype(np.float64), rows.astype(np.float64)
    if metric == "l2":
        return np.asarray(-((q[:, None, :] - r[None, :, :]) ** 2).sum(axis=2))
    if metric == "cosine":
        q = q / np.maximum(np.linalg.norm(q, axis=1, keepdims=True), 1e-30)
        r = r / np.maximum(np.linalg.norm(r, axis=1, keepdims=True), 1e-30)
    return np.asarray(q @ r.T)


def recall(found: NDArray[np.int64], scores: NDArray[np.float64], k: int) -> float:
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.mean([len(set(f) & set(b)) / k for f, b in zip(found.tolist(), best.tolist(), strict=True)]))


@pytest.mark.parametrize("rows", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("metric", METRICS)
def test_finds_the_nearest_with_their_scores(metric: str, rows: str) -> None:
    vectors, queries = clustered(3000, 32, 1), clustered(50, 32, 2)
    index = _vdb.GraphIndex(32, metric, rows=rows)
    index.insert(np.arange(3000), vectors, threads=2)
    slots, scores = index.search(queries, 10, effort=100, threads=2)
    exact = reference(metric, queries, vectors)
    assert slots.shape == scores.shape == (50, 10)
    assert slots.dtype == np.int64
    assert scores.dtype == np.float32
    assert recall(slots, exact, 10) > (0.92 if rows == "bfloat16" else 0.97)
    expected = np.take_along_axis(exact, slots, axis=1) * (-1.0 if metric == "l2" else 1.0)
    np.testing.assert_allclose(scores, expected, rtol=0.02, atol=1e-4 if rows == "float32" else 0.3)
    ordered = np.diff(scores.astype(np.float64), axis=1) * (1.0 if metric == "l2" else -1.0)
    assert (ordered >= 0).all()


def test_one_query_gives_what_it_gives_in_a_batch() -> None:
    vectors, queries = clustered(2000, 16, 3), clustered(20, 16, 4)
    index = _vdb.GraphIndex(16, "l2")
    index.insert(np.arange(2000), vectors)
    slots, scores = index.search(queries, 7, effort=50)
    for i, query in enumerate(queries):
        one_slots, one_scores = index.search(query, 7, effort=50)
        assert one_slots.tolist() == slots[i].tolist()
        assert one_scores.tolist() == scores[i].tolist()


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_small_index_is_exact(data: st.DataObject) -> None:
    dimension, size = data.draw(st.integers(1, 20)), data.draw(st.integers(0, 80))
    metric, k = data.draw(st.sampled_from(METRICS)), data.draw(st.integers(1, 90))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    # Small integers: their sums are exact, also in float16 rows.
    vectors = random.integers(-9, 9, (size, dimension)).astype(np.float32)
    query = random.integers(-9, 9, dimension).astype(np.float32)
    places = random.permutation(3 * size)[:size]
    index = _vdb.GraphIndex(dimension, metric)
    index.insert(places, vectors)
    gone = places[: data.draw(st.integers(0, size))]
    assert index.remove(gone) == len(gone)
    kept = vectors[len(gone) :]
    assert len(index) == len(kept)
    slots, scores = index.search(query, k)
    exact = np.sort(reference(metric, query[None, :], kept)[0])[::-1][:k] * (-1.0 if metric == "l2" else 1.0)
    tolerance = 2e-3 if metric == "cosine" else 0.0
    np.testing.assert_allclose(scores, exact, atol=tolerance)
    assert set(slots.tolist()) <= set(places[len(gone) :].tolist())


@pytest.mark.parametrize("share", [0.001, 0.05, 0.4, 0.9])
def test_finds_the_nearest_of_those_allowed(share: float) -> None:
    vectors, queries = clustered(9000, 24, 5), clustered(30, 24, 6)
    index = _vdb.GraphIndex(24, "cosine")
    index.insert(np.arange(9000), vectors, threads=2)
    allowed = np.random.default_rng(7).random(9000) < share
    exact = np.where(allowed, reference("cosine", queries, vectors), -np.inf)
    k = min(10, int(allowed.sum()))
    slots, _ = index.search(queries, k, effort=60, allowed=allowed)
    assert allowed[slots].all()
    assert recall(slots, exact, k) > 0.95
    words = np.packbits(allowed, bitorder="little")
    padded = np.zeros(-(-len(words) // 8) * 8, dtype=np.uint8)
    padded[: len(words)] = words
    again, _ = index.search(queries, k, effort=60, allowed=padded.view(np.uint64))
    assert again.tolist() == slots.tolist()


def test_fewer_allowed_than_asked_for_are_filled_up() -> None:
    index = _vdb.GraphIndex(4, "l2")
    index.insert([0, 1, 2], np.eye(4, dtype=np.float32)[:3])
    slots, scores = index.search(np.zeros((1, 4)), 3, allowed=np.array([False, True]))
    assert slots.tolist() == [[1, -1, -1]]
    assert scores[0, 0] == 1.0
    assert all(math.isnan(score) for score in scores[0, 1:])


def test_saves_and_loads() -> None:
    vectors, queries = clustered(1500, 12, 8), clustered(10, 12, 9)
    index = _vdb.GraphIndex(12, "inner_product")
    index.insert(np.arange(1500), vectors)
    data = index.save()
    loaded = _vdb.GraphIndex.load(memoryview(data))
    assert (loaded.dimension, loaded.metric, len(loaded)) == (12, "inner_product", 1500)
    assert loaded.search(queries, 5)[0].tolist() == index.search(queries, 5)[0].tolist()
    for broken in (b"", data[:-1], data + b"x", b"x" + data[1:]):
        with pytest.raises(InvalidArgumentError, match="not a saved graph index"):
            _vdb.GraphIndex.load(broken)


BAD: dict[str, tuple[Callable[[Any], Any], str]] = {
    "dimension": (lambda i: i.insert([9], [[1.0]]), "shape"),
    "slot": (lambda i: i.insert([-1], [[1.0, 1.0]]), "slots must be between 0 and"),
    "taken": (lambda i: i.insert([0], [[1.0, 1.0]]), "slot 0 must be free"),
    "twice": (lambda i: i.insert([5, 5], np.ones((2, 2))), "distinct"),
    "nan": (lambda i: i.insert([5], [[1.0, math.nan]]), "finite"),
    "k": (lambda i: i.search([[1.0, 1.0]], 0), "k must be >= 1, got 0"),
    "effort": (lambda i: i.search([[1.0, 1.0]], 1, effort=0), "effort must be >= 1, got 0"),
    "threads": (lambda i: i.search([[1.0, 1.0]], 1, threads=0), "threads must be >= 1, got 0"),
    "allowed": (lambda i: i.search([[1.0, 1.0]], 1, allowed=[1, 2]), "allowed must be an array"),
    "query": (lambda i: i.search(np.ones(3, np.float32), 1), "dimension 2, got 3"),
    "infinite": (lambda i: i.search(np.array([1.0, math.inf], np.float32), 1), "finite"),
    "get": (lambda i: i.get(7), "holds no vector"),
    "rows": (lambda i: _vdb.GraphIndex(2, rows="int8"), "rows must be"),
    "degree": (lambda i: _vdb.GraphIndex(2, degree=1), "degree must be between 8 and 256, got 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses_bad_input_and_stays_as_it_was(name: str) -> None:
    call, message = BAD[name]
    index = _vdb.GraphIndex(2, "l2")
    index.insert([0], [[1.0, 2.0]])
    with pytest.raises(InvalidArgumentError, match=message):
        call(index)
    assert len(index) == 1
    assert 0 in index
    assert 5 not in index
    assert index.get(0).tolist() == [1.0, 2.0]


def test_searches_run_beside_a_change() -> None:
    vectors = clustered(4000, 16, 10)
    index = _vdb.GraphIndex(16, "l2")
    index.insert(np.arange(2000), vectors[:2000])
    errors: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                slots, scores = index.search(vectors[3], 5)
                assert slots[0] == 3
                assert scores[0] < 0.1
        except BaseException as error:  # a thread's assertion has to reach the test
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for first in range(2000, 4000, 50):
        index.insert(np.arange(first, first + 50), vectors[first : first + 50])
        index.remove(np.arange(first - 1500, first - 1450))
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert len(index) == 2000


def test_representation_says_what_it_is() -> None:
    assert repr(_vdb.GraphIndex(2, "l2")) == "GraphIndex(dimension=2, metric='l2', size=0)"
