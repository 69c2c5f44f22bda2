"""The Python face of sage_db: against a dict and numpy, every kind of bad input, search modes, state, stubs."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.common.errors import InvalidArgumentError, SageError
from sage.middleware.components import sage_db
from sage.middleware.components.sage_db import Collection, Database, field
from sage.middleware.components.sage_db.expressions import to_filter

METRICS = ("cosine", "inner_product", "l2")
UTC = dt.UTC


@pytest.fixture
def database() -> Iterator[Database]:
    with sage_db.memory() as made:
        yield made


@pytest.fixture
def notes(database: Database) -> Collection:
    made = database.create_collection("notes", 2)
    made.add(
        ["a", "b", "c", "d"],
        [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]],
        metadata=[{"year": 2019, "lang": "en"}, {"year": 2020, "lang": "de"}, {"year": 2021, "tags": ["x", "y"]}, None],
        texts=["red fox", "red hen", "blue jay", None],
    )
    return made


# --- Against a reference ----------------------------------------------------------------------------------------------

IDS = st.integers(0, 7)
VECTOR = st.lists(st.integers(-3, 3), min_size=3, max_size=3)
YEAR = st.one_of(st.none(), st.integers(2018, 2022))
PART = st.dictionaries(IDS, st.tuples(VECTOR, YEAR), max_size=4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), PART),
        st.tuples(st.just("add"), PART),
        st.tuples(st.just("delete"), st.lists(IDS, max_size=3)),
        st.tuples(st.just("delete_where"), st.integers(2018, 2022)),
        st.tuples(st.just("compact"), st.none()),
        st.tuples(st.just("state"), st.none()),
    ),
    max_size=10,
)


class Reference:
    """A dict and one loop."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.documents: dict[int, tuple[list[int], int | None]] = {}

    def score(self, query: list[int], vector: list[int]) -> float:
        left, right = np.array(query, dtype=float), np.array(vector, dtype=float)
        if self.metric == "l2":
            return float(((left - right) ** 2).sum())
        lengths = float(np.linalg.norm(left) * np.linalg.norm(right)) if self.metric == "cosine" else 1.0
        return float(left @ right) / lengths if lengths else 0.0

    def scores(self, query: list[int], year: int | None) -> dict[int, float]:
        return {
            name: self.score(query, vector)
            for name, (vector, when) in self.documents.items()
            if year is None or (when is not None and when >= year)
        }


def apply_step(collection: Collection, reference: Reference, step: str, data: Any) -> None:
    known = reference.documents
    if step in ("upsert", "add"):
        ids, vectors = list(data), [vector for vector, _ in data.values()]
        metadata = [None if year is None else {"year": year} for _, year in data.values()]
        if step == "add" and any(name in known for name in ids):
            with pytest.raises(InvalidArgumentError, match="is in the collection already"):
                collection.add(ids, vectors, metadata=metadata)
            return
        (collection.add if step == "add" else collection.upsert)(ids, vectors, metadata=metadata)
        known.update(data)
    elif step == "delete":
        assert collection.delete(data) == len(set(data) & set(known))
        for name in data:
            known.pop(name, None)
    elif step == "delete_where" and collection.stats()["fields"]:
        gone = [name for name, (_, year) in known.items() if year == data]
        assert collection.delete(where={"year": data}) == len(gone)
        for name in gone:
            del known[name]
    elif step == "compact":
        collection.compact()


