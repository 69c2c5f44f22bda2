"""Databases: named collections in memory, kept in a folder."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sage.common.errors import InvalidArgumentError
from sage.middleware import _vdb

from .collection import Collection

__all__ = ["Database", "memory", "open", "verify"]

_COLLECTION_OPTIONS = ("rerank", "degree", "links", "lists", "build_effort", "k1", "b")
_STATE_VERSION = 1
# What a backup's folder has: no folders, no links.
_STATE_FILES_MAX = 1000


class Database:
    """Named collections; `open` and `memory` make one. Close it, or use it with `with`.

    One process writes to a folder at a time; any number may open it with `read_only=True` meanwhile and see what there
    was when they opened it. A child made by `fork` may go on reading, and is refused to write.

    Example:
        >>> from sage.middleware.components import sage_db
        >>> with sage_db.memory() as database:
        ...     notes = database.create_collection("notes", dimension=8, metric="l2")
        ...     database.collection_names()
        ['notes']
    """

    def __init__(self, native: _vdb.Database) -> None:
        self._native = native

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        stats = self._native.stats()
        return f"Database({stats['path'] or 'memory'!r}, collections={stats['collections']})"

    def create_collection(
        self,
        name: str,
        dimension: int,
        *,
        metric: str = "cosine",
        index: str = "auto",
        storage: str = "float32",
        **options: Any,
    ) -> Collection:
        """Make a new collection; a name that is taken is an error.

        Args:
            name: 1 to 255 bytes.
            dimension: length of the vectors.
            metric: "cosine", "inner_product" or "l2".
            index: "auto" (chosen by size), "flat" (exact), "hnsw", "ivf_flat" or "graph".
            storage: how vectors are kept: "float32"; "float16" and "bfloat16", to which they are rounded when they are
                written; "int8", "int4" and "bit1" for the indexes other than graph.
            **options: rerank: a second form, from which the best candidates are scored again; degree (graph), links
                (hnsw), lists (ivf_flat), build_effort (graph, hnsw); of the search for words (BM25): k1, b.

        Raises:
            InvalidArgumentError: a rule is broken.
        """
        _require_known(options, _COLLECTION_OPTIONS)
        _require_whole("dimension", dimension)
        return Collection(
            self._native.create_collection(name, dimension, metric=metric, index=index, storage=storage, **options)
        )

    def collection(self, name: str) -> Collection:
        """The collection of that name; an unknown one is an error that lists names that are near."""
        return Collection(self._native.collection(name))

    def get_or_create_collection(self, name: str, dimension: int, **options: Any) -> Collection:
        """The collection of that name, made with these options if it is not there.

        Raises:
            InvalidArgumentError: it is there with another dimension, metric or storage, or an option is unknown.
        """
        _require_known(options, ("metric", "index", "storage", *_COLLECTION_OPTIONS))
        if name not in self:
            return self.create_collection(name, dimension, **options)
        found = self.collection(name)
        asked = {"dimension": dimension, **options}
        for key, value in asked.items():
            if key in found.options and key != "index" and found.options[key] != value:
                raise InvalidArgumentError(f"collection {name!r} has {key} {found.options[key]!r}, asked for {value!r}")
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._native.has_collection(name)

    def __iter__(self) -> Iterator[Collection]:
        return (self.collection(name) for name in self.collection_names())

    def collection_names(self) -> list[str]:
        """All names, sorted."""
        return self._native.collection_names()

    def drop_collection(self, name: str) -> None:
        """Remove a collection with all that is in it."""
        self._native.drop_collection(name)

    def rename_collection(self, name: str, to: str) -> None:
        """Give a collection another name."""
        self._native.rename_collection(name, to)

    def checkpoint(self) -> None:
        """Write everything into a new snapshot and begin a new log, which makes the next opening fast."""
        self._native.checkpoint()

    def sync(self) -> None:
        """Wait until everything is durable, also with `sync="none"`."""
        self._native.sync()

    def compact(self, threads: int = 0) -> None:
        """`Collection.compact` for all collections, and `checkpoint`."""
        for collection in self:
            collection.compact(threads)
        if self.stats()["path"]:
            self.checkpoint()

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy everything as of one moment into a folder that holds no database; readers and writers go on."""
        self._native.backup(path)

    def stats(self) -> dict[str, Any]:
        """Path, number of collections, sizes of log and snapshot, what opening recovered."""
        return self._native.stats()

    def close(self) -> None:
        """Make a checkpoint and give the folder back. Collections can still be read; later calls do nothing."""
        self._native.close()

    def get_state(self) -> bytes:
        """Everything as of one moment, for `restore_state`.

        Example:
            >>> from sage.middleware.components import sage_db
            >>> database, other = sage_db.memory(), sage_db.memory()
            >>> database.create_collection("a", dimension=1).add([1], [[1.0]])
            >>> other.restore_state(database.get_state())
            >>> other.collection("a").count()
            1
        """
        with tempfile.TemporaryDirectory(prefix="sage-db-") as folder:
            copy = Path(folder) / "copy"
            self.backup(copy)
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w") as archive:
                for file in sorted(copy.iterdir()):
                    archive.add(file, arcname=file.name, recursive=False)
            return b"SAGEDBST%d\n" % _STATE_VERSION + packed.getvalue()

    def restore_state(self, state: bytes) -> None:
        """Replace all collections by those of `get_state`, in one step, also for who reads meanwhile and after a crash.

        What was written before is gone with the old collections; handles of those can be read on, not written.

        Raises:
            InvalidArgumentError: these are no such bytes; nothing was changed.
            StoreError: they are damaged; nothing was changed.
        """
        head = b"SAGEDBST%d\n" % _STATE_VERSION
        if not isinstance(state, bytes) or not state.startswith(head):
            raise InvalidArgumentError(f"state is not one of sage_db, version {_STATE_VERSION}")
        with tempfile.TemporaryDirectory(prefix="sage-db-") as folder:
            copy = Path(folder)
            _unpack(state[len(head) :], copy)
            self._native.restore(copy)


