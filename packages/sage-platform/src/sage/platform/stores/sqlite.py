"""A store in one SQLite file: durable, shared by threads and processes."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from sage.common.errors import InvalidArgumentError, StoreError, StoreFullError
from sage.platform.stores.protocols import (
    VALUE_BYTES_MAX,
    KeyValueStore,
    RecordLog,
    check_key,
    check_limit,
    check_name,
    check_open,
    check_value,
)

__all__ = ["SCHEMA_VERSION", "SqliteStore"]

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x53414745  # "SAGE", shown by file(1)
_SEQUENCE_MAX = (1 << 63) - 1
_SCHEMA = (
    "CREATE TABLE schema_version (version INTEGER NOT NULL)",
    "CREATE TABLE logs (name TEXT PRIMARY KEY, next_sequence INTEGER NOT NULL)",
    """CREATE TABLE key_values (
        namespace TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (namespace, key)
    )""",
    """CREATE TABLE records (
        log TEXT NOT NULL, sequence INTEGER NOT NULL, record BLOB NOT NULL, PRIMARY KEY (log, sequence)
    )""",
    f"PRAGMA application_id = {_APPLICATION_ID}",
)
# SQLite tells "disk full" apart, but reports a quota or a file size limit as a failed write, and a full disk
# under its shared-memory file as a failed size change.
_FULL_CODES = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE}
_BUSY_CODES = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}

Synchronous = Literal["FULL", "NORMAL", "OFF"]


class SqliteStore:
    """A `Store` in a SQLite file in WAL mode.

    The file is made with mode 0600, missing directories above it with 0700. Threads share one connection, one
    at a time; other processes may use the same file through their own `SqliteStore`. After `fork` the child
    must open its
    own: SQLite connections do not survive it.

    Args:
        path: The database file; ``~`` is expanded. SQLite keeps two more files beside it while it is open.
        synchronous: ``FULL``: what a method has returned from survives a power cut. ``NORMAL``: it survives a
            crash of the process, a power cut may lose the last transactions (never corrupt the file).
            ``OFF``: a power cut may corrupt the file.
        busy_timeout_s: How long to wait for a lock that another process holds.
        value_bytes_max: Largest value or record accepted.

    Raises:
        InvalidArgumentError: If an argument is out of its range.
        StoreError: If the file cannot be opened, is no SAGE store, or was written by a newer version.
        StoreFullError: If there is no room to create it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, SqliteStore(f"{folder}/letters.db") as store:
    ...     store.record_log("dead-letters").append(b"a letter")
    1
    """

    def __init__(
        self,
        path: str | Path,
        *,
        synchronous: Synchronous = "FULL",
        busy_timeout_s: float = 10.0,
        value_bytes_max: int = VALUE_BYTES_MAX,
    ) -> None:
        if synchronous not in ("FULL", "NORMAL", "OFF"):
            raise InvalidArgumentError(f"synchronous must be FULL, NORMAL or OFF, got {synchronous!r}")
        if not 0 <= busy_timeout_s <= 3600:
            raise InvalidArgumentError(f"busy_timeout_s must be in 0 to 3600, got {busy_timeout_s!r}")
        if not 1 <= value_bytes_max <= 500_000_000:
            raise InvalidArgumentError(f"value_bytes_max must be in 1 to 500000000, got {value_bytes_max!r}")
        self.path = Path(path).expanduser()
        self.value_bytes_max = value_bytes_max
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._closed = False
        self._create_file()
        with self._translated():
            self._connection = sqlite3.connect(
                self.path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
            )
        try:
            with self._translated():
                self._prepare(synchronous)
        except BaseException:
            self._connection.close()
            raise

    def _create_file(self) -> None:
        try:
            missing = [folder for folder in self.path.parents if not folder.exists()]
            for folder in reversed(missing):
                # Path.mkdir(parents=True) would give the upper ones the default mode.
                folder.mkdir(mode=0o700, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(f"cannot open the store: {reason.lower()}", path=self.path) from error
        except ValueError as error:
            raise StoreError(f"cannot open the store: {error}", path=self.path) from error

    def _prepare(self, synchronous: Synchronous) -> None:
        if not self._is_ours():
            # Two processes may get here together: the second one finds the first one's schema.
            with self.transaction():
                if not self._is_ours():
                    for statement in _SCHEMA:
                        self._connection.execute(statement)
                    self._connection.execute("INSERT INTO schema_version VALUES (?)", (SCHEMA_VERSION,))
        # Only now: setting WAL mode writes to the file, which must not happen to a foreign one.
        self._set_wal_mode()
        self._connection.execute(f"PRAGMA synchronous = {synchronous}")

    def _set_wal_mode(self) -> None:
        deadline = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                # SQLite does not apply its busy timeout to this statement.
                if _primary_code(error) not in _BUSY_CODES or time.monotonic() >= deadline:
                    raise
                time.sleep(0.01)

    def _is_ours(self) -> bool:
        """Return True for a store of this version, False for an empty file; refuse everything else."""
        # One statement, so that both come from one snapshot: another process may be making the schema now.
        application, objects = self._connection.execute(
            "SELECT application_id, (SELECT count(*) FROM sqlite_master) FROM pragma_application_id"
        ).fetchone()
        if application != _APPLICATION_ID:
            if application or objects:
                raise StoreError("is a SQLite database of another program, not a SAGE store", path=self.path)
            return False
        row = self._connection.execute("SELECT version FROM schema_version").fetchone()
        version = row[0] if row else None
        if not isinstance(version, int) or version < 1:
            raise StoreError(f"is a damaged SAGE store (schema version {version!r})", path=self.path)
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"was written by a newer version of SAGE (schema {version}, readable is {SCHEMA_VERSION}): "
                "upgrade sage-platform",
                path=self.path,
            )
        return True

    def key_values(self, namespace: str) -> KeyValueStore:
        """Open a namespace."""
        self.check()
        return _SqliteKeyValues(self, check_name(namespace, "namespace"))

    def record_log(self, name: str) -> RecordLog:
        """Open a log."""
        self.check()
        return _SqliteLog(self, check_name(name, "log"))

    def namespaces(self) -> list[str]:
        """Return the names of the namespaces that hold something, sorted."""
        return [row[0] for row in self.rows("SELECT DISTINCT namespace FROM key_values ORDER BY namespace")]

    def logs(self) -> list[str]:
        """Return the names of the logs that something was ever written to, sorted."""
        return [row[0] for row in self.rows("SELECT name FROM logs ORDER BY name")]

    def close(self) -> None:
        """Close the file. Harmless when repeated."""
        with self._lock:
            if not self._closed:
                self._closed = True
                if self._process == os.getpid():
                    self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def check(self) -> None:
        """Raise `StoreError` if the store is closed or was inherited by `fork`."""
        check_open(self._closed, "store")
        if self._process != os.getpid():
            raise StoreError("was opened before a fork: the child process must open its own", path=self.path)

    def rows(self, query: str, arguments: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._translated():
            return self._connection.execute(query, arguments).fetchall()

    def number(self, query: str, arguments: tuple[object, ...]) -> int:
        """Return the only value of the only row of a query, an integer."""
        value: int = self.rows(query, arguments)[0][0]
        return value

    def write(self, statement: str, arguments: tuple[object, ...]) -> int:
        """Run one changing statement in a transaction of its own and return how many rows it changed."""
        with self.transaction() as connection:
            return connection.execute(statement, arguments).rowcount

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the connection in one writing transaction, committed at the end and undone on any error."""
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some errors, a full disk among them.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Hold the lock, and turn SQLite's errors into ours."""
        with self._lock:
            self.check()
            try:
                yield
            except sqlite3.Error as error:
                raise self._translate(error) from error

    def _translate(self, error: sqlite3.Error) -> StoreError:
        # Errors that the sqlite3 module makes itself carry no code.
        code = getattr(error, "sqlite_errorcode", None) or 0
        if code in _FULL_CODES or code & 0xFF == sqlite3.SQLITE_FULL:
            return StoreFullError(
                f"no room to write (disk full, quota or file size limit reached): {error}", path=self.path
            )
        if code & 0xFF in _BUSY_CODES:
            return StoreError(
                f"another process has held the store locked for more than {self._busy_timeout_s:g} s",
                path=self.path,
            )
        if code & 0xFF == sqlite3.SQLITE_NOTADB:
            return StoreError("is not a SAGE store (not a SQLite database at all)", path=self.path)
        if code & 0xFF == sqlite3.SQLITE_CORRUPT:
            return StoreError(f"is damaged: {error}", path=self.path)
        if code & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return StoreError(f"cannot be written: {error} (are the file and its directory writable?)", path=self.path)
        return StoreError(f"{type(error).__name__}: {error}", path=self.path)


