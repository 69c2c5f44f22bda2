"""Cuts documents into chunks of whole sentences, with overlap."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, Field, model_validator

from sage.kernel.graph.contracts import Contract, IOSpec
from sage.kernel.operators import FlatMapFunction
from sage.libs.errors import DocumentError
from sage.libs.foundation.records import Chunk, Document

from .sentences import iterate_sentences

__all__ = ["ChunkingConfig", "SentenceChunker", "chunk_text"]

# One word: at most 32 characters and the white space behind it; a Chinese, Japanese or Korean character is a
# word. Stretches without white space and stretches of nothing else are thereby bounded too.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]\s{{0,32}}|[^\s{_CJK}]{{1,32}}\s{{0,32}}|\s{{1,32}}")


class ChunkingConfig(BaseModel, extra="forbid", frozen=True):
    """How documents are cut.

    Attributes:
        max_size: largest chunk, in `unit`.
        unit: "characters" (code points) or "words" (a word of more than 32 characters counts as several, a
            CJK character as one).
        overlap: how much of a chunk the next one repeats, in `overlap_unit`; as much of it as fits.
        overlap_unit: "sentences" or "characters".
    """

    max_size: int = Field(default=800, ge=1)
    unit: Literal["characters", "words"] = "characters"
    overlap: int = Field(default=1, ge=0)
    overlap_unit: Literal["sentences", "characters"] = "sentences"

    @model_validator(mode="after")
    def _room(self) -> ChunkingConfig:
        if self.overlap_unit == "characters" and self.unit == "characters" and self.overlap >= self.max_size:
            raise ValueError(f"overlap must be smaller than max_size ({self.max_size}), got {self.overlap}")
        if self.overlap_unit == "sentences" and self.overlap > 100:
            raise ValueError(
                f"overlap must be at most 100 sentences, got {self.overlap}; for characters set overlap_unit"
            )
        return self


# (start, end, size) of a sentence, or of a part of one that is longer than a chunk. Plain tuples: there are
# millions of them.
_Piece: TypeAlias = tuple[int, int, int]


def chunk_text(text: str, config: ChunkingConfig | None = None) -> Iterator[tuple[int, int]]:
    """Yield the spans `(start, end)` of the chunks of `text`, each character in at least one of them, in
    order.

    No chunk is larger than `max_size`. A sentence that is longer is cut, at white space if there is some in
    its second half. Time and memory are linear in the length of `text`.

    Example:
        >>> text = "One two. Three four. Five six."
        >>> [text[start:end] for start, end in chunk_text(text, ChunkingConfig(max_size=21))]
        ['One two. Three four. ', 'Three four. Five six.']
    """
    config = config or ChunkingConfig()
    limit = config.max_size
    # What the current chunk is made of; at first what it repeats of the one before.
    window: list[_Piece] = []
    size = 0
    for piece in _pieces(text, config):
        if window and size + piece[2] > limit:
            yield window[0][0], window[-1][1]
            window = _overlap(text, window, limit - piece[2], config)
            size = sum(kept[2] for kept in window)
        window.append(piece)
        size += piece[2]
    if window:
        yield window[0][0], window[-1][1]


def _overlap(text: str, window: list[_Piece], room: int, config: ChunkingConfig) -> list[_Piece]:
    """What the next chunk repeats of the pieces in `window`, at most `room` large; never all, or it would not
    move on.
    """
    wanted = config.overlap
    if not wanted or room <= 0:
        return []
    kept, length, size = len(window), 0, 0
    while kept > 1:
        start, end, extent = window[kept - 1]
        length += end - start
        size += extent
        many = len(window) - kept + 1 if config.overlap_unit == "sentences" else length
        if many > wanted or size > room:
            break
        kept -= 1
    if kept < len(window) or config.overlap_unit == "sentences":
        return window[kept:]
    # The last piece alone is longer than the overlap: repeat its tail, from the beginning of a word if there
    # is one.
    start, end, _ = window[-1]
    reach = min(wanted, room if config.unit == "characters" else wanted, end - start - 1)
    if reach <= 0:
        return []
    tail = end - reach
    blank = text.find(" ", tail, end)
    tail = blank + 1 if 0 <= blank < end - 1 else tail
    if text[tail:end].isspace():
        return []
    extent = _size(text, tail, end, config.unit)
    return [(tail, end, extent)] if extent <= room else []


def _size(text: str, start: int, end: int, unit: str) -> int:
    if unit == "characters" or start == end:
        return end - start
    return sum(1 for _ in _WORD.finditer(text, start, end))


def _pieces(text: str, config: ChunkingConfig) -> Iterator[_Piece]:
    limit = config.max_size
    # Parts of a long sentence leave room for what the next chunk repeats.
    step = limit - config.overlap if config.overlap_unit == config.unit else limit
    for start, end in iterate_sentences(text):
        if config.unit == "characters":
            while end - start > limit:
                blank = text.rfind(" ", start + step // 2, start + step)
                cut = blank + 1 if blank > start else start + step
                yield start, cut, cut - start
                start = cut
            yield start, end, end - start
            continue
        size = 0
        for word in _WORD.finditer(text, start, end):
            if size == limit:
                yield start, word.start(), size
                start, size = word.start(), 0
            size += 1
        yield start, end, size


class SentenceChunker(FlatMapFunction[Document | str, Chunk]):
    """Cuts a document into chunks of whole sentences, each `chunk.text ==
    document.text[chunk.start:chunk.end]`.

    A plain text gets an id made of its content. Config: `ChunkingConfig`.

    Raises:
        DocumentError: the document has no text.

    Example:
        >>> chunker = SentenceChunker({"max_size": 20, "overlap": 0})
        >>> for chunk in chunker.execute(Document("a.txt", "One two three. Four five. Six.")):
        ...     print(chunk.id, chunk.start, repr(chunk.text))
        a.txt#0 0 'One two three. '
        a.txt#1 15 'Four five. Six.'
    """

    Config: ClassVar[type[BaseModel] | None] = ChunkingConfig
    # A document of 64 MiB may have millions of sentences; the usual limit is for functions that never end.
    contract: ClassVar[Contract] = Contract(io=IOSpec(outputs_max=10_000_000))

    def execute(self, item: Document | str) -> Iterator[Chunk]:
        """Yield the chunks of `item`."""
        document = item if isinstance(item, Document) else _document_of(item)
        text, name, metadata = document.text, document.id, document.metadata
        if not text or text.isspace():
            raise DocumentError(f"document {name!r} has no text to cut into chunks")
        for index, (start, end) in enumerate(chunk_text(text, self.config)):
            yield Chunk(f"{name}#{index}", name, text[start:end], index, start, end, metadata)


def _document_of(item: Any) -> Document:
    if not isinstance(item, str):
        raise DocumentError(f"SentenceChunker takes a Document or a str, got {type(item).__name__}; map it first")
    return Document(f"text-{blake2b(item.encode('utf-8', 'surrogatepass'), digest_size=6).hexdigest()}", item)