def _unpack(packed: bytes, folder: Path) -> None:
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as archive:
            for count, member in enumerate(archive):
                if not member.isfile() or Path(member.name).name != member.name or count >= _STATE_FILES_MAX:
                    raise InvalidArgumentError(f"state has an entry {member.name!r} that is no file of a database")
                content = archive.extractfile(member)
                assert content is not None
                with (folder / member.name).open("xb") as file:
                    shutil.copyfileobj(content, file)
    except (tarfile.TarError, EOFError) as error:
        raise InvalidArgumentError(f"state is damaged: {error}") from error


def _require_whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgumentError(f"{name} must be an integer, got {value!r}")


def open(
    path: str | os.PathLike[str],
    *,
    sync: str = "group",
    read_only: bool = False,
    **options: Any,
) -> Database:
    """Open the database in the folder `path`, or make it.

    Args:
        path: a folder of its own.
        sync: when a write returns: "each": it is synced by itself; "group": writers that wait share one sync; "none":
            at once, and a crash of the machine may take the last seconds back, never half a write.
        read_only: change nothing, and do not keep others from writing.
        **options: checkpoint_log_bytes (256 MiB): a checkpoint is made when the log has grown by this much, 0 for
            never; checkpoint_at_close (True); background (True): a thread that feeds the indexes and makes checkpoints;
            index_threads (1): threads that feed an index.

    Raises:
        StoreError: the folder belongs to something else, is damaged, was written by a newer version, or another process
            has it open for writing.
        InvalidArgumentError: an unknown option, or `read_only` and there is no database.

    Example:
        >>> import tempfile
        >>> from sage.middleware.components import sage_db
        >>> folder = tempfile.mkdtemp()
        >>> with sage_db.open(folder) as database:
        ...     database.create_collection("notes", dimension=1).add(["a"], [[1.0]])
        >>> with sage_db.open(folder, read_only=True) as database:
        ...     database.collection("notes").count()
        1
    """
    _require_known(options, ("checkpoint_log_bytes", "checkpoint_at_close", "background", "index_threads"))
    return Database(_vdb.Database.open(path, sync=sync, read_only=read_only, **options))


def memory(**options: Any) -> Database:
    """A database without a folder; `background` and `index_threads` as for `open`.

    Example:
        >>> memory().collection_names()
        []
    """
    _require_known(options, ("background", "index_threads"))
    return Database(_vdb.Database.in_memory(**options))


def verify(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Look at every byte of the database in `path` without changing it; returns numbers of collections, documents and
    log records, and `dropped`: the unfinished end of the log, "" if there is none.

    Raises:
        StoreError: it is damaged; the message names file and offset.
        InvalidArgumentError: there is none.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> open(folder).close()
        >>> verify(folder)["collections"]
        0
    """
    return _vdb.Database.verify(path)


def _require_known(options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = set(options) - set(known)
    if unknown:
        raise InvalidArgumentError(f"unknown option {min(unknown)!r}; known: {', '.join(known)}")
