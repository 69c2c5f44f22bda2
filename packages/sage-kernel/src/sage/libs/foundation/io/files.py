"""Sinks that write files: JSON Lines and CSV."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import logging
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from sage.kernel.operators import OperatorContext, SinkFunction
from sage.libs.errors import SinkError
from sage.libs.foundation.records import encode_json

__all__ = ["CSVSink", "JSONLSink"]

_log = logging.getLogger("sage.libs.io")


class _JSONLConfig(BaseModel, extra="forbid"):
    file_path: Path
    append: bool = False


class _CSVConfig(BaseModel, extra="forbid"):
    file_path: Path
    append: bool = False
    columns: list[str] | None = Field(default=None, min_length=1)
    delimiter: str = Field(default=",", min_length=1, max_length=1)


class _LineFile:
    """One file with one writer, to which whole lines are added: a line is in it whole or not at all.

    What is in the file already is touched by the first write and not before: a job whose source is missing sets up its
    sinks too, and must not cost the results of the one before.

    Writes go straight to the operating system. A buffer would be faster, but then a full disk shows many
    items after the one that did not fit, and those between would be lost without a trace.
    """

    def __init__(self, owner: str, path: Path, *, append: bool) -> None:
        self.owner = owner
        self.path = path
        self.lines = 0
        self.size = 0
        self.replaces = False
        self._torn = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise self._error("cannot open", error) from error
        try:
            self._lock()
            self._look(append)
        except BaseException:
            os.close(self._fd)
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SinkError(
                f"{self.owner}: another sink is already writing to {str(self.path)!r}; give each its own file_path"
            ) from None

    def _look(self, append: bool) -> None:
        size = os.lseek(self._fd, 0, os.SEEK_END)
        if append:
            self.size = size
            # A torn last line of a run that was killed must not swallow our first one.
            self._torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"
        else:
            self.replaces = size > 0

    def _prepare(self) -> None:
        """Do before the first write what `_look` found to be done."""
        if self.replaces:
            try:
                os.ftruncate(self._fd, 0)
                os.lseek(self._fd, 0, os.SEEK_SET)
            except OSError as error:
                raise self._error("cannot empty", error) from error
            self.replaces = False
        if self._torn:
            self._add(b"\n")
            self._torn = False

    def empty(self) -> None:
        """Leave nothing of an earlier run, as the first write would."""
        if self.replaces:
            self._prepare()

    def first_line(self) -> bytes:
        """The first line as it stands in the file (at most 64 KiB)."""
        return os.pread(self._fd, 65_536, 0).split(b"\n", 1)[0]

    def write(self, line: bytes) -> None:
        """Add `line`, which ends with a newline."""
        self._prepare()
        self._add(line)
        self.lines += 1

    def _add(self, line: bytes) -> None:
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            if len(rest) < len(line):
                os.ftruncate(self._fd, self.size)
                os.lseek(self._fd, self.size, os.SEEK_SET)
            raise self._error("cannot write to", error) from error
        self.size += len(line)

    def close(self) -> None:
        if self.replaces:
            _log.warning("%s: no item came, so %r is as it was before this run", self.owner, str(self.path))
        try:
            os.fsync(self._fd)
        except OSError as error:
            # Pipes and devices cannot be synced; that is no failure of what was written.
            if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
                raise self._error("cannot sync", error) from error
        finally:
            os.close(self._fd)

    def _error(self, action: str, error: OSError) -> SinkError:
        hint = {
            errno.ENOSPC: ": the disk is full",
            errno.EDQUOT: ": the disk quota is used up",
            errno.EFBIG: ": the file size limit is reached",
            errno.EACCES: ": no permission",
            errno.EROFS: ": the file system is read-only",
            errno.EISDIR: ": it is a directory, file_path must name a file",
            errno.ENOTDIR: ": a part of its directory is a file",
        }.get(error.errno or 0, f": {error.strerror or error}")
        return SinkError(f"{self.owner}: {action} {str(self.path)!r}{hint} ({self.lines} items written by this run)")


def _part_path(path: Path, ctx: OperatorContext | None) -> Path:
    """One writer per file: with parallelism above 1 each replica writes its own part."""
    if ctx is None or ctx.parallelism == 1:
        return path
    return path.with_name(f"{path.stem}-{ctx.replica_index:05d}{path.suffix}")


class _LineSink(SinkFunction[Any]):
    _file: _LineFile | None = None

    def setup(self) -> None:
        """Create the directories, open the file and lock it; what is in it stays until the first item."""
        self._file = _LineFile(
            type(self).__name__, _part_path(self.config.file_path, self._ctx), append=self.config.append
        )

    def finish(self) -> None:
        """A replica that no item came to leaves its part of an earlier run empty: the parts together are this run's
        items. A job that was stopped replaces only what it has items for.
        """
        if self._ctx is not None and self._ctx.parallelism > 1 and not self._ctx.stopping:
            self._open_file().empty()

    def teardown(self) -> None:
        """Sync the file to the disk and close it."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _open_file(self) -> _LineFile:
        if self._file is None:
            raise SinkError(f"{type(self).__name__}: execute called before setup or after teardown")
        return self._file


