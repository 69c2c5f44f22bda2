"""Answers by quoting: picks the sentences of the passages that answer the question. No model, no network."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import partial

from sage.libs.retrieval import BM25Index
from sage.libs.text import split_sentences, tokenize
from sage.middleware.embeddings import HashingEmbedder
from sage.middleware.records import Passage

from .backends import BackendConfig, Generation, GenerationRequest

__all__ = ["NOTHING_FOUND", "ExtractiveBackend"]

NOTHING_FOUND = "No answer found in the passages."
_NOTE = "extractive: sentences quoted from the passages, nothing is generated"
_NOTE_NOTHING = "extractive: no sentence of the passages matches the question"
_MODEL = "extractive-sentences"

# Shares of the score; each part is between 0 and 1.
_COVERAGE, _RANKING, _SIMILARITY, _CUE, _PASSAGE = 0.4, 0.15, 0.1, 0.1, 0.1
# "What is X?" is answered by a sentence that begins with X.
_SUBJECT = 0.25
_ASKS_WHAT = re.compile(r"^\W*what(?: is|'s| are) (.+)$", re.IGNORECASE)
# Verbs of questions that say nothing about the matter; left out where other words remain.
_WEAK = frozenset(tokenize("work works happen happens mean means called", stemming=True))
# A sentence must have this share of the question's words, weighted by how rare they are in the passages.
_COVERAGE_MIN = 0.34
# Further sentences must be nearly as good as the best one.
_NEARLY = 0.85
_SENTENCES_MAX = 5000
_SENTENCE_CHARACTERS_MAX = 600
_WORDS_MIN = 3

_tokens = partial(tokenize, stemming=True, stopwords=False)
_TIME = (
    r"\b\d{4}\b|\b(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|before|after|while|once|since|until)\b"
)
_CUES: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = tuple(
    (re.compile(question, re.IGNORECASE), re.compile(answer))
    for question, answer in (
        (
            r"\bhow (many|much|long|old|far|large|big)\b",
            r"\d|\b(?:one|two|three|four|five|six|ten|hundred|thousand)\b",
        ),
        (r"^\W*(when|in what year|since when)\b", _TIME),
        (r"^\W*(who|whose|whom)\b", r"(?<!^)(?<![.!?] )\b[A-Z][a-z]+"),
        (r"^\W*where\b", r"\b(?:in|at|on|under|inside|near|below|above|directory|folder|file)\b"),
        (r"^\W*why\b", r"\b(?:because|since|so that|therefore|thus|reason|otherwise|in order to)\b"),
        (r"^\W*how\b", r"\b(?:by|with|using|use|call|run|set|pass|through|via|then)\b"),
        (r"^\W*what (is|are|does)\b", r"\b(?:is|are|means|refers to|does|gives|takes)\b"),
    )
)
_MARKUP = (
    (re.compile(r"!?\[([^\]]*)\]\([^)\s]*\)"), r"\1"),  # links and images: their text
    (re.compile(r"^\s*(?:#{1,6}\s+|[-*+•]\s+|\d{1,3}[.)]\s+|>\s?)"), ""),
    (re.compile(r"\*\*|__|`"), ""),
    (re.compile(r"\s+"), " "),
)
_NO_SENTENCE = re.compile(r"^\s*(?:#{1,6}\s|```|~~~|\|.*\|\s*$|[-=|: ]+$)")


@dataclass(frozen=True, slots=True)
class _Candidate:
    text: str
    passage: int  # 0-based
    place: int


class ExtractiveBackend:
    """Quotes the sentences that answer best, each with the number of its passage.

    A sentence is scored by the share of the question's words that it has (weighted by idf), by BM25 among all
    sentences, by the similarity of its hashed vector, by what the kind of question lets one expect (a number
    after "how many"), and by the rank of its passage. A sentence with too few of the question's words is no
    answer: then the text says that none was found.

    Example:
        >>> import asyncio
        >>> text = "SAGE is a framework. It was made in 2024."
        >>> passages = (Passage("a#0", text), Passage("b#0", "Cats sleep a lot."))
        >>> ask = ExtractiveBackend().generate
        >>> asyncio.run(ask(GenerationRequest("What is SAGE?", "", passages))).text
        'SAGE is a framework. [1]'
        >>> asyncio.run(ask(GenerationRequest("Who won the cup?", "", passages))).text
        'No answer found in the passages.'
    """

    name = "extractive"

    def __init__(self, config: BackendConfig | None = None) -> None:
        self._max_sentences = (config or BackendConfig()).max_sentences
        self._embedder = HashingEmbedder(256)

    async def generate(self, request: GenerationRequest) -> Generation:
        """Answer `request` from its passages; the prompt is not used."""
        candidates = _candidates(request.passages)
        chosen = self._choose(request.query, candidates, len(request.passages)) if candidates else []
        if not chosen:
            return Generation(NOTHING_FOUND, _MODEL, (), {}, _NOTE_NOTHING)
        # In reading order within each passage, the better passage first.
        chosen.sort(key=lambda candidate: (candidate.passage, candidate.place))
        text = " ".join(f"{candidate.text} [{candidate.passage + 1}]" for candidate in chosen)
        citations = tuple(dict.fromkeys(candidate.passage + 1 for candidate in chosen))
        return Generation(text, _MODEL, citations, {}, _NOTE)

    def close(self) -> None:
        """Nothing is held."""

    def _choose(self, query: str, candidates: list[_Candidate], passages: int) -> list[_Candidate]:
        words = Counter(_tokens(query))
        for weak in _WEAK & words.keys() if words.keys() - _WEAK else ():
            del words[weak]
        asked = _ASKS_WHAT.match(query)
        subject = _tokens(asked[1]) if asked else []
        index = BM25Index(tokenizer=_tokens)
        for number, candidate in enumerate(candidates):
            index.add(str(number), candidate.text)
        weight = {word: index.idf(word) for word in words}
        total = sum(weight.values())
        hits = {int(hit.id): hit.score for hit in index.search(query, k=len(candidates))}
        if not total or not hits:
            return []
        best_hit = max(hits.values())
        near = self._embedder.embed([query, *(candidates[number].text for number in hits)])
        similarity = dict(zip(hits, (near[1:] @ near[0]).tolist(), strict=True))
        cue = next((answer for question, answer in _CUES if question.search(query)), None)
        scored: list[tuple[float, int]] = []
        for number, hit in hits.items():
            candidate = candidates[number]
            tokens = _tokens(candidate.text)
            has = set(tokens)
            coverage = sum(value for word, value in weight.items() if word in has) / total
            if coverage < _COVERAGE_MIN:
                continue
            score = (
                _COVERAGE * coverage
                + _RANKING * hit / best_hit
                + _SIMILARITY * max(0.0, similarity[number])
                + _CUE * (cue is not None and cue.search(candidate.text) is not None)
                + _PASSAGE * (1 - candidate.passage / passages)
                + _SUBJECT * (bool(subject) and tokens[: len(subject)] == subject)
            )
            scored.append((score, number))
        scored.sort(key=lambda entry: (-entry[0], entry[1]))
        return [
            candidates[number] for score, number in scored[: self._max_sentences] if score >= _NEARLY * scored[0][0]
        ]


def _candidates(passages: tuple[Passage, ...]) -> list[_Candidate]:
    found: list[_Candidate] = []
    seen: set[str] = set()
    for number, passage in enumerate(passages):
        for place, (start, end) in enumerate(split_sentences(passage.text)):
            raw = passage.text[start:end]
            if end - start > _SENTENCE_CHARACTERS_MAX or _NO_SENTENCE.match(raw):
                continue
            for pattern, replacement in _MARKUP:
                raw = pattern.sub(replacement, raw)
            text = raw.strip()
            # Chunks overlap: the same sentence stands in two passages. A question is not an answer to one.
            if text in seen or text.endswith("?") or len(tokenize(text)) < _WORDS_MIN:
                continue
            seen.add(text)
            found.append(_Candidate(text, number, place))
            if len(found) >= _SENTENCES_MAX:
                return found
    return found
