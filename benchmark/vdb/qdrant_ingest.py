"""Qdrant's local mode: points in memory, each committed to a table of SQLite by itself, which syncs."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import vector_data as data
from ingest_contract import run_store
from numpy.typing import NDArray
from qdrant_client import QdrantClient
from qdrant_client.models import Batch, Distance, VectorParams


class Qdrant:
    def __init__(self, shape: data.Shape) -> None:
        distance = Distance.EUCLID if shape.metric == "l2" else Distance.COSINE
        self._vectors = VectorParams(size=shape.dimension, distance=distance)

    def open(self, folder: Path, new: bool) -> None:
        # It recommends a server for more than 20,000 points.
        warnings.simplefilter("ignore")
        self._client = QdrantClient(path=str(folder), force_disable_check_same_thread=True)
        if new:
            self._client.create_collection("rows", vectors_config=self._vectors)

    def insert(self, ids: NDArray[np.int64], rows: data.Floats, numbers: NDArray[np.int64], strings: list[str]) -> None:
        given = [{"year": year, "source": source} for year, source in zip(numbers.tolist(), strings, strict=True)]
        self._client.upsert("rows", Batch(ids=ids.tolist(), vectors=rows.tolist(), payloads=given), wait=True)

    def count(self) -> int:
        return int(self._client.count("rows").count)

    def get(self, ids: Sequence[int]) -> Mapping[int, tuple[Any, int, str]]:
        found = self._client.retrieve("rows", list(ids), with_payload=True, with_vectors=True)
        return {int(row.id): (row.vector, row.payload["year"], row.payload["source"]) for row in found}

    def search(self, query: data.Floats) -> Sequence[int]:
        return [int(point.id) for point in self._client.query_points("rows", query.tolist(), limit=10).points]


if __name__ == "__main__":
    sys.exit(run_store("qdrant", "qdrant-client", {"local": Qdrant}))
