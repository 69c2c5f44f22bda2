"""Process workers for real: work, death by `kill -9`, what cannot travel, output, state, stop and abort."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from environments import environment, finished, letters
from process_runs import PROCESS, contract, in_process

from sage.kernel.api import (
    Contract,
    Execution,
    FlatMapFunction,
    JobFailedError,
    JobState,
    MapFunction,
    OnError,
    SinkFunction,
    StateKind,
    StateSpec,
)


def once(path: Path, name: Any) -> bool:
    """Whether this is the first call with this name, over all processes."""
    try:
        os.close(os.open(path / str(name), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


# -- work -----------------------------------------------------------------------------------------------------


def test_operators_run_in_another_process_and_processes_are_used_again(tmp_path: Path) -> None:
    first = set(in_process(tmp_path, range(50), lambda item: os.getpid())[1])
    again = set(in_process(tmp_path, range(50), lambda item: os.getpid())[1])
    assert first == again
    assert len(first) == 1
    assert os.getpid() not in first


def test_replicas_have_a_process_each(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[int] = []

    def slow(item: int) -> int:
        time.sleep(0.002)
        return os.getpid()

    env.from_collection(range(60)).map(slow, contract=PROCESS, parallelism=3).sink(out.append)
    finished(env)
    assert len(out) == 60
    assert len(set(out)) == 3


def test_neighbours_share_a_process(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[tuple[int, int]] = []
    stream = env.from_collection(range(20)).map(lambda item: os.getpid(), contract=PROCESS)
    stream.filter(lambda item: True, contract=PROCESS).map(lambda pid: (pid, os.getpid()), contract=PROCESS).sink(
        out.append
    )
    finished(env)
    assert len(out) == 20
    assert all(before == after for before, after in out)


def test_one_pipeline_mixes_threads_event_loops_and_processes(tmp_path: Path) -> None:
    env = environment(tmp_path, queue_capacity=1)
    out: list[Any] = []

    async def later(item: int) -> int:
        return item + 1

    stream = env.from_collection(range(200)).map(lambda item: item * 2, contract=PROCESS, parallelism=2)
    stream.map(later).flatmap(lambda item: [item, -item], contract=PROCESS).key_by(lambda item: item % 3).aggregate(
        0, lambda count, item: count + 1, emit="final", contract=PROCESS, parallelism=2
    ).sink(out.append)
    result = finished(env)
    numbers = [number for item in range(200) for number in (item * 2 + 1, -(item * 2 + 1))]
    assert Counter(dict(out)) == Counter(number % 3 for number in numbers)
    assert all(replica.queue_depth_max <= 1 for replica in result.metrics.replicas if replica.queue_capacity)


def test_keyed_state_stays_with_its_key(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[tuple[str, int]] = []

    class Number(MapFunction[str, tuple[str, int]]):
        def execute(self, item: str) -> tuple[str, int]:
            self.ctx.state["n"] = self.ctx.state.get("n", 0) + 1
            self.ctx.metrics.count("seen")
            return item, self.ctx.state["n"]

    words = [f"k{number % 7}" for number in range(700)]
    env.from_collection(words).key_by(lambda word: word).map(
        Number, contract=PROCESS, parallelism=2, name="number"
    ).sink(out.append)
    result = finished(env)
    for word in set(words):
        assert [number for key, number in out if key == word] == list(range(1, 101))
    assert {found.operator: dict(found.counters) for found in result.metrics.operators}["number"] == {"seen": 700}


def test_a_flatmap_with_many_outputs_answers_in_parts(tmp_path: Path) -> None:
    env = environment(tmp_path, queue_capacity=16)
    out: list[int] = []
    env.from_collection(range(30)).flatmap(lambda item: [item] * 5000, contract=PROCESS).sink(out.append)
    assert finished(env).metrics.items_out == 150_000
    assert Counter(out) == Counter(dict.fromkeys(range(30), 5000))


@pytest.mark.parametrize("shape", [(131_072,), (512, 1024), (3, 7)])
def test_arrays_are_equal_bit_for_bit_and_can_be_changed(tmp_path: Path, shape: tuple[int, ...]) -> None:
    arrays = [np.random.default_rng(seed).standard_normal(shape) for seed in range(40)]
    arrays[3] = np.asfortranarray(arrays[3])
    arrays[4] = arrays[4][::-1]

    def change(array: Any) -> Any:
        array[0] += 1
        return array

    _, out = in_process(tmp_path, arrays, change)
    for before, after in zip(arrays, out, strict=True):
        expected = before.copy()
        expected[0] += 1
        assert after.dtype == expected.dtype
        assert after.tobytes() == expected.tobytes()
        after[0] = 0


def test_messages_larger_than_pipe_and_arena_go_both_ways_at_once(tmp_path: Path) -> None:
    items = [bytes([number]) * 3_000_000 for number in range(12)] + [np.zeros(5_000_000)]
    _, out = in_process(tmp_path, items, lambda item: item)
    assert [len(item) for item in out] == [len(item) for item in items]
    assert out[:12] == items[:12]


def test_sinks_may_run_in_processes_and_are_finished_there(tmp_path: Path) -> None:
    class Lines(SinkFunction[int]):
        def setup(self) -> None:
            self.file = (tmp_path / f"part-{self.ctx.replica_index}").open("w")

        def execute(self, item: int) -> None:
            self.file.write(f"{item}\n")

        def teardown(self) -> None:
            self.file.close()

    env = environment(tmp_path)
    env.from_collection(range(500)).sink(Lines, contract=PROCESS, parallelism=2)
    result = finished(env)
    assert result.metrics.items_out == 500
    assert result.metrics.latency.count == 500
    lines = [line for part in tmp_path.glob("part-*") for line in part.read_text().splitlines()]
    assert sorted(map(int, lines)) == list(range(500))


# -- errors ---------------------------------------------------------------------------------------------------


def test_errors_keep_class_message_place_and_attempts(tmp_path: Path) -> None:
    def ratio(item: int) -> float:
        return 6 / item

    result, out = in_process(tmp_path, [3, 0, 2], ratio, contract(retries=2))
    assert out == [2.0, 3.0]
    (letter,) = letters(tmp_path)
    assert (letter.operator, letter.item, letter.attempts) == ("work", "0", 3)
    assert (letter.error_type, letter.error) == ("ZeroDivisionError", "division by zero")
    assert "return 6 / item" in letter.traceback
    found = result.metrics.operators[1]
    assert (found.items_in, found.items_out, found.errors, found.retries, found.dead_letters) == (3, 2, 3, 2, 1)


def test_a_failed_job_names_operator_item_and_line(tmp_path: Path) -> None:
    def ratio(item: int) -> float:
        return 6 / item

    with pytest.raises(
        JobFailedError, match=r"operator 'work' raised for the item 0 after 1 attempt.*test_processes.py:"
    ):
        in_process(tmp_path, [3, 0, 2], ratio, contract(on_error=OnError.FAIL))


def test_an_error_class_that_cannot_be_rebuilt_is_told_in_words(tmp_path: Path) -> None:
    class OddError(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__("odd")

    def fail(item: int) -> int:
        raise OddError(1, 2)

    in_process(tmp_path, [1], fail)
    (letter,) = letters(tmp_path)
    assert letter.error.endswith("OddError: odd")


def test_setup_that_raises_in_the_process_fails_the_job(tmp_path: Path) -> None:
    class Broken(MapFunction[int, int]):
        def setup(self) -> None:
            raise RuntimeError("no model")

        def execute(self, item: int) -> int:
            return item

    with pytest.raises(JobFailedError, match="setup of operator 'work' failed: RuntimeError: no model"):
        in_process(tmp_path, [1], Broken)


def test_teardown_runs_in_the_process_and_its_error_fails_the_job(tmp_path: Path) -> None:
    class Broken(MapFunction[int, int]):
        def execute(self, item: int) -> int:
            return item

        def teardown(self) -> None:
            raise RuntimeError(f"not in {os.getpid()}")

    with pytest.raises(JobFailedError, match="teardown of operator 'work' failed: RuntimeError: not in ") as caught:
        in_process(tmp_path, [1], Broken)
    assert str(os.getpid()) not in str(caught.value)


def test_sys_exit_in_an_operator_fails_the_job(tmp_path: Path) -> None:
    with pytest.raises(JobFailedError, match="SystemExit: 3"):
        in_process(tmp_path, [1], lambda item: sys.exit(3))


# -- death ----------------------------------------------------------------------------------------------------


def test_a_process_that_is_killed_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()

    def work(item: int) -> int:
        if item in (100, 500, 900) and once(marks, item):
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    result, out = in_process(tmp_path, range(1000), work)
    assert out == list(range(1000))
    work_metrics = result.metrics.operators[1]
    assert (work_metrics.items_in, work_metrics.items_out, work_metrics.dead_letters) == (1000, 1000, 0)


def test_kill_from_outside_in_the_middle_of_batches(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[int] = []

    def work(item: int) -> list[int]:
        (tmp_path / f"pid-{os.getpid()}").touch()
        time.sleep(0.0005)
        return [item] * (item % 3)

    env.from_collection(range(1500)).flatmap(work, contract=PROCESS, parallelism=2, name="work").sink(out.append)
    job = env.submit(wait=False)
    killed: set[str] = set()
    give_up = time.monotonic() + 20
    while len(killed) < 4 and time.monotonic() < give_up and job.result is None:
        time.sleep(0.03)
        for path in set(tmp_path.glob("pid-*")):
            if path.name not in killed and len(killed) < 4:
                killed.add(path.name)
                os.kill(int(path.name.removeprefix("pid-")), signal.SIGKILL)
    result = job.wait(40)
    assert len(killed) == 4
    assert result.state is JobState.FINISHED
    gone = Counter(int(letter.item) for letter in letters(tmp_path))
    assert all(count == 1 for count in gone.values())
    expected = [item for item in range(1500) for _ in range(item % 3) if item not in gone]
    assert Counter(out) == Counter(expected)
    work_metrics = result.metrics.operators[1]
    assert work_metrics.items_in == 1500
    assert work_metrics.dead_letters == len(gone)


def _exit(item: int) -> None:
    os._exit(7)


def _segfault(item: int) -> None:
    ctypes.string_at(0)


@pytest.mark.parametrize(
    ("end", "words"),
    [(_exit, "ended by itself with exit code 7"), (_segfault, "Segmentation fault")],
)
def test_the_item_that_ends_its_process_is_found_and_set_aside(
    tmp_path: Path, end: Callable[[int], None], words: str
) -> None:
    def work(item: int) -> int:
        if item == 321:
            end(item)
        return item

    result, out = in_process(tmp_path, range(1000), work)
    assert out == [item for item in range(1000) if item != 321]
    (letter,) = letters(tmp_path)
    assert (letter.operator, letter.item, letter.attempts) == ("work", "321", 1)
    assert words in letter.error
    found = result.metrics.operators[1]
    assert (found.items_in, found.items_out, found.errors, found.dead_letters) == (1000, 999, 1, 1)


def test_a_death_counts_as_an_attempt_of_the_operator_that_it_happened_in(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[int] = []

    def deadly(item: int) -> int:
        if item == 50:
            os._exit(1)
        return item

    stream = env.from_collection(range(10)).map(lambda item: item * 10, contract=PROCESS, name="tens")
    stream.map(deadly, contract=contract(retries=2), name="deadly").sink(out.append)
    result = finished(env)
    assert out == [item * 10 for item in range(10) if item != 5]
    (letter,) = letters(tmp_path)
    assert (letter.operator, letter.item, letter.attempts) == ("deadly", "50", 3)
    counted = {found.operator: found for found in result.metrics.operators}
    assert (counted["tens"].items_in, counted["tens"].items_out) == (10, 10)
    found = counted["deadly"]
    assert (found.items_in, found.items_out, found.errors, found.retries, found.dead_letters) == (10, 9, 3, 2, 1)


def test_a_deadly_item_fails_the_job_where_the_contract_says_so(tmp_path: Path) -> None:
    with pytest.raises(JobFailedError, match=r"(?s)operator 'work' lost its process.*exit code 9"):
        in_process(tmp_path, range(5), lambda item: os._exit(9), contract(on_error=OnError.FAIL))


@pytest.mark.parametrize("kind", ["fold", "declared", "keyed state"])
def test_a_process_that_held_state_fails_the_job(tmp_path: Path, kind: str) -> None:
    def deadly(item: Any) -> Any:
        if item == 300:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    class Keyed(MapFunction[int, int]):
        def execute(self, item: int) -> int:
            self.ctx.state["last"] = item
            return int(deadly(item))

    env = environment(tmp_path)
    stream = env.from_collection(range(500)).key_by(lambda item: item % 5)
    match kind:
        case "fold":
            out = stream.aggregate(0, lambda count, item: deadly(item), contract=PROCESS, name="stateful")
        case "declared":
            declared = Contract(execution=Execution.PROCESS, state=StateSpec(kind=StateKind.STATEFUL))
            out = stream.map(deadly, contract=declared, name="stateful")
        case _:
            out = stream.map(Keyed, contract=PROCESS, name="stateful")
    out.sink(lambda item: None)
    with pytest.raises(JobFailedError, match="the state of 'stateful' is lost: process .* was killed by SIGKILL"):
        env.submit()


def test_death_in_setup_is_told_with_the_last_words(tmp_path: Path) -> None:
    class Dies(MapFunction[int, int]):
        def setup(self) -> None:
            sys.stderr.write("the model is too large\n")
            os._exit(4)

        def execute(self, item: int) -> int:
            return item

    with pytest.raises(JobFailedError, match=r"(?s)setup of 'work' failed: .*exit code 4.*the model is too large"):
        in_process(tmp_path, [1], Dies)


# -- life -----------------------------------------------------------------------------------------------------


def test_what_is_printed_in_the_process_reaches_our_streams(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def speak(item: int) -> int:
        print(f"out {item}")
        sys.stderr.write(f"err {item}\n")
        return item

    in_process(tmp_path, range(3), speak)
    captured = capsys.readouterr()
    assert captured.out == "out 0\nout 1\nout 2\n"
    assert captured.err == "err 0\nerr 1\nerr 2\n"


def test_what_is_logged_in_the_process_reaches_our_loggers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Speaks(MapFunction[int, int]):
        def setup(self) -> None:
            self.ctx.logger.info("made in %d", os.getpid())

        def execute(self, item: int) -> int:
            if item == 1:
                try:
                    raise ValueError("odd")
                except ValueError:
                    self.ctx.logger.exception("item %r", item)
            self.ctx.logger.debug("not wanted")
            logging.getLogger("my.library").warning("item %s", item)
            return os.getpid()

        def teardown(self) -> None:
            self.ctx.logger.info("torn down")

    caplog.set_level(logging.INFO, "sage.operator.work")
    _, (pid, *_) = in_process(tmp_path, range(3), Speaks)
    ours = [record for record in caplog.records if record.name in ("sage.operator.work", "my.library")]
    assert [(record.name, record.levelname, record.getMessage()) for record in ours] == [
        ("sage.operator.work", "INFO", f"made in {pid}"),
        ("my.library", "WARNING", "item 0"),
        ("sage.operator.work", "ERROR", "item 1"),
        ("my.library", "WARNING", "item 1"),
        ("my.library", "WARNING", "item 2"),
        ("sage.operator.work", "INFO", "torn down"),
    ]
    assert {record.process for record in ours} == {pid}
    assert str(ours[2].exc_text).endswith("ValueError: odd")


def test_many_records_of_replicas_are_all_there_when_the_job_has_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Speaks(MapFunction[int, int]):
        def execute(self, item: int) -> int:
            self.ctx.logger.info("%d", item)
            return item

    caplog.set_level(logging.INFO, "sage.operator.work")
    env = environment(tmp_path)
    env.from_collection(range(3000)).map(Speaks, contract=PROCESS, name="work", parallelism=2).sink(lambda item: None)
    finished(env)
    said = [int(record.getMessage()) for record in caplog.records if record.name == "sage.operator.work"]
    assert sorted(said) == list(range(3000))


def test_stop_drains_and_nothing_is_lost(tmp_path: Path) -> None:
    env = environment(tmp_path, queue_capacity=32)
    out: list[int] = []

    def slow(item: int) -> int:
        time.sleep(0.005)
        return item

    env.from_collection(range(100_000)).map(slow, contract=PROCESS).sink(out.append)
    job = env.submit(wait=False)
    time.sleep(0.3)
    job.stop(20)
    result = job.wait(30)
    assert result.state is JobState.STOPPED
    assert out == list(range(result.metrics.items_in))


def test_abort_kills_an_operator_that_never_returns(tmp_path: Path) -> None:
    env = environment(tmp_path)
    started = tmp_path / "started"

    def hang(item: int) -> int:
        started.touch()
        while True:
            time.sleep(60)

    env.from_collection([1]).map(hang, contract=PROCESS).sink(print)
    job = env.submit(wait=False)
    while not started.exists():
        time.sleep(0.01)
    begun = time.monotonic()
    job.abort("enough")
    result = job.wait(10)
    assert time.monotonic() - begun < 2
    assert (result.state, "given up" in result.reason) == (JobState.ABORTED, False)


def test_the_watchdog_tells_where_the_process_is(tmp_path: Path) -> None:
    def hang_here(item: int) -> int:
        time.sleep(60)
        return item

    with pytest.raises(JobFailedError, match=r"(?s)in process \d+.*hang_here"):
        in_process(tmp_path, [1], hang_here, watchdog_s=1)


_SCRIPT = """
import os, sys, time
from dataclasses import dataclass
from sage.kernel.api import Contract, Execution, LocalEnvironment

