"""Chroma: a persistent client. A call of `add` is one transaction of SQLite; the index is filled from it, and saved now
and then.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import vector_data as data
from chromadb.config import Settings
from ingest_contract import run_store
from numpy.typing import NDArray


class Chroma:
    def __init__(self, shape: data.Shape) -> None:
        self._space = shape.metric

    def open(self, folder: Path, new: bool) -> None:
        client = chromadb.PersistentClient(str(folder), Settings(anonymized_telemetry=False))
        if new:
            self._rows = client.create_collection("rows", metadata={"hnsw:space": self._space})
        else:
            self._rows = client.get_collection("rows")

    def insert(self, ids: NDArray[np.int64], rows: data.Floats, numbers: NDArray[np.int64], strings: list[str]) -> None:
        given: list[Any] = [
            {"year": year, "source": source} for year, source in zip(numbers.tolist(), strings, strict=True)
        ]
        self._rows.add(ids=[str(each) for each in ids.tolist()], embeddings=rows, metadatas=given)

    def count(self) -> int:
        return self._rows.count()

    def get(self, ids: Sequence[int]) -> Mapping[int, tuple[Any, int, str]]:
        found: Any = self._rows.get(ids=[str(each) for each in ids], include=["embeddings", "metadatas"])
        parts = zip(found["ids"], found["embeddings"], found["metadatas"], strict=True)
        return {int(each): (row, more["year"], more["source"]) for each, row, more in parts}

    def search(self, query: data.Floats) -> Sequence[int]:
        return [int(each) for each in self._rows.query(query_embeddings=[query], n_results=10, include=[])["ids"][0]]


if __name__ == "__main__":
    sys.exit(run_store("chromadb", "chromadb", {"persistent": Chroma}))