@settings(max_examples=120, deadline=None)
@given(STEPS, VECTOR, st.integers(1, 9), st.sampled_from(METRICS), st.one_of(st.none(), st.integers(2018, 2022)))
def test_it_does_what_a_dict_does(steps: list[Any], query: list[int], k: int, metric: str, year: int | None) -> None:
    database, reference = sage_db.memory(background=False), Reference(metric)
    collection = database.create_collection("c", 3, metric=metric)
    for step, data in steps:
        if step == "state":
            other = sage_db.memory(background=False)
            other.restore_state(database.get_state())
            database.close()
            database, collection = other, other.collection("c")
        else:
            apply_step(collection, reference, step, data)
    where = None if year is None or not collection.stats()["fields"] else field("year") >= year
    expected = reference.scores(query, None if where is None else year)
    assert len(collection) == collection.count() == len(reference.documents)
    assert collection.count(where) == len(expected)
    hits = collection.search(query, k, where=where)
    best = sorted(expected.values(), reverse=metric != "l2")[:k]
    assert hits.scores.tolist() == pytest.approx(best, abs=1e-5)
    assert {hit.id: hit.score for hit in hits} == pytest.approx({int(n): expected[int(n)] for n in hits.ids}, abs=1e-5)
    paged = [hit.id for page in collection.search_pages(query, page=3, where=where) for hit in page]
    assert sorted(paged) == sorted(expected)
    found = collection.get(list(range(8)), include=["vectors", "metadata"])
    assert [each.id for each in found] == sorted(reference.documents)
    for each in found:
        vector, when = reference.documents[int(each.id)]
        assert each.vectors is not None
        assert each.vectors[0].tolist() == pytest.approx(vector, abs=1e-5)
        assert each.metadata == ({} if when is None else {"year": when})
    database.close()


# --- Search modes -----------------------------------------------------------------------------------------------------


def test_shapes_and_dtypes(notes: Collection) -> None:
    hits = notes.search(np.array([1.0, 0.0]), 3, include=["vectors", "metadata", "text"])
    assert hits.ids == ["a", "b", "c"]
    assert hits.scores.dtype == np.float32
    assert hits.scores.shape == (3,)
    assert hits.vectors is not None
    assert (hits.vectors.shape, hits.vectors.dtype) == ((3, 2), np.float32)
    assert hits[1].metadata == {"year": 2020, "lang": "de"}
    assert hits[-1].text == "blue jay"
    assert [hit.id for hit in hits[:2]] == ["a", "b"]
    with pytest.raises(IndexError, match="there are 3 documents, asked for 3"):
        hits[3]
    batch = notes.search_many(np.eye(2), 2)
    assert [hits.ids for hits in batch] == [["a", "b"], ["c", "b"]]
    assert batch.offsets.tolist() == [0, 2, 4]
    assert batch.offsets.dtype == np.int64
    assert len(notes.search_many(np.empty((0, 2)), 2)) == 0


def test_modes(notes: Collection) -> None:
    assert notes.search([1, 0], radius=0.5).ids == ["a", "b"]
    assert notes.search([1, 0], 2, mmr=0.3).ids[0] == "a"
    assert notes.search([1, 0], 2, mmr=0.3).ids[1] != "b"
    grouped = notes.search([1, 0], 5, group_by="lang")
    assert grouped.ids == ["a", "b", "c"]
    assert notes.search(text="red hen", k=2).ids == ["b", "a"]
    assert notes.search([1, 0], 1, text="jay", fusion="weighted", alpha=0.1).ids == ["c"]
    assert notes.search([1, 0], where={"tags": {"$contains": "x"}}).ids == ["c"]
    explained = notes.explain([1, 0], where=field("year") >= 2020, plan="before")
    assert explained.plan == "before"
    assert (explained.matches_min, explained.matches_max) == (2, 2)
    assert "flat" in str(explained)


@pytest.mark.parametrize("pages", [1, 3, 100])
def test_pages_keep_the_database_open(pages: int) -> None:
    vectors = np.random.default_rng(1).standard_normal((50, 4)).astype(np.float32)

    def made() -> Iterator[Any]:
        collection = sage_db.memory().create_collection("c", 4)
        collection.add(range_ids(50), vectors)
        return collection.search_pages(vectors[0], page=pages)

    found = [hit.id for hits in made() for hit in hits]
    assert len(found) == len(set(found)) == 50
    assert found[0] == 0


def range_ids(count: int) -> np.ndarray[Any, Any]:
    return np.arange(count, dtype=np.int64)


