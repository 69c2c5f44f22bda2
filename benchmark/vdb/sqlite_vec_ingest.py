"""sqlite-vec: a `vec0` table with metadata columns, the log of SQLite with `synchronous=FULL`: a commit is synced.

Through apsw, because the `sqlite3` of many Pythons loads no extensions.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import sqlite_vec
import vector_data as data
from ingest_contract import run_store
from numpy.typing import NDArray


class SqliteVec:
    def __init__(self, shape: data.Shape, chunk: int) -> None:
        self._shape = shape
        self._chunk = chunk
        self._lock = threading.Lock()  # SQLite has one writer at a time

    def open(self, folder: Path, new: bool) -> None:
        folder.mkdir(exist_ok=True)
        self._connection = apsw.Connection(str(folder / "rows.db"))
        self._connection.enable_load_extension(True)
        self._connection.load_extension(sqlite_vec.loadable_path())
        self._run("PRAGMA journal_mode=WAL")
        self._run("PRAGMA synchronous=FULL")
        if new:
            vector = f"vector float[{self._shape.dimension}] distance_metric={self._shape.metric}"
            columns = f"id integer primary key, {vector}, year integer, source text, chunk_size={self._chunk}"
            self._run(f"CREATE VIRTUAL TABLE rows USING vec0({columns})")

    def _run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return list(self._connection.execute(statement, values))

    def insert(self, ids: NDArray[np.int64], rows: data.Floats, numbers: NDArray[np.int64], strings: list[str]) -> None:
        blobs = [row.tobytes() for row in rows]
        given = zip(ids.tolist(), blobs, numbers.tolist(), strings, strict=True)
        with self._lock, self._connection:
            self._connection.executemany("INSERT INTO rows(id, vector, year, source) VALUES (?, ?, ?, ?)", given)

    def count(self) -> int:
        return int(self._run("SELECT count(*) FROM rows")[0][0])

    def get(self, ids: Sequence[int]) -> Mapping[int, tuple[Any, int, str]]:
        found = {}
        for wanted in ids:
            for row, year, source in self._run("SELECT vector, year, source FROM rows WHERE id = ?", wanted):
                found[wanted] = (np.frombuffer(row, np.float32), year, source)
        return found

    def search(self, query: data.Floats) -> Sequence[int]:
        asked = "SELECT id FROM rows WHERE vector MATCH ? AND k = 10"
        return [int(row[0]) for row in self._run(asked, query.tobytes())]


if __name__ == "__main__":
    sys.exit(run_store("sqlite-vec", "sqlite-vec", {"wal-full": partial(SqliteVec, chunk=1024)}))
