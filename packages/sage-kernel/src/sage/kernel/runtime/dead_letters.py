"""The dead letters of all jobs under one home folder: items that an operator could not process, kept durably
in SQLite.

A letter is safe when `add` returns: it survives a kill of the process. The file is made at the first letter,
mode 0600. What JSON gives back as it was is kept as JSON, other items are pickled; pickles are loaded for a retry
only, never to list, show or export.

A letter is OPEN until a retry of it is committed; then it is RETRIED. What failed again during a retry is a new
letter, which counts (is OPEN) from the same commit on; until then it is VOID, because the letter that it comes from
is still open. A commit is one write, so there is no moment at which an item is in two open letters or in none.
"""

from __future__ import annotations

import fcntl
import math
import os
import pickle
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cloudpickle  # type: ignore[import-untyped]
import msgspec

from sage.common.clock import Clock, RealClock
from sage.common.errors import StoreError
from sage.platform.stores import RecordLog, SqliteStore

from .chain import SetAside
from .dead_letter_budget import DeadLetterBudget, ErrorCounts

__all__ = ["DEAD_LETTERS_FILE", "DeadLetter", "DeadLetterStore", "LetterState"]

DEAD_LETTERS_FILE = "dead_letters.db"
_LOCK_FILE = "dead_letters.lock"
_RETRIES = "dead_letter_retries"
_TEXT_MAX = 4096
_PICKLE_MAX = 16 * 1024 * 1024
_INT_MAX = 1 << 63


class LetterState(StrEnum):
    """What has become of a letter."""

    OPEN = "open"
    RETRIED = "retried"
    VOID = "void"  # of a retry that was never committed: the letter that it comes from is still open


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
        json_exact: whether `item_json` gives back the very item, so that no pickle of it is kept.
        key: the item's key as text, None without a key.
        payload: the pickled item for a retry; None where JSON does, or where it cannot be pickled or is over 16 MiB.
        key_payload: the pickled key; None without a key, or where it cannot be pickled.
        retry_id: the retry in which it was set aside, "" in an ordinary run.
        side: of an operator on two streams (comap, join), which one the item came from: 0 or 1; else None.
        state: what has become of it; not stored with it.
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
    json_exact: bool = False
    key_payload: bytes | None = None
    retry_id: str = ""
    side: int | None = None
    state: LetterState = LetterState.OPEN

    @property
    def replayable(self) -> bool:
        """Whether the item, with its key, is kept in a form that can be given back."""
        return (self.json_exact or self.payload is not None) and (self.key is None or self.key_payload is not None)


