"""Text, JSON Lines and CSV sources: what they yield, where they go on, and what they do with bad input."""

from __future__ import annotations

import csv
import io
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import ConfigError, InvalidArgumentError, SizeLimitError
from sage.kernel.operators import BadRecord, OperatorContext, SourceFunction
from sage.libs.errors import RecordError, SourceError
from sage.libs.foundation.io import CSVSource, FileSource, JSONLSource

LINES = st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=20), max_size=30)


def read_all(source: SourceFunction[Any]) -> list[Any]:
    source.setup()
    try:
        return list(source.execute())
    finally:
        source.teardown()


def resume_everywhere(make: Any, expected: list[Any]) -> None:
    """Stopping after any number of items and starting again there gives the rest, and nothing twice."""
    for stop in range(len(expected) + 1):
        source = make()
        items = iter(source.execute())
        head = [next(items) for _ in range(stop)]
        offset = json.loads(json.dumps(source.offset_after(stop)))  # an offset is a JSON value
        items.close()
        assert head + list(make().read_from(offset)) == expected


@given(LINES, st.booleans(), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_file_source_is_splitting_at_newlines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], skip_blank: bool, newline: str, last: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes((newline.join(lines) + (newline if last and lines else "")).encode())
    if not last and lines and not lines[-1]:
        lines = lines[:-1]  # a file does not tell "no last line" from "an empty last line without a newline"
    if lines and lines[0].startswith("\ufeff"):
        lines[0] = lines[0][1:]
    expected = [line for line in lines if not skip_blank or line.encode().strip()]
    config = {"file_path": path, "skip_blank": skip_blank}
    assert list(FileSource(config).execute()) == expected
    resume_everywhere(lambda: FileSource(config), expected)


@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=5,
        ),
        max_size=15,
    )
)
def test_jsonl_source_gives_the_values_back(tmp_path_factory: pytest.TempPathFactory, values: list[Any]) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    assert list(JSONLSource({"file_path": path}).execute()) == values
    resume_everywhere(lambda: JSONLSource({"file_path": path}), values)


@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8"), max_size=8), st.text('ab,"\n ;', max_size=8)),
        max_size=12,
    )
)
def test_csv_source_agrees_with_the_csv_module(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("x", "y"), *rows])
    path.write_bytes(text.getvalue().encode())
    expected = [{"x": x, "y": y} for x, y in rows]
    source = CSVSource({"file_path": path})
    assert read_all(source) == expected
    resume_everywhere(lambda: CSVSource({"file_path": path}), expected)


def test_the_offset_is_a_seek_and_not_a_second_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\nthree\n")
    source = FileSource({"file_path": path})
    items = iter(source.execute())
    assert [next(items), next(items)] == ["one", "two"]
    offset = source.offset_after(2)
    path.write_text("###\n###\nthree\n")  # what was read before is not looked at again
    assert list(FileSource({"file_path": path}).read_from(offset)) == ["three"]


def test_a_file_that_became_shorter_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n")
    with pytest.raises(SourceError, match=r"offset 100 is not within .* \(4 bytes\); was the file replaced"):
        list(FileSource({"file_path": path}).read_from([100, 7]))
    with pytest.raises(InvalidArgumentError, match="from another source"):
        list(FileSource({"file_path": path}).read_from(17))


def test_replicas_share_the_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{n}\n" for n in range(20)))
    shares = []
    for replica in range(3):
        source = FileSource({"file_path": path})
        source.attach(OperatorContext("source", replica_index=replica, parallelism=3))
        shares.append(list(source.execute()))
    assert sorted(int(line) for share in shares for line in share) == list(range(20))
    assert all(6 <= len(share) <= 7 for share in shares)


def test_invalid_utf8_is_set_aside_and_reading_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\ncaf\xe9 au lait\nalso good\n")
    first, bad, last = read_all(FileSource({"file_path": path}))
    assert (first, last) == ("good", "also good")
    assert isinstance(bad, BadRecord)
    assert isinstance(bad.error, RecordError)
    assert str(bad.error).startswith(f"{path}:2: byte 0xe9 at column 4 is not utf-8; set encoding")
    assert bad.item == {"path": str(path), "line": 2, "byte": 5, "preview": "caf\\xe9 au lait"}
    assert read_all(FileSource({"file_path": path, "errors": "replace"}))[1] == "caf\ufffd au lait"
    assert read_all(FileSource({"file_path": path, "encoding": "latin-1"}))[1] == "café au lait"