def _primary_code(error: sqlite3.Error) -> int:
    return error.sqlite_errorcode & 0xFF


class _View:
    def __init__(self, store: SqliteStore, name: str, what: str) -> None:
        self._store = store
        self._name = name
        self._what = f"{what} {name!r}"
        self._closed = False

    def _check(self) -> None:
        check_open(self._closed, self._what)

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _SqliteKeyValues(_View):
    def __init__(self, store: SqliteStore, name: str) -> None:
        super().__init__(store, name, "namespace")

    def get(self, key: str) -> bytes | None:
        self._check()
        rows = self._store.rows(
            "SELECT value FROM key_values WHERE namespace = ? AND key = ?", (self._name, check_key(key))
        )
        value: bytes | None = rows[0][0] if rows else None
        return value

    def put(self, key: str, value: bytes) -> None:
        self.put_many([(key, value)])

    def put_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        self._check()
        limit = self._store.value_bytes_max
        # Everything is read and checked before the transaction, which must not wait for a slow iterable.
        checked = [(self._name, check_key(key), check_value(value, "value", limit)) for key, value in items]
        with self._store.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO key_values VALUES (?, ?, ?)", checked)

    def delete(self, key: str) -> bool:
        self._check()
        removed = self._store.write(
            "DELETE FROM key_values WHERE namespace = ? AND key = ?", (self._name, check_key(key))
        )
        return removed > 0

    def scan(self, prefix: str = "", limit: int | None = None, after: str | None = None) -> list[tuple[str, bytes]]:
        self._check()
        begin = check_key(prefix)
        query = "SELECT key, value FROM key_values WHERE namespace = ? AND key >= ?"
        arguments: list[object] = [self._name, begin]
        end = _behind_prefix(begin)
        if end is not None:
            query += " AND key < ?"
            arguments.append(end)
        if after is not None:
            query += " AND key > ?"
            arguments.append(check_key(after))
        arguments.append(check_limit(limit))
        rows = self._store.rows(query + " ORDER BY key LIMIT ?", tuple(arguments))
        return [(key.decode(), value) for key, value in rows]

    def count(self) -> int:
        self._check()
        return self._store.number("SELECT count(*) FROM key_values WHERE namespace = ?", (self._name,))


