"""A store in the memory of this process, for tests and simulation; nothing survives it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from sage.common.errors import InvalidArgumentError
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

__all__ = ["MemoryStore"]


class _LogContents:
    def __init__(self) -> None:
        self.records: dict[int, bytes] = {}
        self.next_sequence = 1


class MemoryStore:
    """A `Store` in memory.

    Args:
        value_bytes_max: Largest value or record accepted.

    Raises:
        InvalidArgumentError: If `value_bytes_max` is below 1.

    >>> with MemoryStore() as store:
    ...     store.key_values("a").put("k", b"v")
    ...     store.namespaces()
    ['a']
    """

    def __init__(self, *, value_bytes_max: int = VALUE_BYTES_MAX) -> None:
        if value_bytes_max < 1:
            raise InvalidArgumentError(f"value_bytes_max must be >= 1, got {value_bytes_max}")
        self.value_bytes_max = value_bytes_max
        self.lock = threading.RLock()
        self.values: dict[str, dict[str, bytes]] = {}
        self.records: dict[str, _LogContents] = {}
        self._closed = False

    def check(self) -> None:
        """Raise `StoreError` if the store is closed."""
        check_open(self._closed, "store")

    def key_values(self, namespace: str) -> KeyValueStore:
        """Open a namespace."""
        self.check()
        return _MemoryKeyValues(self, check_name(namespace, "namespace"))

    def record_log(self, name: str) -> RecordLog:
        """Open a log."""
        self.check()
        return _MemoryLog(self, check_name(name, "log"))

    def namespaces(self) -> list[str]:
        """Return the names of the namespaces that hold something, sorted."""
        with self.lock:
            self.check()
            return sorted(name for name, values in self.values.items() if values)

    def logs(self) -> list[str]:
        """Return the names of the logs that something was ever written to, sorted."""
        with self.lock:
            self.check()
            return sorted(self.records)

    def close(self) -> None:
        """Close the store and forget everything."""
        with self.lock:
            self._closed = True
            self.values.clear()
            self.records.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _View:
    def __init__(self, store: MemoryStore, name: str, what: str) -> None:
        self._store = store
        self._name = name
        self._what = f"{what} {name!r}"
        self._closed = False

    def _check(self) -> None:
        check_open(self._closed, self._what)
        self._store.check()

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _MemoryKeyValues(_View):
    def __init__(self, store: MemoryStore, name: str) -> None:
        super().__init__(store, name, "namespace")

    def get(self, key: str) -> bytes | None:
        check_key(key)
        with self._store.lock:
            self._check()
            return self._store.values.get(self._name, {}).get(key)

    def put(self, key: str, value: bytes) -> None:
        self.put_many([(key, value)])

    def put_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        checked: dict[str, bytes] = {}
        for key, value in items:
            check_key(key)
            checked[key] = check_value(value, "value", self._store.value_bytes_max)
        with self._store.lock:
            self._check()
            self._store.values.setdefault(self._name, {}).update(checked)

    def delete(self, key: str) -> bool:
        check_key(key)
        with self._store.lock:
            self._check()
            return self._store.values.get(self._name, {}).pop(key, None) is not None

    def scan(self, prefix: str = "", limit: int | None = None, after: str | None = None) -> list[tuple[str, bytes]]:
        most = check_limit(limit)
        check_key(prefix)
        check_key(after or "")
        with self._store.lock:
            self._check()
            values = self._store.values.get(self._name, {})
            found = sorted(
                (key, value)
                for key, value in values.items()
                if key.startswith(prefix) and (after is None or key > after)
            )
        return found if most < 0 else found[:most]

    def count(self) -> int:
        with self._store.lock:
            self._check()
            return len(self._store.values.get(self._name, {}))


class _MemoryLog(_View):
    def __init__(self, store: MemoryStore, name: str) -> None:
        super().__init__(store, name, "log")

    def append(self, record: bytes) -> int:
        return self.append_many([record]).start

    def append_many(self, records: Iterable[bytes]) -> range:
        checked = [check_value(record, "record", self._store.value_bytes_max) for record in records]
        with self._store.lock:
            self._check()
            if not checked:
                return range(0)
            contents = self._store.records.setdefault(self._name, _LogContents())
            numbers = range(contents.next_sequence, contents.next_sequence + len(checked))
            contents.records.update(zip(numbers, checked, strict=True))
            contents.next_sequence = numbers.stop
        return numbers

    def _contents(self) -> _LogContents:
        self._check()
        return self._store.records.get(self._name) or _LogContents()

    def read(self, start: int = 1, limit: int | None = None) -> list[tuple[int, bytes]]:
        most = check_limit(limit)
        with self._store.lock:
            # Numbers are given in ascending order and dicts keep it.
            found = [item for item in self._contents().records.items() if item[0] >= start]
        return found if most < 0 else found[:most]

    def get(self, sequence: int) -> bytes | None:
        with self._store.lock:
            return self._contents().records.get(sequence)

    def count(self) -> int:
        with self._store.lock:
            return len(self._contents().records)

    def next_sequence(self) -> int:
        with self._store.lock:
            return self._contents().next_sequence

    def truncate_before(self, sequence: int) -> int:
        with self._store.lock:
            records = self._contents().records
            removed = [number for number in records if number < sequence]
            for number in removed:
                del records[number]
        return len(removed)

    def delete(self, sequence: int) -> bool:
        with self._store.lock:
            return self._contents().records.pop(sequence, None) is not None
