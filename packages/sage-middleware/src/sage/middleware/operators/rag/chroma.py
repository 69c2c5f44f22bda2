"""Retriever over a collection of a Chroma database."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from sage.common.errors import MissingExtraError
from sage.kernel.operators import MapFunction
from sage.middleware.embeddings import Embedder, EmbeddingConfig, create_embedder
from sage.middleware.errors import RetrievalError
from sage.middleware.records import Passage, RetrievedContext, question_of

__all__ = ["ChromaRetriever"]

_EXTRA = "sage-middleware[chroma]"


class _Chroma(BaseModel, extra="forbid", frozen=True):
    collection_name: str = Field(min_length=1)
    persistence_path: Path


class _Config(BaseModel, extra="forbid"):
    chroma: _Chroma
    top_k: int = Field(default=5, ge=1)
    embedding: EmbeddingConfig = EmbeddingConfig(model="minilm")


class ChromaRetriever(MapFunction[Any, RetrievedContext]):
    """Finds the passages for a question in a collection of a Chroma database (paper, Listing 1).

    Takes what `HybridRetriever` takes and gives a `RetrievedContext`; a passage's score is 1 / (1 +
    distance). Needs the extra `chroma`. The collection must have been filled with vectors of the same
    embedding model.

    Config:
        chroma: `{"collection_name": ..., "persistence_path": ...}`; both must exist.
        top_k: how many passages.
        embedding: `EmbeddingConfig`, MiniLM by default.

    Raises:
        MissingExtraError: from `setup`: chromadb, or what the embedding model needs, is not installed.
        RetrievalError: from `setup`: no such database or collection (the existing ones are named), or it is
            empty; from `execute`: the collection has vectors of another length.

    Example:
        >>> listing = {"collection_name": "kb", "persistence_path": ".sage/chroma"}
        >>> ChromaRetriever({"top_k": 5, "chroma": listing}).config.embedding.model
        'minilm'
    """

    Config: ClassVar[type[BaseModel] | None] = _Config
    _client: Any = None
    _collection: Any = None
    _embedder: Embedder | None = None

    def setup(self) -> None:
        """Open the collection and load the embedding model."""
        try:
            import chromadb
            from chromadb.config import Settings
        except ImportError as error:
            raise MissingExtraError("chromadb", _EXTRA) from error
        path: Path = self.config.chroma.persistence_path
        if not (path / "chroma.sqlite3").is_file():
            # The client would make an empty database there, and the mistake would show as a collection that
            # is missing.
            raise RetrievalError(f"ChromaRetriever: no Chroma database in {str(path)!r} (persistence_path)")
        self._client = chromadb.PersistentClient(path=str(path), settings=Settings(anonymized_telemetry=False))
        try:
            self._open(path)
        except BaseException:
            self.teardown()
            raise

    def _open(self, path: Path) -> None:
        client = self._client
        wanted = self.config.chroma.collection_name
        # Names or collections, according to the version of chromadb.
        known = sorted(each if isinstance(each, str) else each.name for each in client.list_collections())
        if wanted not in known:
            listed = ", ".join(map(repr, known)) or "none"
            raise RetrievalError(f"ChromaRetriever: no collection {wanted!r} in {str(path)!r}; it has: {listed}")
        self._embedder = create_embedder(self.config.embedding)
        # Without the embedding function that the collection remembers: the vectors come from ours.
        collection = client.get_collection(wanted, embedding_function=None)
        if collection.count() == 0:
            raise RetrievalError(f"ChromaRetriever: the collection {wanted!r} in {str(path)!r} is empty")
        self._collection = collection

    def teardown(self) -> None:
        """Close the database."""
        client, self._client = self._client, None
        self._collection = self._embedder = None
        if client is not None:
            client.close()

    def execute(self, item: Any) -> RetrievedContext:
        """Return the question with its passages."""
        query, extra = question_of("ChromaRetriever", item)
        if self._collection is None or self._embedder is None:
            raise RetrievalError("ChromaRetriever: execute called before setup")
        vector = self._embedder.embed([query])[0].tolist()
        try:
            found = self._collection.query(
                query_embeddings=[vector],
                n_results=self.config.top_k,
                include=["documents", "metadatas", "distances"],
            )
        # Any error of a foreign library, which has no base class for its own, is told with what was asked of
        # it.
        except Exception as error:
            raise RetrievalError(
                f"ChromaRetriever: search in {self.config.chroma.collection_name!r} with a vector of"
                f" {self._embedder.dimension} numbers ({self._embedder.name}) failed: {error}"
            ) from error
        return RetrievedContext(query, tuple(_passages(found)), extra)


def _passages(found: Any) -> list[Passage]:
    ids = found["ids"][0]
    # The lists, and each entry of them, may be None: a record may have a vector only.
    texts = (found["documents"] or [[None] * len(ids)])[0]
    metadatas = (found["metadatas"] or [[None] * len(ids)])[0]
    passages: list[Passage] = []
    for name, text, metadata, distance in zip(ids, texts, metadatas, found["distances"][0], strict=True):
        known = dict(metadata or {})
        source = str(known.get("source") or known.get("path") or name)
        document = str(known.get("document_id") or source)
        passages.append(Passage(name, text or "", 1.0 / (1.0 + max(0.0, distance)), source, document, known))
    return passages
