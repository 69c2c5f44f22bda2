"""Data sets of the vector benchmark, made from seeds and kept in a cache folder, with exact neighbours.

    A: 200,000 x 128, L2. 100 clusters whose members spread in all directions, so that a graph needs effort.
    B: 100,000 x 1024, unit length, cosine. Texts lie near a surface of few dimensions: a few topics, a spectrum
       that falls off, a little noise everywhere.

Queries come from the same distribution and are not among the rows. The neighbours are computed by BLAS in float32
blocks and settled in float64.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

QUERIES = 1000
NEIGHBOURS = 100
HIDDEN = 128  # dimensions of the texts' space
FORMAT = 1  # a new number makes new files


@dataclass(frozen=True, slots=True)
class Shape:
    """What a data set is: its metric and how many rows of how many dimensions."""

    name: str
    metric: str
    rows: int
    dimension: int


SHAPES = {
    "A": Shape("A", "l2", 200_000, 128),
    "B": Shape("B", "cosine", 100_000, 1024),
    # The same in small, for a quick look and for the tests of the benchmark.
    "a": Shape("a", "l2", 10_000, 128),
    "b": Shape("b", "cosine", 5_000, 1024),
}


@dataclass(frozen=True, slots=True)
class DataSet:
    """Rows (n, d), queries (q, d) and the `NEIGHBOURS` nearest rows of each query (q, 100), nearest first."""

    shape: Shape
    rows: Floats
    queries: Floats
    neighbours: NDArray[np.int64]

    def recall(self, found: NDArray[Any], k: int) -> float:
        """The share of the k nearest that `found` (q, >= k) names, over all queries."""
        hits = sum(len(np.intersect1d(ids[:k], true[:k])) for ids, true in zip(found, self.neighbours, strict=True))
        return hits / (k * len(self.neighbours))


def cache_folder() -> Path:
    """Where the data sets stay between runs: `SAGE_BENCH_CACHE`, or a folder below the system's temporary one."""
    return Path(os.environ.get("SAGE_BENCH_CACHE") or Path(tempfile.gettempdir()) / "sage-bench-vdb")


def load(name: str) -> DataSet:
    """The data set of that name, made if it is not in the cache. The rows are mapped, not read."""
    shape = SHAPES[name]
    folder = cache_folder() / f"{name}-{shape.rows}x{shape.dimension}-v{FORMAT}"
    if not (folder / "neighbours.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = _clustered(shape) if shape.metric == "l2" else _text_like(shape)
        rows, queries = made[: shape.rows], made[shape.rows :]
        np.save(folder / "rows.npy", rows)
        np.save(folder / "queries.npy", queries)
        # Last, and by renaming: who sees it finds the others complete.
        np.save(folder / "making.npy", _exact(shape, rows, queries))
        (folder / "making.npy").rename(folder / "neighbours.npy")
    return DataSet(
        shape,
        np.load(folder / "rows.npy", mmap_mode="r"),
        np.load(folder / "queries.npy"),
        np.load(folder / "neighbours.npy"),
    )


def _clustered(shape: Shape) -> Floats:
    random = np.random.default_rng(20_261)
    count, clusters = shape.rows + QUERIES, 100
    centres = random.standard_normal((clusters, shape.dimension), dtype=np.float32)
    widths = random.uniform(0.6, 1.2, (clusters, 1)).astype(np.float32)
    member = random.integers(0, clusters, count)
    spread = random.standard_normal((count, shape.dimension), dtype=np.float32)
    return np.asarray(centres[member] + widths[member] * spread, dtype=np.float32)


def _text_like(shape: Shape) -> Floats:
    random = np.random.default_rng(20_262)
    count, hidden, topics = shape.rows + QUERIES, HIDDEN, 100
    spectrum = (1.0 / np.sqrt(1.0 + np.arange(hidden) / 16.0)).astype(np.float32)
    centres = random.standard_normal((topics, hidden), dtype=np.float32)
    member = random.integers(0, topics, count)
    latent = (centres[member] + random.standard_normal((count, hidden), dtype=np.float32)) * spectrum
    directions, _ = np.linalg.qr(random.standard_normal((shape.dimension, hidden)))
    made = latent @ directions.T.astype(np.float32)
    made += 0.01 * random.standard_normal((count, shape.dimension), dtype=np.float32)
    made += 0.5 * directions.T.astype(np.float32)[0]  # embeddings have a common direction
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def _exact(shape: Shape, rows: Floats, queries: Floats) -> NDArray[np.int64]:
    squares = np.einsum("ij,ij->i", rows, rows) if shape.metric == "l2" else np.zeros(len(rows), np.float32)
    neighbours = np.empty((len(queries), NEIGHBOURS), np.int64)
    scale = np.float32(2.0)
    for first in range(0, len(queries), 250):
        block = queries[first : first + 250]
        costs = squares - scale * (block @ rows.T)
        near = np.argpartition(costs, NEIGHBOURS + 20, axis=1)[:, : NEIGHBOURS + 20]
        for i, candidates in enumerate(near):
            differences = rows[candidates].astype(np.float64) - block[i].astype(np.float64)
            exact = np.einsum("ij,ij->i", differences, differences)
            neighbours[first + i] = candidates[np.argsort(exact, kind="stable")[:NEIGHBOURS]]
    return neighbours