class JSONLSink(_LineSink):
    """Writes each item as one line of JSON.

    A line is in the file whole or not at all, also when the disk is full; the item that did not fit raises.
    With parallelism above 1 replica `i` writes `name-0000i.jsonl`. An earlier file is replaced when the first item
    comes; when none does, it stays as it is and a warning says so. Of several parts, those that no item came to are
    emptied when the job finishes.

    Config:
        file_path: the file; its directories are created.
        append: whether to add to what is there instead of replacing it.

    Raises:
        SinkError: the file cannot be opened or written, another sink writes to it, or the item has no JSON
            form.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "out" / "answers.jsonl"
        >>> sink = JSONLSink({"file_path": path})
        >>> sink.setup(); sink.execute({"a": None}); sink.execute("x"); sink.teardown()
        >>> path.read_text()
        '{"a":null}\\n"x"\\n'
    """

    Config: ClassVar[type[BaseModel] | None] = _JSONLConfig

    def execute(self, item: Any) -> None:
        """Write `item`."""
        file = self._open_file()
        try:
            line = encode_json(item)
        except (TypeError, ValueError, RecursionError) as error:
            raise SinkError(f"JSONLSink: item cannot be written as JSON: {error}") from error
        file.write(line + b"\n")


class CSVSink(_LineSink):
    """Writes each item (a mapping or a dataclass) as one row of a CSV file with a header.

    Config:
        file_path, append: as for `JSONLSink`; a file that is appended to must have the same header.
        columns: the columns; None takes the fields of the first item.
        delimiter: one character.

    Raises:
        SinkError: as for `JSONLSink`; and for an item with other fields than the columns.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rows.csv"
        >>> sink = CSVSink({"file_path": path})
        >>> sink.setup(); sink.execute({"id": 1, "text": "a, b"}); sink.teardown()
        >>> path.read_text()
        'id,text\\n1,"a, b"\\n'
    """

    Config: ClassVar[type[BaseModel] | None] = _CSVConfig
    _columns: list[str] | None = None

    def setup(self) -> None:
        """Open the file; write the header into an empty one when the columns are known."""
        super().setup()
        self._columns = None
        file = self._open_file()
        if file.size:
            found = next(
                csv.reader([file.first_line().decode("utf-8", "replace")], delimiter=self.config.delimiter),
                [],
            )
            if self.config.columns is not None and found != self.config.columns:
                self.teardown()
                raise SinkError(f"CSVSink: {str(file.path)!r} has the columns {found!r}, not {self.config.columns!r}")
            self._columns = found
        elif self.config.columns is not None and not file.replaces:
            self._begin(list(self.config.columns))

    def execute(self, item: Any) -> None:
        """Write `item`."""
        row = self._fields(item)
        columns = self._columns or self.config.columns or list(row)
        if row.keys() != set(columns):
            extra, absent = sorted(row.keys() - set(columns)), sorted(set(columns) - row.keys())
            raise SinkError(
                f"CSVSink: item has other fields than the columns {columns!r}:"
                + (f" without {absent!r}" if absent else "")
                + (f" with {extra!r}" if extra else "")
            )
        if not columns:
            raise SinkError("CSVSink: the first item has no fields, so there are no columns")
        # Made before the header is written, which replaces an earlier file: only an item that has a row may do that.
        line = self._line([row[name] for name in columns])
        if self._columns is None:
            self._begin(list(columns))
        self._open_file().write(line)

    def _begin(self, columns: list[str]) -> None:
        file = self._open_file()
        file.write(self._line(columns))
        file.lines = 0  # the header is no item
        self._columns = columns

    def _line(self, values: list[Any]) -> bytes:
        text = io.StringIO()
        csv.writer(text, delimiter=self.config.delimiter, lineterminator="\n").writerow(values)
        try:
            return text.getvalue().encode("utf-8")
        except UnicodeEncodeError as error:
            raise SinkError(f"CSVSink: item has a character that is no text: {error}") from error

    @staticmethod
    def _fields(item: Any) -> dict[str, Any]:
        if isinstance(item, Mapping):
            return {str(name): value for name, value in item.items()}
        if is_dataclass(item) and not isinstance(item, type):
            return {each.name: getattr(item, each.name) for each in fields(item)}
        raise SinkError(
            f"CSVSink: item must be a mapping or a dataclass, got {type(item).__name__}; map it to a dict first"
        )
