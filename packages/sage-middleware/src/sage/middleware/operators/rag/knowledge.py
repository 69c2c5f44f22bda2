"""Documents that are searched by words (BM25) and by vectors at once."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sage.common.errors import InvalidArgumentError
from sage.kernel.operators import BadRecord
from sage.libs.errors import RecordError
from sage.libs.foundation.io import DirectorySource
from sage.libs.foundation.records import Chunk, Document
from sage.libs.retrieval import BM25Index, reciprocal_rank_fusion
from sage.libs.text import SentenceChunker, tokenize
from sage.libs.text.chunking import ChunkingConfig
from sage.middleware.embeddings import Embedder, create_embedder
from sage.middleware.records import Passage
from sage.middleware.stores import ExactVectorStore, VectorStore

__all__ = ["KnowledgeBase"]

_BATCH = 256
_CANDIDATES_MIN = 30
_CANDIDATES_PER_HIT = 5


class KnowledgeBase:
    """Chunks of documents in a BM25 index and in a vector store, searched together by reciprocal rank fusion.

    Documents can be added, replaced and removed by several threads while others search: a search sees a document
    before or after a change, never in between.

    Args:
        embedder: from text to vectors; the hashing embedder by default.
        store: where the vectors are; must be empty. An exact store by default.
        chunking: how documents are cut.

    Attributes:
        skipped: documents that could not be read or had no text, each with its error.

    Raises:
        InvalidArgumentError: the store is not empty, or its dimension is not the embedder's.

    Example:
        >>> base = KnowledgeBase()
        >>> base.add([Document("a.txt", "The router sends packets."), Document("b.txt", "A cat sleeps.")])
        2
        >>> base.search("Who sends packets?", k=1)[0].document_id
        'a.txt'
        >>> base.remove("a.txt"), len(base)
        (1, 1)
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        store: VectorStore | None = None,
        chunking: ChunkingConfig | None = None,
    ) -> None:
        self.embedder: Embedder = create_embedder() if embedder is None else embedder
        self._store: VectorStore = ExactVectorStore(self.embedder.dimension) if store is None else store
        if self._store.dimension != self.embedder.dimension:
            raise InvalidArgumentError(
                f"the store holds vectors of {self._store.dimension} numbers, the embedder"
                f" {self.embedder.name!r} makes {self.embedder.dimension}"
            )
        if len(self._store):
            raise InvalidArgumentError(
                f"the store must be empty, it has {len(self._store)} vectors whose texts are not known"
            )
        self.skipped: list[BadRecord] = []
        self._words = BM25Index(tokenizer=partial(tokenize, stemming=True, stopwords=False))
        self._chunker = SentenceChunker(chunking or ChunkingConfig())
        self._chunks: dict[str, Chunk] = {}
        self._chunks_of: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        self._changes = 0

    @classmethod
    def from_directory(cls, path: str | Path, **options: Any) -> KnowledgeBase:
        """Read all documents of a directory; `options` as for the class. What cannot be read is in `skipped`.

        Raises:
            SourceError: no such directory, or no documents in it.
        """
        base = cls(**options)
        source = DirectorySource({"path": path})
        source.setup()
        base.add(source.execute())
        return base

    def __len__(self) -> int:
        """Number of chunks."""
        return len(self._chunks)

    @property
    def documents(self) -> list[str]:
        """Ids of the documents, in order of addition."""
        with self._lock:
            return list(self._chunks_of)

    def add(self, documents: Iterable[Document | BadRecord]) -> int:
        """Add documents, replacing those whose id is known; returns the number of chunks. Bad ones go to
        `skipped`.
        """
        added = 0
        waiting: dict[str, list[Chunk]] = {}
        many = 0
        for document in documents:
            if isinstance(document, BadRecord):
                self.skipped.append(document)
                continue
            try:
                chunks = list(self._chunker.execute(document))
            except RecordError as error:
                self.skipped.append(BadRecord({"id": document.id}, error))
                continue
            # The same id again in this call: the later one counts, at the later place.
            many += len(chunks) - len(waiting.pop(document.id, ()))
            waiting[document.id] = chunks
            added += len(chunks)
            if many >= _BATCH:
                self._put(waiting)
                waiting, many = {}, 0
        self._put(waiting)
        return added

    def remove(self, document_id: str) -> int:
        """Remove a document; returns how many chunks it had, 0 for an unknown one."""
        with self._lock:
            self._changes += 1
            return self._drop(document_id)

    def search(self, query: str, k: int = 5, *, weights: tuple[float, float] = (1.0, 1.0)) -> list[Passage]:
        """The best `k` chunks for `query`, best first.

        Args:
            query: a question or some words.
            k: at most this many, >= 1.
            weights: of the words' ranking and of the vectors' ranking.

        Raises:
            InvalidArgumentError: `k` below 1, or weights that are negative or both 0.
        """
        if k < 1:
            raise InvalidArgumentError(f"k must be >= 1, got {k!r}")
        if not any(weights):
            raise InvalidArgumentError(f"one of the weights must be above 0, got {weights!r}")
        vector = self.embedder.embed([query])[0]
        many = max(_CANDIDATES_MIN, _CANDIDATES_PER_HIT * k)
        with self._lock:
            changes = self._changes
        # Outside of the lock: the store has its own and lets searches overlap.
        near = self._store.search(vector, many)
        with self._lock:
            if changes != self._changes:
                # What was found may be from the middle of a change; nobody changes anything now.
                near = self._store.search(vector, many)
            words = {hit.id: hit.score for hit in self._words.search(query, many)}
            vectors = {str(hit.id): hit.score for hit in near if hit.id in self._chunks}
            fused = reciprocal_rank_fusion([list(words), list(vectors)], weights=weights)[:k]
            found = [(self._chunks[chunk_id], score) for chunk_id, score in fused]
        passages: list[Passage] = []
        for chunk, score in found:
            parts = {"bm25": words.get(chunk.id), "vector": vectors.get(chunk.id)}
            known: dict[str, Any] = {
                name: chunk.metadata[name] for name in ("title", "format") if name in chunk.metadata
            }
            source = str(chunk.metadata.get("path") or chunk.document_id)
            where = {"start": chunk.start, "end": chunk.end, "scores": parts}
            passages.append(Passage(chunk.id, chunk.text.strip(), score, source, chunk.document_id, {**known, **where}))
        return passages

    def _put(self, documents: dict[str, list[Chunk]]) -> None:
        """Replace or add documents: all of them at once for whoever searches."""
        chunks = [chunk for each in documents.values() for chunk in each]
        if not chunks:
            return
        # Title and text together: a chunk in the middle of a page seldom repeats what the page is about.
        texts = [f"{chunk.metadata.get('title') or ''}\n{chunk.text}" for chunk in chunks]
        # All that is slow or may fail comes before the first removal.
        vectors = np.asarray(self.embedder.embed(texts), dtype=np.float32)
        if vectors.shape != (len(texts), self.embedder.dimension) or not np.isfinite(vectors).all():
            raise InvalidArgumentError(
                f"the embedder {self.embedder.name!r} must give {len(texts)} x {self.embedder.dimension} finite"
                f" numbers, got {vectors.shape}{'' if np.isfinite(vectors).all() else ' with others among them'}"
            )
        with self._lock:
            self._changes += 1
            for document_id in documents:
                self._drop(document_id)
            self._store.add([chunk.id for chunk in chunks], vectors)
            for chunk, text in zip(chunks, texts, strict=True):
                self._words.add(chunk.id, text)
                self._chunks[chunk.id] = chunk
                self._chunks_of.setdefault(chunk.document_id, []).append(chunk.id)

    def _drop(self, document_id: str) -> int:
        """Remove a document; the caller holds the lock."""
        ids = self._chunks_of.pop(document_id, [])
        for chunk_id in ids:
            del self._chunks[chunk_id]
            self._words.remove(chunk_id)
        if ids:
            self._store.remove(ids)
        return len(ids)
