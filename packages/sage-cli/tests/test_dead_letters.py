"""`sage dead-letters`, and a store that has no room."""

from __future__ import annotations

import io
import json
import re
import resource
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len

from sage.cli.dead_letters_command import list_dead_letters
from sage.kernel.runtime.chain import SetAside
from sage.kernel.runtime.dead_letters import DeadLetterStore

Sage = Callable[..., subprocess.CompletedProcess[str]]
Pipeline = Callable[..., Path]

_ODD = """
    def even(n):
        if n % 2:
            raise ValueError(f"{n} is odd")
        return n
    def small(n):
        if n > 5:
            raise KeyError(n)
        return n
    env = LocalEnvironment("checks")
    numbers = env.from_collection(range(10)).key_by(lambda n: n % 3)
    numbers.map(even, name="even").map(small, name="small").print()
"""


def test_list_and_show(sage: Sage, pipeline: Pipeline, tmp_path: Path) -> None:
    done = sage("run", pipeline(_ODD), "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["dead_letters"] == 7
    assert stat.S_IMODE((tmp_path / ".sage" / "dead_letters.db").stat().st_mode) == 0o600

    listed = sage("dead-letters", "list", "--json", "--job", report["job_id"])
    letters = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [letter["number"] for letter in letters] == list(range(1, 8))
    by_operator = {name: {each["item"] for each in letters if each["operator"] == name} for name in ("even", "small")}
    assert by_operator == {"even": {"1", "3", "5", "7", "9"}, "small": {"6", "8"}}
    assert all(each["item_json"] == int(each["item"]) and each["replayable"] for each in letters)
    assert all("payload" not in each for each in letters)

    table = sage("dead-letters", "list", "--operator", "small").stdout
    assert len(re.findall(r"KeyError: ", table)) == 2
    assert "ValueError" not in table
    assert "2 dead letters" in table
    newest = sage("dead-letters", "list", "--limit", "3", "--json").stdout
    assert [json.loads(line)["number"] for line in newest.splitlines()] == [5, 6, 7]
    assert "the newest 3 of 7 dead letters" in sage("dead-letters", "list", "--limit", "3").stdout

    number = next(each["number"] for each in letters if each["item"] == "7")
    shown = sage("dead-letters", "show", str(number)).stdout
    for line in (
        rf"number +{number}",
        r"time +20\d\d-\d\d-\d\d \d\d:\d\d:\d\dZ",
        rf"job +checks \({report['job_id']}\)",
        r"operator +even \(replica 0\)",
        r"attempts +1",
        r"key +1",
        r"item +7",
        r"error +ValueError: 7 is odd",
    ):
        assert re.search(rf"^{line}$", shown, re.MULTILINE), (line, shown)
    assert 'raise ValueError(f"{n} is odd")' in shown
    as_json = json.loads(sage("dead-letters", "show", str(number), "--json").stdout)
    assert as_json == letters[number - 1]


@pytest.mark.parametrize("columns", [80, 140])
def test_the_table_fits_the_terminal(tmp_path: Path, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with DeadLetterStore(tmp_path, job_id="job_1", job="a pipeline with quite a long name") as store:
        for item in ("short", "long " * 100, "\u6f22\u5b57" * 40, "two\nlines"):
            error = ValueError("an error that has much to say " * 4)
            store.add(
                SetAside(
                    operator="check",
                    replica_index=0,
                    item=item,
                    key=None,
                    keyed=False,
                    attempts=1,
                    error=error,
                )
            )
    screen = _Screen()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    list_dead_letters(tmp_path, job=None, operator=None, limit=10, as_json=False)
    header, rule, *rows = screen.getvalue().split("\n\n")[0].splitlines()
    assert header.split()[:2] == ["no.", "time"]
    assert len(rows) == 4  # none is wrapped
    assert max(map(cell_len, (header, rule, *rows))) <= columns
    assert all("ValueError: " in row and row.rstrip().endswith("…") for row in rows)


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_there(sage: Sage, tmp_path: Path) -> None:
    done = sage("dead-letters", "list")
    assert (done.returncode, done.stdout) == (0, "no dead letters in .sage/dead_letters.db\n")
    assert not (tmp_path / ".sage").exists()  # looking makes nothing
    wrong = sage("dead-letters", "show", "7")
    assert wrong.returncode == 2
    assert "there is no dead letter 7" in wrong.stderr


def test_a_damaged_store(sage: Sage, tmp_path: Path) -> None:
    (tmp_path / ".sage").mkdir()
    (tmp_path / ".sage" / "dead_letters.db").write_text("not a database" * 100)
    done = sage("dead-letters", "list")
    assert done.returncode == 3
    assert done.stderr.startswith("error: .sage/dead_letters.db: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("size", [0, 40_000])
def test_a_full_disk_under_the_store_stops_the_job_and_names_the_item(
    sage: Sage, pipeline: Pipeline, size: int
) -> None:
    path = pipeline("""
        def refuse(n):
            raise ValueError("no")
        env = LocalEnvironment("full")
        env.from_collection(range(1000, 2000)).map(refuse, name="refuse").print()
    """)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    done = sage("run", path, env={"PYTHONDONTWRITEBYTECODE": "1"}, preexec_fn=limit)
    assert done.returncode == 3
    error = done.stderr[done.stderr.index("error: ") :]
    item = re.search(r"The item: (1\d\d\d)", error)
    assert item is not None, error
    assert "its dead letter could not be stored" in error
    assert "operator 'refuse'" in error
    assert "dead_letters.db" in error
    assert re.search(r"items +\d+ in, 0 out", done.stderr)
    # What was acknowledged is there, and the item that was named is the first one that is not.
    listed = sage("dead-letters", "list", "--json", "--limit", "5000")
    kept = [json.loads(line)["item_json"] for line in listed.stdout.splitlines()]
    assert kept == list(range(1000, int(item[1])))
