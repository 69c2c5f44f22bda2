"""Operators over a collection of sage_db: one fills it, one finds passages in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, Field, model_validator

from sage.common.errors import InvalidArgumentError
from sage.kernel.graph.contracts import Batching, Contract, IOSpec
from sage.kernel.operators import MapFunction, SinkFunction
from sage.libs.foundation.records import Chunk, Document
from sage.middleware.components.sage_db import Collection, Hit
from sage.middleware.components.sage_db.sharing import shared_database
from sage.middleware.embeddings import EmbeddedChunk, Embedder, EmbeddingConfig, create_embedder
from sage.middleware.errors import RetrievalError
from sage.middleware.records import Passage, RetrievedContext, question_of

__all__ = ["VDBIndexer", "VDBRetriever", "VDBSink"]

_BATCH = 64
_WAIT_S = 0.05
_PLAIN = (str, int, float, bool)


class _IndexConfig(BaseModel, extra="forbid"):
    path: Path
    collection: str = Field(default="documents", min_length=1)
    embedding: EmbeddingConfig = EmbeddingConfig()
    dimension: int | None = Field(default=None, ge=1)
    metric: Literal["cosine", "inner_product", "l2"] = "cosine"
    index: str = "auto"
    sync: Literal["each", "group", "none"] = "group"


class _Writer:
    """What both indexers do: items to documents, vectors for those that have none, one transaction."""

    def __init__(self, owner: str, config: _IndexConfig) -> None:
        self._owner = owner
        self._config = config
        self._open = ExitStack()
        self._embedder: Embedder | None = None
        dimension = config.dimension
        if dimension is None:
            dimension = self._model().dimension
        with self._open:
            database = self._open.enter_context(shared_database(config.path, sync=config.sync))
            self._collection = database.get_or_create_collection(
                config.collection, dimension, metric=config.metric, index=config.index
            )
            # Only when all went well does it stay open.
            self._open = self._open.pop_all()

    def _model(self) -> Embedder:
        if self._embedder is None:
            self._embedder = create_embedder(self._config.embedding)
        return self._embedder

    def close(self) -> None:
        """Let the database go."""
        self._open.close()

    def write(self, items: Sequence[Any]) -> None:
        """One transaction; of an id that comes twice the last one counts."""
        parts = {document[0]: document for document in (_document(self._owner, item) for item in items)}
        missing = [document for document in parts.values() if document[3] is None]
        texts = [document[1] for document in missing]
        for document in missing:
            if not document[1]:
                raise InvalidArgumentError(f"{self._owner}: item {document[0]!r} has neither a text nor a vector")
        fresh = iter(self._model().embed([_titled(each) for each in missing]) if texts else ())
        vectors = [next(fresh) if vector is None else vector for _, _, _, vector in parts.values()]
        self._collection.upsert(
            list(parts),
            np.asarray(vectors, dtype=np.float32),
            metadata=[document[2] for document in parts.values()],
            texts=[document[1] for document in parts.values()],
        )


def _titled(document: tuple[Any, str | None, dict[str, Any], Any]) -> str:
    # A chunk in the middle of a page seldom repeats what the page is about.
    title = document[2].get("title")
    return f"{title}\n{document[1]}" if title else str(document[1])


def _document(owner: str, item: Any) -> tuple[Any, str | None, dict[str, Any], Any]:
    """Id, text, metadata and vector or None of an item."""
    vector = None
    if isinstance(item, EmbeddedChunk):
        item, vector = item.chunk, item.vector
    if isinstance(item, Chunk):
        known = {name: value for name, value in item.metadata.items() if isinstance(value, _PLAIN)}
        where = {"document_id": item.document_id, "start": item.start, "end": item.end}
        return item.id, item.text, {**known, **where}, vector
    if isinstance(item, Document):
        return item.id, item.text, {n: v for n, v in item.metadata.items() if isinstance(v, _PLAIN)}, None
    if not isinstance(item, Mapping):
        raise InvalidArgumentError(f"{owner} takes chunks, documents and mappings, got {type(item).__name__}")
    if "id" not in item:
        raise InvalidArgumentError(f"{owner}: item must have the key 'id', got the keys {sorted(map(str, item))!r}")
    metadata = item.get("metadata")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise InvalidArgumentError(f"{owner}: metadata of item {item['id']!r} must be a mapping, got {metadata!r}")
    rest = {name: value for name, value in item.items() if name not in ("id", "text", "vector", "metadata")}
    return item["id"], item.get("text"), {**rest, **(metadata or {})}, item.get("vector")


class VDBIndexer(MapFunction[list[Any], list[Any]]):
    """Puts what passes into a collection of sage_db, and passes it on when it is as durable as `sync` says.

    Takes chunks (with or without vectors), documents, and mappings with `id`, `text` and `vector` (one of the two may
    be missing) and metadata: `metadata` and all other keys. Of chunks and documents the metadata that are plain values
    are kept. The runtime gathers items; those of one call are embedded together and are one transaction. A known id is
    replaced, so that a second run over the same documents changes nothing. The replicas of a process share the
    database.

    Config:
        path: folder of the database.
        collection: its name; it is made if it is not there.
        embedding: `EmbeddingConfig`, for items without a vector; `dimension`: instead, where all items have one.
        metric: "cosine", "inner_product" or "l2"; index: "auto", "flat", "graph", ...
        sync: "group", "each" or "none", as `sage_db.open`.

    Raises:
        StoreError: from `setup`: another process writes to the folder, or it is damaged.
        InvalidArgumentError: from `setup`: the collection has another dimension or metric; from `execute`: an item has
            no id, neither text nor vector, or metadata of another type than before.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> indexer = VDBIndexer({"path": folder})
        >>> indexer.setup()
        >>> done = indexer.execute([{"id": "a", "text": "The router sends packets."}])
        >>> indexer.teardown()
        >>> retriever = VDBRetriever({"path": folder, "top_k": 1})
        >>> retriever.setup()
        >>> retriever.execute("Who sends packets?").passages[0].text
        'The router sends packets.'
        >>> retriever.teardown()
    """

    Config: ClassVar[type[BaseModel] | None] = _IndexConfig
    contract: ClassVar[Contract] = Contract(io=IOSpec(batching=Batching(size=_BATCH, max_wait_s=_WAIT_S)))
    _writer: _Writer | None = None

    def setup(self) -> None:
        """Open the database and load the embedding model."""
        self._writer = _Writer("VDBIndexer", self.config)

    def teardown(self) -> None:
        """Let the database go; the last one closes it."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def execute(self, items: list[Any]) -> list[Any]:
        """Write `items` in one transaction and return them."""
        if self._writer is None:
            raise InvalidArgumentError("VDBIndexer: execute called before setup")
        self._writer.write(items)
        return items


