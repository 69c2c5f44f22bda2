"""What travels through a retrieval pipeline: question, passages, prompt, answer. All have a JSON form."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sage.common.errors import InvalidArgumentError

__all__ = ["Answer", "Passage", "PromptedQuery", "RetrievedContext", "passages_of", "question_of"]

_WIDTH = 100
_MATCH_CHARACTERS = 32
_SNIPPET_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of text that was found for a question.

    Attributes:
        id: id of the chunk.
        text: the stretch.
        score: of the retriever, higher is better; comparable only within one answer.
        source: where it stands, for a reader: the document's path or name.
        document_id: id of the document.
        metadata: JSON values (title, format, scores of the parts).

    Example:
        >>> Passage("a.txt#0", "Hello.", 0.5, "a.txt").source
        'a.txt'
    """

    id: str
    text: str
    score: float = 0.0
    source: str = ""
    document_id: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RetrievedContext:
    """A question and the passages found for it, best first.

    Example:
        >>> RetrievedContext("Why?", (Passage("a#0", "Because."),)).passages[0].text
        'Because.'
    """

    query: str
    passages: tuple[Passage, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PromptedQuery:
    """A question, the passages that are in the prompt (number `n` there is `passages[n - 1]`), and the
    prompt.

    Example:
        >>> PromptedQuery("Why?", "Q: Why?").passages
        ()
    """

    query: str
    prompt: str
    passages: tuple[Passage, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and what it rests on; `str(answer)` is its form for a terminal.

    Attributes:
        query: the question.
        text: the answer.
        backend: who answered: "extractive", "openai", ...
        model: the model's name.
        passages: what was in the prompt; number `n` is `passages[n - 1]`.
        citations: 1-based numbers of the passages that the text rests on: those that it cites, or all when a
            model cites none.
        usage: tokens: "prompt_tokens", "completion_tokens", "total_tokens", where the backend says them.
        note: what a reader must know about how the answer came about; "" where there is nothing to say.
        metadata: what came along with the question.

    Example:
        >>> found = Passage("a.md#0", "SAGE is a framework.", 0.5, "a.md")
        >>> text = "SAGE is a framework. [1]"
        >>> print(Answer("What is SAGE?", text, "extractive", "sentences", (found,), (1,)))
        Q: What is SAGE?
        A: SAGE is a framework. [1]
           [1] a.md: SAGE is a framework.
    """

    query: str
    text: str
    backend: str
    model: str
    passages: tuple[Passage, ...] = ()
    citations: tuple[int, ...] = ()
    usage: dict[str, int] = field(default_factory=dict)
    note: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [_indented("Q: ", self.query), _indented("A: ", self.text)]
        if self.note:
            lines.append(_indented("   ", f"({self.note})"))
        for number in self.citations:
            if 1 <= number <= len(self.passages):
                passage = self.passages[number - 1]
                snippet = _snippet(passage.text, _quoted(self.text, number))
                lines.append(_indented(f"   [{number}] ", f"{passage.source or passage.id}: {snippet}"))
        return "\n".join(lines) + "\n"


def _quoted(answer: str, number: int) -> str:
    """The words that stand before the first `[number]` in an answer, back to the mark or line before it."""
    before, mark, _ = answer.partition(f"[{number}]")
    return re.split(r"\[\d+\]|\n", before)[-1].strip() if mark else ""


def _snippet(text: str, quoted: str) -> str:
    """The part of a passage that an answer rests on: from the quoted words on, else its beginning."""
    plain = " ".join(re.sub(r"[`*#|>]+", " ", text).split())
    words = " ".join(re.sub(r"[`*#|>]+", " ", quoted).split())
    start = plain.find(words[:_MATCH_CHARACTERS]) if words else -1
    if start > 0:
        return "… " + textwrap.shorten(plain[start:], _SNIPPET_CHARACTERS - 2, placeholder=" …")
    return textwrap.shorten(plain, _SNIPPET_CHARACTERS, placeholder=" …")


def _indented(first: str, text: str) -> str:
    """`text` wrapped behind `first`; its own line breaks stay."""
    out: list[str] = []
    for line in text.split("\n"):
        lead = first if not out else " " * len(first)
        out += textwrap.wrap(
            line, _WIDTH, initial_indent=lead, subsequent_indent=" " * len(first), break_on_hyphens=False
        ) or [lead.rstrip()]
    return "\n".join(out)


def question_of(owner: str, item: Any) -> tuple[str, dict[str, Any]]:
    """Return `(question, what came along)` of an item: a string, a mapping with `query` or `question`, or a
    record.

    Raises:
        InvalidArgumentError: there is no question in it, or it is empty.

    Example:
        >>> question_of("Retriever", {"question": "Why?", "id": 7})
        ('Why?', {'id': 7})
    """
    extra: dict[str, Any] = {}
    if isinstance(item, Mapping):
        key = next((name for name in ("query", "question") if name in item), None)
        if key is None:
            raise InvalidArgumentError(
                f"{owner}: item must have the key 'query' or 'question', got the keys {sorted(map(str, item))!r}"
            )
        question = item[key]
        extra = {str(name): value for name, value in item.items() if name != key}
    elif isinstance(item, RetrievedContext | PromptedQuery | Answer):
        question, extra = item.query, dict(item.metadata)
    else:
        question = item
    if not isinstance(question, str):
        raise InvalidArgumentError(f"{owner}: a question must be a string, got {question!r}")
    question = question.strip()
    if not question:
        raise InvalidArgumentError(f"{owner}: the question is empty")
    return question, extra


def passages_of(owner: str, item: Any) -> tuple[Passage, ...]:
    """Return the passages that an item brings along; a mapping may have them as `passages` (mappings or
    strings).

    Raises:
        InvalidArgumentError: `passages` is something else.

    Example:
        >>> passages_of("QAPromptor", {"query": "Why?", "passages": ["Because."]})[0].text
        'Because.'
    """
    if isinstance(item, RetrievedContext | PromptedQuery | Answer):
        return item.passages
    if not isinstance(item, Mapping) or "passages" not in item:
        return ()
    given = item["passages"]
    if not isinstance(given, list | tuple):
        raise InvalidArgumentError(f"{owner}: passages must be a list, got {type(given).__name__}")
    found: list[Passage] = []
    for number, part in enumerate(given, start=1):
        if isinstance(part, Passage):
            found.append(part)
        elif isinstance(part, str):
            found.append(Passage(str(number), part))
        else:
            try:
                found.append(msgspec.convert(part, Passage))
            except msgspec.ValidationError as error:
                raise InvalidArgumentError(f"{owner}: passage {number} is no passage: {error}") from error
    return tuple(found)
