"""A BM25 index that can be updated."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from sage.common.errors import InvalidArgumentError
from sage.libs.text.tokens import tokenize

__all__ = ["BM25Hit", "BM25Index"]

_STATE_VERSION = 1


class BM25Hit(NamedTuple):
    """A document that was found.

    Example:
        >>> BM25Hit("a", 1.5).id
        'a'
    """

    id: str
    score: float


class BM25Index:
    """Full-text index with BM25 scores; documents can be added, replaced and removed at any time.

    The score of a document is the sum over the query's tokens of

        idf * tf / (tf + k1 * (1 - b + b * length / mean length)),   idf = ln(1 + (N - df + 0.5) / (df + 0.5))

    which is Lucene's form of Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond"
    (2009): idf is never negative, and the constant factor k1 + 1 is left out. A token that is twice in the
    query counts twice. All statistics are integers that are kept up to date, so an index after any updates
    gives the very scores of one that is built afresh.

    Not safe for updates from several threads; searches may overlap one another.

    Args:
        k1: how slowly repetition saturates, >= 0.
        b: how much length counts, 0 to 1.
        tokenizer: from text to tokens; the same one for documents and queries.

    Example:
        >>> index = BM25Index()
        >>> index.add("a", "the quick brown fox")
        >>> index.add("b", "the lazy dog")
        >>> [hit.id for hit in index.search("quick dog fox", k=5)]
        ['a', 'b']
        >>> index.remove("a"), len(index), index.search("fox")
        (True, 1, [])
    """

    def __init__(self, *, k1: float = 1.2, b: float = 0.75, tokenizer: Callable[[str], list[str]] = tokenize) -> None:
        if not (math.isfinite(k1) and k1 >= 0):
            raise InvalidArgumentError(f"k1 must be finite and >= 0, got {k1!r}")
        if not 0 <= b <= 1:
            raise InvalidArgumentError(f"b must be between 0 and 1, got {b!r}")
        self.k1 = k1
        self.b = b
        self._tokenizer = tokenizer
        self._postings: dict[str, dict[str, int]] = {}
        self._terms: dict[str, dict[str, int]] = {}
        self._lengths: dict[str, int] = {}
        self._total_length = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def __contains__(self, document_id: object) -> bool:
        return document_id in self._lengths

    def add(self, document_id: str, text: str) -> None:
        """Add a document.

        Raises:
            InvalidArgumentError: the id is taken (`upsert` replaces), or not a string.
        """
        if document_id in self._lengths:
            raise InvalidArgumentError(f"document id {document_id!r} is in the index already; use upsert to replace it")
        if not isinstance(document_id, str):
            raise InvalidArgumentError(f"document id must be a string, got {document_id!r}")
        self._insert(document_id, dict(Counter(self._tokenizer(text))))

    def upsert(self, document_id: str, text: str) -> None:
        """Add a document, or replace the one with this id."""
        self.remove(document_id)
        self.add(document_id, text)

    def remove(self, document_id: str) -> bool:
        """Remove a document; whether it was there."""
        length = self._lengths.pop(document_id, None)
        if length is None:
            return False
        self._total_length -= length
        for term in self._terms.pop(document_id):
            posting = self._postings[term]
            del posting[document_id]
            if not posting:
                del self._postings[term]
        return True

    def search(self, query: str, k: int = 10) -> list[BM25Hit]:
        """The best `k` documents that share a token with `query`, best first; equal scores in order of their
        ids.

        Raises:
            InvalidArgumentError: `k` is below 1.
        """
        if k < 1:
            raise InvalidArgumentError(f"k must be >= 1, got {k!r}")
        scores: dict[str, float] = {}
        # One order of summation for each wording of the query, so that equal documents get equal scores to
        # the last bit.
        for term, weight in sorted(Counter(self._tokenizer(query)).items()):
            self._add_scores(term, weight, scores)
        best = heapq.nsmallest(k, scores.items(), key=lambda entry: (-entry[1], entry[0]))
        return [BM25Hit(document_id, score) for document_id, score in best]

    def idf(self, term: str) -> float:
        """Weight of a token: ln(1 + (N - df + 0.5) / (df + 0.5)), above 0."""
        found = len(self._postings.get(term, ()))
        return math.log1p((len(self._lengths) - found + 0.5) / (found + 0.5))

    def get_state(self) -> dict[str, Any]:
        """The index as a JSON value, without the tokenizer."""
        return {
            "version": _STATE_VERSION,
            "k1": self.k1,
            "b": self.b,
            "documents": {name: dict(terms) for name, terms in self._terms.items()},
        }

    def restore_state(self, state: dict[str, Any]) -> None:
        """Replace the index by what `get_state` returned.

        Raises:
            InvalidArgumentError: `state` is something else.
        """
        match state:
            case {
                "version": 1,
                "k1": float() | int() as k1,
                "b": float() | int() as b,
                "documents": dict() as documents,
            }:
                pass
            case _:
                raise InvalidArgumentError(f"state is not one of BM25Index, version {_STATE_VERSION}")
        fresh = BM25Index(k1=k1, b=b, tokenizer=self._tokenizer)
        for name, terms in documents.items():
            fresh._insert(str(name), {str(term): int(count) for term, count in terms.items()})
        # Swapped at the end: a state that turns out to be broken leaves the index as it was.
        self.k1, self.b = k1, b
        self._postings, self._terms = fresh._postings, fresh._terms
        self._lengths, self._total_length = fresh._lengths, fresh._total_length

    def add_many(self, documents: Iterable[tuple[str, str]]) -> None:
        """Add `(id, text)` pairs."""
        for document_id, text in documents:
            self.add(document_id, text)

    def _insert(self, document_id: str, counts: dict[str, int]) -> None:
        length = sum(counts.values())
        self._terms[document_id] = counts
        self._lengths[document_id] = length
        self._total_length += length
        for term, count in counts.items():
            self._postings.setdefault(term, {})[document_id] = count

    def _add_scores(self, term: str, weight: int, scores: dict[str, float]) -> None:
        posting = self._postings.get(term)
        if not posting:
            return
        idf = weight * self.idf(term)
        mean = self._total_length / len(self._lengths)
        flat = self.k1 * (1.0 - self.b)
        slope = self.k1 * self.b / mean
        lengths = self._lengths
        for document_id, count in posting.items():
            gain = idf * count / (count + flat + slope * lengths[document_id])
            scores[document_id] = scores.get(document_id, 0.0) + gain
