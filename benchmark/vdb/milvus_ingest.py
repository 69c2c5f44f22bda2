"""Milvus Lite: one file or folder behind `MilvusClient`."""

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
from pymilvus import DataType, MilvusClient


class Milvus:
    def __init__(self, shape: data.Shape, flush: bool) -> None:
        self._shape = shape
        self._flush = flush

    def open(self, folder: Path, new: bool) -> None:
        folder.mkdir(exist_ok=True)
        self._client = MilvusClient(str(folder / "rows.db"))
        if new:
            schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("id", DataType.INT64, is_primary=True)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._shape.dimension)
            schema.add_field("year", DataType.INT64)
            schema.add_field("source", DataType.VARCHAR, max_length=64)
            index = self._client.prepare_index_params()
            metric = "COSINE" if self._shape.metric == "cosine" else "L2"
            index.add_index("vector", index_type="FLAT", metric_type=metric)
            self._client.create_collection("rows", schema=schema, index_params=index)
        self._client.load_collection("rows")

    def insert(self, ids: NDArray[np.int64], rows: data.Floats, numbers: NDArray[np.int64], strings: list[str]) -> None:
        given = zip(ids.tolist(), rows, numbers.tolist(), strings, strict=True)
        self._client.insert(
            "rows", [{"id": each, "vector": row, "year": year, "source": source} for each, row, year, source in given]
        )
        if self._flush:
            self._client.flush("rows")

    def count(self) -> int:
        return int(self._client.query("rows", filter="", output_fields=["count(*)"])[0]["count(*)"])

    def get(self, ids: Sequence[int]) -> Mapping[int, tuple[Any, int, str]]:
        found = self._client.get("rows", ids=list(ids), output_fields=["id", "vector", "year", "source"])
        return {row["id"]: (row["vector"], row["year"], row["source"]) for row in found}

    def search(self, query: data.Floats) -> Sequence[int]:
        found = self._client.search("rows", data=[query], limit=10, output_fields=["id"])
        return [int(hit["id"]) for hit in found[0]]


if __name__ == "__main__":
    VARIANTS = {"flush": partial(Milvus, flush=True), "log": partial(Milvus, flush=False)}
    sys.exit(run_store("milvus-lite", "milvus-lite", VARIANTS))
