"""Ctrl-C and SIGTERM, with real signals."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Start = Callable[..., subprocess.Popen[str]]
Pipeline = Callable[..., Path]

_ENDLESS = """
    def numbers():
        number = 0
        while True:
            yield number
            number += 1
            time.sleep(0.01)
    def show(number):
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
    env = LocalEnvironment("endless", {"grace_s": 10, "abort_grace_s": 0.5})
    env.from_source(numbers).map(lambda n: n, parallelism=1).sink(show)
"""
_BLOCKED = """
    def numbers():
        yield 0
        print("waiting", flush=True)
        time.sleep(1000)
    def show(number):
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
    env = LocalEnvironment("blocked", {"grace_s": GRACE, "abort_grace_s": 0.3})
    env.from_source(numbers).sink(show)
"""


@pytest.mark.parametrize("module", ["typer", "sage.kernel"])
def test_ctrl_c_while_the_command_itself_is_being_imported(tmp_path: Path, module: str) -> None:
    slow = tmp_path / "slow"
    folder = slow.joinpath(*module.split("."))
    folder.mkdir(parents=True)
    # An import that takes Ctrl-C for an error of its own, as extension modules may.
    code = "import sys, time\nprint('importing', flush=True)\ntry:\n    time.sleep(60)\n"
    (folder / "__init__.py").write_text(code + "except BaseException as error:\n    raise ImportError from error\n")
    path = os.pathsep.join([str(slow), *(entry for entry in sys.path if entry)])
    process = subprocess.Popen(
        [sys.executable, "-m", "sage.cli", "--version"],
        env={**os.environ, "PYTHONPATH": path},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # it may be ignored here
    )
    try:
        assert _next_line(process) == "importing\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, errors) == (130, "interrupted\n")


def test_ctrl_c_while_the_pipeline_is_being_imported(start_sage: Start, pipeline: Pipeline) -> None:
    process = start_sage("run", pipeline("print('importing', flush=True)\ntime.sleep(60)\n"))
    assert _next_line(process) == "importing\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.startswith("interrupted while ")
    assert "Traceback" not in errors


def _next_line(process: subprocess.Popen[str], *, of_errors: bool = False) -> str:
    """The next line, and nothing of those behind it: what a file object has read ahead `communicate` does not see."""
    stream = process.stderr if of_errors else process.stdout
    assert stream is not None
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(stream.fileno(), 1)
        if not piece:
            break
        line += piece
    return line.decode()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_drains(start_sage: Start, pipeline: Pipeline, number: signal.Signals, code: int) -> None:
    process = start_sage("run", pipeline(_ENDLESS), "--json")
    assert _next_line(process) == "0\n"
    process.send_signal(number)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert "interrupted: finishing what is under way" in errors
    assert "10 s at most" in errors
    assert "Traceback" not in errors
    *results, last = output.splitlines()
    report = json.loads(last)
    assert report["state"] == "stopped"
    assert report["exit_code"] == code
    # Drained: everything that was made has been shown, in order.
    assert ["0", *results] == [str(n) for n in range(report["metrics"]["items_in"])]


def test_the_second_signal_aborts_although_the_source_is_blocked(start_sage: Start, pipeline: Pipeline) -> None:
    process = start_sage("run", pipeline(_BLOCKED.replace("GRACE", "60")))
    assert (_next_line(process), _next_line(process)) == ("0\n", "waiting\n")
    process.send_signal(signal.SIGINT)
    assert "interrupted: finishing what is under way" in _next_line(process, of_errors=True)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - began < 10  # not the 60 s of the grace period
    assert process.returncode == 130
    assert "interrupted again: aborting" in errors
    assert "blocked aborted in" in errors
    assert "Traceback" not in errors


def test_an_output_that_nobody_reads_does_not_hold_an_aborted_run(start_sage: Start, pipeline: Pipeline) -> None:
    code = """
        env = LocalEnvironment("unread", {"abort_grace_s": 0.3})
        env.from_collection(range(10_000_000)).print()
    """
    process = start_sage("run", pipeline(code), "--json")
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 20)[0]
    time.sleep(0.3)  # the pipe is full
    for message in ("interrupted: ", "interrupted again: "):
        process.send_signal(signal.SIGINT)
        assert _next_line(process, of_errors=True).startswith(message)
    assert process.wait(10) == 130
    assert "nobody reads standard output" in process.stderr.read()


def test_the_third_signal_leaves_at_once(start_sage: Start, pipeline: Pipeline) -> None:
    code = _BLOCKED.replace("GRACE", "60").replace('"abort_grace_s": 0.3', '"abort_grace_s": 60')
    process = start_sage("run", pipeline(code))
    assert (_next_line(process), _next_line(process)) == ("0\n", "waiting\n")
    for message in ("interrupted: ", "interrupted again: "):
        process.send_signal(signal.SIGINT)
        assert _next_line(process, of_errors=True).startswith(message)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130


def test_a_source_that_does_not_stop_is_aborted_after_the_grace_period(start_sage: Start, pipeline: Pipeline) -> None:
    process = start_sage("run", pipeline(_BLOCKED.replace("GRACE", "0.5")))
    assert (_next_line(process), _next_line(process)) == ("0\n", "waiting\n")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 3
    assert "error: job 'blocked' was aborted: the grace period for draining is over" in errors
    assert "waiting for its source's next item" in errors


@pytest.mark.parametrize("command", ["run", "compile"])
def test_a_signal_while_the_file_is_loaded(start_sage: Start, pipeline: Pipeline, tmp_path: Path, command: str) -> None:
    process = start_sage(command, pipeline("open('loading', 'w').close()\ntime.sleep(1000)\n"))
    give_up = time.monotonic() + 20
    while not (tmp_path / "loading").exists():
        assert time.monotonic() < give_up
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (
        130,
        "",
        f"interrupted while {tmp_path / 'pipeline.py'} was loaded\n",
    )


# -- with processes ----------------------------------------------------------------------------------------------------

_PROCESSES = """
    def numbers():
        number = 0
        while True:
            yield number
            number += 1
    def work(number):
        time.sleep(0.005)
        return number
    def show(number):
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
    env = LocalEnvironment("processes", {"grace_s": 10, "abort_grace_s": 0.5, "queue_capacity": 16})
    process = Contract(execution=Execution.PROCESS)
    # What keeps state would fail the job if its process ended.
    env.from_source(numbers).map(work, contract=process).key_by(lambda n: 0).reduce(max, contract=process).sink(show)
