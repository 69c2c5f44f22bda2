"""LanceDB: a table in a folder. `add` writes a file of data and a new version of the table, and syncs neither.

`synced` does that for it: every new file and the folders that hold them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import vector_data as data
from ingest_contract import run_store
from numpy.typing import NDArray


class Lance:
    def __init__(self, shape: data.Shape, synced: bool) -> None:
        self._metric = shape.metric
        self._synced = synced
        self._known: set[str] = set()
        vector = pa.list_(pa.float32(), shape.dimension)
        self._schema = pa.schema(
            [("id", pa.int64()), ("vector", vector), ("year", pa.int64()), ("source", pa.string())]
        )

    def open(self, folder: Path, new: bool) -> None:
        self._folder = folder
        database = lancedb.connect(folder)
        self._table = database.create_table("rows", schema=self._schema) if new else database.open_table("rows")

    def insert(self, ids: NDArray[np.int64], rows: data.Floats, numbers: NDArray[np.int64], strings: list[str]) -> None:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
        columns = [pa.array(ids), vectors, pa.array(numbers), pa.array(strings)]
        self._table.add(pa.Table.from_arrays(columns, schema=self._schema))
        if self._synced:
            self._sync()

    def _sync(self) -> None:
        for folder, _, names in os.walk(self._folder):
            new = {f"{folder}/{name}" for name in names} - self._known
            for path in [*new, folder] if new else []:
                file = os.open(path, os.O_RDONLY)
                os.fsync(file)
                os.close(file)
            self._known |= new

    def count(self) -> int:
        return int(self._table.count_rows())

    def get(self, ids: Sequence[int]) -> Mapping[int, tuple[Any, int, str]]:
        found = self._table.search().where(f"id IN ({','.join(map(str, ids))})").limit(len(ids)).to_list()
        return {row["id"]: (row["vector"], row["year"], row["source"]) for row in found}

    def search(self, query: data.Floats) -> Sequence[int]:
        found = self._table.search(query).distance_type(self._metric).limit(10).select(["id"]).to_list()
        return [row["id"] for row in found]


if __name__ == "__main__":
    VARIANTS = {"synced": partial(Lance, synced=True), "unsynced": partial(Lance, synced=False)}
    sys.exit(run_store("lancedb", "lancedb", VARIANTS))
