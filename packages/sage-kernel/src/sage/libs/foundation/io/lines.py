"""Sources that read a file line by line: text and JSON Lines."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
from pydantic import BaseModel, Field, field_validator

from sage.common.errors import SizeLimitError
from sage.kernel.operators import BadRecord
from sage.libs.errors import RecordError, SourceError

from .paths import require_file
from .positions import PositionedSource

__all__ = [
    "LINE_BYTES_MAX",
    "FileSource",
    "JSONLSource",
    "LineFileConfig",
    "preview",
    "seek_to",
    "single_byte_newline",
]

LINE_BYTES_MAX = 64 * 1024 * 1024
_BUFFER_BYTES = 1024 * 1024
_PREVIEW_CHARACTERS = 200


def preview(raw: bytes) -> str:
    """The beginning of a bad record, fit for a dead letter.

    Example:
        >>> preview(b"caf\\xe9")
        'caf\\\\xe9'
    """
    text = raw[: 4 * _PREVIEW_CHARACTERS].decode("utf-8", "backslashreplace")[:_PREVIEW_CHARACTERS]
    return text if len(raw) <= len(text.encode("utf-8", "replace")) else text + "…"


def single_byte_newline(encoding: str) -> str:
    """Check that lines of `encoding` can be found by the byte 0x0A.

    Raises:
        ValueError: an unknown encoding, or one such as UTF-16 where they cannot.

    Example:
        >>> single_byte_newline("UTF-8")
        'utf-8'
    """
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise ValueError(f"unknown encoding {encoding!r}; a usual one is 'utf-8'") from None
    if name == "utf-8-sig":
        return "utf-8"  # a byte order mark at the beginning of the file is skipped in any case
    try:
        usable = "a\n".encode(name) == b"a\n"
    except (LookupError, UnicodeError, TypeError):
        usable = False
    if not usable:
        raise ValueError(f"encoding {encoding!r} cannot be read by lines; convert the file to UTF-8 first")
    return name


def seek_to(owner: str, file: BufferedReader, path: Path, where: Any) -> int:
    """Go to byte `where` (None: the beginning) and return it; a UTF-8 byte order mark is skipped.

    Raises:
        SourceError: the file is shorter than that, so it is not the file of the earlier run.
    """
    size = file.seek(0, 2)
    if where is None:
        file.seek(0)
        start = 3 if file.read(3) == codecs.BOM_UTF8 else 0
        return file.seek(start)
    if not isinstance(where, int) or not 0 <= where <= size:
        raise SourceError(
            f"{owner}: offset {where!r} is not within {str(path)!r} ({size} bytes); was the file replaced since?"
        )
    return file.seek(where)


class LineFileConfig(BaseModel, extra="forbid"):
    """Configuration of sources that read a file by lines.

    Attributes:
        file_path: the file.
        encoding: one in which a newline is the byte 0x0A: UTF-8, Latin-1, GBK...
        errors: what to do with bytes that are not in the encoding: set the line aside, or put U+FFFD in their
            place.
        skip_blank: leave out lines without any character but white space.
        max_line_bytes: a longer line is set aside; the source never holds more than this.
    """

    file_path: Path
    encoding: str = "utf-8"
    errors: Literal["dead_letter", "replace"] = "dead_letter"
    skip_blank: bool = True
    max_line_bytes: int = Field(default=LINE_BYTES_MAX, ge=1)

    _encoding = field_validator("encoding")(single_byte_newline)


class _LineSource(PositionedSource[Any]):
    """Reads lines as bytes; subclasses say what a line means."""

    Config: ClassVar[type[BaseModel] | None] = LineFileConfig
    blocking: ClassVar[bool] = False

    def setup(self) -> None:
        """Check the file, so that a wrong path ends the job before anything runs."""
        require_file(type(self).__name__, self.config.file_path)

    def decode(self, line: bytes) -> Any:
        """Return the record that `line` (without its newline) holds, or raise RecordError."""
        raise NotImplementedError

    def scan(self, where: Any, number: int) -> Iterator[tuple[Any, list[Any]]]:
        """Yield `(record, [byte, line number])`."""
        owner, path, limit = type(self).__name__, self.config.file_path, self.config.max_line_bytes
        skip_blank, decode = self.config.skip_blank, self.decode
        require_file(owner, path)
        with path.open("rb", buffering=_BUFFER_BYTES) as file:
            place = seek_to(owner, file, path, where)
            while line := file.readline(limit + 2):
                start = place
                place += len(line)
                number += 1
                body = line.removesuffix(b"\n").removesuffix(b"\r")
                if len(body) > limit:
                    place += _skip_line(file, line)
                    size_error = SizeLimitError(
                        f"{path}:{number}: line has {place - start} bytes, the limit is {limit} (max_line_bytes)"
                    )
                    yield self._bad(number, start, body, size_error), [place, number]
                    continue
                if skip_blank and not body.strip():
                    continue
                try:
                    record = decode(body)
                except RecordError as error:
                    record = self._bad(number, start, body, RecordError(f"{path}:{number}: {error}"))
                yield record, [place, number]

    def _bad(self, number: int, start: int, body: bytes, error: Exception) -> BadRecord:
        known = {"path": str(self.config.file_path), "line": number, "byte": start, "preview": preview(body)}
        return BadRecord(known, error)

    def _text(self, line: bytes) -> str:
        encoding = self.config.encoding
        try:
            return line.decode(encoding, "strict" if self.config.errors == "dead_letter" else "replace")
        except UnicodeDecodeError as error:
            raise RecordError(
                f"byte 0x{line[error.start]:02x} at column {error.start + 1} is not {encoding};"
                " set encoding to what the file is written in, or errors to 'replace'"
            ) from None


def _skip_line(file: BufferedReader, seen: bytes) -> int:
    skipped = 0
    while not seen.endswith(b"\n"):
        seen = file.readline(_BUFFER_BYTES)
        skipped += len(seen)
        if not seen:
            break
    return skipped


class FileSource(_LineSource):
    """Lines of a text file, without their newline.

    The offset is a byte offset, so starting again is a seek. A line that is not in the encoding or longer
    than `max_line_bytes` is set aside as a dead letter, and reading goes on behind it. Memory: one line.

    Config: `LineFileConfig`.

    Raises:
        SourceError: from `setup`: the file is missing, not a file, or may not be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "questions.txt"
        >>> _ = path.write_text("What is SAGE?\\n\\nWho wrote it?\\n")
        >>> source = FileSource({"file_path": path})
        >>> list(source.execute()), source.offset_after(2)
        (['What is SAGE?', 'Who wrote it?'], [29, 3])
    """

    def decode(self, line: bytes) -> str:
        """The line as text."""
        return self._text(line)


class JSONLSource(_LineSource):
    """Values of a JSON Lines file (one JSON value in each line, usually an object).

    A line that is not JSON is set aside as a dead letter. JSON is UTF-8 by its standard (RFC 8259); `NaN` is
    not JSON.

    Config: `LineFileConfig`.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rows.jsonl"
        >>> _ = path.write_text('{"a": 1}\\n{"a": }\\n[2]\\n')
        >>> rows = list(JSONLSource({"file_path": path}).execute())
        >>> rows[0], rows[2], str(rows[1].error).partition("rows.jsonl:")[2]
        ({'a': 1}, [2], '2: not JSON: JSON is malformed: invalid character (byte 6)')
    """

    def decode(self, line: bytes) -> Any:
        """The line's JSON value."""
        raw: bytes | str = (
            line if self.config.encoding == "utf-8" and self.config.errors != "replace" else self._text(line)
        )
        try:
            return msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise RecordError(f"not JSON: {error}") from None
