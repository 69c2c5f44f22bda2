"""Durable stores behind small protocols.

`protocols` says what a store does, `sqlite` keeps it in one file, `memory` in this process for tests and
simulation. Every implementation passes the conformance suite in ``tests/test_stores.py``.
"""

from __future__ import annotations

from sage.platform.stores.memory import MemoryStore
from sage.platform.stores.protocols import KeyValueStore, RecordLog, Store
from sage.platform.stores.sqlite import SqliteStore

__all__ = ["KeyValueStore", "MemoryStore", "RecordLog", "SqliteStore", "Store"]
