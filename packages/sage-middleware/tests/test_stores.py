"""What every vector store does: the exact store, and a plain numpy one that shares no code with it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from sage.common.errors import InvalidArgumentError
from sage.middleware.stores import METRICS, CollectionVectorStore, ExactVectorStore, VectorHit, VectorId, VectorStore


class NumpyStore:
    """The reference: one dict, one loop."""

    def __init__(self, dimension: int, metric: str = "cosine") -> None:
        if metric not in METRICS or dimension < 1:
            raise InvalidArgumentError("bad store")
        self.dimension = dimension
        self.metric = metric
        self._vectors: dict[VectorId, np.ndarray[Any, np.dtype[np.float32]]] = {}

    def __len__(self) -> int:
        return len(self._vectors)

    def __contains__(self, vector_id: object) -> bool:
        return vector_id in self._vectors

    def _pairs(self, ids: Sequence[VectorId], vectors: ArrayLike) -> dict[VectorId, Any]:
        matrix = (
            np.asarray(vectors, dtype=np.float32).reshape(len(ids), -1) if len(ids) else np.empty((0, self.dimension))
        )
        bad_id = any(isinstance(name, bool) or not isinstance(name, str | int) for name in ids)
        if bad_id or len(set(ids)) != len(ids) or matrix.shape[1] != self.dimension or not np.isfinite(matrix).all():
            raise InvalidArgumentError("bad vectors")
        return dict(zip(ids, matrix, strict=True))

    def add(self, ids: Sequence[VectorId], vectors: ArrayLike) -> None:
        pairs = self._pairs(ids, vectors)
        if any(name in self._vectors for name in pairs):
            raise InvalidArgumentError("taken")
        self._vectors.update(pairs)

    def upsert(self, ids: Sequence[VectorId], vectors: ArrayLike) -> None:
        self._vectors.update(self._pairs(ids, vectors))

    def remove(self, ids: Iterable[VectorId]) -> int:
        return sum(self._vectors.pop(name, None) is not None for name in ids)

    def _score(self, query: Any, vector: Any) -> float:
        query, vector = query.astype(float), vector.astype(float)
        if self.metric == "l2":
            return float(((query - vector) ** 2).sum())
        norms = float(np.linalg.norm(query) * np.linalg.norm(vector)) if self.metric == "cosine" else 1.0
        return float(query @ vector) / norms if norms else 0.0

    def search(self, query: ArrayLike, k: int) -> list[VectorHit]:
        array = np.asarray(query, dtype=np.float32)
        if k < 1 or array.shape != (self.dimension,):
            raise InvalidArgumentError("bad query")
        hits = [VectorHit(name, self._score(array, vector)) for name, vector in self._vectors.items()]
        return sorted(hits, key=lambda hit: hit.score if self.metric == "l2" else -hit.score)[:k]

    def search_many(self, queries: ArrayLike, k: int) -> list[list[VectorHit]]:
        return [self.search(query, k) for query in np.asarray(queries, dtype=np.float32)]

    def get_state(self) -> dict[str, Any]:
        return {"dimension": self.dimension, "metric": self.metric, "vectors": dict(self._vectors)}

    def restore_state(self, state: dict[str, Any]) -> None:
        if (state.get("dimension"), state.get("metric")) != (self.dimension, self.metric):
            raise InvalidArgumentError("another store")
        self._vectors = dict(state["vectors"])


Make = Callable[..., VectorStore]


@pytest.fixture(params=[ExactVectorStore, CollectionVectorStore, NumpyStore])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param  # type: ignore[no-any-return]


def test_it_is_a_vector_store(make: Make) -> None:
    store = make(3, "l2")
    assert isinstance(store, VectorStore)
    assert (store.dimension, store.metric, len(store)) == (3, "l2", 0)
    assert make(3).metric == "cosine"


@pytest.mark.parametrize("metric", METRICS)
def test_hits_come_best_first(make: Make, metric: str) -> None:
    store = make(2, metric)
    store.add(["far", "near", "middle"], [[-1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    hits = store.search([1.0, 0.0], k=5)
    assert [hit.id for hit in hits] == ["near", "middle", "far"]
    expected = {"cosine": [1.0, 0.6, -1.0], "inner_product": [1.0, 0.6, -1.0], "l2": [0.0, 0.8, 4.0]}[metric]
    assert [hit.score for hit in hits] == pytest.approx(expected, abs=1e-6)
    assert [hit.id for hit in store.search([1.0, 0.0], k=1)] == ["near"]
    assert [[hit.id for hit in line] for line in store.search_many([[1, 0], [-1, 0]], 1)] == [
        ["near"],
        ["far"],
    ]


def test_ids_are_strings_and_integers_and_differ(make: Make) -> None:
    store = make(2)
    store.add([1, "1", -5], [[1, 0], [0, 1], [-1, 0]])
    assert 1 in store
    assert "1" in store
    assert "-5" not in store
    assert store.search([0, 1], 1)[0].id == "1"
    assert type(store.search([1, 0], 1)[0].id) is int


def test_equal_scores_come_in_order_of_addition(make: Make) -> None:
    store = make(2)
    store.add(["z", "a", "m"], [[1, 0]] * 3)
    store.add(["b"], [[2, 0]])
    assert [hit.id for hit in store.search([1, 0], 10)] == ["z", "a", "m", "b"]


def test_upsert_replaces_and_remove_counts(make: Make) -> None:
    store = make(2)
    store.upsert(["a", "b"], [[1, 0], [0, 1]])
    store.upsert(["b", "c"], [[1, 0.1], [0, 1]])
    assert len(store) == 3
    assert store.search([0, 1], 1)[0].id == "c"
    assert store.remove(["b", "x", "b"]) == 1
    assert "b" not in store
    assert store.remove([]) == 0
    store.add(["b"], [[1, 1]])
    assert len(store) == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.add(["a"], [[1, 2]]),
        lambda store: store.add(["new", "a"], [[1, 2], [3, 4]]),
        lambda store: store.add(["x", "x"], [[1, 2], [3, 4]]),
        lambda store: store.upsert(["x", "x"], [[1, 2], [3, 4]]),
        lambda store: store.add(["x"], [[1, 2, 3]]),
        lambda store: store.upsert(["a", "x"], [[9, 9], [np.nan, 0]]),
        lambda store: store.add(["x"], [[np.inf, 0]]),
        lambda store: store.add([True], [[1, 2]]),
        lambda store: store.add([1.5], [[1, 2]]),
        lambda store: store.search([1, 2, 3], 1),
        lambda store: store.search([1, 2], 0),
        lambda store: store.restore_state({"dimension": 5, "metric": "cosine"}),
    ],
)
def test_what_is_refused_has_changed_nothing(make: Make, call: Callable[[VectorStore], object]) -> None:
    store = make(2)
    store.add(["a"], [[1, 0]])
    with pytest.raises(InvalidArgumentError):
        call(store)
    assert len(store) == 1
    assert "x" not in store
    assert "new" not in store
    (hit,) = store.search([1, 0], 5)
    assert hit == ("a", pytest.approx(1.0))


def test_an_empty_store_has_no_hits(make: Make) -> None:
    assert make(2).search([1, 0], 3) == []
    assert make(2).search_many(np.empty((0, 2)), 3) == []


def test_state_survives_pickling_and_shares_nothing(make: Make) -> None:
    store = make(2)
    store.add(["a", 7], [[1, 0], [0, 1]])
    state = pickle.loads(pickle.dumps(store.get_state()))
    store.remove(["a"])
    other = make(2)
    other.add(["old"], [[1, 1]])
    other.restore_state(state)
    assert [hit.id for hit in other.search([1, 0], 5)] == ["a", 7]
    other.add(["b"], [[1, 0]])
    assert len(other) == 3


IDS = st.sampled_from(["a", "b", "c", 1, 2])
VECTORS = st.lists(st.integers(-3, 3), min_size=3, max_size=3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.dictionaries(IDS, VECTORS, max_size=4)),
        st.tuples(st.just("remove"), st.lists(IDS, max_size=3, unique=True)),
    ),
    max_size=12,
)


@pytest.mark.parametrize("kind", [ExactVectorStore, CollectionVectorStore])
@given(steps=STEPS, query=VECTORS, k=st.integers(1, 6), metric=st.sampled_from(METRICS))
def test_any_updates_agree_with_the_reference(
    kind: Make, steps: list[Any], query: list[int], k: int, metric: str
) -> None:
    exact, reference = kind(3, metric), NumpyStore(3, metric)
    for step, data in steps:
        if step == "upsert":
            for store in (exact, reference):
                store.upsert(list(data), list(data.values()))
        else:
            assert exact.remove(data) == reference.remove(data)
    assert len(exact) == len(reference)
    found, expected = exact.search(query, k), reference.search(query, k)
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-5)
    # Scores that differ only by rounding may change places, but each id has the score of the reference.
    scores = dict(reference.search(query, 100))
    assert all(hit.score == pytest.approx(scores[hit.id], abs=1e-5) for hit in found)
    restored = kind(3, metric)
    restored.restore_state(exact.get_state())
    again = restored.search(query, k)
    if kind is CollectionVectorStore and metric == "cosine":
        # It keeps such a vector as direction and length: what it gives back differs in the last bit, so that equals
        # may change places. Each id still has its score, and as many come.
        before = dict(exact.search(query, 100))
        assert [hit.score for hit in again] == pytest.approx([hit.score for hit in found], abs=1e-6)
        assert all(hit.score == pytest.approx(before[hit.id], abs=1e-6) for hit in again)
    else:
        assert again == found
