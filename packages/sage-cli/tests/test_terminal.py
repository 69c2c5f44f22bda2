"""Terminals, pipes that end early, full and closed outputs."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Sage = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Pipeline = Callable[..., Path]

_MILLION = """
    env = LocalEnvironment("million")
    env.from_collection(range(1_000_000)).map(lambda n: n + 1).print()
"""
_SLOW = """
    async def wait(n):
        await asyncio.sleep(0.05)
        return n
    env = LocalEnvironment("slow")
    env.from_collection(range(1200)).map(wait, name="wait").filter(lambda n: n % 300 == 0).print()
"""


def _on_terminal(start_sage: Start, *arguments: str | Path, columns: int, **options: object) -> tuple[int, str]:
    """Exit code, and everything that was written to a terminal that wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        process = start_sage(*arguments, stderr=theirs, **{"stdout": theirs, **options})
        os.close(theirs)
        text, give_up = b"", time.monotonic() + 40
        while time.monotonic() < give_up:
            if not select.select([ours], [], [], 1.0)[0]:
                continue
            try:
                data = os.read(ours, 65536)
            except OSError:  # the last process on the terminal has ended
                break
            if not data:
                break
            text += data
        return process.wait(20), text.decode()
    finally:
        os.close(ours)


def _screen(text: str) -> list[str]:
    """What stays on the screen: lines as the last carriage return leaves them, without colours."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        left = line.rpartition("\r\x1b[2K")[2]
        lines.append(re.sub(r"\x1b\[[0-9;]*m", "", left))
    return lines


def test_progress_is_shown_on_a_terminal_and_leaves_nothing_behind(start_sage: Start, pipeline: Pipeline) -> None:
    code, text = _on_terminal(start_sage, "run", pipeline(_SLOW), columns=80)
    assert code == 0
    updates = re.findall(r"\r\x1b\[2K(slow  .*?) *(?=\r|\n)", text)
    assert 2 <= len(updates) <= 8  # about a second at four a second
    assert all(len(update) < 80 for update in updates)
    assert re.search(r"slow  \d+ms  1,200 in  \d+ out  .*/s  0 errors", updates[0])
    assert any("queues: wait " in update for update in updates)
    screen = _screen(text)
    assert screen[:4] == ["0", "300", "600", "900"]
    assert not [line for line in screen if "queues:" in line]
    assert max(map(len, screen)) <= 80


@pytest.mark.timeout(60)
def test_unbuffered_a_pipe_gets_each_line_at_once(start_sage: Start, pipeline: Pipeline) -> None:
    endless = """
    import itertools
    env = LocalEnvironment("endless")
    env.from_collection(itertools.count()).map(lambda n: time.sleep(0.1) or n).print()
    """
    process = start_sage("run", pipeline(endless), "--quiet", env={"PYTHONUNBUFFERED": "1"})
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(3)] == ["0\n", "1\n", "2\n"]  # far less than a buffer's block
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


@pytest.mark.parametrize("arguments", [["--quiet"], []])
def test_no_progress_when_it_is_off_or_the_terminal_is_dumb(
    start_sage: Start, pipeline: Pipeline, arguments: list[str]
) -> None:
    env = {} if arguments else {"TERM": "dumb"}
    code, text = _on_terminal(start_sage, "run", pipeline(_SLOW), *arguments, columns=80, env=env)
    assert code == 0
    assert "\x1b[2K" not in text
    assert "\r" not in text.replace("\r\n", "")


def test_progress_goes_to_the_terminal_and_results_into_the_pipe(
    start_sage: Start, pipeline: Pipeline, tmp_path: Path
) -> None:
    with (tmp_path / "results").open("w") as results:
        code, text = _on_terminal(start_sage, "run", pipeline(_SLOW), columns=100, stdout=results)
    assert code == 0
    assert (tmp_path / "results").read_text() == "0\n300\n600\n900\n"
    assert "\r\x1b[2Kslow  " in text


def test_a_reader_that_ends_early_ends_the_run_quietly(sage: Sage, pipeline: Pipeline, tmp_path: Path) -> None:
    path = pipeline(_MILLION)
    script = f"{sys.executable} -m sage.cli.main run {path} | head -n 2; echo ${{PIPESTATUS[0]}}"
    began = time.monotonic()
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=40, check=False)
    assert done.stdout.splitlines() == ["1", "2", "141"]
    assert done.stderr == ""
    assert time.monotonic() - began < 20
    assert not (tmp_path / ".sage").exists()  # no dead letter for what nobody wanted


@pytest.mark.parametrize("arguments", [["run", "pipeline.py"], ["compile", "pipeline.py"], ["doctor"], ["version"]])
def test_an_output_that_nobody_reads(start_sage: Start, squares: Path, arguments: list[str]) -> None:
    process = start_sage(*arguments)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 141
    assert errors == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_output(sage: Sage, pipeline: Pipeline, squares: Path, tmp_path: Path) -> None:
    for path in (squares, pipeline(_MILLION, "million.py")):
        with Path("/dev/full").open("w") as full:
            done = sage("run", path, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 3
        assert done.stderr.splitlines()[-1] == "error: cannot write to standard output: No space left on device"
        assert not (tmp_path / ".sage").exists()


def test_closed_standard_streams(squares: Path, tmp_path: Path) -> None:
    script = f"{sys.executable} -m sage.cli.main run {squares} --set zero_at=3 <&- >&- 2>&-"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, timeout=40, check=False)
    assert done.returncode == 1
    listed = subprocess.run(
        [sys.executable, "-m", "sage.cli", "dead-letters", "list", "--json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    assert len(listed.stdout.splitlines()) == 1  # the store has not been written over


def test_an_output_that_does_not_block_loses_nothing(start_sage: Start, pipeline: Pipeline) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(reading, "rb") as ours:
        process = start_sage("run", pipeline(_MILLION), "--quiet", stdout=writing)
        os.close(writing)
        time.sleep(1.0)  # the pipe is full by now
        lines = ours.read().split()
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert lines == [b"%d" % number for number in range(1, 1_000_001)]
