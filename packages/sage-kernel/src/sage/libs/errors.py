"""Errors of `sage.libs`.

Hierarchy::

    SageError
    ├── SourceError      a source cannot start or go on (missing file, changed file, no permission)
    ├── RecordError      one record of a source cannot be read; becomes a dead letter
    │   └── DocumentError    a document is empty, binary or not in the declared encoding
    ├── FieldError       an item has no such field
    └── SinkError        a sink cannot open or write its output (disk full, closed pipe, value without a text
    form)
"""

from __future__ import annotations

from sage.common.errors import SageError

__all__ = ["DocumentError", "FieldError", "RecordError", "SinkError", "SourceError"]


class SourceError(SageError):
    """A source cannot start or go on; the message names the path and the likely mistake.

    Example:
        >>> issubclass(SourceError, SageError)
        True
    """


class RecordError(SageError):
    """One record of a source cannot be read; the source sets it aside and goes on.

    Example:
        >>> issubclass(DocumentError, RecordError)
        True
    """


class DocumentError(RecordError):
    """A document has no usable text: empty, binary, or not in the declared encoding.

    Example:
        >>> raise DocumentError("document 'a.txt' is empty")
        Traceback (most recent call last):
        ...
        sage.libs.errors.DocumentError: document 'a.txt' is empty
    """


class FieldError(SageError):
    """An item has no such field; the message says what it has instead.

    Example:
        >>> issubclass(FieldError, SageError)
        True
    """


class SinkError(SageError):
    """A sink cannot open or write its output; the item that it was given has not been written.

    Example:
        >>> issubclass(SinkError, SageError)
        True
    """