def test_several_vectors_per_document(database: Database) -> None:
    pages = database.create_collection("pages", 2, metric="l2")
    pages.add(["x", "y"], [[[0, 0], [5, 5]], [[3, 3]]])
    assert [(hit.id, hit.score) for hit in pages.search([5, 4], 5)] == [("x", 1.0), ("y", 5.0)]
    first, second = pages.get(["x", "y"], include=["vectors"])
    assert first.vectors is not None
    assert second.vectors is not None
    assert (first.vectors.tolist(), second.vectors.tolist()) == ([[0, 0], [5, 5]], [[3, 3]])
    pages.upsert(["z"], np.ones((1, 3, 2)))
    assert pages.stats()["vectors"] == 6
    (hits,) = pages.search_many([[5, 4]], 2, include=["vectors"])
    assert [len(hit.vectors) for hit in hits if hit.vectors is not None] == [2, 1]


def test_values_come_back_as_they_were(database: Database) -> None:
    moment = dt.datetime(2024, 2, 29, 12, 30, 1, 123456, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    given_values = {
        "int": -(2**63), "float": 0.1, "bool": True, "str": "ä\0€", "list": ["b", "a"], "time": moment,
        "numpy": np.float32(0.5), "numpy_int": np.int16(3), "numpy_bool": np.bool_(False),
    }  # fmt: skip
    collection = database.create_collection("c", 1)
    collection.add([1], [[1.0]], metadata=[given_values], texts=["t"])
    (found,) = collection.get([1])
    assert found.metadata == {**given_values, "numpy": 0.5, "numpy_int": 3, "numpy_bool": False}
    assert found.metadata["time"].tzinfo is UTC
    assert {name: type(value) for name, value in found.metadata.items() if "numpy" in name} == {
        "numpy": float,
        "numpy_int": int,
        "numpy_bool": bool,
    }
    assert collection.count(field("time") == moment) == 1
    assert collection.count(field("time") < moment) == 0


def test_a_float_field_takes_whole_numbers(database: Database) -> None:
    collection = database.create_collection("c", 1)
    collection.add([1, 2], [[1.0], [2.0]], metadata=[{"price": 3.5}, {"price": 3}])
    collection.update([1], metadata=[{"price": 4}])
    prices = [document.metadata["price"] for document in collection.get([1, 2])]
    assert prices == [4.0, 3.0]
    assert {type(price) for price in prices} == {float}
    assert collection.count(field("price") >= 4) == 1
    with pytest.raises(InvalidArgumentError, match="'price' holds float values, .* got int 9007199254740993"):
        collection.add([3], [[1.0]], metadata=[{"price": 2**53 + 1}])
    assert len(collection) == 2


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, ">f4"])
def test_other_memory_is_converted(database: Database, dtype: Any) -> None:
    collection = database.create_collection("c", 3, metric="l2")
    vectors = np.arange(24).reshape(3, 8).astype(dtype)[:, ::3].T
    collection.add(np.array([1, 2, 3], dtype=np.uint8), np.asarray(vectors))
    (found,) = collection.get([2], include=["vectors"])
    assert found.vectors is not None
    assert found.vectors[0].tolist() == vectors[1].astype(float).tolist()


# --- Conditions -------------------------------------------------------------------------------------------------------


def test_expressions_and_dicts_mean_the_same() -> None:
    pairs: list[tuple[Any, dict[str, Any]]] = [
        (field("a") == 1, {"a": 1}),
        ((field("a") >= 1) & (field("b") < 2.5), {"a": {"$gte": 1}, "b": {"$lt": 2.5}}),
        ((field("a") > 1) & (field("a") <= 3), {"a": {"$gt": 1, "$lte": 3}}),
        ((field("a") != "x") | field("b").in_(["y"]), {"$or": [{"a": {"$ne": "x"}}, {"b": {"$in": ["y"]}}]}),
        (field("a").not_in([1]) & ~field("t").contains("q"), {"a": {"$nin": [1]}, "t": {"$not_contains": "q"}}),
    ]
    for expression, mapping in pairs:
        assert to_filter(expression) == to_filter(mapping)
        assert to_filter({"$and": [mapping, expression]}) == to_filter({"$and": [expression, mapping]})


