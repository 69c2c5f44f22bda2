"""What the ingest benchmark says of results, and that it finds losses."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import ingest_contract as contract
import numpy as np
import vector_data as data
from numpy.typing import NDArray

from benchmark.vdb import ingest_table


class Memory:
    """A store that keeps everything in a dict."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[Any, int, str]] = {}
        self.calls: list[int] = []
        self._lock = threading.Lock()

    def open(self, folder: Any, new: bool) -> None:
        raise AssertionError("not called here")

    def insert(self, ids: NDArray[np.int64], rows: data.Floats, numbers: NDArray[np.int64], strings: list[str]) -> None:
        with self._lock:
            self.calls.append(len(ids))
            self.rows.update(zip(ids.tolist(), zip(rows, numbers.tolist(), strings, strict=True), strict=True))

    def count(self) -> int:
        return len(self.rows)

    def get(self, ids: Sequence[int]) -> Mapping[int, tuple[Any, int, str]]:
        return {each: self.rows[each] for each in ids if each in self.rows}

    def search(self, query: data.Floats) -> Sequence[int]:
        return []


def result(engine: str, rate: float, **more: Any) -> dict[str, Any]:
    plain = {"variant": "v", "mode": "batch", "data": "A", "durable": True, "lost": 0, "wrong_of_sample": 0, "rows": 10}
    times = {
        "open_seconds": 0.4,
        "open_and_search_seconds": 0.5,
        "open_and_search_cpu_seconds": 0.4,
        "ingest_cpu_seconds": 1.0,
        "disk_mb": 1.0,
    }
    return {"engine": engine, "rows_per_second": rate, **plain, **times, **more}


def test_every_row_is_written_once_in_batches() -> None:
    rows = np.arange(2_500 * 4, dtype=np.float32).reshape(2_500, 4)
    store = Memory()
    assert contract.write_batches(store, rows, 60.0) == 2_500
    assert store.calls == [1_000, 1_000, 500]
    assert set(store.rows) == set(range(2_500))
    assert all((store.rows[i][0] == rows[i]).all() for i in range(0, 2_500, 7))
    numbers, strings = contract.numbers_of(np.arange(2_500)), contract.strings_of(np.arange(2_500))
    assert [store.rows[i][1:] for i in range(2_500)] == list(zip(numbers.tolist(), strings, strict=True))
    assert contract.write_batches(Memory(), rows, 0.0) == 0


def test_threads_write_every_row_once() -> None:
    rows = np.arange(3_000 * 2, dtype=np.float32).reshape(3_000, 2)
    store = Memory()
    assert contract.write_rows(store, rows, 60.0) == 3_000
    assert store.calls == [1] * 3_000
    assert set(store.rows) == set(range(3_000))


def test_wrong_and_missing_rows_are_counted() -> None:
    rows = np.ones((100, 3), np.float32)
    store = Memory()
    contract.write_batches(store, rows, 60.0)
    assert contract.wrong_rows(store, rows, 100) == 0
    row, number, string = store.rows[3]
    store.rows[3] = (row * 1.01, number, string)
    store.rows[4] = (row, number + 1, string)
    store.rows[5] = (row, number, string)
    del store.rows[6]
    assert contract.wrong_rows(store, rows, 100) == 4


def test_only_durable_peers_are_compared() -> None:
    peers = [result("slow", 100.0), result("fast", 900.0, durable=False)]
    lines = ingest_table.judge("A", [result("sage", 200.0), *peers])
    assert [(wanted, reached) for _, wanted, reached in lines] == [(1.5, 2.0), (1.0, 2.0), (1.0, 1.0)]
    assert "slow" in lines[0][0]
    lost = ingest_table.judge("B", [result("sage", 200.0, lost=1), *peers])
    assert lost[-1][2] == 0.0
    text = ingest_table.table([*peers, result("sage", 200.0)])
    assert [line.split("|")[2].strip() for line in text.splitlines()[2:]] == ["fast v", "sage v", "slow v"]
