"""`_vdb.Index` from Python: recall against numpy, filters, files, errors."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sage.common.errors import InvalidArgumentError
from sage.middleware import _vdb

KINDS = ("flat", "hnsw", "ivf_flat", "graph")
DIMENSION = 16


def rows_and_queries() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    random = np.random.default_rng(1)
    return (
        random.standard_normal((2000, DIMENSION), dtype=np.float32),
        random.standard_normal((20, DIMENSION), dtype=np.float32),
    )


def exact(rows: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    distances = ((queries[:, None, :].astype(np.float64) - rows[None]) ** 2).sum(axis=2)
    return np.argsort(distances, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("kind", KINDS)
def test_recall_of_single_queries_and_of_batches(kind: str) -> None:
    rows, queries = rows_and_queries()
    index = _vdb.Index(DIMENSION, "l2", kind=kind)
    index.insert(np.arange(len(rows)), rows, threads=2)
    truth = exact(rows, queries, 10)
    slots, scores = index.search(queries, 10, 150, threads=2)
    assert slots.dtype == np.int64
    assert scores.dtype == np.float32
    assert slots.shape == scores.shape == (20, 10)
    hits = sum(len(np.intersect1d(found, true)) for found, true in zip(slots, truth, strict=True))
    assert hits >= (200 if kind == "flat" else 188)
    for query, found, score in zip(queries, slots, scores, strict=True):
        alone, alone_scores = index.search(query, 10, 150)
        assert alone.tolist() == found.tolist()
        assert alone_scores.tolist() == score.tolist()
    assert index.kind == kind
    assert kind in index.explain()
    assert index.stats()["size"] == len(index) == 2000


@pytest.mark.parametrize("kind", KINDS)
def test_filters_removal_range_and_files(kind: str) -> None:
    rows, queries = rows_and_queries()
    index = _vdb.Index(DIMENSION, "l2", kind=kind)
    index.insert(np.arange(len(rows)), rows)
    allowed = np.zeros(len(rows), dtype=bool)
    allowed[::7] = True
    slots, _ = index.search(queries, 5, 200, allowed=allowed)
    assert (slots % 7 == 0).all()
    assert index.remove([0, 7, 7000]) == 2
    assert 7 not in index
    assert 8 in index
    index.consolidate()
    assert sorted(index.take_free().tolist()) == [0, 7]
    slots, scores = index.range_search(queries[0], 18.0, 2000)
    assert (scores <= 18.0).all()
    assert 0 not in slots
    assert len(slots) > 0
    copy = _vdb.Index.load(index.save())
    assert copy.kind == kind
    assert len(copy) == 1998
    assert copy.search(queries, 5, 100)[0].tolist() == index.search(queries, 5, 100)[0].tolist()


def test_storage_forms_and_automatic_choice() -> None:
    rows, queries = rows_and_queries()
    truth = exact(rows, queries, 10)
    for storage, least in (("float16", 195), ("bfloat16", 180), ("int8", 180), ("int4", 190), ("bit1", 140)):
        index = _vdb.Index(DIMENSION, "l2", kind="flat", storage=storage)
        index.insert(np.arange(len(rows)), rows)
        slots, _ = index.search(queries, 10)
        hits = sum(len(np.intersect1d(found, true)) for found, true in zip(slots, truth, strict=True))
        assert hits >= least, storage
    assert _vdb.Index(DIMENSION, expected_size=100).kind == "flat"
    assert _vdb.Index(DIMENSION, expected_size=10_000_000).kind == "graph"


def test_errors_name_the_rule() -> None:
    with pytest.raises(InvalidArgumentError, match="kind must be one of auto, flat, hnsw, ivf_flat, graph, got 'tree'"):
        _vdb.Index(4, kind="tree")
    with pytest.raises(InvalidArgumentError, match="storage must be one of"):
        _vdb.Index(4, storage="float8")
    index = _vdb.Index(4, kind="flat")
    with pytest.raises(InvalidArgumentError, match="k must be >= 1, got 0"):
        index.search(np.zeros((1, 4), np.float32), 0)
    with pytest.raises(InvalidArgumentError, match="slots must be between 0"):
        index.insert([-1], np.zeros((1, 4), np.float32))
    with pytest.raises(InvalidArgumentError, match="not a saved index"):
        _vdb.Index.load(b"SAGEINDX")
    with pytest.raises(InvalidArgumentError, match="slot 3 holds no vector"):
        index.get(3)
