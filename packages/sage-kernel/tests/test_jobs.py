"""Jobs beside each other, and in a process of their own: interrupted, killed, on a full disk."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from environments import environment, letters
from executions import ExecutionKind

# -- several jobs, several threads -------------------------------------------------------------------------------------


def test_one_environment_submitted_from_several_threads(execution: ExecutionKind, tmp_path: Path) -> None:
    env = environment(tmp_path)
    stream = env.from_collection(list(range(200))).map(
        execution.operator(lambda n: 100 // (n % 50), -1), contract=execution.contract(), parallelism=2
    )
    results: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: results.append(stream.collect(allow_dead_letters=True))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    expected = sorted(100 // (n % 50) for n in range(200) if n % 50)
    assert [sorted(result) for result in results] == [expected] * 5
    assert len(letters(tmp_path)) == 5 * 4


def test_metrics_can_be_read_while_it_runs(execution: ExecutionKind, tmp_path: Path) -> None:
    env = environment(tmp_path, queue_capacity=8)
    stream = env.from_collection(range(20_000)).map(
        execution.operator(lambda n: n, -1), contract=execution.contract(), parallelism=2
    )
    stream.sink(lambda _: None)
    job = env.submit(wait=False)
    seen = [0]
    while job.result is None:
        metrics = job.metrics()
        assert metrics.items_in >= seen[-1], "counters never go back"
        assert metrics.latency.p50_ms >= 0
        seen.append(metrics.items_in)
    assert job.wait().metrics.items_out == 20_000


def test_wait_with_a_limit(tmp_path: Path) -> None:
    release = threading.Event()
    env = environment(tmp_path)
    env.from_collection([1]).sink(lambda _: release.wait(10))
    job = env.submit(wait=False)
    with pytest.raises(TimeoutError, match=r"job 'tested' has not ended after 0.05 s; it goes on"):
        job.wait(0.05)
    release.set()
    assert job.wait(5).ok


# -- in a process of its own -------------------------------------------------------------------------------------------

_PRELUDE = """
import signal, sys, threading, time, os
from sage.kernel.api import *
started = threading.Event()
def naturals():
    number = 0
    while True:
        yield number
        number += 1