class VDBSink(SinkFunction[Any]):
    """`VDBIndexer` at the end of a pipeline: takes one item, or a list of them as `batch()` gives them; a call is one
    transaction.

    Config: that of `VDBIndexer`.

    Raises:
        StoreError, InvalidArgumentError: as `VDBIndexer`.

    Example:
        >>> import tempfile
        >>> sink = VDBSink({"path": tempfile.mkdtemp(), "dimension": 2})
        >>> sink.setup()
        >>> sink.execute({"id": 7, "vector": [1.0, 0.0], "year": 2024})
        >>> sink.teardown()
    """

    Config: ClassVar[type[BaseModel] | None] = _IndexConfig
    _writer: _Writer | None = None

    def setup(self) -> None:
        """Open the database and load the embedding model."""
        self._writer = _Writer("VDBSink", self.config)

    def teardown(self) -> None:
        """Let the database go; the last one closes it."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def execute(self, item: Any) -> None:
        """Write `item`, or all items of the list."""
        if self._writer is None:
            raise InvalidArgumentError("VDBSink: execute called before setup")
        self._writer.write(item if isinstance(item, list) else [item])


class _SearchConfig(BaseModel, extra="forbid"):
    path: Path
    collection: str = Field(default="documents", min_length=1)
    top_k: int = Field(default=5, ge=1, le=10_000)
    embedding: EmbeddingConfig = EmbeddingConfig()
    search: Literal["hybrid", "vector", "text"] = "hybrid"
    where: dict[str, Any] | None = None
    mmr: float | None = Field(default=None, ge=0, le=1)
    recall: float = Field(default=0.95, gt=0, le=1)
    live: bool = False

    @model_validator(mode="after")
    def _fits(self) -> _SearchConfig:
        if self.mmr is not None and self.search != "vector":
            raise ValueError('mmr goes with search "vector"')
        return self


class VDBRetriever(MapFunction[Any, RetrievedContext]):
    """Finds the passages for a question in a collection of sage_db, by vectors, by words, or by both.

    Takes what `HybridRetriever` takes and gives a `RetrievedContext`. A passage's score is higher for the better one:
    1 / (1 + squared distance) under "l2".

    Config:
        path: folder of the database; collection: name of the collection. Both must be there.
        top_k: how many passages.
        embedding: `EmbeddingConfig`, that of the indexer.
        search: "hybrid" (reciprocal rank fusion), "vector" or "text" (BM25).
        where: a condition on metadata, like `{"year": {"$gte": 2020}}`.
        mmr: 0 to 1, with "vector": less alike passages.
        recall: wanted share of the true best.
        live: see what others of this process write meanwhile; without it the folder is opened for reading.

    Raises:
        RetrievalError: from `setup`: no such database or collection, or its vectors have another length.
        InvalidArgumentError: from `execute`: a field of `where` is not there or has another type.

    Example:
        >>> VDBRetriever({"path": "kb", "where": {"lang": "en"}}).config.search
        'hybrid'
    """

    Config: ClassVar[type[BaseModel] | None] = _SearchConfig
    _open: ExitStack | None = None
    _collection: Collection | None = None
    _embedder: Embedder | None = None

    def setup(self) -> None:
        """Open the collection and load the embedding model."""
        config: _SearchConfig = self.config
        with ExitStack() as stack:
            try:
                database = stack.enter_context(shared_database(config.path, read_only=not config.live))
                self._collection = database.collection(config.collection)
            except InvalidArgumentError as error:
                raise RetrievalError(f"VDBRetriever: {error} (path {str(config.path)!r})") from error
            if config.search != "text":
                self._embedder = create_embedder(config.embedding)
                if self._embedder.dimension != self._collection.dimension:
                    raise RetrievalError(
                        f"VDBRetriever: the collection {config.collection!r} holds vectors of"
                        f" {self._collection.dimension} numbers, the embedder {self._embedder.name!r} makes"
                        f" {self._embedder.dimension}"
                    )
            self._open = stack.pop_all()

    def teardown(self) -> None:
        """Let the database go."""
        opened, self._open = self._open, None
        self._collection = self._embedder = None
        if opened is not None:
            opened.close()

    def execute(self, item: Any) -> RetrievedContext:
        """Return the question with its passages."""
        query, extra = question_of("VDBRetriever", item)
        if self._collection is None:
            raise RetrievalError("VDBRetriever: execute called before setup")
        config: _SearchConfig = self.config
        vector = None if self._embedder is None else self._embedder.embed([query])[0]
        hits = self._collection.search(
            vector,
            config.top_k,
            text=None if config.search == "vector" else query,
            where=config.where,
            mmr=config.mmr,
            recall=config.recall,
        )
        distances = self._collection.metric == "l2" and config.search == "vector"
        return RetrievedContext(query, tuple(_passage(hit, distances) for hit in hits), extra)


def _passage(hit: Hit, distances: bool) -> Passage:
    known = dict(hit.metadata or {})
    name = str(hit.id)
    document = str(known.get("document_id") or name)
    source = str(known.get("path") or known.get("source") or document)
    score = 1.0 / (1.0 + max(0.0, hit.score)) if distances else hit.score
    return Passage(name, (hit.text or "").strip(), score, source, document, known)
