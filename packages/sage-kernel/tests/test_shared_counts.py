"""What one thread counts and another one looks at: nobody who looks is told that a dict has changed."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import environment

from sage.kernel.api import Contract, Execution, MapFunction
from sage.kernel.graph import Execution as GraphExecution
from sage.kernel.graph import TaskNode
from sage.kernel.operators.context import OperatorMetrics
from sage.kernel.runtime.chain import SetAside
from sage.kernel.runtime.dead_letter_budget import ErrorCounts
from sage.kernel.runtime.dead_letters import DeadLetterStore
from sage.kernel.runtime.process_book import ProcessBook
from sage.kernel.runtime.process_protocol import Report
from sage.kernel.telemetry import HeavyHitters, ReplicaCounters

SECONDS = 0.7


@pytest.fixture(autouse=True)
def switching() -> Iterator[None]:
    """Threads take turns after a few steps."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def meanwhile(act: Callable[[int], Any], look: Callable[[], Any]) -> int:
    """Call `look` while another thread calls `act` with 0, 1, 2 ...; how often it was called."""
    ended = threading.Event()

    def run() -> None:
        number = 0
        while not ended.is_set():
            act(number)
            number += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        looks, give_up = 0, time.monotonic() + SECONDS
        while time.monotonic() < give_up:
            look()
            looks += 1
    finally:
        ended.set()
        thread.join()
    return looks


class _NoLetters:
    def add(self, letter: Any) -> None:
        raise AssertionError(letter)


def book() -> ProcessBook:
    node = TaskNode(id="a[0]", chain=("a",), replica_index=0, parallelism=1, execution=GraphExecution.PROCESS)
    return ProcessBook(node, ReplicaCounters(("a",)), [], _NoLetters())


def report(counters: dict[str, float]) -> Report:
    return Report((), [], (), {0: counters}, False, 0)


def test_counters_of_a_process_while_processes_die() -> None:
    ledger = book()
    seen: list[float] = []

    def act(number: int) -> None:
        # Each process counts under a name of its own, and dies.
        ledger.apply(report({f"name {number % 500}": 1.0, "all": 1.0}))
        ledger.begin_anew()
        if number % 500 == 499:
            ledger._counted_before = {}

    def look() -> None:
        seen.append(ledger.user_counters.get("a", {}).get("all", 0.0))

    assert meanwhile(act, look) > 10
    assert max(seen) > 0


def test_what_a_process_has_counted_counts_once() -> None:
    """Also between the moment at which it dies and the first report of the next one."""
    ledger = book()
    ledger.apply(report({"n": 3.0}))
    counted: list[float] = []
    meanwhile(lambda number: ledger.begin_anew(), lambda: counted.append(ledger.user_counters["a"]["n"]))
    assert set(counted) == {3.0}


def test_counters_of_an_operator_with_threads_of_its_own() -> None:
    metrics = OperatorMetrics()
    assert meanwhile(lambda number: metrics.count(f"name {number % 10_000}"), metrics.snapshot) > 10
    assert sum(metrics.snapshot().values()) == sum(metrics.counters.values())


class Odd:
    """A key whose comparison is code of the user's."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        return self.number % 7

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Odd) and other.number == self.number


def test_hot_keys() -> None:
    hitters = HeavyHitters(size=16)
    assert meanwhile(lambda number: hitters.add_many([Odd(number % 50), Odd(3)]), hitters.top) > 10
    top = hitters.top()
    assert top is not None
    assert top.key == Odd(3)


def test_errors_that_come_while_the_commonest_is_asked_for() -> None:
    errors = ErrorCounts()
    errors.add("pick", "KeyError", "first")
    act = lambda number: errors.add("pick", "KeyError" if number % 2 else f"Error{number % 5000}", "later")  # noqa: E731
    assert meanwhile(act, errors.commonest) > 10
    assert errors.commonest()[1] == "KeyError: first"


def test_an_item_that_changes_while_it_is_set_aside(tmp_path: Path) -> None:
    """It is somebody else's fault, and no reason to fail the job."""
    item: dict[str, int] = {}
    with DeadLetterStore(tmp_path, job_id="job_1") as store:

        def act(number: int) -> None:
            item[f"key {number % 200}"] = number
            if number % 200 == 199:
                item.clear()

        def look() -> None:
            letter = SetAside(
                operator="a", replica_index=0, item=item, key=None, keyed=False, attempts=1, error=ValueError("no")
            )
            store._record(letter)

        assert meanwhile(act, look) > 10


class Counts(MapFunction[int, int]):
    def execute(self, number: int) -> int:
        self.ctx.metrics.count(f"seen {number % 300}")
        if number % 150 == 149 and not Path(self.marker(number)).exists():
            Path(self.marker(number)).touch()
            os._exit(3)
        return number

    folder = ""

    def marker(self, number: int) -> str:
        return f"{self.folder}/{number}"


def test_metrics_of_a_job_whose_processes_die(tmp_path: Path) -> None:
    folder = str(tmp_path)

    class Here(Counts):
        pass

    Here.folder = folder
    env = environment(tmp_path / "home")
    out: list[int] = []
    contract = Contract(execution=Execution.PROCESS)
    env.from_collection(range(600)).map(Here, parallelism=2, contract=contract, name="work").sink(out.append)
    job = env.submit(wait=False)
    looks = 0
    while job.result is None:
        job.metrics()
        looks += 1
        time.sleep(0.001)
    job.wait(20)
    assert looks > 1
    assert sorted(out) == list(range(600))
