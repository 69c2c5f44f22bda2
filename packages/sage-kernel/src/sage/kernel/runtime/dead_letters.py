"""The dead letters of all jobs under one home folder: items that an operator could not process, kept durably
in SQLite.

A letter is safe when `add` returns: it survives a kill of the process. The file is made at the first letter,
mode 0600. Items are shown as text or JSON; their pickled form is kept for replay and is never loaded to list
or show.
"""

from __future__ import annotations

import pickle
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cloudpickle  # type: ignore[import-untyped]
import msgspec

from sage.common.clock import Clock, RealClock
from sage.platform.stores import RecordLog, SqliteStore

from .chain import SetAside

__all__ = ["DEAD_LETTERS_FILE", "DeadLetter", "DeadLetterStore"]

DEAD_LETTERS_FILE = "dead_letters.db"
_TEXT_MAX = 4096
_PICKLE_MAX = 16 * 1024 * 1024


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One item that was set aside.

    Attributes:
        number: 1-based number in the store.
        job_id: id of the run.
        job: name of the pipeline.
        operator: name of the operator that raised.
        replica_index: which replica it was.
        attempts: calls that were made.
        time: seconds since the epoch, UTC.
        error_type: qualified name of the exception.
        error: its message.
        traceback: its traceback as text.
        item: the operator's input as text, cut at 4096 characters.
        item_json: the same as JSON where it is JSON-able, else None.
        key: the item's key as text, None without a key.
        payload: the pickled item for replay; None where it cannot be pickled or is over 16 MiB.
    """

    number: int = 0
    job_id: str
    job: str
    operator: str
    replica_index: int
    attempts: int
    time: float
    error_type: str
    error: str
    traceback: str
    item: str
    item_json: str | None = None
    key: str | None = None
    payload: bytes | None = None


class DeadLetterStore:
    """Writes the letters of one job, reads those of all jobs.

    Example:
        >>> import tempfile
        >>> from sage.kernel.runtime.chain import SetAside
        >>> letter = SetAside(
        ...     operator="ratio", replica_index=0, item=0, key=None, keyed=False, attempts=1,
        ...     error=ZeroDivisionError("division by zero"),
        ... )
        >>> with tempfile.TemporaryDirectory() as home, DeadLetterStore(Path(home), job_id="job_1") as store:
        ...     store.add(letter)
        ...     [(found.number, found.operator, found.item, found.error) for found in store.read()]
        [(1, 'ratio', '0', 'division by zero')]
    """

    def __init__(self, home: Path, *, job_id: str = "", job: str = "", clock: Clock | None = None) -> None:
        self.path = Path(home) / DEAD_LETTERS_FILE
        self._job_id = job_id
        self._job = job
        self._clock = clock or RealClock()
        self._lock = threading.Lock()
        self._store: SqliteStore | None = None
        self._log: RecordLog | None = None
        self.added = 0
        self.first: DeadLetter | None = None

    def _open(self) -> RecordLog:
        if self._log is None:
            self._store = SqliteStore(self.path)
            self._log = self._store.record_log("dead_letters")
        return self._log

    def add(self, letter: SetAside) -> None:
        """Store a letter; it is safe when this returns.

        Raises:
            StoreError: it could not be stored (disk full, no permission).
        """
        record = self._record(letter)
        with self._lock:
            number = self._open().append(msgspec.msgpack.encode(record))
            self.added += 1
            if self.first is None:
                self.first = msgspec.structs.replace(record, number=number)

    def _record(self, letter: SetAside) -> DeadLetter:
        error = letter.error
        kind = type(error)
        return DeadLetter(
            job_id=self._job_id,
            job=self._job,
            operator=letter.operator,
            replica_index=letter.replica_index,
            attempts=letter.attempts,
            time=self._clock.time(),
            error_type=kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}",
            error=_safe_text(error, str),
            traceback="".join(traceback.format_exception(error))[-_TEXT_MAX * 4 :],
            item=_safe_text(letter.item, repr),
            item_json=_json(letter.item),
            key=_safe_text(letter.key, repr) if letter.keyed else None,
            payload=_payload(letter.item),
        )

    def read(
        self, *, job_id: str | None = None, operator: str | None = None, limit: int | None = None
    ) -> Iterator[DeadLetter]:
        """Letters in the order in which they were stored, of one job or of all."""
        if not self.path.exists():
            return
        with self._lock:
            log = self._open()
        start, given = 1, 0
        while True:
            page = log.read(start, 256)
            for number, record in page:
                letter = msgspec.structs.replace(msgspec.msgpack.decode(record, type=DeadLetter), number=number)
                if (job_id is None or letter.job_id == job_id) and (operator is None or letter.operator == operator):
                    if limit is not None and given >= limit:
                        return
                    given += 1
                    yield letter
            if len(page) < 256:
                return
            start = page[-1][0] + 1

    def get(self, number: int) -> DeadLetter | None:
        """The letter with this number, None when there is none."""
        if not self.path.exists():
            return None
        with self._lock:
            record = self._open().get(number)
        return (
            None
            if record is None
            else msgspec.structs.replace(msgspec.msgpack.decode(record, type=DeadLetter), number=number)
        )

    def close(self) -> None:
        """Close the file, if it was opened."""
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = self._log = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _safe_text(value: Any, form: Any) -> str:
    try:
        text: str = form(value)
    except Exception as error:  # an item's own __repr__ may raise; the letter must be stored all the same
        text = f"<{type(value).__name__} whose {form.__name__}() raised {type(error).__name__}>"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 3] + "..."


def _json(item: Any) -> str | None:
    try:
        text = msgspec.json.encode(item)
    except (TypeError, ValueError, RecursionError, NotImplementedError, OverflowError):
        return None
    return text.decode() if len(text) <= _PICKLE_MAX else None


def _payload(item: Any) -> bytes | None:
    try:
        data: bytes = cloudpickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception:  # an item's own __reduce__ may raise anything; text and JSON are kept without it
        return None
    return data if len(data) <= _PICKLE_MAX else None