"""


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            found += [child, *_descendants(child)]
    return found


def _lives(pid: int) -> bool:
    try:
        # Where nobody reaps orphans an ended process stays as a zombie.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _gone(pids: list[int]) -> bool:
    give_up = time.monotonic() + 5
    while any(map(_lives, pids)):
        if time.monotonic() > give_up:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("to_all", [False, True])
def test_a_signal_drains_processes_too(
    start_sage: Start, pipeline: Pipeline, number: signal.Signals, code: int, to_all: bool
) -> None:
    run = start_sage("run", pipeline(_PROCESSES), "--json")
    assert _next_line(run) == "0\n"
    processes = _descendants(run.pid)
    assert len(processes) >= 2
    # A terminal sends Ctrl-C, and a service manager SIGTERM, to all of them.
    for pid in (run.pid, *processes) if to_all else (run.pid,):
        os.kill(pid, number)
    output, errors = run.communicate(timeout=20)
    assert run.returncode == code
    assert "interrupted: finishing what is under way" in errors
    assert "Traceback" not in errors
    *results, last = output.splitlines()
    report = json.loads(last)
    assert report["state"] == "stopped"
    assert ["0", *results] == [str(n) for n in range(report["metrics"]["items_in"])]
    assert _gone(processes)


def test_the_second_signal_aborts_an_operator_that_hangs_in_its_process(start_sage: Start, pipeline: Pipeline) -> None:
    run = start_sage("run", pipeline(_PROCESSES.replace("time.sleep(0.005)", "time.sleep(1000 * (number > 3))")))
    assert _next_line(run) == "0\n"
    processes = _descendants(run.pid)
    for message in ("interrupted: ", "interrupted again: "):
        run.send_signal(signal.SIGTERM)
        assert _next_line(run, of_errors=True).startswith(message)
    assert run.wait(10) == 143
    assert _gone(processes)


def test_an_operator_that_is_killed_for_its_memory(start_sage: Start, pipeline: Pipeline) -> None:
    code = """
        import os, resource, signal
        def hungry(number):
            if number == 3:
                resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))
                return len(bytearray(1 << 31))
            if number == 6:
                os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory runs out
            return number
        env = LocalEnvironment("hungry")
        env.from_collection(range(9)).map(hungry, contract=Contract(execution=Execution.PROCESS)).print()
    """
    run = start_sage("run", pipeline(code))
    output, errors = run.communicate(timeout=30)
    assert run.returncode == 1
    assert output.split() == ["0", "1", "2", "4", "5", "7", "8"]
    assert "2 dead letters (hungry 2)" in errors
    assert "MemoryError" in errors
    letters = start_sage("dead-letters", "list").communicate(timeout=30)[0]
    assert "was killed by SIGKILL" in letters
