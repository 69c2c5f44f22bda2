"""Source of rows of a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, field_validator

from sage.common.errors import SizeLimitError
from sage.kernel.operators import BadRecord
from sage.libs.errors import RecordError, SourceError

from .lines import LINE_BYTES_MAX, preview, seek_to, single_byte_newline
from .paths import require_file
from .positions import PositionedSource

__all__ = ["CSVSource"]


class _CSVConfig(BaseModel, extra="forbid"):
    file_path: Path
    encoding: str = "utf-8"
    errors: Literal["dead_letter", "replace"] = "dead_letter"
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    quotechar: str = Field(default='"', min_length=1, max_length=1)
    fieldnames: list[str] | None = None
    max_row_bytes: int = Field(default=LINE_BYTES_MAX, ge=1)

    _encoding = field_validator("encoding")(single_byte_newline)


class _Lines:
    """Lines of a binary file as text for `csv.reader`, counting bytes and lines; keeps at most the beginning
    of a row.

    An iterator and not a generator: after an error in the middle of a row it goes on at the next line.
    """

    def __init__(self, file: BufferedReader, place: int, config: _CSVConfig) -> None:
        self.place = place
        self.raw = b""
        self.line = 0
        self._file = file
        self._encoding = config.encoding
        self._limit = config.max_row_bytes
        self._row_start = place

    def begin_row(self) -> None:
        self.raw = b""
        self._row_start = self.place

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        raw = self._file.readline(self._limit + 2)
        if not raw:
            raise StopIteration
        self.place += len(raw)
        self.line += 1
        if not self.raw:
            self.raw = raw[:1024]
        if self.place - self._row_start > self._limit:
            while not raw.endswith(b"\n") and (raw := self._file.readline(1024 * 1024)):
                self.place += len(raw)
            raise SizeLimitError(
                f"row has more than {self._limit} bytes (max_row_bytes); is a quotation mark left open?"
            )
        # Bytes outside of the encoding are kept as lone surrogates here and found again in the finished row.
        return raw.decode(self._encoding, "surrogateescape")


class CSVSource(PositionedSource[dict[str, str]]):
    """Rows of a CSV file (RFC 4180) as dicts by column name; all values are text.

    The offset is a byte offset behind a whole row, right also where quoted fields hold newlines. A row with
    another number of columns than the header, with broken quoting or outside of the encoding is set aside as
    a dead letter.

    Config:
        file_path: the file.
        encoding, errors: as for `FileSource`.
        delimiter, quotechar: one character each.
        fieldnames: the columns; None takes them from the first row.
        max_row_bytes: a longer row is set aside.

    Raises:
        SourceError: from `setup`: no file, no permission, no header, a column without a name or one that
            appears twice.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rows.csv"
        >>> _ = path.write_text('id,text\\n1,"two\\nlines"\\n2\\n')
        >>> good, bad = CSVSource({"file_path": path}).execute()
        >>> good
        {'id': '1', 'text': 'two\\nlines'}
        >>> str(bad.error).partition("rows.csv:")[2]
        "4: row has 1 columns, the header has 2 ('id', 'text')"
    """

    Config: ClassVar[type[BaseModel] | None] = _CSVConfig
    blocking: ClassVar[bool] = False

    def setup(self) -> None:
        """Check file and header."""
        path = self.config.file_path
        require_file("CSVSource", path)
        with path.open("rb") as file:
            self._header(self._lines(file, None))

    def _lines(self, file: BufferedReader, where: Any) -> _Lines:
        # The limit of the csv module is one for the process and only 128 KiB by default; it is raised, never
        # lowered.
        csv.field_size_limit(max(csv.field_size_limit(), self.config.max_row_bytes))
        return _Lines(file, seek_to("CSVSource", file, self.config.file_path, where), self.config)

    def _reader(self, lines: _Lines) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self.config.delimiter, quotechar=self.config.quotechar, strict=True)

    def _header(self, lines: _Lines) -> list[str]:
        path = self.config.file_path
        if self.config.fieldnames is not None:
            names: list[str] = list(self.config.fieldnames)
        else:
            try:
                names = next(self._reader(lines), [])
            except (csv.Error, SizeLimitError) as error:
                raise SourceError(f"CSVSource: {path}:1: cannot read the header: {error}") from None
        if not names:
            raise SourceError(f"CSVSource: {str(path)!r} has no header row; give the columns as fieldnames")
        if any(not name.strip() for name in names):
            raise SourceError(f"CSVSource: {path}:1: a column has no name: {names!r}")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise SourceError(f"CSVSource: {path}:1: column {twice[0]!r} appears twice in the header {names!r}")
        return names

    def scan(self, where: Any, number: int) -> Iterator[tuple[dict[str, str] | BadRecord, list[Any]]]:
        """Yield `(row, [byte, row number, line])`; the header has no number."""
        path: Path = self.config.file_path
        require_file("CSVSource", path)
        with path.open("rb") as file:
            lines = self._lines(file, None)
            names = self._header(lines)
            if where is not None:
                place, line = where
                lines = self._lines(file, place)
                lines.line = line
            elif self.config.fieldnames is not None:
                lines = self._lines(file, None)
            reader = self._reader(lines)
            while True:
                lines.begin_row()
                first_line, start = lines.line + 1, lines.place
                try:
                    row = next(reader, None)
                    if row is None:
                        return
                    record: dict[str, str] | None = self._record(names, row)
                except (csv.Error, SizeLimitError, RecordError) as error:
                    number += 1
                    known = {
                        "path": str(path),
                        "line": first_line,
                        "byte": start,
                        "preview": preview(lines.raw),
                    }
                    kind = SizeLimitError if isinstance(error, SizeLimitError) else RecordError
                    bad = BadRecord(known, kind(f"{path}:{first_line}: {error}"))
                    yield bad, [[lines.place, lines.line], number]
                    continue
                if record is not None:
                    number += 1
                    yield record, [[lines.place, lines.line], number]

    def _record(self, names: list[str], row: list[str]) -> dict[str, str] | None:
        if not row:
            return None  # a blank line
        if len(row) != len(names):
            columns = ", ".join(map(repr, names[:8])) + (", …" if len(names) > 8 else "")
            raise RecordError(f"row has {len(row)} columns, the header has {len(names)} ({columns})")
        if not any(map(_has_surrogate, row)):
            return dict(zip(names, row, strict=True))
        encoding = self.config.encoding
        if self.config.errors == "replace":
            clean = [field.encode(encoding, "surrogateescape").decode(encoding, "replace") for field in row]
            return dict(zip(names, clean, strict=True))
        column = names[next(place for place, field in enumerate(row) if _has_surrogate(field))]
        raise RecordError(
            f"column {column!r} is not {encoding}; set encoding to what the file is written in, or errors to 'replace'"
        )


def _has_surrogate(field: str) -> bool:
    if field.isascii():
        return False
    try:
        field.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
