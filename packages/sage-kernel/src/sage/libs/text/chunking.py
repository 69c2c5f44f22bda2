"""Cuts documents into chunks of whole sentences, with overlap."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, Field, model_validator

from sage.kernel.graph.contracts import Contract, IOSpec
from sage.kernel.operators import FlatMapFunction
from sage.libs.errors import DocumentError
from sage.libs.foundation.records import Chunk, Document

from .sentences import split_sentences

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


class _Piece(NamedTuple):
    """A sentence, or a part of one that is longer than a chunk."""

    start: int
    end: int
    size: int


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
    pieces = list(_pieces(text, config))
    first, behind = 0, 0
    start = 0
    count = len(pieces)
    while behind < count:
        # pieces[first:behind] (or a tail of pieces[behind - 1], from `start` on) repeat what the chunk before
        # had.
        size = _size(text, start, pieces[behind].start, config.unit)
        while behind < count and size + pieces[behind].size <= config.max_size:
            size += pieces[behind].size
            behind += 1
        yield start, pieces[behind - 1].end
        if behind < count:
            first, start = _overlap(text, pieces, first, behind, config)


def _overlap(
    text: str, pieces: list[_Piece], first: int, behind: int, config: ChunkingConfig
) -> tuple[int, int]:
    """Where the next chunk starts: the first piece that it repeats, and its first character."""
    room = config.max_size - pieces[behind].size
    edge = pieces[behind].start
    wanted = config.overlap
    if not wanted or room <= 0:
        return behind, edge
    repeated, length, size = behind, 0, 0
    # At least one piece must be left behind, or the chunks would not move on.
    while repeated - 1 > first:
        piece = pieces[repeated - 1]
        length += piece.end - piece.start
        size += piece.size
        many = behind - repeated + 1 if config.overlap_unit == "sentences" else length
        if many > wanted or size > room:
            break
        repeated -= 1
    if repeated < behind or config.overlap_unit == "sentences":
        return repeated, pieces[repeated].start
    # The last sentence alone is longer than the overlap: repeat its tail, from the beginning of a word if
    # there is one.
    last = pieces[behind - 1]
    reach = min(wanted, room if config.unit == "characters" else wanted, last.end - last.start - 1)
    tail = edge - reach
    blank = text.find(" ", tail, edge)
    tail = blank + 1 if 0 <= blank < edge - 1 else tail
    if reach <= 0 or _size(text, tail, edge, config.unit) > room:
        return behind, edge
    return behind - 1, tail


def _size(text: str, start: int, end: int, unit: str) -> int:
    if unit == "characters" or start == end:
        return end - start
    return sum(1 for _ in _WORD.finditer(text, start, end))


def _pieces(text: str, config: ChunkingConfig) -> Iterator[_Piece]:
    limit = config.max_size
    for start, end in split_sentences(text):
        if config.unit == "characters":
            while end - start > limit:
                blank = text.rfind(" ", start + limit // 2, start + limit)
                cut = blank + 1 if blank > start else start + limit
                yield _Piece(start, cut, cut - start)
                start = cut
            yield _Piece(start, end, end - start)
            continue
        size = 0
        for word in _WORD.finditer(text, start, end):
            if size == limit:
                yield _Piece(start, word.start(), size)
                start, size = word.start(), 0
            size += 1
        yield _Piece(start, end, size)


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
        raise DocumentError(
            f"SentenceChunker takes a Document or a str, got {type(item).__name__}; map it first"
        )
    return Document(f"text-{blake2b(item.encode('utf-8', 'surrogatepass'), digest_size=6).hexdigest()}", item)