def test_a_line_over_the_limit_is_set_aside_and_reading_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 100 + b"\n" + b"y" * 101 + b"\r\n" + b"z" * 5000 + b"\nend")
    exact, bad, long, end = read_all(FileSource({"file_path": path, "max_line_bytes": 100}))
    assert (exact, end) == ("x" * 100, "end")
    assert isinstance(bad.error, SizeLimitError)
    assert isinstance(long.error, SizeLimitError)
    assert "line has 5001 bytes, the limit is 100 (max_line_bytes)" in str(long.error)
    assert len(long.item["preview"]) <= 201


def test_a_line_of_50_mb_is_read_whole_or_skipped_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    size = 50_000_000
    with path.open("wb") as file:
        file.write(b"a" * size)
        file.write(b"\nnext\n")
    whole, following = read_all(FileSource({"file_path": path}))
    assert (len(whole), following) == (size, "next")
    tracemalloc.start()
    try:
        bad, following = read_all(FileSource({"file_path": path, "max_line_bytes": 1_000_000}))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(bad, BadRecord)
    assert following == "next"
    assert peak < 10_000_000


def test_bad_json_lines_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": \n{"s": "\xff"}\nNaN\n' + b"[" * 100_000 + b'\n{"b": 2}\n')
    items = read_all(JSONLSource({"file_path": path}))
    assert (items[0], items[-1]) == ({"a": 1}, {"b": 2})
    assert [bad.item["line"] for bad in items[1:-1]] == [2, 3, 4, 5]
    assert all("not JSON" in str(bad.error) for bad in items[1:-1])


def test_bad_csv_rows_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text\n1,a\n2\n3,b,c\n4,caf\xe9\n5,"x"y\n6,"two\nlines"\n\n7,z\n8,"open\n9,q\n')
    items = read_all(CSVSource({"file_path": path}))
    good = [item for item in items if isinstance(item, dict)]
    bad = [item for item in items if isinstance(item, BadRecord)]
    assert [row["id"] for row in good] == ["1", "6", "7"]
    assert [record.item["line"] for record in bad] == [3, 4, 5, 6, 11]
    messages = [str(record.error) for record in bad]
    assert "row has 1 columns, the header has 2 ('id', 'text')" in messages[0]
    assert "column 'text' is not utf-8" in messages[2]
    assert "unexpected end of data" in messages[4]
    assert read_all(CSVSource({"file_path": path, "errors": "replace"}))[3]["text"] == "caf\ufffd"


def test_a_csv_row_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,text\n1,"' + "x\n" * 1000 + "2,b\n")
    items = read_all(CSVSource({"file_path": path, "max_row_bytes": 300}))
    assert isinstance(items[0].error, SizeLimitError)
    assert "quotation mark left open" in str(items[0].error)
    assert items[-1] == {"id": "2", "text": "b"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no header row"),
        ("a,a\n1,2\n", "column 'a' appears twice"),
        ("a,\n1,2\n", "a column has no name"),
    ],
)
def test_a_csv_file_without_a_usable_header_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(SourceError, match=message):
        CSVSource({"file_path": path}).setup()


def test_csv_columns_may_be_given(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("1;x\n2;y\n")
    config = {"file_path": path, "fieldnames": ["n", "t"], "delimiter": ";"}
    expected = [{"n": "1", "t": "x"}, {"n": "2", "t": "y"}]
    assert read_all(CSVSource(config)) == expected
    resume_everywhere(lambda: CSVSource(config), expected)


def test_a_wrong_path_is_told_with_the_likely_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "questions.txt").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")

    def message(path: Path | str) -> str:
        with pytest.raises(SourceError) as caught:
            FileSource({"file_path": path}).setup()
        return str(caught.value)

    assert f"did you mean '{tmp_path / 'questions.txt'}'?" in message(tmp_path / "question.txt")
    assert "its directory" in message(tmp_path / "no" / "questions.txt")
    assert "for a folder use DirectorySource" in message(tmp_path)
    assert "cannot be replayed" in message(tmp_path / "pipe")
    assert "which is gone" in message(tmp_path / "dangling")
    assert "is a file" in message(tmp_path / "questions.txt" / "x") or "not exist" in message(
        tmp_path / "questions.txt" / "x"
    )
    monkeypatch.chdir(tmp_path)
    assert f"(looked in '{tmp_path}')" in message("zzz.csv")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "config key 'file_path' is required"),
        ({"file_path": "a", "encodin": "utf-8"}, "unknown config key 'encodin'; did you mean 'encoding'?"),
        ({"file_path": "a", "encoding": "utf-16"}, "cannot be read by lines; convert the file to UTF-8"),
        ({"file_path": "a", "encoding": "klingon"}, "unknown encoding 'klingon'"),
        ({"file_path": "a", "max_line_bytes": 0}, "config key 'max_line_bytes'"),
        ({"file_path": 7}, "config key 'file_path'"),
    ],
)
def test_a_wrong_configuration_fails_when_the_pipeline_is_built(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FileSource(config)
    assert message in str(caught.value)
