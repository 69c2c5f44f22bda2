"""One database for all operators of a process that use the same folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .database import Database, open

__all__ = ["shared_database"]

# Folder and whether it may be written -> the database and how many use it.
_OPEN: dict[tuple[str, bool], tuple[Database, int]] = {}
_LOCK = threading.Lock()


@contextmanager
def shared_database(path: Path, *, read_only: bool = False, **options: Any) -> Iterator[Database]:
    """The database in `path`, opened by the first and closed by the last user in this process.

    Who only reads shares with who writes, if somebody does, and sees the changes; the options are those of the first.

    Raises:
        StoreError, InvalidArgumentError: as `open`.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with shared_database(folder) as one, shared_database(folder, read_only=True) as other:
        ...     one is other
        True
    """
    folder = str(path.resolve())
    with _LOCK:
        key = (folder, False)
        if read_only and key not in _OPEN:
            key = (folder, True)
        if key in _OPEN:
            database, users = _OPEN[key]
        else:
            database, users = open(path, read_only=key[1], **options), 0
        _OPEN[key] = (database, users + 1)
    try:
        yield database
    finally:
        with _LOCK:
            database, users = _OPEN[key]
            if users > 1:
                _OPEN[key] = (database, users - 1)
            else:
                del _OPEN[key]
                database.close()
