"""What gets lost between a process and its parent, and what must not: outputs, whole rows, processes, the end."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters
from process_runs import PROCESS, contract, in_process

from sage.kernel.api import Contract, Execution, JobFailedError, MapFunction, OnError
from sage.kernel.runtime.process_task import PROCESS_MODULES, ProcessTask
from sage.platform.processes import default_process_pool


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
@pytest.mark.parametrize("first", [True, False])
def test_a_row_with_an_output_that_is_lost_is_set_aside_whole(tmp_path: Path, bad: Any, first: bool) -> None:
    # As many outputs as rows, so that only their order tells which belong together.
    def explode(item: int) -> list[Any]:
        if item % 2:
            return []
        if item != 200:
            return [f"a{item}", f"b{item}"]
        return [bad(item), "a200"] if first else ["a200", bad(item)]

    env = environment(tmp_path)
    out: list[str] = []
    env.from_collection(range(1000)).flatmap(explode, contract=PROCESS, name="explode").sink(out.append)
    result = finished(env)
    assert out == [f"{letter}{item}" for item in range(0, 1000, 2) if item != 200 for letter in "ab"]
    (letter,) = letters(tmp_path)
    assert (letter.item, letter.operator) == ("200", "explode")
    counted = result.metrics.operators[1]
    assert (counted.items_in, counted.items_out, counted.errors, counted.dead_letters) == (1000, 998, 1, 1)


@pytest.mark.parametrize("bad", [Stays, Breaks, Leaves])
@pytest.mark.parametrize("shape", ["map", "raising map", "filter", "chain", "keyed"])
def test_the_letter_has_the_input_of_the_lost_output(tmp_path: Path, bad: Any, shape: str) -> None:
    def change(item: int) -> Any:
        if shape == "raising map" and item % 10 == 1:
            raise KeyError(item)
        return bad(item) if item == 200 else item

    env = environment(tmp_path)
    out: list[Any] = []
    stream: Any = env.from_collection(range(500))
    if shape == "keyed":
        stream = stream.key_by(lambda item: item % 3)
    elif shape == "chain":
        stream = stream.filter(lambda item: item % 2 == 0, contract=PROCESS, name="even")
    stream = stream.map(change, contract=PROCESS, name="change")
    if shape == "filter":
        stream = stream.filter(lambda item: item != 3, contract=PROCESS, name="not_3")
    stream.sink(out.append)
    result = finished(env)
    gone = {"map": [], "raising map": range(1, 500, 10), "filter": [3], "chain": range(1, 500, 2), "keyed": []}[shape]
    assert out == [item for item in range(500) if item != 200 and item not in gone]
    found = [letter for letter in letters(tmp_path) if "the output cannot be" in letter.error]
    assert [letter.item for letter in found] == ["200"]
    assert found[0].operator == ("even" if shape == "chain" else "change")
    assert found[0].key == ("2" if shape == "keyed" else None)
    text = found[0].error
    assert ("200 stays" if bad is Stays else "ValueError: 200 breaks" if bad is Breaks else "SystemExit: 200") in text
    assert result.dead_letters == 1 + (50 if shape == "raising map" else 0)
    for before, after in itertools.pairwise(result.metrics.operators):
        assert before.items_out == after.items_in


@pytest.mark.parametrize("bad", [Breaks, Leaves])
def test_an_output_that_cannot_be_rebuilt_fails_the_job_where_the_contract_says_so(tmp_path: Path, bad: Any) -> None:
    with pytest.raises(JobFailedError, match="cannot be rebuilt in the program's process: .*7"):
        in_process(tmp_path, [7], bad, contract(on_error=OnError.FAIL))


def test_items_whose_rebuilding_exits_are_set_aside(tmp_path: Path) -> None:
    _, out = in_process(tmp_path, [1, Leaves(5), 2], lambda item: item)
    assert out == [1, 2]
    assert "SystemExit: 5" in letters(tmp_path)[0].error


def test_a_letter_whose_item_cannot_be_rebuilt_is_told_in_words(tmp_path: Path) -> None:
    def refuse(item: Any) -> Any:
        if isinstance(item, Breaks):
            raise KeyError("refused")
        return item

    env = environment(tmp_path)
    out: list[int] = []
    stream = env.from_collection(range(6)).map(lambda item: Breaks(item) if item == 3 else item, contract=PROCESS)
    stream.map(refuse, contract=PROCESS, name="refuse").sink(out.append)
    finished(env)
    assert out == [0, 1, 2, 4, 5]
    (letter,) = letters(tmp_path)
    assert letter.operator == "refuse"
    assert "ValueError: 3 breaks" in str(letter.item)
    assert "refused" in letter.error


@pytest.mark.parametrize("execution", [Execution.AUTO, Execution.PROCESS])
@pytest.mark.parametrize("items", [0, 3])
def test_limit_ends_its_source_whatever_it_asks_for(tmp_path: Path, execution: Execution, items: int) -> None:
    env = environment(tmp_path)
    wanted = Contract(execution=execution, cpu_bound=True)
    stream = env.from_collection(itertools.count()).map(lambda item: item, contract=PROCESS)
    assert stream.limit(items, contract=wanted).collect() == list(range(items))


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
        _, out = in_process(tmp_path, range(10), leave_child)
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
    assert out == list(range(10))
    assert time.monotonic() - begun < 8


def test_a_killed_fork_server_costs_no_job(tmp_path: Path) -> None:
    pool = default_process_pool(PROCESS_MODULES)
    in_process(tmp_path, range(4), lambda item: item)
    for pid in pool.processes:
        os.kill(pid, signal.SIGKILL)
    assert in_process(tmp_path, range(4), lambda item: item)[1] == [0, 1, 2, 3]


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


def test_a_death_in_setup_is_tried_again(tmp_path: Path) -> None:
    assert in_process(tmp_path, range(4), DiesOnceInSetup(tmp_path / "seen"))[1] == [0, 1, 2, 3]


class DiesInTeardown(MapFunction[int, int]):
    """Has a tear-down of its own."""

    def execute(self, item: int) -> int:
        return item

    def teardown(self) -> None:
        os._exit(9)


def test_only_an_operator_with_a_teardown_of_its_own_misses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end_process = ProcessTask._end_process

    def kill_first(self: ProcessTask) -> None:
        assert self._process is not None
        os.kill(self._process.pids[0], signal.SIGKILL)
        end_process(self)

    with monkeypatch.context() as patched:
        patched.setattr(ProcessTask, "_end_process", kill_first)
        assert in_process(tmp_path, range(4), lambda item: item)[1] == [0, 1, 2, 3]
    with pytest.raises(JobFailedError, match="teardown of 'work' failed"):
        in_process(tmp_path, range(4), DiesInTeardown)


class Counts(MapFunction[int, int]):
    """Keeps something in itself and does not say so."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def execute(self, item: int) -> int:
        if item == 5:
            os._exit(9)
        self.seen += 1
        return item


def _dies_of_5(item: int) -> int:
    return Counts().execute(item)


@pytest.mark.parametrize(("function", "warned"), [(Counts(), 1), (Counts, 0), (_dies_of_5, 0)])
def test_an_instance_that_begins_anew_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, function: Any, warned: int
) -> None:
    with caplog.at_level(logging.WARNING, "sage.kernel.task"):
        in_process(tmp_path, [1, 5, 2, 5], function)
    told = [record.getMessage() for record in caplog.records if "begin anew" in record.getMessage()]
    assert len(told) == warned
    assert all("'work'" in text for text in told)
