"""Sinks: what they write, and what happens when they cannot."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.kernel.api import JobFailedError, JobState, LocalEnvironment, SourceFunction
from sage.kernel.operators import OperatorContext, SinkFunction
from sage.libs.errors import SinkError
from sage.libs.foundation import Chunk, Document
from sage.libs.foundation.io import CSVSink, CSVSource, FileSource, JSONLSink, JSONLSource, TerminalSink


def write_all(sink: SinkFunction[Any], items: list[Any]) -> None:
    sink.setup()
    try:
        for item in items:
            sink.execute(item)
    finally:
        sink.teardown()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=10))
def test_jsonl_round_trip(tmp_path_factory: pytest.TempPathFactory, items: list[Any]) -> None:
    path = tmp_path_factory.mktemp("sink") / "a.jsonl"
    write_all(JSONLSink({"file_path": path}), items)
    assert [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] == items
    assert list(JSONLSource({"file_path": path, "skip_blank": False}).execute()) == items


@given(
    st.lists(
        st.fixed_dictionaries({"a": st.text('xy,"\n ', max_size=6), "b": st.text("z;", max_size=3)}),
        min_size=1,
    )
)
def test_csv_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> None:
    path = tmp_path_factory.mktemp("sink") / "a.csv"
    write_all(CSVSink({"file_path": path}), rows)
    assert list(csv.DictReader(io.StringIO(path.read_text(), newline=""))) == rows
    assert list(CSVSource({"file_path": path}).execute()) == rows


def test_appending_replacing_and_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "new" / "dir" / "a.jsonl"
    write_all(JSONLSink({"file_path": path}), [1, 2])
    write_all(JSONLSink({"file_path": path, "append": True}), [3])
    assert path.read_text() == "1\n2\n3\n"
    path.write_text('1\n{"tor')
    write_all(JSONLSink({"file_path": path, "append": True}), [3])
    assert path.read_text() == '1\n{"tor\n3\n'
    write_all(JSONLSink({"file_path": path}), [4])
    assert path.read_text() == "4\n"


@pytest.mark.parametrize(
    ("sink", "config"), [(JSONLSink, {}), (CSVSink, {}), (CSVSink, {"columns": ["a"]}), (CSVSink, {"columns": ["z"]})]
)
def test_an_earlier_file_stays_until_an_item_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sink: type[Any], config: dict[str, Any]
) -> None:
    path = tmp_path / "answers"
    path.write_text("a\nold\n")
    write_all(sink({"file_path": path, **config}), [])
    assert path.read_text() == "a\nold\n"
    assert f"no item came, so {str(path)!r} is as it was" in caplog.text
    writer = sink({"file_path": path, **config})
    writer.setup()
    with pytest.raises(SinkError):
        writer.execute(object())  # what cannot be written replaces nothing
    assert path.read_text() == "a\nold\n"
    key = config.get("columns", ["a"])[0]
    writer.execute({key: 1})
    writer.teardown()
    assert path.read_text() == ('{"a":1}\n' if sink is JSONLSink else f"{key}\n1\n")


def test_a_missing_source_does_not_cost_the_old_answers(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text("1\n")
    env = LocalEnvironment("lost")
    lines = env.from_source(FileSource, {"file_path": tmp_path / "gone.txt"})
    # The replicas in between keep the sink out of the source's thread, so it is set up whatever the source does.
    lines.map(str.upper, parallelism=2).sink(JSONLSink, {"file_path": path})
    with pytest.raises(JobFailedError, match="does not exist"):
        env.submit()
    assert path.read_text() == "1\n"


def test_replicas_write_parts(tmp_path: Path) -> None:
    for replica in range(2):
        sink = JSONLSink({"file_path": tmp_path / "out.jsonl"})
        sink.attach(OperatorContext("sink", replica_index=replica, parallelism=2))
        write_all(sink, [replica])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "out-00000.jsonl": "0\n",
        "out-00001.jsonl": "1\n",
    }


@pytest.mark.parametrize(("sink", "ending"), [(JSONLSink, "jsonl"), (CSVSink, "csv")])
def test_a_part_that_no_item_came_to_keeps_nothing_of_an_earlier_run(
    tmp_path: Path, sink: type[Any], ending: str
) -> None:
    def written(items: list[Any]) -> list[list[str]]:
        env = LocalEnvironment("parts")
        stream = env.from_collection([{"n": item} for item in items]).key_by(lambda item: item["n"])
        stream.sink(sink, {"file_path": tmp_path / f"out.{ending}"}, parallelism=4).submit()
        return [path.read_text().splitlines() for path in sorted(tmp_path.glob(f"out-*.{ending}"))]

    many = written(list(range(100)))
    assert [bool(lines) for lines in many] == [True] * 4
    (one,) = [lines for lines in written([7]) if lines]
    assert one == (['{"n":7}'] if sink is JSONLSink else ["n", "7"])


def test_parts_of_an_earlier_run_stay_when_the_job_fails_or_is_stopped_before_an_item(tmp_path: Path) -> None:
    parts = [tmp_path / f"out-0000{replica}.jsonl" for replica in range(2)]
    for part in parts:
        part.write_text("old\n")

    def broken() -> Any:
        raise RuntimeError("no source")
        yield

    def sink_to(env: LocalEnvironment, source: Any) -> Any:
        stream = env.from_source(source)
        return stream.sink(JSONLSink, {"file_path": tmp_path / "out.jsonl"}, parallelism=2).submit(wait=False)

    with pytest.raises(JobFailedError):
        sink_to(LocalEnvironment("fails"), broken).wait(10)
    assert [part.read_text() for part in parts] == ["old\n"] * 2

    class Endless(SourceFunction[int]):
        def execute(self) -> Any:
            while not self.ctx.stopping:
                time.sleep(0.001)
            yield from ()

    job = sink_to(LocalEnvironment("stopped"), Endless)
    job.stop()
    assert job.wait(10).state in (JobState.STOPPED, JobState.FINISHED)
    assert [part.read_text() for part in parts] == ["old\n"] * 2


def test_two_sinks_on_one_file_are_refused(tmp_path: Path) -> None:
    first, second = (JSONLSink({"file_path": tmp_path / "a.jsonl"}) for _ in range(2))
    first.setup()
    first.execute("kept")
    with pytest.raises(SinkError, match="another sink is already writing"):
        second.setup()
    second.teardown()
    first.teardown()
    assert (tmp_path / "a.jsonl").read_text() == '"kept"\n'  # the second one did not empty it
    write_all(second, ["now"])


def test_a_full_disk_is_told_for_the_very_item() -> None:
    sink = JSONLSink({"file_path": "/dev/full"})
    sink.setup()
    with pytest.raises(SinkError, match=r"cannot write to '/dev/full': the disk is full \(0 items written"):
        sink.execute({"a": 1})
    sink.teardown()


def test_an_item_that_does_not_fit_leaves_no_half_line(tmp_path: Path) -> None:
    # A real limit of the operating system, in a process of its own since it cannot be raised again.
    script = f"""
