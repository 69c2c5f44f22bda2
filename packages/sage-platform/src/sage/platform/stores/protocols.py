"""What the layers above may ask of a durable store, and the argument rules that all stores share."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

from sage.common.errors import InvalidArgumentError, SizeLimitError, StoreError

__all__ = [
    "KEY_BYTES_MAX",
    "NAME_CHARACTERS_MAX",
    "VALUE_BYTES_MAX",
    "KeyValueStore",
    "RecordLog",
    "Store",
    "check_key",
    "check_limit",
    "check_name",
    "check_open",
    "check_value",
]

KEY_BYTES_MAX = 4096
NAME_CHARACTERS_MAX = 200
VALUE_BYTES_MAX = 64 * 1024 * 1024


class KeyValueStore(Protocol):
    """Values of bytes under text keys, within one namespace of a store.

    Every method raises `StoreError` when the store fails or is closed, and `InvalidArgumentError` or
    `SizeLimitError` for a key or value that no store takes. What a writing method has returned from is
    durable.

    >>> from sage.platform.stores import MemoryStore
    >>> with MemoryStore() as store:
    ...     settings = store.key_values("settings")
    ...     settings.put("colour", b"blue")
    ...     settings.get("colour"), settings.get("size")
    (b'blue', None)
    """

    def get(self, key: str) -> bytes | None:
        """Return the value of `key`, or None."""
        ...

    def put(self, key: str, value: bytes) -> None:
        """Set the value of `key`, whether it is there or not."""
        ...

    def put_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Set all values or, if anything goes wrong, none; of equal keys the last one counts."""
        ...

    def delete(self, key: str) -> bool:
        """Remove `key`; return whether it was there."""
        ...

    def scan(self, prefix: str = "", limit: int | None = None, after: str | None = None) -> list[tuple[str, bytes]]:
        """Return the keys that begin with `prefix` and their values, in the order of code points.

        Args:
            prefix: What the keys begin with.
            limit: Most items returned; None for all. Large namespaces should be read in pages.
            after: Return only keys behind this one: the last key of the page before.
        """
        ...

    def count(self) -> int:
        """Return the number of keys."""
        ...

    def close(self) -> None:
        """Refuse further use of this view; the store stays open. Harmless when repeated."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class RecordLog(Protocol):
    """Records of bytes in the order of arrival, numbered from 1 without gaps; no number is used twice.

    Every method raises `StoreError` when the store fails or is closed, `SizeLimitError` for a record that is
    too large. When `append` has returned, the record is durable.

    >>> from sage.platform.stores import MemoryStore
    >>> with MemoryStore() as store:
    ...     letters = store.record_log("dead-letters")
    ...     letters.append(b"first"), letters.append_many([b"second", b"third"]), letters.read(2)
    (1, range(2, 4), [(2, b'second'), (3, b'third')])
    """

    def append(self, record: bytes) -> int:
        """Add `record` at the end and return its number."""
        ...

    def append_many(self, records: Iterable[bytes]) -> range:
        """Add all records or, if anything goes wrong, none; return their numbers, which are consecutive."""
        ...

    def read(self, start: int = 1, limit: int | None = None) -> list[tuple[int, bytes]]:
        """Return up to `limit` records (None: all) from number `start` on, with their numbers, ascending."""
        ...

    def get(self, sequence: int) -> bytes | None:
        """Return the record with this number, or None if it was removed or never written."""
        ...

    def count(self) -> int:
        """Return the number of records that are there."""
        ...

    def next_sequence(self) -> int:
        """Return the number that the next record will get."""
        ...

    def truncate_before(self, sequence: int) -> int:
        """Remove the records with smaller numbers; return how many there were."""
        ...

    def delete(self, sequence: int) -> bool:
        """Remove one record; return whether it was there."""
        ...

    def close(self) -> None:
        """Refuse further use of this view; the store stays open. Harmless when repeated."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Store(Protocol):
    """A place for any number of key-value namespaces and record logs, which do not see each other.

    Safe for use by several threads. Opening the same name twice gives two views of the same contents.
    """

    def key_values(self, namespace: str) -> KeyValueStore:
        """Open a namespace; it begins to exist with its first value."""
        ...

    def record_log(self, name: str) -> RecordLog:
        """Open a log; it begins to exist with its first record."""
        ...

    def namespaces(self) -> list[str]:
        """Return the names of the namespaces that hold something, sorted."""
        ...

    def logs(self) -> list[str]:
        """Return the names of the logs that something was ever written to, sorted."""
        ...

    def close(self) -> None:
        """Close the store and all its views. Harmless when repeated."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def check_name(name: str, what: str) -> str:
    """Return `name` if it can name a namespace or log.

    Raises:
        InvalidArgumentError: If it is empty, too long or cannot be encoded.

    >>> check_name("dead-letters", "log")
    'dead-letters'
    """
    if not name or len(name) > NAME_CHARACTERS_MAX:
        raise InvalidArgumentError(
            f"the name of a {what} must have 1 to {NAME_CHARACTERS_MAX} characters, got {len(name)}"
        )
    _encode(name, f"name of the {what}")
    return name


def check_key(key: str) -> bytes:
    """Return `key` in UTF-8, whose byte order is the order of code points.

    Raises:
        InvalidArgumentError: If it cannot be encoded.
        SizeLimitError: If it is longer than `KEY_BYTES_MAX`.

    >>> check_key("a")
    b'a'
    """
    data = _encode(key, "key")
    if len(data) > KEY_BYTES_MAX:
        raise SizeLimitError(f"key has {len(data)} bytes, the limit is {KEY_BYTES_MAX}: {key[:40]!r}...")
    return data


def check_value(value: bytes, what: str, limit_bytes: int) -> bytes:
    """Return `value` if it is bytes within the limit.

    Raises:
        InvalidArgumentError: If it is not of type bytes.
        SizeLimitError: If it is longer than `limit_bytes`.

    >>> check_value(b"x", "record", 10)
    b'x'
    """
    # Callers that are not type-checked would otherwise find their text come back as something else.
    given: object = value
    if not isinstance(given, bytes):
        raise InvalidArgumentError(f"a {what} must be bytes, got {type(given).__name__}: encode it first")
    if len(given) > limit_bytes:
        raise SizeLimitError(f"{what} has {len(given)} bytes, the limit is {limit_bytes}")
    return given


def check_limit(limit: int | None) -> int:
    """Return `limit` as SQLite reads it: -1 for none.

    Raises:
        InvalidArgumentError: If it is negative.

    >>> check_limit(None), check_limit(3)
    (-1, 3)
    """
    if limit is None:
        return -1
    if limit < 0:
        raise InvalidArgumentError(f"limit must be >= 0 or None, got {limit}")
    return limit


def check_open(closed: bool, what: str) -> None:
    """Raise `StoreError` if `closed`.

    >>> check_open(False, "log 'a'")
    """
    if closed:
        raise StoreError(f"the {what} is closed")


def _encode(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"the {what} cannot be encoded as UTF-8: {text[:80]!r}") from error
