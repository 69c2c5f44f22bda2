"""Scalable Vector Search: Vamana of degree 32 and 64 over float32, and its compressed forms on degree 32 and 64."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import svs
import vector_data as data
from vector_contract import K, run_engine


class Svs:
    def __init__(self, shape: data.Shape, degree: int, form: str) -> None:
        self._shape = shape
        self._degree = degree
        self._form = form
        self._inner = shape.metric == "cosine"
        self._index: Any = None

    def build(self, rows: data.Floats, threads: int) -> None:
        parameters = svs.VamanaBuildParameters(
            alpha=0.95 if self._inner else 1.2, graph_max_degree=self._degree, window_size=200
        )
        distance = svs.DistanceType.MIP if self._inner else svs.DistanceType.L2
        if self._form == "float":
            self._index = svs.Vamana.build(parameters, np.asarray(rows), distance, num_threads=threads)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "rows.fvecs")
            svs.write_vecs(np.asarray(rows), path)
            loader: Any = svs.VectorDataLoader(path, svs.DataType.float32, dims=self._shape.dimension)
            if self._form == "lvq4x8":
                loader = svs.LVQLoader(loader, primary=4, residual=8)
            elif self._form == "lvq8":
                loader = svs.LVQLoader(loader, primary=8)
            else:
                dims = min(160, self._shape.dimension // 2)
                loader = svs.LeanVecLoader(loader, dims, svs.LeanVecKind.lvq8, svs.LeanVecKind.lvq8)
            self._index = svs.Vamana.build(parameters, loader, distance, num_threads=threads)

    def efforts(self) -> Sequence[int]:
        return [10, 13, 16, 20, 26, 32, 40, 52, 64, 80, 104, 128, 160, 208, 256, 320, 416, 512, 768, 1024]

    def set_effort(self, effort: int) -> None:
        self._index.num_threads = 1
        self._index.search_window_size = effort

    def search(self, query: data.Floats) -> Any:
        return self._index.search(query, K)

    def ids(self, answer: Any) -> Sequence[int]:
        return answer[0][0]


VARIANTS = {
    f"{form}{degree}": partial(Svs, degree=degree, form=form)
    for form in ("float", "lvq8", "lvq4x8", "leanvec")
    for degree in (32, 64)
}

if __name__ == "__main__":
    sys.exit(run_engine("svs", "scalable-vs", VARIANTS))
