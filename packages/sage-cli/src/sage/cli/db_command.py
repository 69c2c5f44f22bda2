"""`sage db`: look into, search, fill, copy out, check and tidy a vector database."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sage.common.errors import InvalidArgumentError
from sage.middleware.components import sage_db
from sage.middleware.components.sage_db import Collection, Database
from sage.middleware.embeddings import create_embedder

from .errors import CommandError
from .exit_codes import ExitCode
from .plain_text import one_line, printable
from .quantities import plural

__all__ = [
    "compact_database",
    "export_collection",
    "import_file",
    "search_collection",
    "show_database",
    "verify_database",
]

_WIDTH_WITHOUT_TERMINAL = 160
_VECTOR_MAX = 1 << 20


def _json(value: Any) -> None:
    sys.stdout.write(msgspec.json.encode(value, enc_hook=str).decode() + "\n")


@contextmanager
def _opened(path: Path, *, read_only: bool = True) -> Iterator[Database]:
    if read_only and not path.is_dir():
        raise CommandError(f"there is no folder {str(path)!r}: PATH is the folder of a database")
    with sage_db.open(path, read_only=read_only) as database:
        yield database


def _collection(database: Database, name: str | None) -> Collection:
    """The one that is named, or the only one."""
    names = database.collection_names()
    if name is not None:
        return database.collection(name)
    if len(names) != 1:
        listed = ", ".join(map(repr, names[:20])) or "none"
        raise CommandError(f"--collection must name one of the {plural(len(names), 'collection')}: {listed}")
    return database.collection(names[0])


def _progress(what: str) -> Callable[[int, int | None], None]:
    """A line on standard error that is written over, on a terminal only."""

    def show(done: int, total: int | None) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            sys.stderr.write(f"\r\x1b[2K{what}: {done:,}{'' if total is None else f' of {total:,}'}{end}")
            sys.stderr.flush()

    return show


def show_database(path: Path, *, as_json: bool) -> ExitCode:
    """Print the collections: a table, or one JSON object.

    Raises:
        CommandError: the folder is not there.
        StoreError: it cannot be read.
    """
    with _opened(path) as database:
        found = [
            {**each.stats(), **{k: each.options[k] for k in ("dimension", "metric", "storage")}} for each in database
        ]
        stats = database.stats()
    if as_json:
        _json({**stats, "path": str(path), "collections": found})
        return ExitCode.DONE
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for header in ("collection", "documents", "vectors", "dimension", "metric", "index", "memory", "fields"):
        table.add_column(
            header, justify="right" if header in ("documents", "vectors", "dimension", "memory") else "left"
        )
    for each in found:
        fields = ", ".join(f"{field['name']} ({field['type']})" for field in each["fields"])
        cells = (
            each["name"], f"{each['documents']:,}", f"{each['vectors']:,}", str(each["dimension"]), each["metric"],
            each["index"], _size(each["vector_bytes"] + each["text_bytes"]), fields or "-",
        )  # fmt: skip
        table.add_row(*(Text(one_line(str(cell))) for cell in cells))
    if found:
        console.print(table)
        console.print()
    held = f"log {_size(stats['log_bytes'])}, snapshot {_size(stats['snapshot_bytes'])}"
    console.print(Text(f"{plural(len(found), 'collection')} in {printable(str(path))}; {held}"), soft_wrap=True)
    if stats["recovered_dropped"]:
        console.print(Text(f"an unfinished end of the log is left out: {stats['recovered_dropped']}"), soft_wrap=True)
    return ExitCode.DONE


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def search_collection(
    path: Path,
    query: str | None,
    *,
    collection: str | None,
    vector: str | None,
    top_k: int,
    mode: str,
    embedding: str,
    where: str | None,
    explain: bool,
    as_json: bool,
) -> ExitCode:
    """Print what a search finds, best first: one line each, or one JSON object per line.

    Raises:
        CommandError: the options do not fit together.
        SageError: the search is refused.
    """
    if mode not in ("hybrid", "vector", "text"):
        raise CommandError(f"--mode must be hybrid, vector or text, got {mode!r}")
    if query is None and vector is None:
        raise CommandError("a search needs a QUERY or a --vector")
    condition = _decoded("--where", where, dict)
    with _opened(path) as database:
        target = _collection(database, collection)
        given = None if vector is None else np.asarray(_numbers(vector), dtype=np.float32)
        if given is None and mode != "text":
            model = create_embedder({"model": embedding, "dimension": _free_dimension(embedding, target.dimension)})
            assert query is not None
            given = model.embed([query])[0]
        text = None if mode == "vector" else query
        if explain:
            explained = target.explain(given, top_k, text=text, where=condition)
            if as_json:
                _json({name: getattr(explained, name) for name in explained.__slots__ if name != "text"})
            else:
                sys.stdout.write(printable(str(explained)) + "\n")
            return ExitCode.DONE
        hits = target.search(given, top_k, text=text, where=condition)
    for hit in hits:
        if as_json:
            _json({"id": hit.id, "score": hit.score, "metadata": hit.metadata, "text": hit.text})
        else:
            about = hit.text if hit.text is not None else " ".join(f"{k}={v}" for k, v in (hit.metadata or {}).items())
            sys.stdout.write(f"{hit.score:10.4f}  {one_line(str(hit.id))}  {one_line(about, 100)}".rstrip() + "\n")
    return ExitCode.DONE


def _free_dimension(embedding: str, dimension: int) -> int | None:
    return dimension if embedding == "hashing" else None


def _decoded(option: str, text: str | None, kind: type) -> Any:
    if text is None:
        return None
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise CommandError(f"{option} must be JSON: {error}, got {text[:80]!r}") from error
    if not isinstance(value, kind):
        raise CommandError(f"{option} must be a JSON {'object' if kind is dict else 'list'}, got {text[:80]!r}")
    return value


def _numbers(vector: str) -> list[float]:
    if len(vector) > _VECTOR_MAX:
        raise CommandError(f"--vector must have at most {_VECTOR_MAX} characters")
    values = _decoded("--vector", vector, list)
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in values):
        raise CommandError("--vector must be a JSON list of numbers")
    return list(values)


def import_file(
    path: Path,
    file: Path,
    *,
    collection: str,
    form: str | None,
    source_collection: str | None,
    dimension: int | None,
    metric: str | None,
    index: str,
    as_json: bool,
) -> ExitCode:
    """Read a file's documents into a collection; the database and the collection are made if they are not there.

    Raises:
        SageError: the file cannot be read or does not fit.
    """
    if not file.exists():
        raise CommandError(f"there is no file {str(file)!r}")
    with _opened(path, read_only=False) as database:
        count = sage_db.import_into(
            database,
            collection,
            file,
            format=form,
            source_collection=source_collection,
            dimension=dimension,
            metric=metric,
            index=index,
            on_progress=_progress("imported"),
        )
    if as_json:
        _json({"imported": count, "collection": collection})
    else:
        sys.stdout.write(f"{plural(count, 'document')} from {file} in collection {collection!r} of {path}\n")
    return ExitCode.DONE


def export_collection(path: Path, file: Path, *, collection: str | None, form: str | None, as_json: bool) -> ExitCode:
    """Write a collection into a new file.

    Raises:
        SageError: the file is there already, or cannot be written.
    """
    with _opened(path) as database:
        target = _collection(database, collection)
        name = target.name
        count = sage_db.export_to(target, file, format=form, on_progress=_progress("exported"))
    if as_json:
        _json({"exported": count, "collection": name, "file": str(file)})
    else:
        sys.stdout.write(f"{plural(count, 'document')} of collection {name!r} written to {file}\n")
    return ExitCode.DONE


def verify_database(path: Path, *, as_json: bool) -> ExitCode:
    """Look at every byte; exit code 3 when something is damaged.

    Raises:
        CommandError: there is no database.
        StoreError: it is damaged.
    """
    try:
        found = sage_db.verify(path)
    except InvalidArgumentError as error:
        raise CommandError(str(error)) from error
    if as_json:
        _json(found)
    else:
        held = f"{plural(found['collections'], 'collection')}, {plural(found['documents'], 'document')}"
        sys.stdout.write(f"no damage: {held}, {plural(found['records'], 'record')} in the log\n")
        if found["dropped"]:
            sys.stdout.write(f"an unfinished end of the log is left out: {found['dropped']}\n")
    return ExitCode.DONE


def compact_database(path: Path, *, as_json: bool) -> ExitCode:
    """Put all vectors into their indexes, clear away what was removed, and write a new snapshot.

    Raises:
        CommandError: the folder is not there.
        StoreError: another process writes to it, or it is damaged.
    """
    if not path.is_dir():
        raise CommandError(f"there is no folder {str(path)!r}: PATH is the folder of a database")
    with _opened(path, read_only=False) as database:
        show = _progress("compacted")
        names = database.collection_names()
        for place, name in enumerate(names, start=1):
            database.collection(name).compact()
            show(place, len(names))
        database.checkpoint()
        stats = database.stats()
    if as_json:
        _json(stats)
    else:
        sys.stdout.write(f"{plural(len(names), 'collection')} compacted, snapshot {_size(stats['snapshot_bytes'])}\n")
    return ExitCode.DONE
