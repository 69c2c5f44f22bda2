"""What cannot be sent to a process or back: operators, items, outputs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from environments import environment, letters
from process_runs import PROCESS, contract, in_process

from sage.kernel.api import Execution, JobFailedError, MapFunction, OnError, PipelineError, load_pipeline


class Holder(MapFunction[int, int]):
    """An operator that holds what no process can be given."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def execute(self, item: int) -> int:
        return item


def test_an_operator_that_cannot_travel_is_refused_at_submit(tmp_path: Path) -> None:
    env = environment(tmp_path)
    env.from_collection([1]).map(Holder(), contract=PROCESS, name="holder").sink(print)
    with pytest.raises(
        PipelineError,
        match=r"cannot be sent to a process: cannot pickle 'lock' at \.lock of Holder \(operator 'holder'",
    ):
        env.submit()


_WITH_A_LOCK = """
import threading
from sage.kernel.api import Contract, Execution, LocalEnvironment

lock = threading.Lock()

def locked(item):
    with lock:
        return item

def build(asked: bool = True):
    contract = Contract(execution=Execution.PROCESS) if asked else Contract(cpu_bound=True)
    env = LocalEnvironment("locks")
    env.from_collection([1]).map(locked, contract=contract).print()
    return env
"""


def test_what_the_functions_of_a_file_use_is_looked_at_by_the_compiler(tmp_path: Path) -> None:
    file = tmp_path / "locks.py"
    file.write_text(_WITH_A_LOCK)
    with pytest.raises(PipelineError, match=r"cannot be sent to a process: cannot pickle 'lock' at \.lock of locked"):
        load_pipeline(file).compile()  # as `sage compile` and `sage validate` do, which start nothing
    chosen = load_pipeline(file, {"asked": False}).compile()
    assert {task.execution for task in chosen.tasks} == {Execution.THREAD}
    assert any("cannot pickle 'lock' at .lock of locked" in line.text for line in chosen.notes)


def test_items_that_cannot_travel_are_set_aside_and_the_others_are_not(tmp_path: Path) -> None:
    items = [number if number % 10 else {"lock": threading.Lock(), "number": number} for number in range(100)]
    result, out = in_process(tmp_path, items, lambda item: item)
    assert out == [number for number in range(100) if number % 10]
    found = letters(tmp_path)
    assert len(found) == result.dead_letters == 10
    assert "the item cannot be sent to the process: cannot pickle 'lock' at ['lock']" in found[0].error
    work = result.metrics.operators[1]
    assert (work.items_in, work.items_out, work.errors, work.dead_letters) == (100, 90, 10, 10)


def test_outputs_that_cannot_travel_are_set_aside_with_their_input(tmp_path: Path) -> None:
    result, out = in_process(tmp_path, range(100), lambda item: item if item % 10 else threading.Lock())
    assert out == [number for number in range(100) if number % 10]
    found = letters(tmp_path)
    assert sorted(int(letter.item) for letter in found) == list(range(0, 100, 10))
    assert "the output cannot be sent from the process: cannot pickle 'lock'" in found[0].error
    work = result.metrics.operators[1]
    assert (work.items_in, work.items_out, work.errors, work.dead_letters) == (100, 90, 10, 10)


class Refuses:
    """Can be pickled and not unpickled."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        return _refuse, (self.number,)


def _refuse(number: int) -> Any:
    raise ValueError(f"not {number}")


def test_items_that_cannot_be_rebuilt_in_the_process_are_set_aside_in_order(tmp_path: Path) -> None:
    items = [Refuses(number) if number in (7, 50) else number for number in range(200)]
    _, out = in_process(tmp_path, items, lambda item: item)
    assert out == [number for number in range(200) if number not in (7, 50)]
    assert ["ValueError: not 7" in letter.error for letter in letters(tmp_path)] == [True, False]


@pytest.mark.parametrize("where", ["item", "output"])
def test_what_cannot_travel_fails_the_job_where_the_contract_says_so(tmp_path: Path, where: str) -> None:
    items = [threading.Lock()] if where == "item" else [1]
    with pytest.raises(JobFailedError, match="cannot pickle 'lock'"):
        in_process(tmp_path, items, lambda item: threading.Lock(), contract(on_error=OnError.FAIL))
