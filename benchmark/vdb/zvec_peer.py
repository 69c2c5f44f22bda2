"""zvec: HNSW over float32 and over 8-bit codes, in a collection of its own below the temporary folder."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import vector_data as data
import zvec
from vector_contract import K, run_engine


class Zvec:
    def __init__(self, shape: data.Shape, quantize: str) -> None:
        self._shape = shape
        self._quantize = getattr(zvec.QuantizeType, quantize)
        self._folder = Path(tempfile.mkdtemp(prefix="zvec-bench-"))
        self._collection: Any = None
        self._parameters: Any = None

    def build(self, rows: data.Floats, threads: int) -> None:
        zvec.init(query_threads=1, optimize_threads=threads, log_level=zvec.LogLevel.ERROR)
        metric = zvec.MetricType.IP if self._shape.metric == "cosine" else zvec.MetricType.L2
        index = zvec.HnswIndexParam(
            metric_type=metric, m=32, ef_construction=200, quantize_type=self._quantize, use_contiguous_memory=True
        )
        vector = zvec.VectorSchema("v", zvec.DataType.VECTOR_FP32, self._shape.dimension, index)
        schema = zvec.CollectionSchema("bench", vectors=[vector])
        self._collection = zvec.create_and_open(str(self._folder / "c"), schema)
        for first in range(0, len(rows), 1000):
            block = rows[first : first + 1000].tolist()
            self._collection.insert([zvec.Doc(id=str(first + i), vectors={"v": row}) for i, row in enumerate(block)])
        self._collection.optimize(zvec.OptimizeOption(concurrency=threads))

    def efforts(self) -> Sequence[int]:
        return [10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]

    def set_effort(self, effort: int) -> None:
        self._parameters = zvec.HnswQueryParam(ef=effort)

    def search(self, query: data.Floats) -> Any:
        asked = zvec.Query(field_name="v", vector=query, param=self._parameters)
        return self._collection.query(asked, topk=K, output_fields=[])

    def ids(self, answer: Any) -> Sequence[int]:
        return [int(doc.id) for doc in answer]

    def __del__(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


if __name__ == "__main__":
    VARIANTS = {"f32": partial(Zvec, quantize="UNDEFINED"), "int8": partial(Zvec, quantize="INT8")}
    sys.exit(run_engine("zvec", "zvec", VARIANTS))
