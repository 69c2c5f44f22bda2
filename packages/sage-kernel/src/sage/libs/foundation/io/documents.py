"""Source of the documents of a directory: text, Markdown, HTML."""

from __future__ import annotations

import codecs
import os
import re
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, field_validator

from sage.common.errors import SizeLimitError
from sage.kernel.operators import BadRecord
from sage.libs.errors import DocumentError, RecordError, SourceError
from sage.libs.foundation.records import Document

from .markup import html_to_text, markdown_title, split_front_matter
from .paths import require_directory
from .positions import PositionedSource

__all__ = ["DOCUMENT_FORMATS", "DirectorySource", "read_document"]

DOCUMENT_FORMATS: dict[str, str] = {
    ".txt": "text",
    ".text": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
}
_BYTES_MAX = 64 * 1024 * 1024
_CONTROLS = {code: None for code in range(32) if chr(code) not in "\t\n\r\f"} | {127: None}
_CONTROL_SHARE_MAX = 0.1
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)


class _DirectoryConfig(BaseModel, extra="forbid"):
    path: Path
    include: list[str] = Field(default_factory=lambda: [f"*{suffix}" for suffix in DOCUMENT_FORMATS])
    exclude: list[str] = Field(default_factory=list)
    recursive: bool = True
    hidden: bool = False
    encoding: str = "utf-8"
    errors: Literal["dead_letter", "replace"] = "dead_letter"
    max_bytes: int = Field(default=_BYTES_MAX, ge=1)
    allow_empty: bool = False

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str) -> str:
        try:
            return codecs.lookup(encoding).name
        except LookupError:
            raise ValueError(f"unknown encoding {encoding!r}; a usual one is 'utf-8'") from None


def _matches(relative: str, patterns: list[str]) -> bool:
    """A pattern with a slash is held against the whole relative path, one without against each of its
    parts.
    """
    parts = relative.split("/")
    return any(
        fnmatchcase(relative, pattern) if "/" in pattern else any(fnmatchcase(part, pattern) for part in parts)
        for pattern in patterns
    )


def _decode(raw: bytes, name: str, form: str, encoding: str, errors: str) -> str:
    if raw.startswith(codecs.BOM_UTF8):
        raw, encoding = raw[3:], "utf-8"
    elif raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif form == "html" and (declared := _META_CHARSET.search(raw, 0, 4096)):
        try:
            encoding = codecs.lookup(declared[1].decode("ascii")).name
        except LookupError:
            pass  # a page may declare anything; the configured encoding is then the better guess
    # UTF-16 is full of NUL bytes; anything else with one is not text.
    if not encoding.startswith(("utf-16", "utf-32")) and (place := raw.find(b"\0")) >= 0:
        raise DocumentError(f"document {name!r} is binary: NUL byte at offset {place}; exclude it or give it as text")
    try:
        return raw.decode(encoding, "strict" if errors == "dead_letter" else "replace")
    except UnicodeDecodeError as error:
        raise DocumentError(
            f"document {name!r} is not {encoding}: byte 0x{raw[error.start]:02x} at offset {error.start};"
            " set encoding to what it is written in, or errors to 'replace'"
        ) from None


def read_document(
    root: Path,
    relative: str,
    *,
    encoding: str = "utf-8",
    errors: Literal["dead_letter", "replace"] = "dead_letter",
    max_bytes: int = _BYTES_MAX,
) -> Document:
    """Read the file `relative` below `root` as a document; the suffix decides the format.

    Raises:
        RecordError: it cannot be opened.
        DocumentError: it is empty, binary, or not in `encoding`.
        SizeLimitError: it has more than `max_bytes` bytes.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> _ = (root / "guide.md").write_text("# Guide\\n\\nRead me.")
        >>> document = read_document(root, "guide.md")
        >>> document.id, document.metadata["title"], document.metadata["format"]
        ('guide.md', 'Guide', 'markdown')
    """
    path = root / relative
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise RecordError(f"document {relative!r} cannot be read: {error.strerror or error}") from error
    if len(raw) > max_bytes:
        raise SizeLimitError(f"document {relative!r} has {size} bytes, the limit is {max_bytes} (max_bytes)")
    form = DOCUMENT_FORMATS.get(path.suffix.lower(), "text")
    text = _decode(raw, relative, form, encoding, errors)
    sample = text[:65_536]
    if len(sample) - len(sample.translate(_CONTROLS)) > _CONTROL_SHARE_MAX * len(sample):
        raise DocumentError(f"document {relative!r} is binary: it is mostly control characters")
    fields: dict[str, Any] = {}
    title: str | None = None
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if form == "html":
        text, title = html_to_text(text)
    elif form == "markdown":
        fields, text = split_front_matter(text)
        named = fields.get("title")
        title = str(named) if named else markdown_title(text)
    if not text.strip():
        raise DocumentError(
            f"document {relative!r} is empty" + ("" if not raw.strip() else f" ({form} without any text)")
        )
    known = {"path": str(path), "title": title or path.stem, "format": form, "bytes": len(raw)}
    return Document(relative, text, {**fields, **known})


