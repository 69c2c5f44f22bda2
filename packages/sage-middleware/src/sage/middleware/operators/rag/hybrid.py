"""A knowledge base as an operator."""

from __future__ import annotations

import threading
import weakref
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sage.kernel.operators import MapFunction
from sage.libs.text.chunking import ChunkingConfig
from sage.middleware.embeddings import EmbeddingConfig, create_embedder
from sage.middleware.errors import RetrievalError
from sage.middleware.records import RetrievedContext, question_of

from .knowledge import KnowledgeBase

__all__ = ["HybridRetriever"]


class _Weights(BaseModel, extra="forbid", frozen=True):
    bm25: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    vector: float = Field(default=1.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _some(self) -> _Weights:
        if not self.bm25 and not self.vector:
            raise ValueError("one of the weights bm25 and vector must be above 0")
        return self


class _Config(BaseModel, extra="forbid"):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    documents: Path | None = None
    knowledge_base: KnowledgeBase | None = None
    top_k: int = Field(default=5, ge=1)
    embedding: EmbeddingConfig = EmbeddingConfig()
    chunking: ChunkingConfig = ChunkingConfig()
    weights: _Weights = _Weights()
    on_unreadable: Literal["warn", "fail"] = "warn"

    @model_validator(mode="after")
    def _one(self) -> _Config:
        if (self.documents is None) == (self.knowledge_base is None):
            raise ValueError("give either documents (a directory) or knowledge_base (an instance)")
        return self


# Replicas of one job in one process read the documents once. Weak: the base goes when the last of them does.
_SHARED: weakref.WeakValueDictionary[str, KnowledgeBase] = weakref.WeakValueDictionary()
_SHARED_LOCK = threading.Lock()


class HybridRetriever(MapFunction[Any, RetrievedContext]):
    """Finds the passages for a question, by words (BM25) and by vectors, joined by reciprocal rank fusion.

    Takes a question: a string, or a mapping with `query` or `question` whose other fields travel along as metadata.
    Gives a `RetrievedContext`. The documents are read and indexed in `setup`; each one that cannot be read is logged as
    a warning with its name, counted as `documents_skipped` and listed in `knowledge_base.skipped`.

    Config:
        documents: a directory, or
        knowledge_base: an instance that is ready (shared by all replicas of this process).
        top_k: how many passages.
        embedding: `EmbeddingConfig`; chunking: `ChunkingConfig`; both only with `documents`.
        weights: `{"bm25": 1.0, "vector": 1.0}`.
        on_unreadable: "warn" goes on without the `documents` that cannot be read, "fail" does not start.

    Raises:
        SourceError: from `setup`: no such directory, or no documents in it.
        RetrievalError: from `setup`: not one of the documents could be read, or `on_unreadable` is "fail" and
            one could not.

    Example:
        >>> from sage.libs.foundation import Document
        >>> base = KnowledgeBase()
        >>> _ = base.add([Document("a.txt", "The router sends packets."), Document("b.txt", "A cat sleeps.")])
        >>> retriever = HybridRetriever({"knowledge_base": base, "top_k": 1})
        >>> retriever.setup()
        >>> retriever.execute("Who sends packets?").passages[0].source
        'a.txt'
    """

    Config: ClassVar[type[BaseModel] | None] = _Config
    _base: KnowledgeBase | None = None

    @property
    def knowledge_base(self) -> KnowledgeBase:
        """What is searched; there from `setup` on."""
        if self._base is None:
            raise RetrievalError("HybridRetriever: the knowledge base is there from setup() on")
        return self._base

    def setup(self) -> None:
        """Read and index the documents."""
        if self.config.knowledge_base is not None:
            self._base = self.config.knowledge_base
            return
        job = "" if self._ctx is None else self._ctx.job
        directory: Path = self.config.documents.resolve()
        key = f"{job}|{directory}|{self.config.model_dump_json(include={'embedding', 'chunking'})}"
        with _SHARED_LOCK:
            base = _SHARED.get(key)
            if base is None:
                embedder = create_embedder(self.config.embedding)
                base = KnowledgeBase.from_directory(
                    self.config.documents, embedder=embedder, chunking=self.config.chunking
                )
                self._report(base)
                if not len(base):
                    raise RetrievalError(
                        f"HybridRetriever: none of the {len(base.skipped)} documents in {str(directory)!r}"
                        " could be"
                        f" read; the first one: {base.skipped[0].error}"
                    )
                _SHARED[key] = base
        # Checked for a shared base too: who shares it may have chosen otherwise.
        if self.config.on_unreadable == "fail" and base.skipped:
            raise RetrievalError(
                f"HybridRetriever: {len(base.skipped)} documents in {str(directory)!r} cannot be read (on_unreadable is"
                f" 'fail'): {'; '.join(str(bad.error) for bad in base.skipped)}"
            )
        self._base = base

    def teardown(self) -> None:
        """Let the knowledge base go."""
        self._base = None

    def execute(self, item: Any) -> RetrievedContext:
        """Return the question with its passages."""
        query, extra = question_of("HybridRetriever", item)
        weights = (self.config.weights.bm25, self.config.weights.vector)
        return RetrievedContext(
            query, tuple(self.knowledge_base.search(query, self.config.top_k, weights=weights)), extra
        )

    def _report(self, base: KnowledgeBase) -> None:
        if self._ctx is None or not base.skipped:
            return
        self.ctx.metrics.count("documents_skipped", len(base.skipped))
        for bad in base.skipped:
            self.ctx.logger.warning("skipped: %s", bad.error)
