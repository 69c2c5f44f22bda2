"""SAGE: `sync="group"`, the default: a write returns when its record of the log is synced."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import vector_data as data
from ingest_contract import run_store
from numpy.typing import NDArray

from sage.middleware.components import sage_db


class Sage:
    def __init__(self, shape: data.Shape, index: str) -> None:
        self._shape = shape
        self._index = index

    def open(self, folder: Path, new: bool) -> None:
        self._database = sage_db.open(folder)
        if new:
            shape = self._shape
            self._rows = self._database.create_collection(
                "rows", shape.dimension, metric=shape.metric, index=self._index
            )
        else:
            self._rows = self._database.collection("rows")

    def insert(self, ids: NDArray[np.int64], rows: data.Floats, numbers: NDArray[np.int64], strings: list[str]) -> None:
        given = [{"year": year, "source": source} for year, source in zip(numbers.tolist(), strings, strict=True)]
        self._rows.add(ids, rows, metadata=given)

    def count(self) -> int:
        return self._rows.count()

    def get(self, ids: Sequence[int]) -> Mapping[int, tuple[Any, int, str]]:
        found = self._rows.get(ids, include=("metadata", "vectors"))
        return {int(one.id): (one.vectors[0], one.metadata["year"], one.metadata["source"]) for one in found}

    def search(self, query: data.Floats) -> Sequence[int]:
        return list(self._rows.search(query, k=10).ids)


if __name__ == "__main__":
    sys.exit(run_store("sage", None, {index: partial(Sage, index=index) for index in ("auto", "flat")}))