import json, resource
from sage.libs.errors import SinkError
from sage.libs.foundation.io import JSONLSink
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
sink = JSONLSink({{"file_path": {str(tmp_path / "a.jsonl")!r}}})
sink.setup()
written, failed = [], []
for size in (40, 40, 40, 5):
    try:
        sink.execute("x" * size); written.append(size)
    except SinkError as error:
        failed.append(str(error))
sink.teardown()
print(json.dumps([written, failed]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=True)
    written, failed = json.loads(done.stdout)
    assert written == [40, 40, 5]
    assert len(failed) == 1
    assert "the file size limit is reached (2 items written by this run)" in failed[0]
    assert [len(json.loads(line)) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [40, 40, 5]


def test_places_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path, message in ((tmp_path, "it is a directory"), (tmp_path / "file" / "a.jsonl", "cannot open")):
        with pytest.raises(SinkError, match=message):
            JSONLSink({"file_path": path}).setup()
    with pytest.raises(SinkError, match="before setup"):
        JSONLSink({"file_path": tmp_path / "a"}).execute(1)


def test_values_without_a_json_form_are_told(tmp_path: Path) -> None:
    sink = JSONLSink({"file_path": tmp_path / "a.jsonl"})
    sink.setup()
    for item, message in (
        (object(), "builtins.object has no JSON form"),
        ("\ud800", "cannot be written as JSON"),
    ):
        with pytest.raises(SinkError, match=message):
            sink.execute(item)
    sink.execute(
        {
            "vector": np.ones(2, np.float32),
            "n": np.int64(3),
            "chunk": Chunk("a", "a", "t", 0, 0, 1),
            "p": tmp_path,
        }
    )
    sink.teardown()
    (line,) = (tmp_path / "a.jsonl").read_text().splitlines()
    assert json.loads(line)["vector"] == [1.0, 1.0]
    assert json.loads(line)["n"] == 3
    assert json.loads(line)["p"] == str(tmp_path)


@dataclass
class Row:
    a: int
    b: str | None


def test_csv_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_all(CSVSink({"file_path": path, "columns": ["b", "a"]}), [Row(1, None), {"a": 2, "b": "x"}])
    assert path.read_text() == "b,a\n,1\nx,2\n"
    sink = CSVSink({"file_path": path, "append": True})
    sink.setup()
    for item, message in (
        ({"a": 1}, r"without \['b'\]"),
        ({"a": 1, "b": 2, "c": 3}, r"with \['c'\]"),
        (7, "mapping or a dataclass, got int"),
        ({"a": 1, "b": "\ud800"}, "CSVSink"),
    ):
        with pytest.raises(SinkError, match=message):
            sink.execute(item)
    sink.execute({"a": 3, "b": 4})
    sink.teardown()
    assert path.read_text().endswith("x,2\n4,3\n")
    with pytest.raises(SinkError, match=r"has the columns \['b', 'a'\], not \['z'\]"):
        CSVSink({"file_path": path, "append": True, "columns": ["z"]}).setup()


def test_terminal_forms(capsys: pytest.CaptureFixture[str]) -> None:
    write_all(TerminalSink(), ["one", None, 3, "esc \x1b[31m\ttab\nline \x9b"])
    assert capsys.readouterr().out == "one\nNone\n3\nesc \\x1b[31m\ttab\nline \\x9b\n"
    write_all(TerminalSink({"format": "json", "prefix": "> ", "separator": "\n\n"}), [Document("a", "é")])
    assert capsys.readouterr().out == '> {"id":"a","text":"é","metadata":{}}\n\n'
    with pytest.raises(SinkError, match="has no JSON form"):
        TerminalSink({"format": "json"}).execute(object())


def test_terminal_without_unicode_shows_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    TerminalSink().execute("東 ok")
    assert raw.getvalue() == b"\\u6771 ok\n"


def test_a_reader_that_went_away_is_told() -> None:
    script = """
import os, sys
from sage.libs.errors import SinkError
from sage.libs.foundation.io import TerminalSink
reader, writer = os.pipe()
os.close(reader)
sys.stdout = os.fdopen(writer, "w", buffering=1)
sink = TerminalSink()
try:
    sink.execute("x")
    sink.teardown()
except SinkError as error:
    sys.stderr.write(str(error))
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=True)
    assert done.stderr == "TerminalSink: cannot write to standard output: Broken pipe"
