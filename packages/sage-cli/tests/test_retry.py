"""`sage dead-letters export` and `retry`, and `--max-dead-letters`, with the real command."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Sage = Callable[..., subprocess.CompletedProcess[str]]
Pipeline = Callable[..., Path]

_GATED = """
    import os
    def check(n):
        if n % 3 == 0 and "MENDED" not in os.environ:
            raise ValueError(f"{n} is refused")
        if n == 6:
            raise KeyError("six")
        return n
    def square(n):
        time.sleep(float(os.environ.get("HOLD", 0)))
        return n * n
    env = LocalEnvironment("gated")
    env.from_collection(range(12)).map(check, name="check").map(square, name="square").print()
"""
MENDED = {"MENDED": "1"}


@pytest.fixture
def gated(sage: Sage, pipeline: Pipeline) -> Path:
    """A pipeline that has refused 0, 3, 6 and 9."""
    path = pipeline(_GATED)
    assert sage("run", path, "--quiet").returncode == 1
    return path


def open_items(sage: Sage, *arguments: str) -> list[int]:
    lines = sage("dead-letters", "list", "--json", *arguments).stdout.splitlines()
    return [json.loads(line)["item_json"] for line in lines]


def test_retry_gives_items_back_and_tells_what_came_of_it(sage: Sage, gated: Path) -> None:
    done = sage("dead-letters", "retry", gated, env=MENDED)
    assert done.returncode == 1
    assert sorted(map(int, done.stdout.splitlines())) == [0, 9, 81]
    for line in (
        r"gated: 4 dead letters retried",
        r"went through +3",
        r"failed again +1",
        r"the first +KeyError: 'six'",
    ):
        assert re.search(line, done.stderr), line
    shown = re.search(r"see them +sage (dead-letters list --job job_\S+)$", done.stderr, re.MULTILINE)
    assert shown is not None
    assert "KeyError: 'six'" in sage(*shown[1].split()).stdout
    assert open_items(sage) == [6]
    assert open_items(sage, "--all") == [0, 3, 6, 9, 6]
    every = sage("dead-letters", "list", "--all").stdout
    assert len(re.findall(r"^ +\d+ .* retried +gated", every, re.MULTILINE)) == 4
    assert re.search(r"^state +open$", sage("dead-letters", "show", "5").stdout, re.MULTILINE)
    again = sage("dead-letters", "retry", gated, "--json", env=MENDED)
    report = json.loads(again.stdout)
    assert (again.returncode, report["retried"], report["failed_again"], report["still_open"]) == (1, 1, 1, 0)


def test_nothing_to_retry(sage: Sage, pipeline: Pipeline, gated: Path) -> None:
    other = pipeline(_GATED.replace('"gated"', '"other"'), "other.py")
    done = sage("dead-letters", "retry", other)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no open dead letters of 'other' in .sage\n")
    done = sage("dead-letters", "retry", gated, "--home", "nowhere")
    assert done.returncode == 2
    assert "there is no folder 'nowhere'" in done.stderr


def test_a_mended_pipeline_in_yaml_takes_the_letters_too(sage: Sage, gated: Path, tmp_path: Path) -> None:
    (tmp_path / "mended.py").write_text("def check(n):\n    return -n\n")
    (tmp_path / "mended.yaml").write_text(
        "pipeline: gated\noperators:\n- collection: [1]\n- map: mended:check\n- print: 'again '\n"
    )
    done = sage("dead-letters", "retry", "mended.yaml", "--quiet")
    assert (done.returncode, sorted(done.stdout.splitlines())) == (0, ["again -3", "again -6", "again -9", "again 0"])


def test_an_operator_that_is_gone(sage: Sage, gated: Path, tmp_path: Path) -> None:
    gated.write_text(gated.read_text().replace('name="check"', 'name="checks"'))
    done = sage("dead-letters", "retry", gated)
    assert done.returncode == 2
    assert "is of operator 'check', which the pipeline does not have; did it become 'checks'?" in done.stderr
    assert open_items(sage) == [0, 3, 6, 9]


def test_kill_leaves_all_letters_open(
    sage: Sage, gated: Path, start_sage: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start_sage("dead-letters", "retry", gated, env={**MENDED, "HOLD": "0.3"})
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    assert open_items(sage) == [0, 3, 6, 9]
    done = sage("dead-letters", "retry", gated, env=MENDED)
    assert sorted(map(int, done.stdout.splitlines())) == [0, 9, 81]
    assert open_items(sage) == [6]


def test_ctrl_c_closes_what_went_through(
    sage: Sage, gated: Path, start_sage: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start_sage("dead-letters", "retry", gated, "--json", env={**MENDED, "HOLD": "0.4"})
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    process.wait(30)
    report = json.loads(rest.splitlines()[-1])
    out = [int(line) for line in [first, *rest.splitlines()[:-1]]]
    assert process.returncode == 130
    assert report["retried"] + report["still_open"] == 4
    # Each item is out once, or in one open letter.
    assert sorted([*(round(n**0.5) for n in out), *open_items(sage)]) == [0, 3, 6, 9]


def test_export(sage: Sage, gated: Path, tmp_path: Path) -> None:
    done = sage("dead-letters", "export", "--operator", "check")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["item_json"] for line in lines] == [0, 3, 6, 9]
    assert {(line["state"], line["replayable"]) for line in lines} == {("open", True)}
    assert not {"payload", "key_payload"} & set(lines[0])
    old = os.umask(0)
    try:
        to_file = sage("dead-letters", "export", "--job", lines[0]["job_id"], "--output", "letters.jsonl")
    finally:
        os.umask(old)
    assert (to_file.returncode, to_file.stdout) == (0, "4 dead letters written to letters.jsonl\n")
    assert (tmp_path / "letters.jsonl").read_text() == done.stdout
    assert stat.S_IMODE((tmp_path / "letters.jsonl").stat().st_mode) == 0o600
    twice = sage("dead-letters", "export", "-o", "letters.jsonl")
    assert (twice.returncode, twice.stderr) == (2, "error: letters.jsonl is there already: name a new file\n")
    nowhere = sage("dead-letters", "export", "-o", "no/such/folder.jsonl")
    assert (nowhere.returncode, "cannot write no/such/folder.jsonl: No such file or directory" in nowhere.stderr) == (
        2,
        True,
    )
    assert sage("dead-letters", "export", "--job", "job_0").stdout == ""
    assert sage("dead-letters", "retry", gated, "--quiet", env=MENDED).returncode == 1
    assert len(sage("dead-letters", "export").stdout.splitlines()) == 1
    assert len(sage("dead-letters", "export", "--all").stdout.splitlines()) == 5


@pytest.mark.parametrize(("limit", "code"), [("4", 0), ("3", 3), ("0", 3), ("40%", 0), ("10%", 3)])
def test_a_budget(sage: Sage, pipeline: Pipeline, limit: str, code: int) -> None:
    done = sage("run", pipeline(_GATED), "--max-dead-letters", limit)
    assert done.returncode == (code or 1)
    if code:
        error = done.stderr.splitlines()[-1]
        assert error.startswith("error: job 'gated' failed: more dead letters than max_dead_letters allows: ")
        assert "is that of operator 'check', the first time ValueError: 0 is refused" in error


@pytest.mark.parametrize("limit", ["x", "-1", "200%", ""])
def test_a_budget_that_is_none(sage: Sage, pipeline: Pipeline, limit: str) -> None:
    done = sage("run", pipeline(_GATED), "--max-dead-letters", limit)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: max_dead_letters must be a whole number >= 0 or a share such as '1%', got {limit!r}\n"
    )