@dataclass
class Point:
    x: int

def work(point):
    print(os.getpid(), flush=True)
    time.sleep(float(sys.argv[1]))
    return Point(point.x + 1)

out = []
env = LocalEnvironment("script", {"home": sys.argv[2]})
env.from_collection([Point(1), Point(2)]).map(work, contract=Contract(execution=Execution.PROCESS)).sink(out.append)
env.submit()
print(out)
"""


def test_a_script_without_a_main_guard_and_with_classes_of_its_own(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), "0", str(tmp_path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, second, points = done.stdout.splitlines()
    assert first == second
    assert points == "[Point(x=2), Point(x=3)]"


def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    with subprocess.Popen(
        [sys.executable, str(script), "60", str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        give_up = time.monotonic() + 5
        while _lives(pid) and time.monotonic() < give_up:
            time.sleep(0.02)
        assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def shared_memory() -> Iterator[None]:
    """Nothing of ours is left where shared memory has names."""
    before = set(Path("/dev/shm").iterdir())
    yield
    assert {path for path in set(Path("/dev/shm").iterdir()) - before if "sage-arena" in path.name} == set()


def test_nothing_is_left_after_processes_were_killed(tmp_path: Path, shared_memory: None) -> None:
    def work(array: Any) -> Any:
        if array[0] == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return array

    arrays = [np.full(200_000, float(number)) for number in range(10)]
    _, out = in_process(tmp_path, arrays, work)
    assert [array[0] for array in out] == [0, 1, 2, 3, 4, 6, 7, 8, 9]


class Exploding(FlatMapFunction[int, int]):
    """Gives items, then ends the process."""

    def execute(self, item: int) -> Iterator[int]:
        yield item
        if item == 3:
            os._exit(1)
        yield item


def test_a_row_gives_all_of_its_outputs_or_none(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[int] = []
    env.from_collection(range(6)).flatmap(Exploding, contract=PROCESS, name="twice").sink(out.append)
    finished(env)
    assert out == [0, 0, 1, 1, 2, 2, 4, 4, 5, 5]
    assert [letter.item for letter in letters(tmp_path)] == ["3"]