def test_conditions_without_parentheses() -> None:
    year, lang = field("year"), field("lang")
    assert (year >= 2020 & lang.in_(["en"])) == ((year >= 2020) & lang.in_(["en"]))
    assert (year >= np.int64(2020) & lang.in_(["en"])) == ((year >= 2020) & lang.in_(["en"]))
    assert (year == 1 | ~lang.exists()) == ((year == 1) | ~lang.exists())


@pytest.mark.parametrize(
    "make",
    [
        lambda: field("a") >= 1 and field("b") == 2,
        lambda: field("a") == 1 or field("b") == 2,
        lambda: not field("a").exists(),
        lambda: 1 < field("a") < 3,
        lambda: field("a") >= 1 & field("b") == 2,
        lambda: field("a") & field("b"),
        lambda: bool(field("a")),
        lambda: field("a").exists() & True,
        lambda: ~field("a"),
    ],
)
def test_misuse_of_conditions_is_told(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"write & \| ~ instead of|in parentheses"):
        make()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({}, "where must have a condition"),
        ({"$nor": []}, r"unknown operator '\$nor' in where; did you mean '\$or'\?"),
        ({"a": {"$gte ": 1}}, r"unknown operator '\$gte ' on field 'a'; did you mean '\$gte'\?"),
        ({"$and": []}, r"\$and must have a list of at least one condition"),
        ({"$or": [1]}, r"\$or must have dicts in its list, got 1"),
        ({"a": {}}, "the condition on 'a' is empty"),
        ({"a": {"$in": "en"}}, "in_ takes a list of values, got 'en'"),
        ({"a": None}, "must be int, float, bool, str, a list of str or a datetime, got NoneType"),
        (True, "where must be a condition or a dict"),
        ("year > 1", "where must be a condition of field"),
        ({"yaer": 2020}, "year"),
        ({"year": "2020"}, "year"),
        (field("year") > True, "year"),
        ({"year": float("nan")}, "nan|NaN"),
    ],
)
def test_bad_conditions_are_told(notes: Collection, where: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        notes.search([1, 0], where=where)


def test_a_condition_that_nests_too_deep(notes: Collection) -> None:
    where: dict[str, Any] = {"year": 2020}
    for _ in range(100):
        where = {"$and": [where, {"year": 1}]}
    with pytest.raises(InvalidArgumentError, match="nest deeper than 64"):
        notes.count(where)


# --- Bad input --------------------------------------------------------------------------------------------------------

BAD = [
    (lambda c: c.add(["x"], [[np.nan, 0]]), r"vectors\[0\]\[0\] must be finite, got nan"),
    (lambda c: c.add(["x"], [[0, -np.inf]]), "must be finite, got -inf"),
    (lambda c: c.add(["x"], [[1, 2, 3]]), r"must have shape \(n, 2\), got \(1, 3\)"),
    (lambda c: c.add(["x"], [1, 2]), r"must have shape \(n, 2\)"),
    (lambda c: c.add(["x"], [["p", "q"]]), "must be real numbers, got dtype"),
    (lambda c: c.add(["x"], np.array([[1j, 2]])), "must be real numbers, got dtype complex128"),
    (lambda c: c.add(["x"], [[1, 2], [3]]), "must be an array or nested lists of one shape"),
    (lambda c: c.add(["x", "x"], [[1, 2], [3, 4]]), "ids must be distinct within a call, got 'x' twice"),
    (lambda c: c.add(["x", "a"], [[1, 2], [3, 4]]), "id 'a' is in the collection already; use upsert"),
    (lambda c: c.add(["x"], [[1, 2], [3, 4]]), "the same length, got 1 ids and 2 vectors"),
    (lambda c: c.add([1], [[1, 2]]), "the ids of this collection are texts, as the first one was, got 1"),
    (lambda c: c.add([1, "x"], [[1, 2], [3, 4]]), "ids must be all int or all str, got 1 and 'x'"),
    (lambda c: c.add([True], [[1, 2]]), "an id must be int or str, got bool True"),
    (lambda c: c.add([1.5], [[1, 2]]), "an id must be int or str, got float 1.5"),
    (lambda c: c.add([2**63], [[1, 2]]), "must fit into 64 bits, got 9223372036854775808"),
    (lambda c: c.add([""], [[1, 2]]), "an id must have 1 to 1024 bytes, got 0"),
    (lambda c: c.add("x", [[1, 2]]), "must be a list of ids, got the str 'x'"),
    (lambda c: c.add(["\ud800"], [[1, 2]]), "must be text that has a UTF-8 form"),
    (lambda c: c.add(["x"], [[1, 2]], metadata=[{"year": "soon"}]), "year"),
    (lambda c: c.add(["x"], [[1, 2]], metadata=[{"year": None}]), "leave the field out"),
    (lambda c: c.add(["x"], [[1, 2]], metadata=[{"at": dt.datetime(2020, 1, 1)}]), "must have a time zone"),  # noqa: DTZ001
    (lambda c: c.add(["x"], [[1, 2]], metadata=[{"tags": [1]}]), "must be a list of str, it has 1"),
    (lambda c: c.add(["x"], [[1, 2]], metadata=[{1: 2}]), "must be named by str, got 1"),
    (lambda c: c.add(["x"], [[1, 2]], metadata=[{}, {}]), "one entry for each of the 1 ids"),
    (lambda c: c.add(["x"], [[1, 2]], metadata={"year": 1}), "metadata must be a list"),
    (lambda c: c.add(["x"], [[1, 2]], texts="t"), "texts must be a list"),
    (lambda c: c.add(["x"], [[1, 2]], texts=[1]), r"texts\[0\] must be str or None, got int 1"),
    (lambda c: c.add(["x"], [[1, 2]], texts=[]), "texts must have an entry for each of the 1 ids, got none"),
    (lambda c: c.upsert(["a"], [[1, 2]], metadata=[]), "metadata must have an entry for each of the 1 ids, got none"),
    (lambda c: c.update(["x"], [[1, 2]]), "there is no document 'x' to update"),
    (lambda c: c.delete(), "delete takes either ids or where"),
    (lambda c: c.search([1, 0], 0), "k must be an integer between 1 and 1000000, got 0"),
    (lambda c: c.search([1, 0], 10**7), "k must be an integer between 1 and 1000000"),
    (lambda c: c.search([1, 0], "5"), "k must be an integer between 1 and 1000000, got '5'"),
    (lambda c: c.search(), "needs a vector or a text, got neither"),
    (lambda c: c.search([]), r"one vector of 2 numbers, got the shape \(0,\)"),
    (lambda c: c.search([[1, 0]]), "search_many takes several"),
    (lambda c: c.search([1, 0, 0]), r"got the shape \(3,\); was another embedding model used\?"),
    (lambda c: c.search([np.nan, 0]), "must be finite, got nan"),
    (lambda c: c.search([1, 0], radius=np.inf), "radius must be finite"),
    (lambda c: c.search([1, 0], radius=0.5, mmr=0.5), "radius cannot be combined with mmr"),
    (lambda c: c.search([1, 0], mmr=2), "mmr.lambda must be between 0 and 1, got 2"),
    (lambda c: c.search([1, 0], mmr="x"), "mmr has the wrong type: 'x'"),
    (lambda c: c.search([1, 0], group_by="colour"), "group_by.field must be a metadata field, got 'colour'"),
    (lambda c: c.search([1, 0], group_by="tags"), "must not hold lists"),
    (lambda c: c.search([1, 0], fetch_k=5), "fetch_k belongs to mmr"),
    (lambda c: c.search([1, 0], recall=0), "recall must be above 0"),
    (lambda c: c.search([1, 0], plan="later"), "plan must be 'automatic'"),
    (lambda c: c.search([1, 0], fusion="sum"), "fusion must be 'rrf' or 'weighted', got 'sum'"),
    (lambda c: c.search([1, 0], radious=1), "unknown argument 'radious'"),
    (lambda c: c.search([1, 0], include="text"), "include must be a list of"),
    (lambda c: c.search([1, 0], include=["txt"]), "include has metadata, text, vectors, got 'txt'"),
    (lambda c: next(c.search_pages([1, 0], mmr=0.5)), "pages cannot be combined with"),
    (lambda c: c.search_pages([1, 0], page=0), "page must be an integer >= 1, got 0"),
    (lambda c: c.page(limit=0), "limit must be >= 1, got 0"),
    (lambda c: c.page(after=5), "after must be an id of the kind"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_told_and_changes_nothing(notes: Collection, call: Callable[..., object], message: str) -> None:
    before = [(each.id, each.metadata, each.text) for each in notes.documents()]
    with pytest.raises(InvalidArgumentError, match=message):
        call(notes)
    assert [(each.id, each.metadata, each.text) for each in notes.documents()] == before


def test_what_is_no_error(notes: Collection) -> None:
    assert len(notes.search([1, 0], 1_000_000)) == 4
    assert notes.delete(["unknown"]) == 0
    assert len(notes.get(["unknown"])) == 0
    notes.add([], np.empty((0, 2)))
    notes.add([], np.empty((0, 2)), metadata=[], texts=[])
    notes.add(["zero"], [[0, 0]])
    assert notes.search([0, 0], 9).scores.tolist() == [0.0] * 5
    assert (5 in notes, None in notes, "a" in notes) == (False, False, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimension": 0}, "dimension"),
        ({"dimension": 2.0}, "dimension must be an integer, got 2.0"),
        ({"dimension": 10**6}, "dimension"),
        ({"metric": "euclid"}, "euclid"),
        ({"index": "magic"}, "must be one of auto, flat, .*, got 'magic'"),
        (
            {"storage": "int8"},
            "for auto, which becomes one, got 'int8' .flat, hnsw and ivf_flat take it",
        ),
        ({"storage": "int3"}, "int3"),
        ({"degre": 3}, "unknown option 'degre'; known: rerank, degree"),
        ({"name": ""}, "1 to 255 bytes"),
        ({"name": "taken"}, "there is a collection 'taken' already"),
    ],
)
def test_bad_collections_are_told(database: Database, options: dict[str, Any], message: str) -> None:
    database.create_collection("taken", 2)
    with pytest.raises(InvalidArgumentError, match=message):
        database.create_collection(**{"name": "c", "dimension": 2, **options})
    assert database.collection_names() == ["taken"]


def test_collections_by_name(database: Database) -> None:
    made = database.get_or_create_collection("notes", 2, metric="l2")
    assert database.get_or_create_collection("notes", 2, metric="l2").options == made.options
    with pytest.raises(InvalidArgumentError, match="has dimension 2, asked for 3"):
        database.get_or_create_collection("notes", 3)
    with pytest.raises(InvalidArgumentError, match="unknown option 'metrik'; known: metric, index, storage"):
        database.get_or_create_collection("notes", 2, metrik="l2")
    with pytest.raises(InvalidArgumentError, match="notes"):
        database.collection("note")
    database.rename_collection("notes", "n")
    assert ("notes" in database, "n" in database, made.name) == (False, True, "n")
    database.drop_collection("n")
    with pytest.raises(SageError):
        made.add([1], [[1, 2]])
    assert len(made) == 0


def test_state_is_checked(database: Database) -> None:
    database.create_collection("kept", 1)
    for bad in (b"", b"nonsense", "text", database.get_state()[:40], database.get_state()[:3000]):
        with pytest.raises(SageError):
            database.restore_state(bad)  # type: ignore[arg-type]
        assert database.collection_names() == ["kept"]


def test_readers_go_on_while_others_write(database: Database) -> None:
    collection = database.create_collection("c", 16)
    vectors = np.random.default_rng(0).standard_normal((4000, 16)).astype(np.float32)
    done, failures = threading.Event(), []

    def read() -> None:
        try:
            while not done.is_set():
                hits = collection.search(vectors[0], 5)
                assert len(set(hits.ids.tolist())) == len(hits)
        except BaseException as error:  # told by the main thread
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for first in range(0, 4000, 250):
        part = range_ids(4000)[first : first + 250]
        collection.upsert(part, vectors[part])
        assert collection.search(vectors[first], 1).ids.tolist() == [first]  # read your writes
        if first % 1000 == 0:
            collection.delete(part[:50])
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert len(collection) == 4000 - 4 * 50
