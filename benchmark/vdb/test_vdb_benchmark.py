"""The benchmark's own arithmetic, and its data sets in small."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import vector_contract as contract
import vector_data as data
import vector_workloads as workloads


@pytest.mark.parametrize("name", ["a", "b"])
def test_neighbours_are_exact(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_BENCH_CACHE", str(tmp_path))
    monkeypatch.setitem(data.SHAPES, name, data.Shape(name, data.SHAPES[name].metric, 1500, 32))
    monkeypatch.setattr(data, "HIDDEN", 16)
    made = data.load(name)
    again = data.load(name)
    assert (again.neighbours == made.neighbours).all()
    rows, queries = np.asarray(made.rows, np.float64), made.queries.astype(np.float64)
    for query, near in zip(queries[:50], made.neighbours, strict=False):
        assert (np.argsort(((rows - query) ** 2).sum(axis=1), kind="stable")[:20] == near[:20]).all()
    assert made.recall(made.neighbours, 10) == 1.0
    assert made.recall(np.roll(made.neighbours, 5, axis=1), 10) == 0.5


def test_rates_lie_between_the_efforts_around_the_recall() -> None:
    sweep = [{"recall": 0.90, "qps": 400.0}, {"recall": 0.98, "qps": 100.0}]
    assert contract.interpolate(sweep, 0.94) == 200.0
    assert contract.interpolate(sweep, 0.98) == 100.0
    assert contract.interpolate(sweep, 0.80) == 400.0
    assert contract.interpolate(sweep, 0.99) is None
    assert contract.interpolate([], 0.5) is None


class _Exact:
    """An engine that looks at everything, for the workloads."""

    searches_meanwhile = True

    def build(self, rows: data.Floats, threads: int) -> None:
        assert threads == 1
        self._rows = np.array(rows)
        self._there = np.ones(len(rows), np.bool_)
        self._allowed = self._there

    def efforts(self) -> list[int]:
        return [1, 2]

    def set_effort(self, effort: int) -> None:
        # The lower effort misses one of ten.
        self._misses = 2 - effort

    def _search(self, query: data.Floats, among: np.ndarray) -> np.ndarray:
        costs = ((self._rows - query) ** 2).sum(axis=1)
        costs[~among] = np.inf
        found = np.argsort(costs, kind="stable")[: contract.K]
        return np.concatenate([found[self._misses :], np.full(self._misses, -1)])

    def search(self, query: data.Floats) -> np.ndarray:
        return self._search(query, self._there)

    def ids(self, answer: np.ndarray) -> np.ndarray:
        return answer

    def allow(self, allowed: np.ndarray) -> None:
        self._allowed = allowed

    def search_allowed(self, query: data.Floats) -> np.ndarray:
        return self._search(query, self._allowed)

    def upsert(self, ids: np.ndarray, rows: data.Floats) -> None:
        self._rows[ids] = rows
        self._there[ids] = True

    def delete(self, ids: np.ndarray) -> None:
        assert self._there[ids].all()
        self._there[ids] = False


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> data.DataSet:
    monkeypatch.setenv("SAGE_BENCH_CACHE", str(tmp_path))
    monkeypatch.setitem(data.SHAPES, "a", data.Shape("a", "l2", 1500, 16))
    monkeypatch.setattr(workloads, "CHANGES", 200)
    made = data.load("a")
    return data.DataSet(made.shape, np.array(made.rows), made.queries, made.neighbours)


@pytest.fixture
def affinity() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("affinity")
def test_filters_are_measured_against_the_allowed_rows(small: data.DataSet) -> None:
    line = workloads.measure_filter(_Exact(), small, 1, 0)
    assert [point["recall"] for point in line["filter_0.1_sweep"]] == [0.9, 1.0]
    assert line["filter_0.1_sweep"][1]["qps"] <= line["filter_0.1"] <= line["filter_0.1_sweep"][0]["qps"] or (
        line["filter_0.1_sweep"][0]["qps"] <= line["filter_0.1"] <= line["filter_0.1_sweep"][1]["qps"]
    )
    with pytest.raises(TypeError, match="has no filter"):
        workloads.measure_filter(object(), small, 1, 0)  # type: ignore[arg-type]


@pytest.mark.usefixtures("affinity")
def test_churn_of_an_exact_index_loses_nothing(small: data.DataSet) -> None:
    line = workloads.measure_churn(_Exact(), small, 1, 0)
    assert line["lost_0.95"] == line["lost_0.99"] == 0.0
    assert min(line["upserts_single"], line["changes_batch"], line["searches_meanwhile"]) > 0
    with pytest.raises(TypeError, match="cannot be changed"):
        workloads.measure_churn(object(), small, 1, 0)  # type: ignore[arg-type]


def test_private_memory_counts_what_is_touched() -> None:
    before = contract.private_mb()
    held = np.ones(8_000_000)
    assert 55.0 < contract.private_mb() - before < 75.0
    assert held[0] == 1.0