"""


def _script(tmp_path: Path, body: str) -> list[str]:
    file = tmp_path / "script.py"
    file.write_text(_PRELUDE + textwrap.dedent(body))
    return [sys.executable, str(file)]


def _interrupt(command: list[str], times: int, tmp_path: Path) -> tuple[int, str, str, float]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        begun = time.monotonic()
        for number in range(times):
            if number:
                time.sleep(0.4)
            process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return process.returncode, out, err, time.monotonic() - begun


@pytest.mark.parametrize("run", ["env.submit()", "stream.collect()"])
def test_one_interrupt_drains(tmp_path: Path, run: str) -> None:
    body = f"""
    made, got = [], []
    def source():
        for number in naturals():
            made.append(number)
            yield number
    def sink(number):
        got.append(number)
        if len(got) == 100:
            print("running", flush=True)
    env = LocalEnvironment("it", {{"home": ".", "queue_capacity": 4}})
    stream = env.from_source(source).map(lambda n: n, parallelism=2).map(lambda n: (sink(n), n)[1])
    if "submit" in {run!r}: stream.sink(lambda n: None)
    try:
        {run}
    except KeyboardInterrupt:
        print("interrupted", sorted(got) == made, flush=True)
        left = [thread.name for thread in threading.enumerate() if thread.name.startswith("sage")]
        print("left", left, flush=True)
        sys.exit(130)
    """
    code, out, err, _ = _interrupt(_script(tmp_path, body), 1, tmp_path)
    assert (code, out) == (130, "interrupted True\nleft []\n"), err


def test_a_second_interrupt_aborts(tmp_path: Path) -> None:
    body = """
    def stuck(number):
        print("running", flush=True)
        threading.Event().wait(60)
    env = LocalEnvironment("it", {"home": ".", "abort_grace_s": 0.5})
    env.from_source(naturals).map(lambda n: n).sink(stuck)
    try:
        env.submit()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.exit(130)
    """
    code, out, err, seconds = _interrupt(_script(tmp_path, body), 2, tmp_path)
    assert (code, out) == (130, "interrupted\n"), err
    assert seconds < 5


def test_a_full_disk_under_the_dead_letters_fails_the_job(tmp_path: Path) -> None:
    body = """
    import resource
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    env = LocalEnvironment("it", {"home": "."})
    def refuse(number):
        raise ValueError("x" * 3000)
    env.from_collection(range(500)).map(refuse, name="refuse").sink(lambda n: None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    try:
        env.submit()
    except JobFailedError as error:
        kept = error.result.dead_letters
        print("stored" if 0 < kept < 500 else kept, error)
    """
    done = subprocess.run(
        _script(tmp_path, body), capture_output=True, text=True, cwd=tmp_path, timeout=30, check=False
    )
    assert done.stdout.startswith("stored job 'it' failed"), done.stdout + done.stderr
    assert "its dead letter could not be stored" in done.stdout
    assert "'refuse'" in done.stdout


def test_dead_letters_survive_a_kill(execution: ExecutionKind, tmp_path: Path) -> None:
    wrapped = "fails" if not execution.is_async else "afails"
    body = f"""
    def fails(number):
        if number == 5:
            print("running", flush=True)
            time.sleep(60)
        raise ValueError(number)
    async def afails(number):
        return fails(number)
    env = LocalEnvironment("it", {{"home": "."}})
    env.from_collection(range(10)).map({wrapped}, contract=Contract(resources=Resources(concurrency=1))).sink(print)
    env.submit()
    """
    with subprocess.Popen(_script(tmp_path, body), stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        os.kill(process.pid, signal.SIGKILL)
    assert [letter.item for letter in letters(tmp_path)] == ["0", "1", "2", "3", "4"]


def test_memory_stays_flat_behind_a_slow_sink(tmp_path: Path) -> None:
    """Ten million items are offered to a sink that takes few of them."""
    env = environment(tmp_path, fusion=False)
    env.from_collection(range(10_000_000)).map(lambda n: [n] * 10).sink(lambda _: time.sleep(0.001))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    job = env.submit(wait=False)
    time.sleep(1.5)
    job.abort()
    job.wait(5)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 50_000


@pytest.mark.parametrize("fusion", [True, False])
def test_an_abort_ends_a_batch_whose_items_have_become_slow(tmp_path: Path, fusion: bool) -> None:
    env = environment(tmp_path, fusion=fusion, abort_grace_s=10)
    begun = threading.Event()

    def slow_from_2000_on(number: int) -> int:
        if number >= 2000:
            begun.set()
            time.sleep(0.02)
        return number

    env.from_collection(range(100_000)).map(slow_from_2000_on).sink(lambda number: None)
    job = env.submit(wait=False)
    assert begun.wait(10)
    aborted_at = time.monotonic()
    job.abort("enough")
    result = job.wait(20)
    # A batch holds up to 1,024 items: 20 s of them, had it been worked off.
    assert time.monotonic() - aborted_at < 3
    assert (result.state.value, result.reason) == ("aborted", "enough")


def test_a_signal_that_another_thread_has_taken_is_handled_while_we_wait(tmp_path: Path) -> None:
    env = environment(tmp_path)
    handled, begun = threading.Event(), threading.Event()

    def numbers() -> Iterator[int]:
        begun.set()
        if handled.wait(20):
            yield 1

    out: list[int] = []
    env.from_source(numbers).sink(out.append)

    def take() -> None:
        begun.wait(10)
        time.sleep(0.1)  # by now the main thread waits for the job
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    taker = threading.Thread(target=take)
    old = signal.signal(signal.SIGUSR1, lambda number, frame: handled.set())
    try:
        taker.start()
        env.submit()
    finally:
        signal.signal(signal.SIGUSR1, old)
        taker.join()
    assert out == [1]
