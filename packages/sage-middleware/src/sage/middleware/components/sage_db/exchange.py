"""Documents from files of others and into them: what `import_into` reads and `export_to` writes."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage.common.errors import InvalidArgumentError, MissingExtraError, SerializationError, StoreError

from .collection import Collection
from .database import Database
from .faiss_engine import faiss_module
from .results import Documents

__all__ = ["EXPORT_FORMATS", "IMPORT_FORMATS", "export_to", "guess_format", "import_into"]

IMPORT_FORMATS = ("chroma", "faiss", "hnswlib", "jsonl", "npz", "parquet")
EXPORT_FORMATS = ("jsonl", "npz", "parquet")
BATCH = 2000
_SUFFIXES = {".npz": "npz", ".parquet": "parquet", ".jsonl": "jsonl", ".faiss": "faiss", ".hnsw": "hnswlib"}
_LINE_MAX = 64 << 20
_DIMENSION_MAX = 16_384
_METRICS = {"cosine": "cosine", "ip": "inner_product", "l2": "l2"}
_TIME = "$time"


@dataclass(frozen=True, slots=True)
class Part:
    """Some documents that were read: n ids, vectors (rows, dimension), metadata, texts, rows of each (None: one)."""

    ids: NDArray[np.int64] | list[str]
    vectors: NDArray[np.float32]
    metadata: list[dict[str, Any]] | None = None
    texts: list[str | None] | None = None
    vector_counts: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """What is read: its metric where the file knows it, how many documents where that is known, and the parts."""

    metric: str | None
    total: int | None
    parts: Iterator[Part]


def guess_format(path: Path, formats: Sequence[str] = IMPORT_FORMATS) -> str:
    """The format of a file by its name, "chroma" for a folder with a Chroma database.

    Args:
        path: of the file.
        formats: those that there are to choose from.

    Raises:
        InvalidArgumentError: the name does not tell.

    Example:
        >>> guess_format(Path("vectors.npz"))
        'npz'
    """
    if (path / "chroma.sqlite3").is_file():
        return "chroma"
    found = _SUFFIXES.get(path.suffix.lower())
    if found is None or found not in formats:
        raise InvalidArgumentError(
            f"the name of {str(path)!r} does not tell its format; name one of {', '.join(formats)}"
        )
    return found


def import_into(
    database: Database,
    name: str,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    source_collection: str | None = None,
    dimension: int | None = None,
    metric: str | None = None,
    index: str = "auto",
    storage: str = "float32",
    on_progress: Callable[[int, int | None], None] | None = None,
) -> int:
    """Read the documents of a file into the collection `name`, which is made if it is not there; known ids are
    replaced.

    Each batch is a transaction: what was imported before an error stays. An index that keeps codes (a faiss index with
    PQ or SQ) gives back what it has: vectors that are near those that were once put in. Times without a zone, as
    Parquet has them, are taken as UTC.

    Args:
        database: where to.
        name: of the collection.
        path: a file, or the folder of a Chroma database.
        format: one of `IMPORT_FORMATS`; by default what the name tells.
        source_collection: of a Chroma database; it may be left out when there is one only.
        dimension: of an hnswlib file: checked against what the file has.
        metric: "cosine", "inner_product" or "l2" for a collection that is made; by default what the file says, else
            "cosine". An hnswlib file needs it.
        index: of a collection that is made.
        storage: of a collection that is made.
        on_progress: called behind each batch with the documents so far and all of them (None: not known).

    Returns:
        How many documents were read.

    Raises:
        InvalidArgumentError: what the file has does not fit, or an argument is missing.
        StoreError: the file cannot be read.
        MissingExtraError: what reads such a file is not installed.

    Example:
        >>> import tempfile
        >>> from sage.middleware.components import sage_db
        >>> file = Path(tempfile.mkdtemp()) / "vectors.npz"
        >>> np.savez(file, ids=np.array([3, 4]), vectors=np.eye(2, dtype=np.float32))
        >>> database = sage_db.memory()
        >>> import_into(database, "notes", file), database.collection("notes").search([1.0, 0.0], 1)[0].id
        (2, 3)
    """
    file = Path(path)
    if not file.exists():
        raise InvalidArgumentError(f"there is no file {str(file)!r}")
    kind = format or guess_format(file)
    if kind not in IMPORT_FORMATS:
        raise InvalidArgumentError(f"format must be one of {', '.join(IMPORT_FORMATS)}, got {format!r}")
    source = _source(kind, file, source_collection, dimension, metric)
    count, target, is_new = 0, None, name not in database
    for part in source.parts:
        if target is None:
            if is_new:
                made = metric or source.metric or "cosine"
                database.create_collection(name, part.vectors.shape[1], metric=made, index=index, storage=storage)
            target = database.collection(name)
        try:
            target._native.upsert(part.ids, part.vectors, part.metadata, part.texts, part.vector_counts)
        except InvalidArgumentError as error:
            if is_new and not count:
                database.drop_collection(name)
            # The numbers in the message count from the first document of this batch.
            raise InvalidArgumentError(f"{file}, from document {count} on: {error}") from error
        count += len(part.ids)
        if on_progress is not None:
            on_progress(count, source.total)
    if target is None and name not in database:
        raise InvalidArgumentError(f"{str(file)!r} has no documents: the collection {name!r} was not made")
    return count


def _source(kind: str, file: Path, collection: str | None, dimension: int | None, metric: str | None) -> Source:
    match kind:
        case "chroma":
            return _from_chroma(file, collection)
        case "faiss":
            return _from_faiss(file)
        case "hnswlib":
            return _from_hnswlib(file, dimension, metric)
        case "jsonl":
            return Source(None, None, _from_jsonl(file))
        case "npz":
            return _from_npz(file)
        case _:
            return _from_parquet(file)


def _from_chroma(folder: Path, name: str | None) -> Source:
    try:
        import chromadb
        from chromadb.config import Settings
    except ImportError as error:
        raise MissingExtraError("chromadb", "sage-middleware[chroma]") from error
    if not (folder / "chroma.sqlite3").is_file():
        raise InvalidArgumentError(f"there is no Chroma database in {str(folder)!r}")
    client: Any = chromadb.PersistentClient(path=str(folder), settings=Settings(anonymized_telemetry=False))
    try:
        # Names or collections, according to the version of chromadb.
        listing: list[Any] = list(client.list_collections())
        known = sorted(each if isinstance(each, str) else each.name for each in listing)
        if name is None and len(known) == 1:
            name = known[0]
        if name not in known:
            listed = ", ".join(map(repr, known)) or "none"
            asked = "name one of its collections" if name is None else f"no collection {name!r}"
            raise InvalidArgumentError(f"{asked}: the Chroma database in {str(folder)!r} has {listed}")
        found = client.get_collection(name, embedding_function=None)
        space = (found.configuration_json.get("hnsw") or found.configuration_json.get("spann") or {}).get("space", "l2")
        total = found.count()
    except BaseException:  # whatever ends the look at it, Ctrl-C too: the client has files open
        client.close()
        raise
    return Source(_METRICS.get(space), total, _chroma_parts(client, found, total))


def _chroma_parts(client: Any, collection: Any, total: int) -> Iterator[Part]:
    try:
        for offset in range(0, total, BATCH):
            page = collection.get(limit=BATCH, offset=offset, include=["embeddings", "metadatas", "documents"])
            metadata = [dict(each or {}) for each in page["metadatas"]]
            vectors = np.asarray(page["embeddings"], dtype=np.float32)
            yield Part(list(page["ids"]), vectors, metadata, list(page["documents"]))
    finally:
        client.close()


def _from_faiss(file: Path) -> Source:
    faiss = faiss_module()
    try:
        index = faiss.read_index(str(file))
    except RuntimeError as error:
        raise StoreError(f"is no index that faiss can read: {error}", path=file) from error
    ids = np.arange(index.ntotal, dtype=np.int64)
    inner = faiss.downcast_index(index)
    by_number = True
    if isinstance(inner, faiss.IndexIDMap):
        ids = faiss.vector_to_array(inner.id_map).astype(np.int64)
        inner = faiss.downcast_index(inner.index)
    elif isinstance(inner, faiss.IndexIVF):  # it may have any ids itself, and finds its vectors by them
        ids, by_number = _ids_of_lists(faiss, inner), False
        inner.set_direct_map_type(faiss.DirectMap.Hashtable)
    if by_number and isinstance(inner, faiss.IndexIVF):  # rows of inverted lists are found by number only with this
        inner.make_direct_map()
    metric = {faiss.METRIC_L2: "l2", faiss.METRIC_INNER_PRODUCT: "inner_product"}.get(index.metric_type)

    def parts(_owner: Any) -> Iterator[Part]:
        # `inner` is a part of the index, which is freed with its Python object: the generator holds that.
        for first in range(0, len(ids), BATCH):
            chosen = ids[first : first + BATCH]
            try:
                vectors = inner.reconstruct_n(first, len(chosen)) if by_number else inner.reconstruct_batch(chosen)
            except RuntimeError as error:
                raise StoreError(f"this kind of index does not give its vectors back: {error}", path=file) from error
            yield Part(chosen, vectors)

    return Source(metric, len(ids), parts(index))


def _ids_of_lists(faiss: Any, index: Any) -> NDArray[np.int64]:
    """The ids in the inverted lists; one that was added twice counts once."""
    lists = index.invlists
    found = [
        np.array(faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)), dtype=np.int64)
        for number in range(lists.nlist)
        if lists.list_size(number)
    ]
    return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)


def _from_hnswlib(file: Path, dimension: int | None, metric: str | None) -> Source:
    try:
        import hnswlib
    except ImportError as error:
        raise MissingExtraError("hnswlib", "sage-middleware[hnswlib]") from error
    if metric is None:
        raise InvalidArgumentError("an hnswlib file does not say its metric: name it")
    space = {ours: theirs for theirs, ours in _METRICS.items()}.get(metric)
    if space is None:
        raise InvalidArgumentError(f"metric must be one of {', '.join(_METRICS.values())}, got {metric!r}")
    found = _hnswlib_dimension(file)
    if dimension not in (None, found):
        raise InvalidArgumentError(f"{file}: its vectors have {found} dimensions, not {dimension}")
    index = hnswlib.Index(space=space, dim=found)
    try:
        index.load_index(str(file))
        labels = np.array(index.get_ids_list(), dtype=np.int64)
    except RuntimeError as error:
        raise StoreError(f"is no index that hnswlib can read: {error}", path=file) from error

    def parts() -> Iterator[Part]:
        for first in range(0, len(labels), BATCH):
            chosen = labels[first : first + BATCH]
            try:
                vectors = np.asarray(index.get_items(chosen), dtype=np.float32)
            except RuntimeError:  # one of them is marked as deleted, which only asking for it tells
                chosen, vectors = _living(index, chosen)
            if len(chosen):
                yield Part(chosen, vectors)

    return Source(metric, len(labels), parts())


def _hnswlib_dimension(file: Path) -> int:
    """From the sizes at the beginning of the file, at which hnswlib does not look: it reads rows of any length."""
    try:
        with file.open("rb") as content:
            *_, label_at, vector_at = struct.unpack("=6Q", content.read(48))
    except (OSError, struct.error) as error:
        raise StoreError(f"is no index that hnswlib can read: {error}", path=file) from error
    dimension, rest = divmod(label_at - vector_at, np.dtype(np.float32).itemsize)
    if rest or not 1 <= dimension <= _DIMENSION_MAX:
        raise StoreError("is no index that hnswlib can read: the sizes at its beginning do not fit", path=file)
    return int(dimension)


def _living(index: Any, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    kept, rows = [], []
    for label in labels.tolist():
        try:
            rows.append(np.asarray(index.get_items([label]), dtype=np.float32)[0])
        except RuntimeError:  # marked as deleted
            continue
        kept.append(label)
    return np.array(kept, dtype=np.int64), np.array(rows, dtype=np.float32)


def _from_npz(file: Path) -> Source:
    try:
        with np.load(file, allow_pickle=False) as content:
            fields = {name: content[name] for name in content.files}
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot be read as npz: {error}", path=file) from error
    vectors = fields.get("vectors")
    if vectors is None or vectors.ndim != 2:
        raise InvalidArgumentError(
            f"{str(file)!r} must have an array 'vectors' (n, dimension), it has:"
            f" {', '.join(sorted(fields)) or 'nothing'}"
        )
    counts = fields.get("vector_counts")
    total = len(vectors) if counts is None else len(counts)
    ids = fields.get("ids", np.arange(total, dtype=np.int64))
    ends = None if counts is None else np.concatenate([[0], np.cumsum(counts)])
    metadata = _json_column(fields.get("metadata"), file, "metadata")
    texts = _json_column(fields.get("texts"), file, "texts")
    if len(ids) != total or (ends is not None and ends[-1] != len(vectors)):
        raise InvalidArgumentError(f"{str(file)!r}: ids, vectors and vector_counts must have the same length")

    def parts() -> Iterator[Part]:
        for first in range(0, total, BATCH):
            part = slice(first, first + BATCH)
            rows = part if ends is None else slice(int(ends[first]), int(ends[min(first + BATCH, total)]))
            yield Part(
                ids[part].tolist() if ids.dtype.kind == "U" else ids[part],
                np.ascontiguousarray(vectors[rows], dtype=np.float32),
                None if metadata is None else [_decoded(each) for each in metadata[part]],
                None if texts is None else texts[part],
                None if counts is None else counts[part].astype(np.int64),
            )

    return Source(str(fields["metric"]) if "metric" in fields else None, total, parts())


def _json_column(array: Any, file: Path, name: str) -> list[Any] | None:
    if array is None:
        return None
    try:
        values = [json.loads(str(each)) for each in array.tolist()]
    except ValueError as error:
        raise InvalidArgumentError(f"{str(file)!r}: each entry of {name!r} must be JSON: {error}") from error
    return values


def _from_jsonl(file: Path) -> Iterator[Part]:
    with file.open("rb") as lines:
        numbered = enumerate(iter(lambda: lines.readline(_LINE_MAX + 1), b""), start=1)
        while batch := list(islice(numbered, BATCH)):
            objects = [_json_object(file, number, line) for number, line in batch if line.strip()]
            rows = [np.atleast_2d(np.asarray(each["vector"], dtype=np.float32)) for each in objects]
            if not rows:
                continue
            if len({row.shape[1] for row in rows}) != 1:
                raise InvalidArgumentError(f"{str(file)!r}: vectors have different lengths, near line {batch[0][0]}")
            yield Part(
                [each["id"] for each in objects],
                np.concatenate(rows),
                [_decoded(each.get("metadata") or {}) for each in objects],
                [each.get("text") for each in objects],
                np.array([len(row) for row in rows], dtype=np.int64),
            )


def _json_object(file: Path, number: int, line: bytes) -> dict[str, Any]:
    if len(line) > _LINE_MAX:
        raise InvalidArgumentError(f"{file}:{number}: a line must have at most {_LINE_MAX} bytes")
    try:
        found = json.loads(line)
        if not isinstance(found, dict) or "id" not in found or "vector" not in found:
            raise ValueError("an object with 'id' and 'vector' is needed")
        np.asarray(found["vector"], dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise InvalidArgumentError(f"{file}:{number}: {error}") from error
    return found


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "sage-middleware[parquet]") from error
    return pyarrow, pyarrow.parquet


def _from_parquet(file: Path) -> Source:
    arrow, parquet = _pyarrow()
    try:
        table = parquet.ParquetFile(file)
    except (OSError, arrow.ArrowException) as error:
        raise StoreError(f"cannot be read as Parquet: {error}", path=file) from error
    names = table.schema_arrow.names
    if "vector" not in names or "id" not in names:
        raise InvalidArgumentError(f"{str(file)!r} must have the columns 'id' and 'vector', it has: {', '.join(names)}")

    def parts() -> Iterator[Part]:
        for batch in table.iter_batches(batch_size=BATCH):
            columns = batch.to_pydict()
            rows = [np.atleast_2d(np.asarray(each, dtype=np.float32)) for each in columns["vector"]]
            count = len(rows)
            if "metadata" in columns:
                metadata = [_decoded(json.loads(each)) if each else {} for each in columns["metadata"]]
            else:
                others = [name for name in names if name not in ("id", "vector", "text")]
                metadata = [
                    {name: _in_utc(columns[name][row]) for name in others if columns[name][row] is not None}
                    for row in range(count)
                ]
            counts = np.array([len(row) for row in rows], dtype=np.int64)
            yield Part(list(columns["id"]), np.concatenate(rows), metadata, columns.get("text"), counts)

    return Source(None, table.metadata.num_rows, parts())


def _in_utc(value: Any) -> Any:
    """A time without a zone with that of UTC, anything else as it is."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


