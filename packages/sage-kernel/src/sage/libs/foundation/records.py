"""Records that travel between sources, chunkers and retrievers, and their JSON form."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any

import msgspec
import numpy as np
from pydantic import BaseModel

__all__ = ["Chunk", "Document", "encode_json"]


@dataclass(frozen=True, slots=True)
class Document:
    """A text and what is known about it.

    Attributes:
        id: name of the document, unique in its collection (for a directory: the path below it).
        text: the whole text, without markup where the format was HTML.
        metadata: JSON values; a directory sets `path`, `title`, `format` and `bytes`.

    Example:
        >>> Document("a.txt", "Hello.").text
        'Hello.'
    """

    id: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of a document: `text == document.text[start:end]`.

    Attributes:
        id: `<document id>#<index>`.
        document_id: id of the document.
        text: the stretch.
        index: 0-based number of the chunk in its document.
        start: first character, counted in code points.
        end: one behind the last character.
        metadata: the document's metadata (the same dict, not a copy).

    Example:
        >>> Chunk("a#0", "a", "Hello.", 0, 0, 6).id
        'a#0'
    """

    id: str
    document_id: str
    text: str
    index: int
    start: int
    end: int
    metadata: dict[str, Any] = field(default_factory=dict)


def encode_json(value: Any) -> bytes:
    """Return `value` as one line of JSON; dataclasses, numpy, pydantic and path values are known besides
    JSON's own.

    Raises:
        TypeError: a value inside has no JSON form; the message names its type.

    Example:
        >>> encode_json({"document": Document("a", "Hi"), "vector": np.array([0.5], dtype=np.float32)})
        b'{"document":{"id":"a","text":"Hi","metadata":{}},"vector":[0.5]}'
    """
    return msgspec.json.encode(value, enc_hook=_json_form)


def _json_form(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, PathLike):
        return fspath(value)
    raise TypeError(f"a value of type {type(value).__module__}.{type(value).__qualname__} has no JSON form")
