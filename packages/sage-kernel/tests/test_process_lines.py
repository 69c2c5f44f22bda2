"""Processes in a line, each of which passes on to the next: what runs so, and that nothing is lost or doubled however
one of them ends.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from environments import environment, finished, letters
from process_runs import PROCESS, contract

from sage.kernel.api import (
    Contract,
    Execution,
    IOSpec,
    JobFailedError,
    JobState,
    LocalEnvironment,
    MapFunction,
    OnError,
    StateKind,
    StateSpec,
)
from sage.kernel.compiler import render_dot, render_mermaid, render_text
from sage.kernel.graph import ExecutionGraph

STAGES = 4


def declared(home: Path, items: Any, functions: Sequence[Any], **config: Any) -> tuple[LocalEnvironment, list[Any]]:
    """A line of maps; a function may come with its contract."""
    env = environment(home, fusion=False, **config)
    out: list[Any] = []
    stream: Any = env.from_collection(items)
    for number, function in enumerate(functions):
        function, asked = function if isinstance(function, tuple) else (function, PROCESS)
        stream = stream.map(function, name=f"s{number}", contract=asked)
    stream.sink(out.append)
    return env, out


def lined(home: Path, items: Any, functions: Sequence[Any], **config: Any) -> tuple[Any, list[Any]]:
    """Run a line; the job's result and what came out."""
    env, out = declared(home, items, functions, **config)
    return finished(env), out


def same(item: Any) -> Any:
    """A stage that does nothing."""
    return item


def at(position: int, function: Any, stages: int = STAGES) -> list[Any]:
    """Stages that do nothing but for one."""
    return [function if number == position else same for number in range(stages)]


