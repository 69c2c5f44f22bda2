"""Importers against files that chromadb, faiss and hnswlib wrote, exports that come back, and the faiss engine."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sage.common.errors import InvalidArgumentError, SageError, StoreError
from sage.middleware.components import sage_db
from sage.middleware.components.sage_db import Collection, FaissCollection, export_to, import_into

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
VECTORS = np.random.default_rng(0).standard_normal((2500, 8)).astype(np.float32)


def best(collection: Collection, query: Any, k: int = 5) -> list[int | str]:
    return [hit.id for hit in collection.search(query, k, recall=1)]


def exact(query: Any, k: int = 5) -> list[int]:
    return np.argsort(((VECTORS - query) ** 2).sum(axis=1))[:k].tolist()


@pytest.mark.leaks("the runtime inside chromadb keeps a pair of sockets as long as the process lives")
def test_a_chroma_collection(tmp_path: Path) -> None:
    chromadb = pytest.importorskip("chromadb")
    client = chromadb.PersistentClient(
        path=str(tmp_path / "chroma"), settings=chromadb.config.Settings(anonymized_telemetry=False)
    )
    made = client.create_collection("notes", configuration={"hnsw": {"space": "ip"}}, embedding_function=None)
    made.add(
        ids=[f"n{n}" for n in range(2500)],
        embeddings=VECTORS,
        metadatas=[{"n": n, "half": n / 2, "even": n % 2 == 0, "name": str(n)} for n in range(2500)],
        documents=[f"text {n}" for n in range(2500)],
    )
    client.close()
    database, seen = sage_db.memory(), []
    count = import_into(database, "kb", tmp_path / "chroma", on_progress=lambda done, total: seen.append((done, total)))
    assert (count, seen) == (2500, [(2000, 2500), (2500, 2500)])
    copied = database.collection("kb")
    assert (copied.metric, len(copied)) == ("inner_product", 2500)
    (found,) = copied.get(["n7"], include=["metadata", "text", "vectors"])
    assert found.metadata == {"n": 7, "half": 3.5, "even": False, "name": "7"}
    assert found.text == "text 7"
    assert found.vectors is not None
    np.testing.assert_array_equal(found.vectors[0], VECTORS[7])
    assert copied.count({"$and": [{"n": {"$gte": 10}}, {"even": True}]}) == 1245
    with pytest.raises(InvalidArgumentError, match="no collection 'kbb': the Chroma database .* has 'notes'"):
        import_into(database, "x", tmp_path / "chroma", source_collection="kbb")
    assert "x" not in database


@pytest.mark.parametrize(
    ("factory", "own_ids"),
    [
        ("Flat", False),
        ("IDMap,Flat", True),
        ("HNSW16", False),
        ("IVF8,Flat", False),
        ("IVF8,Flat", True),
        ("IDMap2,IVF8,Flat", True),
    ],
)
def test_a_faiss_file(tmp_path: Path, factory: str, own_ids: bool) -> None:
    faiss = pytest.importorskip("faiss")
    index = faiss.index_factory(8, factory, faiss.METRIC_L2)
    index.train(VECTORS)
    ids = np.arange(2500) * 7 + 1000 if own_ids else np.arange(2500)
    if own_ids:
        index.add_with_ids(VECTORS, ids)
    else:
        index.add(VECTORS)
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    database = sage_db.memory()
    assert import_into(database, "f", tmp_path / "index.faiss") == 2500
    copied = database.collection("f")
    assert copied.metric == "l2"
    assert best(copied, VECTORS[3]) == ids[exact(VECTORS[3])].tolist()


def test_an_hnswlib_file(tmp_path: Path) -> None:
    hnswlib = pytest.importorskip("hnswlib")
    index = hnswlib.Index(space="l2", dim=8)
    index.init_index(max_elements=3000)
    index.add_items(VECTORS, np.arange(2500))
    for label in (5, 2100):
        index.mark_deleted(label)
    index.save_index(str(tmp_path / "index.hnsw"))
    database = sage_db.memory()
    with pytest.raises(InvalidArgumentError, match="does not say its metric"):
        import_into(database, "h", tmp_path / "index.hnsw")
    with pytest.raises(InvalidArgumentError, match=r"index\.hnsw: its vectors have 8 dimensions, not 7"):
        import_into(database, "h", tmp_path / "index.hnsw", dimension=7, metric="l2")  # hnswlib would read nonsense
    assert database.collection_names() == []
    assert import_into(database, "h", tmp_path / "index.hnsw", metric="l2") == 2498
    assert import_into(database, "h", tmp_path / "index.hnsw", dimension=8, metric="l2") == 2498
    copied = database.collection("h")
    assert best(copied, VECTORS[9]) == [each for each in exact(VECTORS[9], 7) if each not in (5, 2100)][:5]
    assert 5 not in copied


def test_a_faiss_file_of_nothing(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    index = faiss.index_factory(8, "IVF8,Flat")
    index.train(VECTORS)
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    with pytest.raises(InvalidArgumentError, match="has no documents"):
        import_into(sage_db.memory(), "f", tmp_path / "index.faiss")


def test_an_import_that_fails_says_where_and_leaves_no_empty_collection(tmp_path: Path) -> None:
    vectors = VECTORS.copy()
    vectors[2003, 2] = np.nan
    database = sage_db.memory()
    np.savez(tmp_path / "a.npz", vectors=vectors[2000:])
    with pytest.raises(InvalidArgumentError, match=r"a\.npz, from document 0 on: vectors\[3\]\[2\] must be finite"):
        import_into(database, "a", tmp_path / "a.npz")
    assert database.collection_names() == []
    np.savez(tmp_path / "b.npz", vectors=vectors)
    with pytest.raises(InvalidArgumentError, match=r"b\.npz, from document 2000 on: vectors\[3\]\[2\] must be finite"):
        import_into(database, "b", tmp_path / "b.npz")
    assert len(database.collection("b")) == 2000  # a batch is a transaction
    database.create_collection("c", 8)
    with pytest.raises(InvalidArgumentError, match="from document 0 on"):
        import_into(database, "c", tmp_path / "a.npz")
    assert "c" in database


@pytest.mark.parametrize("format", ["jsonl", "npz", "parquet"])
@pytest.mark.parametrize("texts", [True, False])
def test_what_is_exported_comes_back(tmp_path: Path, format: str, texts: bool) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    database = sage_db.memory()
    made = database.create_collection("a", 8, metric="l2")
    names: Any = [f"ä{n}" for n in range(2500)] if texts else list(range(2500))
    moment = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)
    metadata = [{"n": n, "tags": ["x", str(n)], "at": moment} if n % 3 else None for n in range(2500)]
    made.add(names, VECTORS, metadata=metadata, texts=[None if n % 5 else f"t {n}" for n in range(2500)])
    if texts:  # several vectors in one of them
        made.upsert([names[0]], VECTORS[None, :3], texts=["three"])
    file = tmp_path / f"out.{format}"
    assert export_to(made, file) == 2500
    assert import_into(database, "b", file, metric="l2") == 2500
    copied = database.collection("b")
    everything = ["metadata", "text", "vectors"]
    for one, other in zip(made.documents(include=everything), copied.documents(include=everything), strict=True):
        assert (one.id, one.metadata, one.text) == (other.id, other.metadata, other.text)
        assert one.vectors is not None
        assert other.vectors is not None
        np.testing.assert_array_equal(one.vectors, other.vectors)
    with pytest.raises(StoreError, match="is there already"):
        export_to(made, file)
    with pytest.raises(InvalidArgumentError, match="does not tell its format; name one of jsonl, npz, parquet$"):
        export_to(made, tmp_path / "out.faiss")
    assert sorted(each.name for each in tmp_path.iterdir()) == [file.name]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", b"no zip", "cannot be read as npz"),
        ("a.parquet", b"no parquet", "cannot be read as Parquet"),
        ("a.faiss", b"no faiss", "no index that faiss can read"),
        ("a.jsonl", b'{"id": 1}\n', "a.jsonl:1: an object with 'id' and 'vector' is needed"),
        ("a.jsonl", b'{"id": 1, "vector": [1]}\n{"id"', "a.jsonl:2: "),
        ("a.jsonl", b'{"id": 1, "vector": [1]}\n{"id": 2, "vector": [1, 2]}', "different lengths"),
        ("a.jsonl", b"", "has no documents"),
        ("a.xyz", b"", "does not tell its format"),
    ],
)
def test_other_files_are_told(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    database = sage_db.memory()
    with pytest.raises(SageError, match=message):
        import_into(database, "c", tmp_path / name)
    assert database.collection_names() == []


def test_a_parquet_file_of_somebody_else(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"id": ["a", "b"], "vector": [[1.0, 0.0], [0.0, 1.0]], "year": [2020, None], "text": ["t", None]}
    columns["at"] = [None, dt.datetime(2024, 2, 29)]  # noqa: DTZ001 - as most Parquet files have it
    parquet.write_table(arrow.table(columns), tmp_path / "x.parquet")
    database = sage_db.memory()
    assert import_into(database, "x", tmp_path / "x.parquet") == 2
    first, second = database.collection("x").get(["a", "b"])
    assert (first.metadata, first.text, second.metadata, second.text) == (
        {"year": 2020},
        "t",
        {"at": dt.datetime(2024, 2, 29, tzinfo=dt.UTC)},
        None,
    )


# --- faiss as an engine -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", ["Flat", "HNSW32", "IVF8,Flat"])
@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
def test_the_faiss_engine_finds_what_ours_finds(tmp_path: Path, factory: str, metric: str) -> None:
    pytest.importorskip("faiss")
    ours = sage_db.memory().create_collection("c", 8, metric=metric)
    theirs = FaissCollection(8, factory, metric=metric)
    for each in (ours, theirs):
        each.add(np.arange(2000), VECTORS[:2000])
        each.upsert(np.arange(1900, 2500), VECTORS[1900:])
        assert each.delete(np.arange(0, 100)) == 100
        assert each.count() == 2400
    overlap = 0
    for query in VECTORS[:40]:
        one, other = ours.search(query, 10, recall=1), theirs.search(query, 10)
        overlap += len(set(one.ids.tolist()) & set(other.ids.tolist()))
        known = dict(zip(one.ids.tolist(), one.scores.tolist(), strict=True))
        assert {hit.id: hit.score for hit in other if hit.id in known} == pytest.approx(
            {int(name): known[int(name)] for name in other.ids if int(name) in known}, abs=1e-3
        )
        assert min(other.ids) >= 100
    assert overlap >= (400 if factory == "Flat" else 150)
    theirs.compact()
    theirs.save(tmp_path / "index.npz")
    again = FaissCollection.load(tmp_path / "index.npz")
    assert again.stats() == theirs.stats()
    assert again.search(VECTORS[500], 3).ids.tolist() == theirs.search(VECTORS[500], 3).ids.tolist()


def test_the_faiss_engine_refuses(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    with pytest.raises(InvalidArgumentError, match="faiss refuses the factory string 'Falt'"):
        FaissCollection(8, "Falt")
    made = FaissCollection(2)
    assert made.search([1, 0]).ids.tolist() == []
    made.add(["a"], [[1, 0]])
    for call, message in [
        (lambda: made.add(["a"], [[1, 0]]), "is in the collection already"),
        (lambda: made.add([1], [[1, 0]]), "all int or all str"),
        (lambda: made.add(["b"], [[np.nan, 0]]), "must be finite"),
        (lambda: made.add(["b"], [[1, 0, 0]]), "must have the shape"),
        (lambda: made.search([1, 0], 0), "k must be an integer >= 1"),
        (lambda: FaissCollection(8, "IVF64,Flat").add([1], VECTORS[:1]), "faiss refuses to train"),
    ]:
        with pytest.raises(InvalidArgumentError, match=message):
            call()
    assert len(made) == 1
    (tmp_path / "x").write_bytes(b"nothing")
    with pytest.raises(StoreError, match="no file of FaissCollection"):
        FaissCollection.load(tmp_path / "x")
