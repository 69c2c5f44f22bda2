"""From documents to prompts: knowledge base, retrievers, prompts."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import ConfigError, InvalidArgumentError, MissingExtraError
from sage.kernel.operators import OperatorContext
from sage.libs.errors import DocumentError, SourceError
from sage.libs.foundation import Document
from sage.libs.foundation.records import encode_json
from sage.middleware.embeddings import HashingEmbedder
from sage.middleware.errors import RetrievalError
from sage.middleware.operators.rag import ChromaRetriever, HybridRetriever, KnowledgeBase, QAPromptor
from sage.middleware.records import Passage, PromptedQuery, RetrievedContext
from sage.middleware.stores import ExactVectorStore

DOCUMENTS = {
    "channels.md": "# Channels\n\nA channel is bounded. A writer blocks while it is full: the backpressure.",
    "compiler.md": "# Compiler\n\nThe compiler fuses neighbours of the same parallelism into one node.",
    "dead-letters.txt": "Items that fail are dead letters, stored in SQLite. They can be replayed.",
    "embedding.html": "<title>Embeddings</title><p>The default embedder needs no download.</p>",
    "deep/routing.md": "---\ntitle: Routing\n---\nEach key is sent to its replica by a stable hash.",
}
QUESTIONS = {
    "What happens when a channel is full?": "channels.md",
    "Which neighbours does the compiler fuse?": "compiler.md",
    "Where are dead letters stored?": "dead-letters.txt",
    "Does the default embedder need a download?": "embedding.html",
    "How is a key sent to its replica?": "deep/routing.md",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in DOCUMENTS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("weights", [{"bm25": 1, "vector": 1}, {"bm25": 1, "vector": 0}, {"bm25": 0, "vector": 1}])
def test_questions_get_the_right_documents(folder: Path, weights: dict[str, float]) -> None:
    retriever = HybridRetriever({"documents": folder, "top_k": 2, "weights": weights})
    retriever.setup()
    for question, expected in QUESTIONS.items():
        context = retriever.execute(question)
        assert context.query == question
        assert context.passages[0].document_id == expected
        assert context.passages[0].source == str(folder.resolve() / expected) or context.passages[0].source == str(
            folder / expected
        )
        assert 1 <= len(context.passages) <= 2
        scores = [passage.score for passage in context.passages]
        assert scores == sorted(scores, reverse=True)
    assert encode_json(retriever.execute({"question": "full channel?", "id": 7}).metadata) == b'{"id":7}'
    retriever.teardown()


def test_bad_documents_are_reported_and_the_others_searched(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "empty.txt").write_text("")
    (folder / "junk.txt").write_bytes(b"\0\1\2")
    retriever = HybridRetriever({"documents": folder})
    retriever.attach(OperatorContext("retrieve"))
    with caplog.at_level("WARNING"):
        retriever.setup()
    assert {Path(bad.item["path"]).name for bad in retriever.knowledge_base.skipped} == {
        "empty.txt",
        "junk.txt",
    }
    assert all(isinstance(bad.error, DocumentError) for bad in retriever.knowledge_base.skipped)
    assert retriever.ctx.metrics.counters == {"documents_skipped": 2}
    assert "document 'empty.txt' is empty" in caplog.text
    assert len(retriever.knowledge_base.documents) == len(DOCUMENTS)


def test_replicas_of_a_job_share_one_index(folder: Path) -> None:
    replicas = []
    for number in range(3):
        retriever = HybridRetriever({"documents": folder})
        retriever.attach(OperatorContext("r", replica_index=number, parallelism=3, job="one"))
        retriever.setup()
        replicas.append(retriever)
    assert len({id(retriever.knowledge_base) for retriever in replicas}) == 1
    other = HybridRetriever({"documents": folder})
    other.attach(OperatorContext("r", job="two"))
    other.setup()
    assert other.knowledge_base is not replicas[0].knowledge_base


def test_wrong_folders_and_configurations(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        HybridRetriever({"documents": tmp_path / "docs"}).setup()
    with pytest.raises(SourceError, match="no document"):
        HybridRetriever({"documents": tmp_path}).setup()
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(RetrievalError, match="none of the 1 documents .* the first one: document 'a.txt' is empty"):
        HybridRetriever({"documents": tmp_path}).setup()
    for config, message in (
        ({}, "give either documents"),
        ({"documents": ".", "knowledge_base": KnowledgeBase()}, "give either documents"),
        ({"documents": ".", "top_k": 0}, "top_k"),
        ({"documents": ".", "weights": {"bm25": 0, "vector": 0}}, "above 0"),
        ({"documents": ".", "embedding": {"model": "nope"}}, "unknown embedding model 'nope'"),
        ({"knowledge_base": "x"}, "knowledge_base"),
    ):
        with pytest.raises(ConfigError, match=message):
            HybridRetriever(config)
    with pytest.raises(RetrievalError, match="from setup"):
        HybridRetriever({"documents": tmp_path}).execute("x")


@pytest.mark.parametrize("item", ["", "  ", 7, None, {"text": "x"}, {"query": None}])
def test_what_is_no_question_is_refused(item: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        HybridRetriever({"knowledge_base": KnowledgeBase()}).execute(item)


NAMES = st.sampled_from("abcd")
TEXTS = st.sampled_from(["red cat. blue dog.", "green bird", "sun and moon", "red sun. " * 40])


@given(
    st.lists(st.tuples(st.booleans(), NAMES, TEXTS), max_size=10),
    st.sampled_from(["red", "dog and sun", "moon"]),
)
def test_any_updates_give_the_knowledge_base_that_is_built_afresh(
    steps: list[tuple[bool, str, str]], query: str
) -> None:
    base = KnowledgeBase(embedder=HashingEmbedder(64))
    texts: dict[str, str] = {}
    for add, name, text in steps:
        if add:
            base.add([Document(name, text)])
            texts.pop(name, None)
            texts[name] = text
        else:
            assert (base.remove(name) > 0) == (texts.pop(name, None) is not None)
    fresh = KnowledgeBase(embedder=HashingEmbedder(64))
    fresh.add(Document(name, text) for name, text in texts.items())
    assert base.documents == fresh.documents == list(texts)
    assert len(base) == len(fresh)
    if texts:
        assert base.search(query, k=3) == fresh.search(query, k=3)
    else:
        assert base.search(query) == []


def test_the_same_id_twice_in_one_call_replaces() -> None:
    base = KnowledgeBase()
    base.add([Document("a", "first text"), Document("a", "second words")])
    assert [passage.text for passage in base.search("first second")] == ["second words"]
    with pytest.raises(InvalidArgumentError, match="makes 512"):
        KnowledgeBase(store=ExactVectorStore(3))
    with pytest.raises(InvalidArgumentError, match="k must be >= 1"):
        base.search("x", 0)


def test_searching_while_documents_change() -> None:
    base = KnowledgeBase(embedder=HashingEmbedder(32))
    base.add([Document("stay", "the constant text")])
    failures: list[Exception] = []
    done = threading.Event()

    def search() -> None:
        try:
            while not done.is_set():
                assert any(passage.document_id == "stay" for passage in base.search("constant text", 5))
        except Exception as error:  # whatever it is, the test must show it
            failures.append(error)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(60):
        base.add([Document(f"d{number % 5}", f"changing words {number}")])
        base.remove(f"d{(number + 2) % 5}")
    done.set()
    for thread in threads:
        thread.join(timeout=20)
    assert failures == []


class SlowEmbedder(HashingEmbedder):
    """As slow as a model."""

    def embed(self, texts: Any) -> Any:
        time.sleep(0.01)
        return super().embed(texts)


def test_a_document_that_is_replaced_is_never_missing() -> None:
    base = KnowledgeBase(embedder=SlowEmbedder(32))
    base.add([Document("stay", "constant text 0"), Document("other", "noise and sound")])
    missing: list[int] = []
    failures: list[Exception] = []
    done = threading.Event()

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # whatever it is, the test must show it
            failures.append(error)

    def search() -> None:
        searches = 0
        while not done.is_set():
            found = [passage.document_id for passage in base.search("constant text", 5)]
            if found.count("stay") != 1:
                missing.append(searches)
            searches += 1

    def replace() -> None:
        for number in range(15):
            base.add([Document("stay", f"constant text {number}")])

    searchers = [threading.Thread(target=guarded, args=(search,)) for _ in range(2)]
    writers = [threading.Thread(target=guarded, args=(replace,)) for _ in range(4)]
    for thread in (*searchers, *writers):
        thread.start()
    for thread in writers:
        thread.join(timeout=20)
    done.set()
    for thread in searchers:
        thread.join(timeout=20)
    assert failures == []
    assert missing == []
    assert base.documents == ["other", "stay"]
    assert len(base) == 2


def test_an_embedder_that_fails_costs_no_document() -> None:
    base = KnowledgeBase()
    base.add([Document("a", "first text")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base.embedder, "embed", lambda texts: np.full((len(texts), 512), np.nan))
        with pytest.raises(InvalidArgumentError, match="finite numbers"):
            base.add([Document("a", "second text")])
    assert [passage.text for passage in base.search("text")] == ["first text"]


def test_every_unreadable_document_is_named_and_may_be_refused(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"bad{number}.txt" for number in range(12)]
    for name in names:
        (folder / name).write_bytes(b"")
    retriever = HybridRetriever({"documents": folder})
    retriever.attach(OperatorContext("retrieve", job="named"))
    retriever.setup()
    assert all(f"document {name!r} is empty" in caplog.text for name in names)
    assert retriever.ctx.metrics.counters == {"documents_skipped": 12}
    strict = HybridRetriever({"documents": folder, "on_unreadable": "fail"})
    strict.attach(OperatorContext("strict", job="named"))  # shares the index that was read with "warn"
    with pytest.raises(RetrievalError, match="12 documents in .*on_unreadable") as caught:
        strict.setup()
    assert all(name in str(caught.value) for name in names)
    with pytest.raises(ConfigError, match="on_unreadable"):
        HybridRetriever({"documents": folder, "on_unreadable": "ignore"})


PASSAGES = (Passage("a#0", "First {text}."), Passage("b#0", "Second one."), Passage("c#0", "Third."))


def test_the_prompt_carries_everything_on() -> None:
    promptor = QAPromptor({"template": "Answer based on context: {context}\nQ: {query}\nA:"})
    made = promptor.execute(RetrievedContext("Why {query}?", PASSAGES, {"id": 1}))
    assert made == PromptedQuery(
        "Why {query}?",
        "Answer based on context: [1] First {text}.\n\n[2] Second one.\n\n[3] Third.\nQ: Why {query}?\nA:",
        PASSAGES,
        {"id": 1},
    )
    assert promptor.execute("alone").passages == ()
    made = promptor.execute({"query": "q", "passages": ["x", {"id": "7", "text": "y"}], "n": 2})
    assert [passage.text for passage in made.passages] == ["x", "y"]
    assert made.metadata == {"n": 2}
    with pytest.raises(InvalidArgumentError, match="passage 1 is no passage"):
        promptor.execute({"query": "q", "passages": [{"id": 3}]})


@given(st.integers(1, 80), st.sampled_from(["characters", "words"]))
def test_the_budget_holds_and_passages_stay_whole(budget: int, unit: str) -> None:
    promptor = QAPromptor({"template": "{context}|{query}", "max_context": budget, "unit": unit})
    made = promptor.execute(RetrievedContext("q", PASSAGES))
    context = made.prompt.removesuffix("|q")
    assert (len(context) if unit == "characters" else len(context.split())) <= budget
    assert made.passages == PASSAGES[: len(made.passages)]
    assert made.passages
    for number, passage in enumerate(made.passages[1:], start=2):
        assert f"[{number}] {passage.text}" in context


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{contxt} {query}", "unknown placeholder {contxt}; did you mean {context}?"),
        ("{context} {query} {zzz}", "known: {context}, {query}"),
        ("{} {query}", "unknown placeholder {}"),
        ("{query.__class__}", "unknown placeholder"),
        ("{query!r}", "takes no format"),
        ("{query:>10}", "takes no format"),
        ("{context}", "must have the placeholder {query}"),
        ("{query", "template is not valid"),
    ],
)
def test_a_wrong_template_fails_when_the_pipeline_is_built(template: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        QAPromptor({"template": template})
    assert message in str(caught.value)


LISTING = {
    "top_k": 5,
    "embedding": {"model": "sentence-transformers/all-MiniLM-L6-v2"},
    "chroma": {"collection_name": "kb", "persistence_path": ".sage/chroma"},
}


def test_chroma_takes_the_configuration_of_the_paper_and_names_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    retriever = ChromaRetriever(LISTING)
    monkeypatch.setitem(sys.modules, "chromadb", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sage-middleware\[chroma\]'"):
        retriever.setup()
    with pytest.raises(ConfigError, match="config key 'chroma' is required"):
        ChromaRetriever({"top_k": 5})
    with pytest.raises(RetrievalError, match="before setup"):
        retriever.execute("x")


@pytest.mark.leaks("the runtime inside chromadb keeps a pair of sockets as long as the process lives")
def test_chroma_for_real(tmp_path: Path) -> None:
    chromadb = pytest.importorskip("chromadb")
    embedder = HashingEmbedder(64)
    client = chromadb.PersistentClient(
        path=str(tmp_path), settings=chromadb.config.Settings(anonymized_telemetry=False)
    )
    collection = client.create_collection("kb-docs", embedding_function=None)
    client.create_collection("void", embedding_function=None)
    texts = ["The router sends packets.", "A cat sleeps."]
    collection.add(
        ids=["r", "c"],
        embeddings=embedder.embed(texts).tolist(),
        documents=texts,
        metadatas=[{"source": "router.md"}, {"source": "cat.md"}],
    )

    def retriever(name: str = "kb-docs", dimension: int = 64, path: Path = tmp_path) -> ChromaRetriever:
        chroma = {"collection_name": name, "persistence_path": path}
        return ChromaRetriever(
            {"top_k": 5, "embedding": {"model": "hashing", "dimension": dimension}, "chroma": chroma}
        )

    found = retriever()
    found.setup()
    passages = found.execute("Who sends packets?").passages
    assert [(passage.id, passage.text, passage.source) for passage in passages] == [
        ("r", texts[0], "router.md"),
        ("c", texts[1], "cat.md"),
    ]
    assert 1 >= passages[0].score > passages[1].score > 0
    found.teardown()
    with pytest.raises(RetrievalError, match="no collection 'kb-doc' in .* it has: 'kb-docs', 'void'"):
        retriever("kb-doc").setup()
    with pytest.raises(RetrievalError, match="the collection 'void' in .* is empty"):
        retriever("void").setup()
    with pytest.raises(RetrievalError, match="no Chroma database"):
        retriever(path=tmp_path / "nowhere").setup()
    assert not (tmp_path / "nowhere").exists()
    wrong = retriever(dimension=32)
    wrong.setup()
    with pytest.raises(RetrievalError, match=r"with a vector of 32 numbers \(hashing-32\) failed"):
        wrong.execute("x")
    wrong.teardown()
    client.close()
