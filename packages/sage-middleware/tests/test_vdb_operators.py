"""`VDBIndexer`, `VDBSink` and `VDBRetriever` in pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sage.common.errors import InvalidArgumentError
from sage.kernel.api import LocalEnvironment
from sage.libs.foundation.records import Chunk, Document
from sage.middleware.components import sage_db
from sage.middleware.embeddings import EmbeddedChunk
from sage.middleware.errors import RetrievalError
from sage.middleware.operators.rag import VDBIndexer, VDBRetriever, VDBSink

ITEMS = [
    {"id": f"n{n}", "text": f"note {n} about {'cats' if n % 2 else 'dogs'}", "even": n % 2 == 0} for n in range(200)
]
SMALL = {"model": "hashing", "dimension": 64}


@pytest.mark.parametrize("parallelism", [1, 3])
def test_a_pipeline_indexes_and_another_one_asks(tmp_path: Path, parallelism: int) -> None:
    config = {"path": tmp_path / "db", "embedding": SMALL}
    env = LocalEnvironment("index")
    passed = env.from_collection(ITEMS).map(VDBIndexer, config, parallelism=parallelism).collect()
    assert sorted(each["id"] for each in passed) == sorted(each["id"] for each in ITEMS)
    with sage_db.open(tmp_path / "db", read_only=True) as database:
        assert database.collection("documents").count({"even": True}) == 100

    asking = {**config, "top_k": 3, "where": {"even": False}}
    (found,) = LocalEnvironment("ask").from_collection(["note 7 about cats"]).map(VDBRetriever, asking).collect()
    assert found.passages[0].id == "n7"
    assert len(found.passages) == 3
    assert not any(passage.metadata["even"] for passage in found.passages)


def test_a_sink_takes_batches_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        env = LocalEnvironment("index")
        env.from_collection(ITEMS).batch(64).sink(VDBSink, {"path": tmp_path / "db", "embedding": SMALL})
        env.submit()
        with sage_db.open(tmp_path / "db") as database:
            assert len(database.collection("documents")) == len(ITEMS)


def test_a_bad_item_alone_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # dead letters go to .sage below it
    items = [*ITEMS[:10], {"id": "bad", "text": "x", "even": "perhaps"}, {"text": "no id"}]
    env = LocalEnvironment("index")
    passed = (
        env.from_collection(items)
        .map(VDBIndexer, {"path": tmp_path / "db", "embedding": SMALL})
        .collect(allow_dead_letters=True)
    )
    assert [each["id"] for each in passed] == [each["id"] for each in ITEMS[:10]]


def run(operator: Any, item: Any) -> Any:
    operator.setup()
    try:
        return operator.execute(item)
    finally:
        operator.teardown()


def test_what_can_be_indexed(tmp_path: Path) -> None:
    chunk = Chunk("d#0", "d", "A chunk.", 0, 3, 11, {"path": "d.md", "odd": {"nested": 1}})
    items: list[Any] = [
        chunk,
        EmbeddedChunk(Chunk("d#1", "d", "Another.", 1, 12, 20), np.ones(64, np.float32)),
        Document("whole", "A document.", {"title": "T"}),
        {"id": "own", "vector": [1.0] * 64, "metadata": {"year": 2024}, "lang": "en"},
        {"id": "own", "vector": [2.0] * 64},
    ]
    assert run(VDBIndexer({"path": tmp_path, "embedding": SMALL}), items) == items
    with sage_db.open(tmp_path) as database:
        found = {each.id: each for each in database.collection("documents").documents()}
    assert set(found) == {"d#0", "d#1", "whole", "own"}
    assert found["d#0"].metadata == {"path": "d.md", "document_id": "d", "start": 3, "end": 11}
    assert found["own"].metadata == {}  # the last one counts
    context = run(VDBRetriever({"path": tmp_path, "embedding": SMALL, "top_k": 1, "search": "text"}), "chunk")
    (passage,) = context.passages
    assert (passage.id, passage.text, passage.source, passage.document_id) == ("d#0", "A chunk.", "d.md", "d")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"text": "x"}, "VDBIndexer: item must have the key 'id'"),
        ({"id": 1}, "item 1 has neither a text nor a vector"),
        ({"id": 1, "text": "x", "metadata": 5}, "metadata of item 1 must be a mapping, got 5"),
        ({"id": 1, "vector": [1.0] * 3}, "must have shape"),
        (7, "VDBIndexer takes chunks, documents and mappings, got int"),
    ],
)
def test_what_cannot_be_indexed_is_told(tmp_path: Path, item: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        run(VDBIndexer({"path": tmp_path, "embedding": SMALL}), [item])


def test_what_cannot_be_searched_is_told(tmp_path: Path) -> None:
    with pytest.raises(RetrievalError, match="nothing"):
        run(VDBRetriever({"path": tmp_path / "nothing"}), "x")
    with sage_db.open(tmp_path / "db") as database:
        database.create_collection("notes", 64)
    with pytest.raises(RetrievalError, match="notes"):
        run(VDBRetriever({"path": tmp_path / "db", "collection": "note"}), "x")
    with pytest.raises(RetrievalError, match="vectors of 64 numbers, the embedder 'hashing-512' makes 512"):
        run(VDBRetriever({"path": tmp_path / "db", "collection": "notes"}), "x")


def test_a_live_retriever_sees_what_is_written_meanwhile(tmp_path: Path) -> None:
    indexer = VDBIndexer({"path": tmp_path, "embedding": SMALL})
    retriever = VDBRetriever({"path": tmp_path, "embedding": SMALL, "live": True})
    indexer.setup()
    retriever.setup()
    assert retriever.execute("cats").passages == ()
    indexer.execute(ITEMS[:4])
    indexer.teardown()
    assert len(retriever.execute("cats").passages) == 4
    retriever.teardown()
    sage_db.open(tmp_path).close()  # given back by both
