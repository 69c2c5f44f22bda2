"""`batch`: lists by size, by time and by the end of the stream; nothing lost, nothing twice."""

from __future__ import annotations

import itertools
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished
from executions import ExecutionKind
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.kernel.api import (
    Contract,
    ErrorPolicy,
    Execution,
    IOSpec,
    JobState,
    LocalEnvironment,
    PipelineError,
    SourceFunction,
)
from sage.kernel.graph import TypeMismatchError


class Paced(SourceFunction[int]):
    """Gives numbers, with so many seconds before each."""

    def __init__(self, gaps_s: list[float]) -> None:
        super().__init__()
        self._gaps_s = gaps_s

    def execute(self) -> Iterator[int]:
        for number, gap in enumerate(self._gaps_s):
            time.sleep(gap)
            yield number


class Fed(SourceFunction[Any]):
    """Gives what is put into a queue until `None` comes, or the job is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.items: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __deepcopy__(self, memo: object) -> Fed:
        return self

    def execute(self) -> Iterator[Any]:
        while not self.ctx.stopping:
            try:
                item = self.items.get(timeout=0.01)
            except queue.Empty:
                continue
            if item is None:
                return
            yield item


@settings(max_examples=40, deadline=None)
@given(items=st.integers(0, 50), size=st.integers(1, 12), fusion=st.booleans(), waits=st.booleans())
def test_lists_are_slices_of_the_stream(items: int, size: int, fusion: bool, waits: bool) -> None:
    env = LocalEnvironment("slices", {"fusion": fusion, "watchdog_s": 10})
    lists = env.from_collection(range(items)).batch(size, 30.0 if waits else None).collect()
    assert lists == [list(range(start, min(items, start + size))) for start in range(0, items, size)]


@pytest.mark.parametrize("max_wait_s", [None, 0.001])
@pytest.mark.parametrize("capacity", [None, 1])
def test_between_operators_of_each_kind_nothing_is_lost(
    execution: ExecutionKind, max_wait_s: float | None, capacity: int | None
) -> None:
    env = LocalEnvironment("between", {"queue_capacity": capacity, "watchdog_s": 10})
    contract = execution.contract(concurrency=4)
    before = env.from_collection(range(500)).map(execution.operator(lambda n: n), contract=contract, parallelism=2)
    lists = before.batch(7, max_wait_s, parallelism=2).map(execution.operator(tuple), contract=contract)
    found = lists.collect()
    assert Counter(itertools.chain.from_iterable(found)) == Counter(range(500))
    assert all(1 <= len(some) <= 7 for some in found)
    if max_wait_s is None:
        # Each replica has at most one list that is not full.
        assert sum(1 for some in found if len(some) < 7) <= 2


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize("max_wait_s", [None, 30.0])
def test_lists_of_keys_keep_their_key_and_its_order(parallelism: int, max_wait_s: float | None) -> None:
    env = LocalEnvironment("keys", {"watchdog_s": 10})
    stream = env.from_collection(range(100)).key_by(lambda n: n % 7)
    lists = stream.batch(4, max_wait_s, parallelism=parallelism).aggregate(list, lambda all_, some: [*all_, some])
    last = dict(lists.collect())
    for key in range(7):
        of_key = list(range(key, 100, 7))
        assert last[key] == [of_key[start : start + 4] for start in range(0, len(of_key), 4)]


def test_a_slow_source_does_not_hold_up_a_list_that_is_due(tmp_path: Path) -> None:
    seen: list[tuple[float, list[int]]] = []
    env = environment(tmp_path)
    begun = time.monotonic()
    stream = env.from_source(Paced([0.0, 0.0, 0.6])).batch(10, 0.05)
    stream.sink(lambda some: seen.append((time.monotonic() - begun, some)))
    finished(env)
    assert [some for _, some in seen] == [[0, 1], [2]]
    assert 0.05 <= seen[0][0] < 0.4


def test_a_slow_operator_before_it_does_not_either(tmp_path: Path) -> None:
    seen: list[tuple[float, list[int]]] = []
    env = environment(tmp_path)

    def slow(number: int) -> int:
        time.sleep(0.5 if number == 2 else 0)
        return number

    begun = time.monotonic()
    stream = env.from_collection([0, 1, 2]).map(slow).batch(10, 0.05)
    stream.sink(lambda some: seen.append((time.monotonic() - begun, some)))
    finished(env)
    # What the slow operator's task sends on together comes together; what has come does not wait for the rest.
    assert sorted(itertools.chain.from_iterable(some for _, some in seen)) == [0, 1, 2]
    assert seen[0][0] < 0.4


def test_items_of_other_keys_do_not_hold_up_a_list_that_is_due(tmp_path: Path) -> None:
    """A stream that never pauses: the list of the rare key goes all the same."""
    seen: dict[str, float] = {}
    env = environment(tmp_path)

    def items() -> Iterator[str]:
        yield "rare"
        begun = time.monotonic()
        while time.monotonic() - begun < 0.5:
            yield "often"

    begun = time.monotonic()
    stream = env.from_source(items).key_by(lambda word: word).batch(100_000, 0.05)
    stream.sink(lambda some: seen.setdefault(some[0], time.monotonic() - begun))
    finished(env)
    assert seen["rare"] < 0.4


def test_a_task_that_waits_for_its_lists_uses_no_processor(tmp_path: Path) -> None:
    env = environment(tmp_path)
    env.from_source(Paced([0.0, 0.5])).batch(10, 0.4).sink(lambda some: None)
    begun = time.process_time()
    finished(env)
    assert time.process_time() - begun < 0.25


def test_latency_of_a_list_is_that_of_its_oldest_item(tmp_path: Path) -> None:
    env = environment(tmp_path)
    env.from_source(Paced([0.0, 0.2])).batch(2).sink(lambda some: None)
    fused = finished(env).metrics
    assert fused.latency is not None
    assert fused.latency.p50_ms >= 190
    env = environment(tmp_path / "unfused", fusion=False)
    env.from_source(Paced([0.0, 0.2])).batch(2, 5.0).sink(lambda some: None)
    unfused = finished(env).metrics
    assert unfused.latency is not None
    assert unfused.latency.p50_ms >= 190


@pytest.mark.parametrize("max_wait_s", [None, 60.0])
def test_stop_flushes_the_rest(tmp_path: Path, max_wait_s: float | None) -> None:
    env = environment(tmp_path)
    source, out = Fed(), list[list[int]]()
    env.from_source(source, name="fed").batch(4, max_wait_s).sink(out.append)
    for number in range(10):
        source.items.put(number)
    job = env.submit(wait=False)
    deadline = time.monotonic() + 5
    while len(out) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert out == [[0, 1, 2, 3], [4, 5, 6, 7]]
    while not source.items.empty():
        time.sleep(0.005)
    time.sleep(0.05)
    job.stop(5)
    assert job.wait(10).state is JobState.STOPPED
    assert out == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize("max_wait_s", [None, 60.0])
def test_abort_while_a_list_waits_ends_at_once(tmp_path: Path, max_wait_s: float | None) -> None:
    env = environment(tmp_path)
    source, out = Fed(), list[list[int]]()
    env.from_source(source).batch(4, max_wait_s).sink(out.append)
    source.items.put(1)
    job = env.submit(wait=False)
    time.sleep(0.1)
    begun = time.monotonic()
    job.abort("enough")
    assert job.wait(10).state is JobState.ABORTED
    assert time.monotonic() - begun < 2
    assert out == []


def test_an_operator_behind_it_that_fails_sets_its_list_aside(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[int] = []
    env.from_collection(range(7)).batch(3).map(lambda some: 1 // (3 - some[0]) + len(some)).sink(out.append)
    result = finished(env)
    assert result.dead_letters == 1
    assert len(out) == 2


def test_lists_of_items_that_a_retry_has_delayed_are_whole(tmp_path: Path) -> None:
    """Items that go step by step meet the same lists as those of the generated code."""
    seen: set[int] = set()

    def shaky(number: int) -> int:
        if number % 3 == 0 and number not in seen:
            seen.add(number)
            raise ValueError(number)
        return number

    env = environment(tmp_path)
    contract = Contract(io=IOSpec(errors=ErrorPolicy(retries=1, delay_s=0)))
    stream = env.from_collection(range(20)).map(shaky, contract=contract)
    lists = stream.batch(4).collect()
    assert lists == [list(range(start, start + 4)) for start in range(0, 20, 4)]


def test_it_fuses_where_no_time_is_given_and_says_why_not() -> None:
    env = LocalEnvironment("plan")
    env.from_collection([1]).map(lambda n: n).batch(2).map(len).sink(print)
    assert len(env.compile().tasks) == 1
    env = LocalEnvironment("plan")
    env.from_collection([1]).map(lambda n: n).batch(2, 0.5).map(len).sink(print)
    plan = env.compile()
    assert [task.chain for task in plan.tasks] == [("collection", "map"), ("batch", "len", "print")]
    assert any("its lists go after 0.5 s" in note.text for note in plan.notes)


def test_many_lists_in_one_chain() -> None:
    stream = LocalEnvironment("many").from_collection(range(12))
    for _ in range(8):
        stream = stream.batch(2).flatmap(lambda some: some)
    assert stream.batch(5).batch(2).collect() == [[[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], [[10, 11]]]


def test_end_of_stream_passes_folds_and_lists_in_one_task(tmp_path: Path) -> None:
    env = LocalEnvironment("folds")
    counts = (
        env.from_collection("abracadabra").key_by(lambda letter: letter).aggregate(0, lambda n, _: n + 1, emit="final")
    )
    assert counts.batch(1).map(lambda some: some[0]).collect() == [("a", 5), ("b", 2), ("r", 2), ("c", 1), ("d", 1)]


def on(execution: Execution) -> Contract:
    return Contract(execution=execution)


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda s: s.batch(0), r"batch size must be a whole number >= 1, got 0 \(.*test_batch.py"),
        (lambda s: s.batch(2.5), r"batch size must be a whole number >= 1, got 2.5"),
        (lambda s: s.batch(2, -1), r"batch max_wait_s must be a number of seconds >= 0, got -1"),
        (lambda s: s.batch(2, float("inf")), r"batch max_wait_s must be a number of seconds >= 0, got inf"),
        (
            lambda s: s.batch(2, contract=on(Execution.ASYNC)).collect(),
            r"batch only puts items together",
        ),
        (
            lambda s: s.batch(2, contract=on(Execution.PROCESS)).collect(),
            r"leave execution AUTO, got proc",
        ),
    ],
)
def test_bad_arguments_are_refused(declare: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        declare(LocalEnvironment("bad").from_collection([1]))


def test_types_pass_through_lists() -> None:
    def number(text: str) -> int:
        return int(text)

    def shout(texts: list[str]) -> str:
        return "".join(texts).upper()

    def total(numbers: list[int]) -> int:
        return sum(numbers)

    stream = LocalEnvironment("types").from_collection(["1", "2"]).map(number).batch(2)
    assert stream.map(total).collect() == [3]
    with pytest.raises(TypeMismatchError, match=r"'shout' takes list\[str\], but 'batch' gives list\[int\]"):
        stream.map(shout).collect()


def test_nothing_is_lost_while_many_writers_meet_the_clock() -> None:
    """Lists go by size and by time at once, from several producers, with threads that change often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    try:
        env = LocalEnvironment("race", {"queue_capacity": 3, "watchdog_s": 10})
        streams = [env.from_source(Paced([0.0003] * 60)) for _ in range(3)]
        lists = streams[0].union(*streams[1:]).batch(3, 0.001).collect()
    finally:
        sys.setswitchinterval(before)
    assert Counter(itertools.chain.from_iterable(lists)) == Counter(list(range(60)) * 3)
    assert threading.active_count() < 50