class DeadLetterStore:
    """Writes the letters of one job, reads those of all jobs.

    Args:
        home: the folder.
        job_id: id of the run that writes.
        job: name of its pipeline.
        clock: tells the time of a letter.
        retry_id: the retry that the run is, "" for an ordinary run.
        budget: how many letters the run may have.
        on_over_budget: called with the reason, once, with the first letter that is too much.

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

    def __init__(
        self,
        home: Path,
        *,
        job_id: str = "",
        job: str = "",
        clock: Clock | None = None,
        retry_id: str = "",
        budget: DeadLetterBudget | None = None,
        on_over_budget: Callable[[str], None] | None = None,
    ) -> None:
        self.path = Path(home) / DEAD_LETTERS_FILE
        self.errors = ErrorCounts()
        self._job_id = job_id
        self._job = job
        self._clock = clock or RealClock()
        self._retry_id = retry_id
        self._budget = budget or DeadLetterBudget()
        self._on_over_budget = on_over_budget
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
        over = None
        with self._lock:
            number = self._open().append(msgspec.msgpack.encode(record))
            self.added += 1
            self.errors.add(record.operator, record.error_type, record.error)
            if self.first is None:
                self.first = msgspec.structs.replace(record, number=number)
            if self._on_over_budget is not None and self._budget.is_over(self.added):
                over, self._on_over_budget = self._on_over_budget, None
        if over is not None:
            over(self._budget.explain(self.added, self.errors))

    def _record(self, letter: SetAside) -> DeadLetter:
        error = letter.error
        kind = type(error)
        item_json, exact = _json(letter.item)
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
            item_json=item_json,
            json_exact=exact,
            key=_safe_text(letter.key, repr) if letter.keyed else None,
            payload=None if exact else _payload(letter.item),
            key_payload=_payload(letter.key) if letter.keyed else None,
            retry_id=self._retry_id,
            side=letter.side,
        )

    def read(
        self,
        *,
        job_id: str | None = None,
        operator: str | None = None,
        limit: int | None = None,
        states: Iterable[LetterState] = LetterState,
    ) -> Iterator[DeadLetter]:
        """Letters in the order in which they were stored, of one job or of all, and of these states."""
        if not self.path.exists():
            return
        with self._lock:
            log = self._open()
        wanted, states_of = frozenset(states), self._states()
        start, given = 1, 0
        while True:
            page = log.read(start, 256)
            for number, record in page:
                letter = _decode(record, number, states_of)
                if (
                    (job_id is None or letter.job_id == job_id)
                    and (operator is None or letter.operator == operator)
                    and letter.state in wanted
                ):
                    if limit is not None and given >= limit:
                        return
                    given += 1
                    yield letter
            if len(page) < 256:
                return
            start = page[-1][0] + 1

    def get(self, number: int) -> DeadLetter | None:
        """The letter with this number, None when there is none."""
        record = self._stored(number)
        return None if record is None else _decode(record, number, self._states())

    def _stored(self, number: int) -> bytes | None:
        if not self.path.exists():
            return None
        with self._lock:
            return self._open().get(number)

    # -- retries

    def _states(self) -> tuple[frozenset[int], frozenset[str]]:
        """Numbers of the letters that were retried, and the retries that were committed."""
        with self._lock:
            self._open()
            assert self._store is not None
            commits = self._store.key_values(_RETRIES).scan()
        numbers = (number for _, value in commits for number in msgspec.msgpack.decode(value, type=list[int]))
        return frozenset(numbers), frozenset(retry_id for retry_id, _ in commits)

    def commit_retry(self, retry_id: str, numbers: Iterable[int]) -> None:
        """These letters have been worked off by a retry, and what failed in it counts from now on: one write.

        Raises:
            StoreError: it could not be stored; then nothing has changed.
        """
        with self._lock:
            self._open()
            assert self._store is not None
            self._store.key_values(_RETRIES).put(retry_id, msgspec.msgpack.encode(sorted(numbers)))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Only one process at a time may retry letters of a folder; the lock ends with the process.

        Raises:
            StoreError: another one does, or the folder cannot be written.
        """
        path = self.path.with_name(_LOCK_FILE)
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"cannot be opened: {error.strerror}", path=path) from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError("another process is retrying dead letters of this folder", path=self.path) from error
            yield
        finally:
            os.close(lock)

    def restore(self, number: int) -> tuple[Any, Any]:
        """The item of a letter, and its key (None without one).

        A pickle can run any code while it is loaded: only one out of a file that nobody else can have written is.

        Raises:
            StoreError: the file belongs to somebody else or others may write it, or the item cannot be given back
                (a class that is not there any more).
        """
        record = self._stored(number)
        if record is None:
            raise StoreError(f"there is no dead letter {number}", path=self.path)
        letter = msgspec.msgpack.decode(record, type=DeadLetter)
        if not letter.replayable:
            raise StoreError(f"the item of dead letter {number} is not kept: it could not be pickled")
        if letter.payload is not None or letter.key_payload is not None:
            self._require_own_file()
        try:
            key = None if letter.key_payload is None else pickle.loads(letter.key_payload)
            if letter.payload is not None:
                return pickle.loads(letter.payload), key
            return msgspec.json.decode(letter.item_json or ""), key
        except Exception as error:  # a pickle raises whatever the code behind it raises
            raise StoreError(
                f"the item of dead letter {number} cannot be given back: {type(error).__name__}: {error}"
            ) from error

    def _require_own_file(self) -> None:
        facts = self.path.stat()
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
            raise StoreError(
                "others than you could have written it, so its pickled items are not loaded: make it yours with mode "
                "0600 if you trust it",
                path=self.path,
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


def _decode(record: bytes, number: int, states: tuple[frozenset[int], frozenset[str]]) -> DeadLetter:
    letter = msgspec.msgpack.decode(record, type=DeadLetter)
    retried, committed = states
    if number in retried:
        state = LetterState.RETRIED
    elif letter.retry_id and letter.retry_id not in committed:
        state = LetterState.VOID
    else:
        state = LetterState.OPEN
    return msgspec.structs.replace(letter, number=number, state=state)


def _safe_text(value: Any, form: Any) -> str:
    try:
        text: str = form(value)
    except Exception as error:  # an item's own __repr__ may raise; the letter must be stored all the same
        text = f"<{type(value).__name__} whose {form.__name__}() raised {type(error).__name__}>"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 3] + "..."


def _json(item: Any) -> tuple[str | None, bool]:
    """The item as JSON where it is JSON-able, and whether that gives the very item back."""
    try:
        text = msgspec.json.encode(item)
        exact = _is_exact(item)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        # Also of an item that somebody else holds and changes at this moment.
        return None, False
    return (text.decode(), exact) if len(text) <= _PICKLE_MAX else (None, False)


def _is_exact(item: Any) -> bool:
    kind = type(item)
    if kind is dict:
        return all(type(key) is str and _is_exact(value) for key, value in item.items())
    if kind is list:
        return all(map(_is_exact, item))
    if kind is float:
        return math.isfinite(item)
    if kind is int:
        return bool(-_INT_MAX <= item < _INT_MAX)
    return item is None or kind is str or kind is bool


def _payload(item: Any) -> bytes | None:
    try:
        data: bytes = cloudpickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception:  # an item's own __reduce__ may raise anything; text and JSON are kept without it
        return None
    return data if len(data) <= _PICKLE_MAX else None
