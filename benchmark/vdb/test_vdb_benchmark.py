"""The benchmark's own arithmetic, and its data sets in small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import vector_contract as contract
import vector_data as data


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


def test_private_memory_counts_what_is_touched() -> None:
    before = contract.private_mb()
    held = np.ones(8_000_000)
    assert 55.0 < contract.private_mb() - before < 75.0
    assert held[0] == 1.0
