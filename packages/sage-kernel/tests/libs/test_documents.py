"""The source of documents: formats, order, patterns, and documents that are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import SizeLimitError
from sage.kernel.operators import BadRecord
from sage.libs.errors import DocumentError, RecordError, SourceError
from sage.libs.foundation import Document
from sage.libs.foundation.io import DirectorySource
from sage.libs.foundation.io.markup import html_to_text, markdown_title, split_front_matter
from sage.libs.text import SentenceChunker


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def documents(root: Path, **config: Any) -> list[Any]:
    source = DirectorySource({"path": root, **config})
    source.setup()
    return list(source.execute())


def test_formats_titles_and_order(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "z.txt": "plain\r\ntext",
            "a/guide.md": (
                "---\ntitle: The Guide\ntags: [x, y]\ndate: 2024-05-01\nnested: {a: 1}\n---\n# Other\n\nBody.\n"
            ),
            "a/plain.markdown": "Intro\n\n# First *Head*\n",
            "page.HTML": "<head><title>A  page</title><style>p{}</style></head><body><p>Hi &amp; bye</body>",
            "image.png": b"\x89PNG\0\0",
            ".hidden/x.txt": "no",
            "a/.x.txt": "no",
        },
    )
    found = documents(tmp_path, include=["*.txt", "*.md", "*.markdown", "*.HTML"])
    assert [document.id for document in found] == ["a/guide.md", "a/plain.markdown", "page.HTML", "z.txt"]
    guide, plain, page, text = found
    assert guide.text == "# Other\n\nBody.\n"
    assert guide.metadata == {
        "title": "The Guide",
        "tags": ["x", "y"],
        "date": "2024-05-01",
        "format": "markdown",
        "path": str(tmp_path / "a/guide.md"),
        "bytes": (tmp_path / "a/guide.md").stat().st_size,
    }
    assert plain.metadata["title"] == "First Head"
    assert (page.text, page.metadata["title"], page.metadata["format"]) == ("Hi & bye", "A page", "html")
    assert (text.text, text.metadata["title"], text.metadata["format"]) == ("plain\ntext", "z", "text")


def test_include_and_exclude(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys(("a.txt", "b.md", "build/c.txt", "src/d.txt", "src/deep/e.txt"), "text"))
    ids = lambda **config: [document.id for document in documents(tmp_path, **config)]  # noqa: E731
    assert ids() == ["a.txt", "b.md", "build/c.txt", "src/d.txt", "src/deep/e.txt"]
    assert ids(exclude=["build"]) == ["a.txt", "b.md", "src/d.txt", "src/deep/e.txt"]
    assert ids(exclude=["src/*"]) == ["a.txt", "b.md", "build/c.txt"]
    assert ids(include=["src/*.txt"]) == ["src/d.txt", "src/deep/e.txt"]
    assert ids(recursive=False) == ["a.txt", "b.md"]


def test_bad_documents_are_set_aside_and_the_others_come(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "01-empty.txt": "",
            "02-blank.md": " \n\t\n",
            "03-nul.txt": b"abc\0def",
            "04-control.txt": bytes(range(1, 9)) * 50 + b"some text",
            "05-latin.txt": b"caf\xe9",
            "06-big.txt": b"x" * 2000,
            "07-no-text.html": "<html><script>var a = 'text';</script></html>",
            "09-good.txt": "good",
        },
    )
    (tmp_path / "08-gone.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "10-pipe.txt")
    found = documents(tmp_path, max_bytes=1000)
    bad = [record for record in found if isinstance(record, BadRecord)]
    assert [document.id for document in found if isinstance(document, Document)] == ["09-good.txt"]
    messages = [str(record.error) for record in bad]
    for message, expected in zip(
        messages,
        [
            "is empty",
            "is empty",
            "NUL byte at offset 3",
            "mostly control characters",
            "byte 0xe9 at offset 3",
            "has 2000 bytes, the limit is 1000",
            "html without any text",
            "No such file",
            "not a regular file",
        ],
        strict=True,
    ):
        assert expected in message
    assert [type(record.error) for record in bad] == [
        *[DocumentError] * 5,
        SizeLimitError,
        DocumentError,
        RecordError,
        RecordError,
    ]
    assert all(record.item["path"].startswith(str(tmp_path)) for record in bad)


def test_byte_order_marks_and_declared_charsets_go_first(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a.txt": "\ufeffmit Umlaut ü".encode(),
            "b.txt": "mit Umlaut ü".encode("utf-16"),
            "c.html": '<meta charset="iso-8859-1"><p>mit Umlaut ü'.encode("latin-1"),
        },
    )
    assert [document.text for document in documents(tmp_path)] == ["mit Umlaut ü"] * 3


def test_starting_again_is_not_shifted_by_new_files(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": "a", "c.txt": "c", "d.txt": "d"})
    source = DirectorySource({"path": tmp_path})
    items = iter(source.execute())
    assert [next(items).id, next(items).id] == ["a.txt", "c.txt"]
    offset = source.offset_after(2)
    write(tmp_path, {"b.txt": "b"})
    assert [document.id for document in DirectorySource({"path": tmp_path}).read_from(offset)] == ["d.txt"]


def test_a_directory_without_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no document in .* \(it has no files\)"):
        DirectorySource({"path": tmp_path}).setup()
    write(tmp_path, {"a.pdf": "x", "b.pdf": "x", "c.docx": "x"})
    with pytest.raises(SourceError, match=r"other files: 2 \.pdf, 1 \.docx"):
        DirectorySource({"path": tmp_path}).setup()
    assert documents(tmp_path, allow_empty=True) == []
    with pytest.raises(SourceError, match="does not exist"):
        DirectorySource({"path": tmp_path / "doc"}).setup()
    with pytest.raises(SourceError, match="must be a directory"):
        DirectorySource({"path": tmp_path / "a.pdf"}).setup()


@pytest.mark.parametrize(
    ("markup", "text", "title"),
    [
        ("<p>a</p><p>b</p>", "a\n\nb", None),
        ("<ul><li>x</li><li>y</li></ul>", "- x\n- y", None),
        ("a<!-- hidden --> b<!-- never closed <p>gone", "a b", None),
        ("<script>if (a < b) {}</script>x", "x", None),
        ("<pre>  keep\n  this</pre>", "  keep\n  this", None),
        ("<table><tr><td>1</td><td>2</td></tr></table>", "1 | 2", None),
        ("1 < 2 and <b>bold</b> text", "1 < 2 and bold text", None),
        ("<svg><title>no</title></svg><title>yes</title>t", "t", "yes"),
        ("x &lt;tag&gt; &#228;", "x <tag> ä", None),
        ("a<![>b<![CDATA[c]]>d", "abd", None),
    ],
)
def test_html_to_text(markup: str, text: str, title: str | None) -> None:
    assert html_to_text(markup) == (text, title)


@given(st.text(st.sampled_from("<>/!-abp &;#\"'=[]?\n"), max_size=200))
def test_no_markup_breaks_the_html_reader(markup: str) -> None:
    text, _ = html_to_text(markup)
    assert len(text) <= 4 * len(markup) + 8


@pytest.mark.parametrize(
    "unit", ["<", "<a ", "<!--", "<![CDATA[", "<!x ", "<?", "</", "<a b='", "&#1", "<p>", "<title>"]
)
def test_hostile_markup_takes_linear_time(unit: str) -> None:
    # Quadratic behaviour would take minutes at this size and run into the test's time limit.
    for end in ("", ">"):
        html_to_text(unit * (1_000_000 // len(unit)) + end)


@pytest.mark.parametrize(
    "text",
    [
        "---\nkey: [unclosed\n---\nbody",
        "---\na: &x [1]\nb: *x\n---\nbody",
        "---\n- a list\n---\nbody",
        "--- not front matter\nbody",
        "---\n" + "k: v\n" * 20_000 + "---\nbody",
    ],
)
def test_what_is_no_front_matter_stays_in_the_text(text: str) -> None:
    assert split_front_matter(text) == ({}, text)


def test_titles_are_not_taken_from_code() -> None:
    assert markdown_title("```sh\n# a comment\n```\n\n# Real\n") == "Real"
    assert markdown_title("no heading at all") is None


def test_a_document_of_50_mb_on_one_line_is_cut_in_bounded_time(tmp_path: Path) -> None:
    sentence = "A line without any end goes on and on with words. "
    text = sentence * (50_000_000 // len(sentence))
    write(tmp_path, {"long.txt": text})
    start = time.monotonic()
    (document,) = documents(tmp_path)
    size, chunks, last = 0, 0, 0
    for chunk in SentenceChunker({"max_size": 4000, "overlap": 0}).execute(document):
        size, chunks, last = size + len(chunk.text), chunks + 1, chunk.end
    assert time.monotonic() - start < 30
    assert len(document.text) == 50_000_000
    assert chunks >= 12_500
    assert last >= len(text) - 1
    assert size >= 0.97 * len(text)


_WITHOUT_RIGHTS = """
import json, os, sys
from sage.libs.errors import SourceError
from sage.libs.foundation.io import DirectorySource, FileSource
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
root = sys.argv[1]
source = DirectorySource({"path": root})
source.setup()
found = [str(getattr(record, "error", "read")) for record in source.execute()]
try:
    FileSource({"file_path": root + "/b.txt"}).setup()
    found.append("opened")
except SourceError as error:
    found.append(str(error))
print(json.dumps(found))
"""


def test_without_permission_documents_are_set_aside_and_files_refused() -> None:
    # Not tmp_path, whose parents only their owner may enter; root drops its rights in a process of its own.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        write(Path(name), {"a.txt": "open", "b.txt": "closed"})
        (Path(name) / "a.txt").chmod(0o644)
        (Path(name) / "b.txt").chmod(0o000)
        done = subprocess.run(
            [sys.executable, "-c", _WITHOUT_RIGHTS, name], capture_output=True, text=True, timeout=50, check=False
        )
    assert done.returncode == 0, done.stderr
    first, second, third = json.loads(done.stdout)
    assert first == "read"
    assert second == "document 'b.txt' cannot be read: Permission denied"
    assert "no permission" in third
