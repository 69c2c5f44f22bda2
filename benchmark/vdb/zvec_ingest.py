"""zvec: a collection with a flat index. `flush` writes out what `insert` has put into memory and its log."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import vector_data as data
import zvec
from ingest_contract import run_store
from numpy.typing import NDArray


class Zvec:
    def __init__(self, shape: data.Shape, flush: bool) -> None:
        self._shape = shape
        self._flush = flush

    def open(self, folder: Path, new: bool) -> None:
        zvec.init(log_level=zvec.LogLevel.ERROR)
        if not new:
            self._rows = zvec.open(str(folder))
            return
        metric = zvec.MetricType.COSINE if self._shape.metric == "cosine" else zvec.MetricType.L2
        index = zvec.FlatIndexParam(metric_type=metric)
        vector = zvec.VectorSchema("v", zvec.DataType.VECTOR_FP32, self._shape.dimension, index)
        fields = [zvec.FieldSchema("year", zvec.DataType.INT64), zvec.FieldSchema("source", zvec.DataType.STRING)]
        self._rows = zvec.create_and_open(str(folder), zvec.CollectionSchema("rows", fields=fields, vectors=[vector]))

    def insert(self, ids: NDArray[np.int64], rows: data.Floats, numbers: NDArray[np.int64], strings: list[str]) -> None:
        given = zip(ids.tolist(), rows.tolist(), numbers.tolist(), strings, strict=True)
        done = self._rows.insert(
            [
                zvec.Doc(id=str(each), vectors={"v": row}, fields={"year": year, "source": source})
                for each, row, year, source in given
            ]
        )
        for status in done if isinstance(done, list) else [done]:
            if not status.ok():
                raise RuntimeError(f"insert: {status}")
        if self._flush:
            self._rows.flush()

    def count(self) -> int:
        return int(self._rows.stats.doc_count)

    def get(self, ids: Sequence[int]) -> Mapping[int, tuple[Any, int, str]]:
        found = self._rows.fetch([str(each) for each in ids])
        return {int(key): (doc.vectors["v"], doc.fields["year"], doc.fields["source"]) for key, doc in found.items()}

    def search(self, query: data.Floats) -> Sequence[int]:
        asked = zvec.Query(field_name="v", vector=query)
        return [int(doc.id) for doc in self._rows.query(asked, topk=10, output_fields=[])]


if __name__ == "__main__":
    sys.exit(run_store("zvec", "zvec", {"flush": partial(Zvec, flush=True), "log": partial(Zvec, flush=False)}))