def export_to(
    collection: Collection,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> int:
    """Write all documents of a collection into a new file; returns how many.

    `import_into` reads all three formats back. JSON Lines: `id`, `vector` (or a list of them), `metadata`, `text`; a
    time is `{"$time": "2024-02-29T12:30:00+00:00"}`. npz: `ids`, `vectors`, `vector_counts`, `metadata` and `texts`
    (JSON each), `metric`. Parquet: `id`, `vector`, `metadata` (JSON), `text`.

    Raises:
        InvalidArgumentError: an unknown format.
        StoreError: the file is there already or cannot be written.
        MissingExtraError: pyarrow is not installed.

    Example:
        >>> import tempfile
        >>> from sage.middleware.components import sage_db
        >>> notes = sage_db.memory().create_collection("notes", dimension=2)
        >>> notes.add(["a"], [[1.0, 0.0]], metadata=[{"year": 2024}])
        >>> file = Path(tempfile.mkdtemp()) / "notes.jsonl"
        >>> export_to(notes, file)
        1
        >>> print(file.read_text(), end="")
        {"id": "a", "vector": [1.0, 0.0], "metadata": {"year": 2024}}
    """
    target = Path(path)
    kind = format or guess_format(target, EXPORT_FORMATS)
    if kind not in EXPORT_FORMATS:
        raise InvalidArgumentError(f"format must be one of {', '.join(EXPORT_FORMATS)}, got {kind!r}")
    if target.exists():
        raise StoreError("is there already: name a new file", path=target)
    total = len(collection)

    def pages() -> Iterator[Documents]:
        done = 0
        for page in collection.pages(include=("metadata", "text", "vectors"), size=BATCH):
            yield page
            done += len(page)
            if on_progress is not None:
                on_progress(done, total)

    unfinished = target.with_name(target.name + ".tmp")
    writers = {"jsonl": _to_jsonl, "npz": _to_npz, "parquet": _to_parquet}
    try:
        count = writers[kind](collection, pages(), unfinished)
        unfinished.replace(target)
    except OSError as error:
        raise StoreError(f"cannot be written: {error.strerror or error}", path=target) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _to_jsonl(_: Collection, pages: Iterable[Documents], file: Path) -> int:
    count = 0
    with file.open("x", encoding="utf-8") as out:
        for page in pages:
            for each in page:
                assert each.vectors is not None
                rows = each.vectors.astype(float).tolist()
                fields: dict[str, Any] = {"id": each.id, "vector": rows[0] if len(rows) == 1 else rows}
                if each.metadata:
                    fields["metadata"] = _encoded(each.metadata)
                if each.text is not None:
                    fields["text"] = each.text
                out.write(json.dumps(fields, ensure_ascii=False) + "\n")
                count += 1
    return count


def _to_npz(collection: Collection, pages: Iterable[Documents], file: Path) -> int:
    parts = list(pages)
    ids = [each for page in parts for each in (page.ids if isinstance(page.ids, list) else page.ids.tolist())]
    empty = np.empty((0, collection.dimension), dtype=np.float32)
    fields = {
        "ids": np.array(ids) if ids else np.empty(0, dtype=np.int64),
        "vectors": np.concatenate([empty, *(page.vectors for page in parts if page.vectors is not None)]),
        "vector_counts": np.concatenate(
            [np.empty(0, np.uint32), *(page.vector_counts for page in parts if page.vector_counts is not None)]
        ),
        "metadata": np.array([json.dumps(_encoded(each)) for page in parts for each in page.metadata or ()], dtype=str),
        "texts": np.array([json.dumps(each) for page in parts for each in page.texts or ()], dtype=str),
        "metric": np.array(collection.metric),
    }
    if any(isinstance(each, str) and each.endswith("\0") for each in ids):
        raise SerializationError("npz cannot hold ids that end with a zero character; jsonl and parquet can")
    with file.open("xb") as out:
        np.savez(out, allow_pickle=False, **fields)
    return len(ids)


def _to_parquet(collection: Collection, pages: Iterable[Documents], file: Path) -> int:
    arrow, parquet = _pyarrow()
    texts = collection.stats()["ids"] == "str"
    single = collection.stats()["documents"] == collection.stats()["vectors"]
    row = arrow.list_(arrow.float32())
    schema = arrow.schema(
        [
            ("id", arrow.string() if texts else arrow.int64()),
            ("vector", row if single else arrow.list_(row)),
            ("metadata", arrow.string()),
            ("text", arrow.string()),
        ]
    )
    count = 0
    with parquet.ParquetWriter(file, schema) as out:
        for page in pages:
            out.write_table(arrow.Table.from_pydict(_columns(page, single), schema=schema))
            count += len(page)
    return count


def _columns(page: Documents, single: bool) -> dict[str, Sequence[Any]]:
    rows = [each.vectors.tolist() for each in page if each.vectors is not None]
    return {
        "id": page.ids if isinstance(page.ids, list) else page.ids.tolist(),
        "vector": [each[0] for each in rows] if single else rows,
        "metadata": [json.dumps(_encoded(each)) for each in page.metadata or ()],
        "text": page.texts or [],
    }


def _encoded(metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {_TIME: value.isoformat()} if isinstance(value, datetime) else value for name, value in metadata.items()
    }


def _decoded(metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        name: datetime.fromisoformat(value[_TIME]) if isinstance(value, dict) and set(value) == {_TIME} else value
        for name, value in metadata.items()
    }