class DirectorySource(PositionedSource[Document]):
    """The documents of a directory, in the order of their paths: plain text, Markdown (front matter and
    title), HTML.

    The offset is the path of the last document, so a document that was added or removed meanwhile does not
    shift the others. A document that is empty, binary, too large, unreadable or not in the encoding is set
    aside as a dead letter.

    Config:
        path: the directory.
        include, exclude: glob patterns; one with a slash is held against the relative path, one without
            against each part of it.
        recursive: whether to go into directories below (never through symbolic links to directories).
        hidden: whether to take names that begin with a dot.
        encoding, errors: as for `FileSource`; a byte order mark and HTML's own `charset` go first.
        max_bytes: a larger document is set aside.
        allow_empty: whether a directory without a matching file is right.

    Raises:
        SourceError: from `setup`: no such directory, no permission, or nothing in it matches.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> _ = (root / "b.md").write_text("# Title\\n\\nText.")
        >>> _ = (root / "a.txt").write_text("")
        >>> bad, good = DirectorySource({"path": root}).execute()
        >>> str(bad.error), good.id, good.metadata["title"]
        ("document 'a.txt' is empty", 'b.md', 'Title')
    """

    Config: ClassVar[type[BaseModel] | None] = _DirectoryConfig

    def setup(self) -> None:
        """Check the directory and that something in it matches."""
        root: Path = self.config.path
        others: Counter[str] = Counter()
        require_directory("DirectorySource", root)
        if not self._paths(others) and not self.config.allow_empty:
            found = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in others.most_common(5))
            raise SourceError(
                f"DirectorySource: no document in {str(root)!r} matches {self.config.include!r}"
                + (f" (other files: {found})" if found else " (it has no files)")
            )

    def _paths(self, others: Counter[str] | None = None) -> list[str]:
        """Relative paths of what matches, sorted; suffixes of the rest are counted in `others`."""
        config, root = self.config, self.config.path
        found: list[str] = []
        for base, directories, names in os.walk(root):
            relative_base = Path(base).relative_to(root).as_posix()
            prefix = "" if relative_base == "." else relative_base + "/"
            directories[:] = [
                name
                for name in directories
                if config.recursive and self._wanted_name(name) and not _matches(prefix + name, config.exclude)
            ]
            for name in names:
                relative = prefix + name
                if not self._wanted_name(name) or _matches(relative, config.exclude):
                    continue
                if any(fnmatchcase(relative if "/" in p else name, p) for p in config.include):
                    found.append(relative)
                elif others is not None:
                    others[Path(name).suffix] += 1
        found.sort()
        return found

    def _wanted_name(self, name: str) -> bool:
        return bool(self.config.hidden) or not name.startswith(".")

    def scan(self, where: Any, number: int) -> Iterator[tuple[Document | BadRecord, list[Any]]]:
        """Yield `(document, [relative path, number])`."""
        root: Path = self.config.path
        require_directory("DirectorySource", root)
        for relative in self._paths():
            if where is not None and relative <= where:
                continue
            number += 1
            record: Document | BadRecord
            try:
                if not (root / relative).is_file() and (root / relative).exists():
                    # Opening a named pipe would wait for a writer for ever.
                    raise RecordError(f"document {relative!r} is not a regular file")
                record = read_document(
                    root,
                    relative,
                    encoding=self.config.encoding,
                    errors=self.config.errors,
                    max_bytes=self.config.max_bytes,
                )
            except (RecordError, SizeLimitError) as error:
                record = BadRecord({"path": str(root / relative)}, error)
            yield record, [relative, number]