class _SqliteLog(_View):
    def __init__(self, store: SqliteStore, name: str) -> None:
        super().__init__(store, name, "log")

    def append(self, record: bytes) -> int:
        return self.append_many([record]).start

    def append_many(self, records: Iterable[bytes]) -> range:
        self._check()
        limit = self._store.value_bytes_max
        checked = [check_value(record, "record", limit) for record in records]
        self._store.check()
        if not checked:
            return range(0)
        with self._store.transaction() as connection:
            row = connection.execute("SELECT next_sequence FROM logs WHERE name = ?", (self._name,)).fetchone()
            begin = row[0] if row else 1
            numbers = range(begin, begin + len(checked))
            connection.execute("INSERT OR REPLACE INTO logs VALUES (?, ?)", (self._name, numbers.stop))
            connection.executemany(
                "INSERT INTO records VALUES (?, ?, ?)",
                [(self._name, number, record) for number, record in zip(numbers, checked, strict=True)],
            )
        return numbers

    def read(self, start: int = 1, limit: int | None = None) -> list[tuple[int, bytes]]:
        self._check()
        rows = self._store.rows(
            "SELECT sequence, record FROM records WHERE log = ? AND sequence >= ? ORDER BY sequence LIMIT ?",
            (self._name, _within_range(start), check_limit(limit)),
        )
        return [(sequence, record) for sequence, record in rows]

    def get(self, sequence: int) -> bytes | None:
        self._check()
        rows = self._store.rows(
            "SELECT record FROM records WHERE log = ? AND sequence = ?", (self._name, _within_range(sequence))
        )
        value: bytes | None = rows[0][0] if rows else None
        return value

    def count(self) -> int:
        self._check()
        return self._store.number("SELECT count(*) FROM records WHERE log = ?", (self._name,))

    def next_sequence(self) -> int:
        self._check()
        rows = self._store.rows("SELECT next_sequence FROM logs WHERE name = ?", (self._name,))
        value: int = rows[0][0] if rows else 1
        return value

    def truncate_before(self, sequence: int) -> int:
        self._check()
        return self._store.write(
            "DELETE FROM records WHERE log = ? AND sequence < ?", (self._name, _within_range(sequence))
        )

    def delete(self, sequence: int) -> bool:
        self._check()
        removed = self._store.write(
            "DELETE FROM records WHERE log = ? AND sequence = ?", (self._name, _within_range(sequence))
        )
        return removed > 0


def _behind_prefix(prefix: bytes) -> bytes | None:
    """Return the smallest bytes larger than everything with this prefix; None where there are none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def _within_range(sequence: int) -> int:
    # SQLite has integers of 64 bits; no record has a number outside of them.
    return max(-1, min(sequence, _SEQUENCE_MAX))
