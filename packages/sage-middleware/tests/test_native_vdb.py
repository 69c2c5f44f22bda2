"""The native vector index through its Python binding: results against numpy, bad input, threads, stubs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sage.common.errors import InvalidArgumentError, SageError
from sage.middleware import _vdb

METRICS = ("cosine", "inner_product", "l2")


def reference_scores(metric: str, queries: NDArray[Any], vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Scores (q, n) in double precision."""
    q, v = queries.astype(np.float64), vectors.astype(np.float64)
    if metric == "l2":
        squares: NDArray[np.float64] = ((q[:, None, :] - v[None, :, :]) ** 2).sum(axis=2)
        return squares
    scores: NDArray[np.float64] = q @ v.T
    if metric == "cosine":
        lengths = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(v, axis=1)[None, :]
        scores = np.divide(scores, lengths, out=np.zeros_like(scores), where=lengths > 0)
    return scores


def best_first(metric: str, scores: NDArray[np.float64], ids: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The ids of the best k of one query, equal scores by ascending id."""
    costs = scores if metric == "l2" else -scores
    return ids[np.lexsort((ids, costs))[:k]]


class Case(NamedTuple):
    """What an index is filled with and asked."""

    metric: str
    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    queries: NDArray[np.float32]
    k: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """The values are small integers: sums of them are exact in float32."""
    dimension = draw(st.integers(1, 40))
    size = draw(st.integers(0, 60))
    query_count = draw(st.integers(0, 4))
    ids = draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=size, max_size=size, unique=True))
    # A generator instead of lists of floats: much faster to draw, and its shape still shrinks.
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([1, 3, 50]))  # 1 and 3 give many ties and zero vectors
    vectors = random.integers(-spread, spread, (size, dimension), endpoint=True).astype(np.float32)
    queries = random.integers(-spread, spread, (query_count, dimension), endpoint=True).astype(np.float32)
    metric, k = draw(st.sampled_from(METRICS)), draw(st.integers(1, 70))
    return Case(metric, np.array(ids, dtype=np.int64), vectors, queries, k)


@given(case=cases())
def test_search_agrees_with_numpy(case: Case) -> None:
    metric, ids, vectors, queries, k = case
    index = _vdb.FlatIndex(vectors.shape[1], metric)
    index.add(ids, vectors)
    found_ids, found_scores = index.search(queries, k)
    expected_shape = (len(queries), min(k, len(ids)))
    assert found_ids.shape == found_scores.shape == expected_shape
    assert found_ids.dtype == np.int64
    assert found_scores.dtype == np.float32
    expected = reference_scores(metric, queries, vectors)
    row_of = {int(id_): row for row, id_ in enumerate(ids)}
    for q in range(len(queries)):
        rows = [row_of[int(id_)] for id_ in found_ids[q]]
        assert len(set(rows)) == len(rows)
        np.testing.assert_allclose(found_scores[q], expected[q, rows], atol=1e-6)
        if metric == "cosine":
            # Divisions round: ids may swap ranks where only rounding tells them apart, scores may not.
            ordered = np.sort(expected[q])[::-1][:k]
            np.testing.assert_allclose(found_scores[q], ordered, atol=1e-6)
        else:
            assert found_ids[q].tolist() == best_first(metric, expected[q], ids, k).tolist()


@given(case=cases())
def test_contents_come_back_as_they_went_in(case: Case) -> None:
    metric, ids, vectors, _, _ = case
    index = _vdb.FlatIndex(vectors.shape[1], metric)
    index.add(ids, vectors)
    assert len(index) == len(ids)
    np.testing.assert_array_equal(index.ids(), ids)
    np.testing.assert_array_equal(index.vectors(), vectors)
    both = index.rows()
    np.testing.assert_array_equal(both[0], ids)
    np.testing.assert_array_equal(both[1], vectors)
    for id_, vector in zip(ids.tolist(), vectors, strict=True):
        assert id_ in index
        np.testing.assert_array_equal(index.get(id_), vector)


Operation = tuple[str, list[int], int]
operations = st.lists(
    st.tuples(
        st.sampled_from(["add", "upsert", "remove"]),
        st.lists(st.integers(0, 12), max_size=5, unique=True),
        st.integers(-9, 9),
    ),
    max_size=30,
)


@given(steps=operations, metric=st.sampled_from(METRICS))
def test_operations_follow_a_dict(steps: list[Operation], metric: str) -> None:
    index = _vdb.FlatIndex(2, metric)
    model: dict[int, tuple[float, float]] = {}
    for name, ids, value in steps:
        vectors = [(float(value), float(id_)) for id_ in ids]
        if name == "remove":
            assert index.remove(ids) == sum(model.pop(id_, None) is not None for id_ in ids)
        elif name == "add" and any(id_ in model for id_ in ids):
            with pytest.raises(InvalidArgumentError, match="ids must be new to the index"):
                index.add(ids, vectors)
        else:
            (index.add if name == "add" else index.upsert)(ids, vectors)
            model.update(zip(ids, vectors, strict=True))
        assert {id_: tuple(index.get(id_).tolist()) for id_ in index.ids().tolist()} == model
        assert len(index) == len(model)
    found, _ = index.search([[1.0, 2.0]], 100)
    assert sorted(found[0].tolist()) == sorted(model)


def test_results_own_their_memory() -> None:
    index = _vdb.FlatIndex(2, "l2")
    index.add([1], [[3.0, 4.0]])
    vectors = index.vectors()
    vectors[0, 0] = 99.0
    assert index.get(1).tolist() == [3.0, 4.0]
    ids, scores = index.search([[0.0, 0.0]], 1)
    del index
    assert (ids.tolist(), scores.tolist()) == ([[1]], [[25.0]])


CONVERTED: dict[str, Callable[[NDArray[np.float32]], Any]] = {
    "float32": lambda v: v,
    "float64": lambda v: v.astype(np.float64),
    "float16": lambda v: v.astype(np.float16),
    "int32": lambda v: v.astype(np.int32),
    "big endian": lambda v: v.astype(">f4"),
    "fortran order": np.asfortranarray,
    "every second column": lambda v: np.repeat(v, 2, axis=1)[:, ::2],
    "reversed rows": lambda v: v[::-1].copy()[::-1],
    "read only": lambda v: np.frombuffer(v.tobytes(), dtype=np.float32).reshape(v.shape),
    "misaligned": lambda v: np.frombuffer(b"x" + v.tobytes(), dtype=np.float32, offset=1).reshape(v.shape),
    "lists": lambda v: v.tolist(),
}


@pytest.mark.parametrize("form", CONVERTED)
def test_every_form_of_vectors_means_the_same(form: str) -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(3, 4)
    index = _vdb.FlatIndex(4, "l2")
    index.add([0, 1, 2], CONVERTED[form](vectors))
    np.testing.assert_array_equal(index.vectors(), vectors)
    ids, scores = index.search(CONVERTED[form](vectors), 1)
    assert ids.ravel().tolist() == [0, 1, 2]
    assert scores.ravel().tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "ids",
    [np.array([3, 4], dtype=t) for t in ("i1", "u1", "i4", "u4", "i8", "u8", ">i8")] + [[3, 4], (3, 4)],
    ids=repr,
)
def test_every_form_of_ids_means_the_same(ids: Any) -> None:
    index = _vdb.FlatIndex(1, "l2")
    index.add(ids, [[0.0], [1.0]])
    assert index.ids().tolist() == [3, 4]
    assert index.remove(ids) == 2


def test_empty_batches_are_no_error() -> None:
    index = _vdb.FlatIndex(3)
    index.add([], [])
    index.upsert([], np.zeros((0, 3)))
    assert index.remove([]) == 0
    ids, scores = index.search([], 4)
    assert ids.shape == scores.shape == (0, 0)
    ids, scores = index.search([[1, 2, 3]], 4)
    assert ids.shape == scores.shape == (1, 0)


ONE = [[1.0, 2.0]]
BadCall = Callable[[_vdb.FlatIndex], object]
BAD_CALLS: list[tuple[BadCall, str]] = [
    (lambda _: _vdb.FlatIndex(0), "dimension must be between 1 and 65536, got 0"),
    (lambda _: _vdb.FlatIndex(-3), "dimension must be between 1 and 65536, got -3"),
    (lambda _: _vdb.FlatIndex(65537), "dimension must be between 1 and 65536, got 65537"),
    (lambda _: _vdb.FlatIndex(3, "dot"), "metric must be one of cosine, inner_product, l2, got 'dot'"),
    (lambda i: i.add([7], ONE), "ids must be new to the index, got 7 in row 0; upsert replaces vectors"),
    (lambda i: i.add([1, 1], ONE * 2), "ids must be distinct within a batch, got 1 in rows 0 and 1"),
    (lambda i: i.upsert([7, 7], ONE * 2), "ids must be distinct within a batch, got 7 in rows 0 and 1"),
    (lambda i: i.add([1, 2], ONE), "ids and vectors must have the same length, got 2 ids and 1 vectors"),
    (lambda i: i.upsert([1], ONE * 2), "ids and vectors must have the same length, got 1 ids and 2 vectors"),
    (lambda i: i.add([1], [[1, 2, 3]]), "vectors must have shape (n, 2), got (1, 3)"),
    (
        lambda i: i.add([1], [1, 2]),
        "vectors must have shape (n, 2), got (2,); one vector alone is passed as vector[None, :]",
    ),
    (
        lambda i: i.search([1, 2], 1),
        "queries must have shape (n, 2), got (2,); one vector alone is passed as vector[None, :]",
    ),
    (lambda i: i.add([1], np.array([["a", "b"]])), "vectors must be real numbers, got dtype <U1"),
    (lambda i: i.add([1], [[1j, 0]]), "vectors must be real numbers, got dtype complex128"),
    (lambda i: i.add([1], np.array([[None, 0]])), "vectors must be real numbers, got dtype object"),
    (lambda i: i.add([1, 2], [[1.0, 2.0], [1.0, np.nan]]), "vectors[1][1] must be finite, got nan"),
    (lambda i: i.search([[-np.inf, 2]], 1), "queries[0][0] must be finite, got -inf"),
    # Beyond the range of float32, and no warning of numpy's on the way.
    (lambda i: i.add([1], [[1e300, 2]]), "vectors[0][0] must be finite, got inf"),
    (
        lambda i: i.search([[9e18, 0]], 1),
        "queries[0] must not be longer than 6.5e18, so that scores stay finite, got a length of 9e+18",
    ),
    (lambda i: i.search(ONE, 0), "k must be >= 1, got 0"),
    (lambda i: i.search(ONE, -2), "k must be >= 1, got -2"),
    (lambda i: i.get(9), "id must be in the index, got 9"),
    (lambda i: i.remove([1.5]), "ids must be integers that fit into int64, got dtype float64"),
    (lambda i: i.remove([True]), "ids must be integers that fit into int64, got dtype bool"),
    (
        lambda i: i.remove(np.array([2**63], dtype=np.uint64)),
        "ids must be integers that fit into int64, got 9223372036854775808",
    ),
    (lambda i: i.remove([2**70]), "ids must be integers that fit into int64, got dtype object"),
    (lambda i: i.remove([[1]]), "ids must have one dimension, got shape (1, 1)"),
    (lambda i: i.remove(1), "ids must have one dimension, got shape ()"),
    (lambda i: i.reserve(-1), "count must be >= 0, got -1"),
]


@pytest.mark.parametrize(("call", "message"), BAD_CALLS, ids=[message for _, message in BAD_CALLS])
def test_bad_input_is_named_and_changes_nothing(call: BadCall, message: str) -> None:
    index = _vdb.FlatIndex(2, "l2")
    index.add([7], [[5.0, 6.0]])
    with pytest.raises(InvalidArgumentError) as caught:
        call(index)
    assert str(caught.value) == message
    assert isinstance(caught.value, SageError)
    assert isinstance(caught.value, ValueError)
    assert (index.ids().tolist(), index.vectors().tolist()) == ([7], [[5.0, 6.0]])


def test_ragged_lists_are_refused_in_our_words() -> None:
    with pytest.raises(InvalidArgumentError, match="vectors must be an array or nested lists of one shape"):
        _vdb.FlatIndex(2).add([1, 2], [[1.0, 2.0], [3.0]])


def test_memory_that_nobody_has_is_a_memory_error() -> None:
    index = _vdb.FlatIndex(2)
    with pytest.raises(MemoryError):
        index.reserve(2**62)
    index.add([1], ONE)
    assert len(index) == 1


@pytest.mark.timeout(60)
def test_search_lets_other_threads_run() -> None:
    # One search long enough to see; if it held the GIL, the counter would stay where it was.
    random = np.random.default_rng(1)
    index = _vdb.FlatIndex(256, "l2")
    index.add(np.arange(20_000), random.standard_normal((20_000, 256), dtype=np.float32))
    queries = random.standard_normal((400, 256), dtype=np.float32)
    begun, done = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        index.search(queries, 10)
        done.set()

    interval = sys.getswitchinterval()
    # The interpreter takes the GIL away between bytecodes only, never inside a call; a long interval makes
    # sure that turns seen here come from the call giving it up.
    sys.setswitchinterval(0.5)
    searcher = threading.Thread(target=work)
    turns = 0
    try:
        searcher.start()
        begun.wait()
        while not done.is_set():
            turns += 1
            time.sleep(0.001)
    finally:
        sys.setswitchinterval(interval)
        searcher.join()
    assert turns >= 10


@pytest.mark.timeout(60)
def test_searches_and_changes_from_many_threads() -> None:
    index = _vdb.FlatIndex(4, "l2")
    index.add([0], [[0.0, 0.0, 0.0, 0.0]])
    errors: list[BaseException] = []

    def guarded(body: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                body()
            # Whatever it is, it is handed to the test's own thread, which fails with it.
            except BaseException as error:
                errors.append(error)

        return threading.Thread(target=run)

    def write() -> None:
        for turn in range(200):
            ids = np.arange(1, 11)
            index.upsert(ids, np.full((10, 4), turn, dtype=np.float32))
            assert index.remove(ids) == 10

    def read() -> None:
        for _ in range(200):
            ids, scores = index.search(np.zeros((1, 4), dtype=np.float32), 50)
            assert ids.shape[1] in (1, 11)
            assert ids[0, 0] == 0
            assert scores[0, 0] == 0.0
            ids_now, vectors_now = index.rows()
            assert len(ids_now) == len(vectors_now)

    threads = [guarded(write), guarded(read), guarded(read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert index.ids().tolist() == [0]


def stub() -> ast.Module:
    # Beside the package's own sources: an editable installation keeps the extension module elsewhere.
    path = Path(__file__).parents[1] / "src/sage/middleware/_vdb.pyi"
    return ast.parse(path.read_text(encoding="utf-8"))


def public_names(names: Any) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def test_stub_names_what_the_module_has() -> None:
    definitions = [node for node in stub().body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    assert {node.name for node in definitions} == public_names(vars(_vdb))
    for node in definitions:
        if isinstance(node, ast.ClassDef):
            members = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            actual = vars(getattr(_vdb, node.name))
            assert public_names(members) == public_names(actual)
            # Methods with underscores are listed in the stub where the class really defines them.
            assert members - public_names(members) <= set(actual)


def test_stub_names_the_arguments() -> None:
    (index_class,) = (node for node in stub().body if isinstance(node, ast.ClassDef) and node.name == "FlatIndex")
    index = _vdb.FlatIndex(dimension=2, metric="l2")
    arguments: dict[str, dict[str, Any]] = {
        "add": {"ids": [1], "vectors": ONE},
        "upsert": {"ids": [1], "vectors": ONE},
        "search": {"queries": ONE, "k": 1},
        "get": {"id": 1},
        "remove": {"ids": [1]},
        "reserve": {"count": 1},
    }
    stubbed = {node.name: node for node in index_class.body if isinstance(node, ast.FunctionDef)}
    for name, values in arguments.items():
        assert [a.arg for a in stubbed[name].args.args] == ["self", *values]
        getattr(index, name)(**values)
    assert [a.arg for a in stubbed["__init__"].args.args] == ["self", "dimension", "metric"]


def test_representation_says_what_it_is() -> None:
    index = _vdb.FlatIndex(2, "l2")
    assert (index.dimension, index.metric, len(index)) == (2, "l2", 0)
    assert repr(index) == "FlatIndex(dimension=2, metric='l2', size=0)"


def run_with_simd(level: str, code: str) -> subprocess.CompletedProcess[str]:
    # The level is chosen once per process, so another one needs another process.
    environment = {**os.environ, "SAGE_SIMD": level, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=50, check=False
    )


SEARCH = """
import numpy as np
from sage.middleware import _vdb
values = np.random.default_rng(3).standard_normal((300, 37), dtype=np.float32)
index = _vdb.FlatIndex(37, "cosine")
index.add(np.arange(300), values)
ids, scores = index.search(values[:20], 5)
print(_vdb.simd_level(), ids.ravel().tolist(), np.round(scores.ravel(), 4).tolist(), sep="|")
"""


def test_every_level_finds_the_same() -> None:
    levels = _vdb.available_simd_levels()
    assert levels[0] == "scalar"
    answers = set()
    for level in levels:
        outcome = run_with_simd(level, SEARCH)
        assert outcome.returncode == 0, outcome.stderr
        name, answer = outcome.stdout.split("|", 1)
        assert name == level
        answers.add(answer.split("|")[0])
    assert len(answers) == 1


def test_an_empty_setting_means_the_best_level() -> None:
    outcome = run_with_simd("", "from sage.middleware import _vdb; print(_vdb.simd_level())")
    assert (outcome.returncode, outcome.stdout.strip()) == (0, _vdb.available_simd_levels()[-1])


@pytest.mark.parametrize("call", ["_vdb.simd_level()", "_vdb.FlatIndex(3)"])
def test_an_unknown_level_is_an_error_at_first_use(call: str) -> None:
    code = f"""
from sage.common.errors import InvalidArgumentError
from sage.middleware import _vdb
for _ in range(2):
    try:
        {call}
    except InvalidArgumentError as error:
        print(error)
"""
    outcome = run_with_simd("sse9", code)
    assert outcome.returncode == 0, outcome.stderr
    offered = ", ".join(_vdb.available_simd_levels())
    message = f"SAGE_SIMD must name an instruction set of this machine ({offered}), got 'sse9'"
    assert outcome.stdout.splitlines() == [f"{message}; unset it to use the best one"] * 2


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), dimension=st.integers(8, 300))
def test_a_vector_is_its_own_nearest_neighbour(seed: int, dimension: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((30, dimension), dtype=np.float32)
    for metric in ("cosine", "l2"):
        index = _vdb.FlatIndex(dimension, metric)
        index.add(np.arange(30), vectors)
        ids, scores = index.search(vectors, 1)
        assert ids.ravel().tolist() == list(range(30))
        np.testing.assert_allclose(scores.ravel(), 1.0 if metric == "cosine" else 0.0, atol=1e-6)