def once(path: Path, name: Any) -> bool:
    """Whether this is the first call with this name, over all processes."""
    try:
        os.close(os.open(path / str(name), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def check_flow(result: Any) -> None:
    """What an operator has put out the next one has taken."""
    for before, after in itertools.pairwise(result.metrics.operators):
        assert before.items_out == after.items_in, (before.operator, after.operator)


# -- what is a line -------------------------------------------------------------------------------------------


def test_each_has_a_process_of_its_own_and_processes_are_used_again(tmp_path: Path) -> None:
    def pids(item: list[int]) -> list[int]:
        return [*item, os.getpid()]

    runs = [lined(tmp_path, [[] for _ in range(100)], [pids] * STAGES)[1] for _ in range(2)]
    for out in runs:
        assert len(out) == 100
        assert len({tuple(item) for item in out}) == 1
        assert len({*out[0], os.getpid()}) == STAGES + 1
    assert set(runs[0][0]) == set(runs[1][0])


def test_the_plan_says_where_a_line_is_cut(tmp_path: Path) -> None:
    env, _ = declared(tmp_path, [1], [same] * 3)
    plan = env.compile()
    (line,) = (task for task in plan.tasks if task.execution is Execution.PROCESS)
    assert (line.chain, line.cuts) == (("s0", "s1", "s2"), (1, 2))
    assert line.segments == [("s0",), ("s1",), ("s2",)]
    assert ExecutionGraph.from_json(plan.to_json()) == plan
    text = render_text(plan, explain=True)
    assert "s0 | s1 | s2  (1 x a line of 3 processes, queue " in text
    assert "one task, a line of 3 processes: s0 | s1 | s2" in text
    assert "begins a process: fusion is off; 's0' passes items on to it" in text
    assert "s0 ⇒ s1 ⇒ s2" in render_mermaid(plan)
    assert "s0 | s1 | s2" in render_dot(plan)
    fused = LocalEnvironment("tested", {"home": tmp_path})
    stream: Any = fused.from_collection([1])
    for number in range(3):
        stream = stream.map(same, name=f"s{number}", contract=PROCESS)
    stream.sink(print)
    assert any("s0 | s1 | s2, process, a line of 3" in line for line in fused.compile().diff(plan))


class Keeps(MapFunction[Any, Any]):
    """May keep something by key."""

    def execute(self, item: Any) -> Any:
        return item


@pytest.mark.parametrize(
    "second",
    [
        lambda stream: stream.flatmap(lambda item: [item], contract=PROCESS),
        lambda stream: stream.map(same, contract=PROCESS, parallelism=2),
        lambda stream: stream.map(same),
        lambda stream: stream.map(same, contract=Contract(execution=Execution.PROCESS, io=IOSpec(queue_capacity=3))),
        lambda stream: stream.map(
            same, contract=Contract(execution=Execution.PROCESS, state=StateSpec(kind=StateKind.STATEFUL))
        ),
        lambda stream: stream.distinct(contract=PROCESS),
        lambda stream: stream.key_by(same).map(Keeps, contract=PROCESS),
    ],
)
def test_what_is_no_line(tmp_path: Path, second: Callable[[Any], Any]) -> None:
    env = environment(tmp_path, fusion=False)
    second(env.from_collection([1, 2]).map(same, contract=PROCESS)).sink(print)
    assert not any(task.cuts for task in env.compile().tasks)


def test_a_line_with_a_filter_a_key_and_a_sink(tmp_path: Path) -> None:
    path = tmp_path / "taken"

    def take(item: tuple[int, int]) -> None:
        with path.open("a") as file:
            file.write(f"{item[0]} {item[1]} {os.getpid()}\n")

    env = environment(tmp_path, fusion=False)
    stream = env.from_collection(range(3000)).map(lambda item: item * 2, contract=PROCESS, name="double")
    stream = stream.filter(lambda item: item % 3, contract=PROCESS, name="thirds")
    keyed: Any = stream.key_by(lambda item: item % 7, name="key")
    keyed = keyed.map(lambda item: (item, os.getpid()), contract=PROCESS, name="pid")
    keyed.sink(take, contract=PROCESS, name="take")
    result = finished(env)
    rows = [tuple(map(int, line.split())) for line in path.read_text().splitlines()]
    assert [row[0] for row in rows] == [item * 2 for item in range(3000) if item * 2 % 3]
    assert len({row[1] for row in rows} | {row[2] for row in rows}) == 2
    check_flow(result)
    assert result.metrics.items_out == result.metrics.latency.count == len(rows)


def test_places_are_kept_along_a_line(tmp_path: Path) -> None:
    env = environment(tmp_path, fusion=False)
    out: list[int] = []
    stream = env.from_collection(range(2000)).rebalance().map(same, contract=PROCESS, parallelism=2, name="one")
    stream = stream.filter(lambda item: item % 5, contract=PROCESS, parallelism=2, name="two")
    stream = stream.map(lambda item: 1 // (item % 7) and item, contract=PROCESS, parallelism=2, name="three")
    stream.ordered().sink(out.append)
    plan = env.compile()
    assert [task.cuts for task in plan.tasks if task.cuts] == [(1, 2)] * 2
    finished(env)
    # 1 // n is 0 behind 1, which `and` leaves as it is.
    assert out == [0 if item % 7 > 1 else item for item in range(2000) if item % 5 and item % 7]
    assert sorted(int(letter.item) for letter in letters(tmp_path)) == [
        item for item in range(2000) if item % 5 and not item % 7
    ]


@pytest.mark.parametrize("replicas", [1, 2])
def test_large_arrays_come_through_bit_for_bit(tmp_path: Path, replicas: int) -> None:
    arrays = [np.random.default_rng(seed).standard_normal(131_072) for seed in range(60)]
    arrays[4] = arrays[4][::-1]

    def change(array: Any) -> Any:
        array[0] += 1
        return array

    env = environment(tmp_path, fusion=False, parallelism={f"s{number}": replicas for number in range(STAGES)})
    out: list[Any] = []
    stream: Any = env.from_collection(arrays)
    for number in range(STAGES):
        stream = stream.map(change, name=f"s{number}", contract=PROCESS)
    stream.sink(out.append)
    finished(env)
    expected = []
    for array in arrays:
        copy = array.copy()
        for _ in range(STAGES):
            copy[0] += 1
        expected.append(copy.tobytes())
    assert Counter(array.tobytes() for array in out) == Counter(expected)
    if replicas == 1:
        assert [array.tobytes() for array in out] == expected


def test_messages_larger_than_pipe_and_arena(tmp_path: Path) -> None:
    items = [bytes([number]) * 2_000_000 for number in range(40)] + [np.zeros(5_000_000)]
    _, out = lined(tmp_path, items, [same] * 3)
    assert [len(item) for item in out] == [len(item) for item in items]
    assert out[:40] == items[:40]


class Counts(MapFunction[int, int]):
    """Counts for itself."""

    def execute(self, item: int) -> int:
        self.ctx.metrics.count("seen", item % 2)
        return item


def test_counters_and_times_of_all_are_told(tmp_path: Path) -> None:
    def slow(item: int) -> int:
        time.sleep(0.0005)
        return item

    result, _ = lined(tmp_path, range(400), [Counts, slow, Counts, same])
    counters = {found.operator: found for found in result.metrics.operators}
    assert [dict(counters[name].counters) for name in ("s0", "s2")] == [{"seen": 200}] * 2
    assert all(counters[f"s{number}"].service.count for number in range(STAGES))
    assert counters["s1"].service.p50_ms >= 0.5 > counters["s2"].service.p50_ms
    (line,) = (replica for replica in result.metrics.replicas if replica.task == "s0[0]")
    assert line.items_in == line.items_out == 400


# -- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", range(STAGES))
@pytest.mark.parametrize("retries", [0, 2])
def test_an_operator_that_raises(tmp_path: Path, position: int, retries: int) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()

    def work(item: int) -> int:
        if item % 100 == 7 or (item % 100 == 9 and retries and once(marks, item)):
            raise KeyError(item)
        return item

    result, out = lined(tmp_path, range(1000), at(position, (work, contract(retries=retries))))
    assert out == [item for item in range(1000) if item % 100 != 7]
    found = letters(tmp_path)
    assert [(letter.operator, letter.item, letter.attempts) for letter in found] == [
        (f"s{position}", str(item), retries + 1) for item in range(7, 1000, 100)
    ]
    check_flow_with_letters(result, position, 10)
    counted = result.metrics.operators[1 + position]
    again = 10 * (retries + 1) + (10 if retries else 0)
    assert (counted.errors, counted.retries, counted.dead_letters) == (again, again - 10, 10)


def check_flow_with_letters(result: Any, position: int, gone: int) -> None:
    """All come as far as `position`, where some are set aside."""
    found = result.metrics.operators[1:-1]
    first = found[0].items_in
    for number, operator in enumerate(found):
        assert operator.items_in == (first if number <= position else first - gone)
        assert operator.items_out == (first if number < position else first - gone)


@pytest.mark.parametrize("position", range(STAGES))
def test_an_error_fails_the_job_where_the_contract_says_so(tmp_path: Path, position: int) -> None:
    def work(item: int) -> int:
        if item == 700:
            raise KeyError(item)
        return item

    def early(item: int) -> int:
        return item if item != 5 else 1 // 0

    functions = at(position, (work, contract(on_error=OnError.FAIL)))
    functions[(position + 1) % STAGES] = early
    functions[(position + 2) % STAGES] = early
    with pytest.raises(JobFailedError, match=f"operator 's{position}' raised for the item 700") as caught:
        lined(tmp_path, range(1000), functions)
    (letter,) = letters(tmp_path)
    assert letter.item == "5"
    assert caught.value.result.metrics.items_in <= 1000


def test_letters_in_the_answer_with_which_a_job_fails_are_stored_once(tmp_path: Path) -> None:
    def early(item: int) -> int:
        if item < 5 or 600 <= item < 700:
            raise KeyError(item)
        return item

    def work(item: int) -> int:
        if item == 700:
            raise KeyError(item)
        return item

    with pytest.raises(JobFailedError, match="operator 's1' raised for the item 700"):
        lined(tmp_path, range(1000), [early, (work, contract(on_error=OnError.FAIL)), same])
    found = sorted(int(letter.item) for letter in letters(tmp_path))
    assert set(found) >= {*range(5), *range(600, 700)}
    assert len(found) == len(set(found))


class Stays:
    """Cannot be pickled."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        raise TypeError(f"{self.number} stays")


class Breaks:
    """Can be pickled and not be rebuilt."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        return _break, (self.number,)


class Leaves:
    """Ends the program that rebuilds it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        return sys.exit, (self.number,)


def _break(number: int) -> Any:
    raise ValueError(f"{number} breaks")


@pytest.mark.parametrize("bad", [Stays, Breaks, Leaves])
@pytest.mark.parametrize("position", range(STAGES))
@pytest.mark.parametrize("sieve", [False, True])
def test_an_output_that_is_lost_between_two_of_them(tmp_path: Path, bad: Any, position: int, sieve: bool) -> None:
    def work(item: int) -> Any:
        return bad(item) if item % 100 == 50 else item

    def early(item: int) -> int:
        if item % 100 == 3:
            raise KeyError(item)
        return item

    env = environment(tmp_path, fusion=False)
    out: list[Any] = []
    stream: Any = env.from_collection(range(1000))
    if sieve:
        stream = stream.filter(lambda item: item % 100 not in (49, 51, 99), contract=PROCESS, name="sieve")
    for number, function in enumerate(at(position, work)):
        stream = stream.map(early if number == 0 and position else function, contract=PROCESS, name=f"s{number}")
    stream.sink(out.append)
    result = finished(env)
    gone = ({49, 51, 99} if sieve else set()) | {50} | ({3} if position else set())
    assert out == [item for item in range(1000) if item % 100 not in gone]
    found = [letter for letter in letters(tmp_path) if "the output cannot be" in letter.error]
    assert sorted(int(letter.item) for letter in found) == list(range(50, 1000, 100))
    first = "sieve" if sieve else "s0"
    assert {letter.operator for letter in found} == {f"s{position}" if bad is Stays else first}
    words = {Stays: "50 stays", Breaks: "ValueError: 950 breaks", Leaves: "SystemExit: 50"}[bad]
    assert any(words in letter.error for letter in found)
    assert result.dead_letters == 10 + (10 if position else 0)
    for before, after in itertools.pairwise(result.metrics.operators):
        assert before.items_out == after.items_in
    assert result.metrics.operators[position + 1 + sieve].errors == 10


def test_an_output_that_cannot_be_rebuilt_fails_the_job_where_the_contract_says_so(tmp_path: Path) -> None:
    bad = (Breaks, contract(on_error=OnError.FAIL))
    with pytest.raises(JobFailedError, match="cannot be rebuilt in the process of 's2': .*7"):
        lined(tmp_path, [7], at(1, bad))


@pytest.mark.parametrize("bad", [Stays, Breaks, Leaves])
def test_items_that_cannot_be_sent_to_the_first(tmp_path: Path, bad: Any) -> None:
    _, out = lined(tmp_path, [*range(500), bad(5), *range(500, 1000)], [same] * 3)
    assert out == list(range(1000))
    assert [letter.operator for letter in letters(tmp_path)] == ["s0"]


class Phases(MapFunction[int, int]):
    """Writes down, and may raise."""

    def __init__(self, folder: Path, name: str, fails_in: str = "") -> None:
        super().__init__()
        self.folder, self.name, self.fails_in = folder, name, fails_in

    def setup(self) -> None:
        self._note("setup")

    def execute(self, item: int) -> int:
        return item

    def teardown(self) -> None:
        self._note("teardown")

    def _note(self, phase: str) -> None:
        (self.folder / f"{self.name}-{phase}").touch()
        if self.fails_in == phase:
            raise RuntimeError(f"no {phase}")


@pytest.mark.parametrize("position", range(STAGES))
@pytest.mark.parametrize("phase", ["setup", "teardown"])
def test_set_up_and_tear_down_in_each(tmp_path: Path, position: int, phase: str) -> None:
    functions = [Phases(tmp_path, f"s{number}", phase if number == position else "") for number in range(STAGES)]
    with pytest.raises(JobFailedError, match=f"{phase} of operator 's{position}' failed: RuntimeError: no {phase}"):
        lined(tmp_path, range(10), functions)
    noted = {path.name for path in tmp_path.glob("s*-*")}
    torn = {f"s{number}-teardown" for number in range(STAGES) if phase == "teardown" or number != position}
    assert noted == {f"s{number}-setup" for number in range(STAGES)} | torn


# -- death ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", range(STAGES))
def test_one_that_is_killed_loses_nothing_and_doubles_nothing(tmp_path: Path, position: int) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()

    def work(item: int) -> int:
        if item in (0, 100, 500, 999) and once(marks, item):
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    result, out = lined(tmp_path, range(1000), at(position, work))
    assert out == list(range(1000))
    assert not letters(tmp_path)
    for found in result.metrics.operators[1:]:
        assert (found.items_in, found.items_out, found.dead_letters) == (1000, 1000, 0)


@pytest.mark.parametrize("seed", range(6))
def test_kills_from_outside_in_a_loop(tmp_path: Path, seed: int) -> None:
    drawn = random.Random(seed)

    def work(item: int) -> int:
        (tmp_path / f"pid-{os.getpid()}").touch()
        if item % 3 == 0:
            time.sleep(0.0004)
        return item

    env = environment(tmp_path, fusion=False)
    out: list[int] = []
    stream: Any = env.from_collection(range(1500)).map(work, name="s0", contract=PROCESS)
    stream = stream.filter(lambda item: item % 5, name="s1", contract=PROCESS)
    stream.map(work, name="s2", contract=PROCESS).map(work, name="s3", contract=PROCESS).sink(out.append)
    job = env.submit(wait=False)
    killed: set[str] = set()
    give_up = time.monotonic() + 20
    while len(killed) < 5 and time.monotonic() < give_up and job.result is None:
        time.sleep(0.02 + drawn.random() * 0.05)
        alive = [path.name for path in tmp_path.glob("pid-*") if path.name not in killed]
        if alive:
            name = drawn.choice(sorted(alive))
            killed.add(name)
            try:
                os.kill(int(name.removeprefix("pid-")), signal.SIGKILL)
            except ProcessLookupError:
                continue  # it has gone with its line
    result = job.wait(40)
    assert result.state is JobState.FINISHED
    gone = Counter(int(letter.item) for letter in letters(tmp_path))
    assert all(count == 1 for count in gone.values())
    assert out == [item for item in range(1500) if item % 5 and item not in gone]
    assert result.metrics.operators[1].items_in == 1500
    assert sum(found.dead_letters for found in result.metrics.operators) == len(gone)


@pytest.mark.parametrize("position", range(STAGES))
@pytest.mark.parametrize("size", [1, 200_000])
def test_a_deadly_item_is_found_with_its_operator(tmp_path: Path, position: int, size: int) -> None:
    def grow(item: Any) -> Any:
        return (item, bytes(size * 10))

    def deadly(item: Any) -> Any:
        if item[0] == 321:
            os._exit(7)
        return item

    functions = [grow, *at(position, (deadly, contract(retries=1)))]
    result, out = lined(tmp_path, range(300, 340), functions)
    assert [item[0] for item in out] == [item for item in range(300, 340) if item != 321]
    (letter,) = letters(tmp_path)
    assert (letter.operator, letter.attempts) == (f"s{position + 1}", 2)
    assert letter.item.startswith("(321, b")
    assert "ended by itself with exit code 7" in letter.error
    check_flow_with_letters(result, position + 1, 1)
    counted = result.metrics.operators[2 + position]
    assert (counted.errors, counted.retries, counted.dead_letters) == (2, 1, 1)


def test_death_is_seen_while_a_child_of_the_operator_lives(tmp_path: Path) -> None:
    def leave_child(item: int) -> int:
        if item == 3 and not (tmp_path / "child").exists():
            child = os.fork()
            if child == 0:
                time.sleep(30)
                os._exit(0)
            (tmp_path / "child").write_text(str(child))
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    begun = time.monotonic()
    try:
        _, out = lined(tmp_path, range(10), at(1, leave_child))
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
    assert out == list(range(10))
    assert time.monotonic() - begun < 8


class DiesOnceInSetup(MapFunction[Any, Any]):
    """Its first process ends in set-up."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def setup(self) -> None:
        if not self.path.exists():
            self.path.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def execute(self, item: Any) -> Any:
        return item


class DiesInTeardown(MapFunction[Any, Any]):
    """Ends its process when all is done."""

    def execute(self, item: Any) -> Any:
        return item

    def teardown(self) -> None:
        os._exit(9)


@pytest.mark.parametrize("position", range(STAGES))
def test_death_in_set_up_and_tear_down(tmp_path: Path, position: int) -> None:
    assert lined(tmp_path, range(4), at(position, DiesOnceInSetup(tmp_path / "seen")))[1] == [0, 1, 2, 3]
    functions: list[Any] = [Phases(tmp_path, f"s{number}") for number in range(STAGES)]
    functions[position] = DiesInTeardown
    with pytest.raises(JobFailedError, match="(?s)teardown of 's0', 's1', 's2', 's3' failed: .*exit code 9"):
        lined(tmp_path, range(4), functions)
    assert len(list(tmp_path.glob("s*-teardown"))) == STAGES - 1


# -- life -----------------------------------------------------------------------------------------------------


def test_stop_drains_the_line(tmp_path: Path) -> None:
    def slow(item: int) -> int:
        time.sleep(0.003)
        return item

    env, out = declared(tmp_path, range(100_000), at(2, slow), queue_capacity=32)
    job = env.submit(wait=False)
    time.sleep(0.3)
    job.stop(20)
    result = job.wait(30)
    assert result.state is JobState.STOPPED
    assert out == list(range(result.metrics.items_in))


@pytest.mark.parametrize("position", range(STAGES))
def test_abort_and_watchdog_with_an_operator_that_never_returns(tmp_path: Path, position: int) -> None:
    def hang(item: int) -> int:
        if item == 50:
            time.sleep(60)
        return item

    env, out = declared(tmp_path, range(5000), at(position, hang), queue_capacity=8)
    job = env.submit(wait=False)
    time.sleep(0.3)
    begun = time.monotonic()
    job.abort()
    assert job.wait(10).state is not JobState.FINISHED
    assert time.monotonic() - begun < 3
    assert out == list(range(len(out)))
    env, _ = declared(tmp_path, range(5000), at(position, hang), queue_capacity=8, watchdog_s=4)
    with pytest.raises(JobFailedError, match="in hang") as caught:
        env.submit()
    assert str(caught.value).count("in process") == STAGES
