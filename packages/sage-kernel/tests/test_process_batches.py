"""Batched functions in processes: lists are gathered here, called there, and only bad items become dead letters."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.kernel.api import (
    Batching,
    Contract,
    ErrorPolicy,
    Execution,
    IOSpec,
    JobFailedError,
    JobState,
    LocalEnvironment,
    MapFunction,
    OnError,
    PipelineError,
    SourceFunction,
)
from sage.kernel.runtime.process_rows import Batch, joined

PROCESS = Contract(execution=Execution.PROCESS)


def contract(**errors: Any) -> Contract:
    return Contract(execution=Execution.PROCESS, io=IOSpec(errors=ErrorPolicy(delay_s=0.001, **errors)))


def sizes(some: list[Any]) -> list[tuple[Any, int]]:
    """Each item with the size of its list."""
    return [(item, len(some)) for item in some]


@settings(max_examples=60, deadline=None)
@given(
    items=st.integers(0, 80),
    size=st.integers(1, 9),
    max_wait_s=st.sampled_from([None, 0.0, 0.002, 30.0]),
    parallelism=st.integers(1, 2),
    fusion=st.booleans(),
    capacity=st.sampled_from([None, 1, 3]),
    keyed=st.booleans(),
)
def test_each_item_has_its_output(
    items: int,
    size: int,
    max_wait_s: float | None,
    parallelism: int,
    fusion: bool,
    capacity: int | None,
    keyed: bool,
) -> None:
    env = LocalEnvironment("each", {"fusion": fusion, "queue_capacity": capacity, "watchdog_s": 10})
    stream: Any = env.from_collection(range(items)).map(lambda n: n + 1)
    stream = stream.key_by(lambda n: n % 3) if keyed else stream
    batched = stream.map(
        sizes, batch=Batching(size=size, max_wait_s=max_wait_s), parallelism=parallelism, contract=PROCESS
    )
    found = batched.map(lambda pair: pair, parallelism=parallelism, contract=PROCESS).collect()
    assert Counter(item for item, _ in found) == Counter(range(1, items + 1))
    assert all(1 <= length <= size for _, length in found)
    if parallelism == 1 and not keyed:
        assert [item for item, _ in found] == list(range(1, items + 1))
        if max_wait_s in (None, 30.0):
            whole = items - items % size
            assert [length for _, length in found] == [size] * whole + [items % size] * (items % size)


class Model(MapFunction[list[str], list[str]]):
    """Works on lists, with a life cycle and a counter."""

    contract = Contract(
        cpu_bound=True, io=IOSpec(batching=Batching(size=3, max_wait_s=None), errors=ErrorPolicy(retries=1, delay_s=0))
    )

    def setup(self) -> None:
        self.prefix = self.config["prefix"]
        self.pid = os.getpid()

    def execute(self, item: list[str]) -> list[str]:
        self.ctx.metrics.count("lists")
        return [f"{self.prefix}{text} {self.pid}" for text in item]


def test_a_class_that_is_cpu_bound_has_its_lists_in_a_process(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[str] = []
    env.from_collection("abcd").map(Model, {"prefix": "-"}, name="model").sink(out.append)
    (note,) = [
        note.text for note in env.compile().notes if note.subject == "model" and note.compiler_pass == "execution"
    ]
    assert note.startswith("process: it is cpu_bound")
    assert note.endswith("its lists are gathered in this process, each goes there in one message")
    result = finished(env)
    assert [line.split()[0] for line in out] == ["-a", "-b", "-c", "-d"]
    assert str(os.getpid()) not in {line.split()[1] for line in out}
    model = result.metrics.operators[1]
    assert (model.items_in, model.items_out) == (4, 4)
    assert model.counters == {"lists": 2}


def test_a_batched_function_begins_a_process_and_others_may_follow_it() -> None:
    env = LocalEnvironment("plan")
    stream = env.from_collection([1]).map(abs, contract=PROCESS, name="before")
    stream = stream.map(list, batch=Batching(size=2, max_wait_s=None), contract=PROCESS, name="lists")
    stream.map(abs, contract=PROCESS, name="after").sink(print, name="end")
    plan = env.compile()
    assert [task.chain for task in plan.tasks][1:3] == [("before",), ("lists", "after")]
    (why,) = [
        note.text
        for note in plan.notes
        if note.subject == "lists" and note.compiler_pass == "fuse" and "begins" in note.text
    ]
    assert why == "begins a task: its lists are gathered in front of its process"


def test_a_coroutine_function_is_still_refused_in_a_process() -> None:
    async def awaited(some: list[int]) -> list[int]:
        return some

    stream = LocalEnvironment("bad").from_collection([1]).map(awaited, batch=Batching(), contract=PROCESS)
    with pytest.raises(PipelineError, match="a coroutine function cannot run in a process"):
        stream.collect()


@pytest.mark.parametrize("retries", [0, 2])
def test_only_the_bad_items_become_dead_letters(retries: int, tmp_path: Path) -> None:
    calls = tmp_path / "calls"

    def check(some: list[int]) -> list[int]:
        with calls.open("a") as file:
            file.write(f"{some}\n")
        if 5 in some or 6 in some:
            raise ValueError("five or six")
        some.reverse()
        return some[::-1]

    env = environment(tmp_path)
    out: list[int] = []
    env.from_collection(range(12)).map(
        check, batch=Batching(size=4, max_wait_s=None), contract=contract(retries=retries), name="check"
    ).filter(lambda n: n != 7, contract=PROCESS, name="some").sink(out.append)
    result = finished(env)
    assert out == [0, 1, 2, 3, 4, 8, 9, 10, 11]
    assert [(letter.item, letter.attempts, letter.error) for letter in letters(tmp_path)] == [
        ("5", retries + 2, "five or six"),
        ("6", retries + 2, "five or six"),
    ]
    made = calls.read_text().splitlines()
    assert [made.count(some) for some in ("[0, 1, 2, 3]", "[4, 5, 6, 7]", "[5]", "[7]")] == [1, retries + 1, 1, 1]
    counted, behind = result.metrics.operators[1:3]
    assert (counted.items_in, counted.items_out, counted.dead_letters) == (12, 10, 2)
    assert (counted.errors, counted.retries) == (retries + 3, retries)
    assert (behind.items_in, behind.items_out) == (10, 9)


def test_a_list_of_another_length_is_an_error_of_each_row(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[int] = []
    stream = env.from_collection([1, 2, 3]).key_by(lambda n: n)
    stream.map(lambda some: some[:-1], batch=Batching(size=3), contract=PROCESS, name="embed").sink(out.append)
    finished(env)
    assert out == []
    found = letters(tmp_path)
    assert [letter.item for letter in found] == ["1", "2", "3"]
    message = "batched map 'embed' must return one output for each item, got 2 output(s) for 3 item(s)"
    assert {letter.error for letter in found} == {message}


def test_fail_names_the_bad_item(tmp_path: Path) -> None:
    env = environment(tmp_path)
    stream = env.from_collection(range(6)).map(
        lambda some: [1 // (4 - number) for number in some],
        batch=Batching(size=6),
        contract=contract(on_error=OnError.FAIL),
    )
    stream.sink(lambda n: None)
    with pytest.raises(JobFailedError, match=r"raised for the item 4 after 2 attempt\(s\)"):
        env.submit()


def _kill_at(*bad: int) -> Any:
    def deadly(some: list[int]) -> list[tuple[int, int]]:
        if set(bad) & set(some):
            os.kill(os.getpid(), signal.SIGKILL)
        return [(number, len(some)) for number in some]

    return deadly


@pytest.mark.parametrize("on_error", [OnError.DEAD_LETTER, OnError.FAIL])
@pytest.mark.parametrize(("size", "shared"), [(1, False), (8, False), (8, True)])
def test_a_process_that_dies_of_a_row_takes_no_other_row_with_it(
    on_error: OnError, size: int, shared: bool, tmp_path: Path
) -> None:
    env = environment(tmp_path)
    out: list[tuple[int, int]] = []
    # All of one item, so all have one origin.
    stream = (env.from_collection([40]).flatmap(range) if shared else env.from_collection(range(40))).map(
        _kill_at(13, 31),
        batch=Batching(size=size, max_wait_s=None),
        contract=contract(on_error=on_error),
        name="deadly",
    )
    stream.flatmap(lambda pair: [pair], contract=PROCESS).sink(out.append)
    if on_error is OnError.FAIL:
        with pytest.raises(JobFailedError, match=r"operator 'deadly' lost its process 1 time\(s\) with one item"):
            env.submit()
        return
    result = finished(env)
    assert [number for number, _ in out] == [number for number in range(40) if number not in (13, 31)]
    # Those that shared a list with one of them were called for alone.
    assert {length for number, length in out if number // 8 in (1, 3)} == {1}
    assert {length for number, length in out if number // 8 in (0, 2, 4)} == {size}
    assert [letter.item for letter in letters(tmp_path)] == ["13", "31"]
    assert all("was killed by SIGKILL" in letter.error for letter in letters(tmp_path))
    counted, behind = result.metrics.operators[1 + shared : 3 + shared]
    assert (counted.items_in, counted.items_out, counted.errors, counted.dead_letters) == (40, 38, 2, 2)
    assert (behind.items_in, behind.items_out) == (38, 38)


@pytest.mark.parametrize("max_wait_s", [None, 0.003])
def test_processes_that_are_killed_lose_nothing(max_wait_s: float | None, tmp_path: Path) -> None:
    """Each process ends once, whatever it was doing."""
    born = tmp_path / "born"

    class Mortal(MapFunction[list[int], list[int]]):
        def setup(self) -> None:
            with born.open("a") as file:
                file.write("x")
            self.left = len(born.read_text()) * 7

        def execute(self, item: list[int]) -> list[int]:
            self.left -= 1
            if not self.left and len(born.read_text()) < 6:
                os.kill(os.getpid(), signal.SIGKILL)
            return item

    env = environment(tmp_path)
    out: list[int] = []
    env.from_collection(range(600)).map(
        Mortal, batch=Batching(size=5, max_wait_s=max_wait_s), contract=contract(retries=2)
    ).sink(out.append)
    assert finished(env).dead_letters == 0
    assert out == list(range(600))
    assert len(born.read_text()) == 6


class Stays:
    """Cannot be pickled."""

    def __reduce__(self) -> Any:
        raise TypeError("it stays")


class Breaks:
    """Can be pickled and not be rebuilt."""

    def __reduce__(self) -> Any:
        return sys.exit, (3,)


@pytest.mark.parametrize("bad", [Stays, Breaks])
def test_rows_that_cannot_be_sent_leave_the_others(bad: Any, tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[Any] = []
    items: list[Any] = [0, 1, bad(), 3, 4, 5, 6, 7]
    env.from_collection(items).map(sizes, batch=Batching(size=4, max_wait_s=None), contract=PROCESS, name="lists").sink(
        out.append
    )
    finished(env)
    # What cannot even be pickled is taken out of the list, what cannot be rebuilt is found by trying each row.
    lengths = [3, 3, 3] if bad is Stays else [1, 1, 1]
    assert out == [*zip([0, 1, 3], lengths, strict=True), *((number, 4) for number in range(4, 8))]
    (letter,) = letters(tmp_path)
    assert letter.operator == "lists"


@pytest.mark.parametrize("bad", [Stays, Breaks])
@pytest.mark.parametrize("explodes", [False, True])
def test_rows_whose_outputs_are_lost_are_set_aside_whole(bad: Any, explodes: bool, tmp_path: Path) -> None:
    def answer(some: list[int]) -> list[Any]:
        if 2 in some and len(some) > 1:
            raise ValueError("one by one")
        if 2 in some:
            raise ValueError("two")
        return [bad() if number == 5 else number for number in some]

    env = environment(tmp_path)
    out: list[Any] = []
    stream: Any = env.from_collection(range(8)).map(
        answer, batch=Batching(size=4, max_wait_s=None), contract=PROCESS, name="answer"
    )
    if explodes:
        stream = stream.flatmap(lambda n: [] if n == 6 else [n, n], contract=PROCESS, name="twice")
    stream.sink(out.append)
    result = finished(env)
    left = [0, 1, 3, 4, 7] if explodes else [0, 1, 3, 4, 6, 7]
    assert out == [number for number in left for _ in range(1 + explodes)]
    assert sorted((letter.item, letter.operator) for letter in letters(tmp_path)) == [("2", "answer"), ("5", "answer")]
    assert result.metrics.operators[1].dead_letters == 2


def test_many_outputs_of_one_list_are_answered_together(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[int] = []
    stream = env.from_collection(range(20)).map(list, batch=Batching(size=10, max_wait_s=None), contract=PROCESS)
    stream.flatmap(lambda n: [n] * 700, contract=PROCESS).sink(out.append)
    finished(env)
    assert out == [number for number in range(20) for _ in range(700)]


def test_state_behind_it_is_told_at_the_end(tmp_path: Path) -> None:
    stream: Any = LocalEnvironment("state").from_collection(range(100)).key_by(lambda n: n % 3)
    stream = stream.map(lambda some: [1] * len(some), batch=Batching(size=7), contract=PROCESS)
    stream = stream.reduce(lambda one, other: one + other, emit="final", contract=PROCESS)
    assert sorted(stream.collect()) == [33, 33, 34]


def test_a_list_may_wait_longer_than_a_poll_can(tmp_path: Path) -> None:
    def slowly() -> Iterator[int]:
        for item in range(4):
            time.sleep(0.02)
            yield item

    env = environment(tmp_path)
    out: list[tuple[int, int]] = []
    env.from_collection(slowly()).map(sizes, batch=Batching(size=3, max_wait_s=1e12), contract=PROCESS).sink(out.append)
    finished(env)
    assert out == [(0, 3), (1, 3), (2, 3), (3, 1)]


@pytest.mark.parametrize("max_wait_s", [0.0, 0.2])
def test_a_list_goes_when_its_time_has_come(max_wait_s: float, tmp_path: Path) -> None:
    """A source that pauses for much longer: what it has given before does not wait for what comes after."""

    class Pausing(SourceFunction[float]):
        def execute(self) -> Iterator[float]:
            for _ in range(2):
                for _ in range(3):
                    yield time.monotonic()
                time.sleep(1.5)

    env = environment(tmp_path)
    out: list[tuple[float, int]] = []
    stream = env.from_source(Pausing).map(sizes, batch=Batching(size=100, max_wait_s=max_wait_s), contract=PROCESS)
    stream.sink(lambda pair: out.append((time.monotonic() - pair[0], pair[1])))
    finished(env)
    assert len(out) == 6
    assert all(waited < 1.3 for waited, _ in out), out
    if max_wait_s:
        assert {length for _, length in out} == {3}
        assert all(waited >= max_wait_s * 0.5 for waited, _ in out), out


class Endless(SourceFunction[int]):
    """Numbers, for ever."""

    def execute(self) -> Iterator[int]:
        number = 0
        while True:
            time.sleep(0.001)
            yield number
            number += 1


@pytest.mark.parametrize("max_wait_s", [None, 0.005])
def test_stop_works_off_what_was_taken_and_abort_ends_at_once(max_wait_s: float | None, tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[int] = []
    env.from_source(Endless, name="numbers").map(
        list, batch=Batching(size=7, max_wait_s=max_wait_s), contract=PROCESS
    ).sink(out.append)
    job = env.submit(wait=False)
    time.sleep(0.4)
    job.stop(5)
    result = job.wait(10)
    assert result.state is JobState.STOPPED
    assert out == list(range(result.offsets["numbers"][0]))
    env = environment(tmp_path)
    env.from_source(Endless).map(lambda some: time.sleep(60), batch=Batching(size=3), contract=PROCESS).sink(print)
    job = env.submit(wait=False)
    time.sleep(0.4)
    begun = time.monotonic()
    job.abort()
    assert job.wait(10).state is JobState.ABORTED
    assert time.monotonic() - begun < 4


def test_an_open_list_is_no_standstill(tmp_path: Path) -> None:
    class Quiet(SourceFunction[int]):
        def execute(self) -> Iterator[int]:
            yield 1
            time.sleep(2.5)
            yield 2

    env = environment(tmp_path, watchdog_s=1.5)
    out: list[Any] = []
    env.from_source(Quiet).map(sizes, batch=Batching(size=5, max_wait_s=10.0), contract=PROCESS).sink(out.append)
    assert finished(env).state is JobState.FINISHED
    assert out == [(1, 2), (2, 2)]


def test_arrays_are_sent_and_come_back(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    arrays = [numpy.full(200_000, float(number)) for number in range(12)]
    stream = LocalEnvironment("arrays").from_collection(arrays)
    found = stream.map(lambda some: numpy.stack(some) * 2, batch=Batching(size=5), contract=PROCESS).collect()
    assert [(array.shape, array[0], array[-1]) for array in found] == [
        ((200_000,), 2.0 * n, 2.0 * n) for n in range(12)
    ]


@given(
    parts=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 1), st.booleans()), min_size=1, max_size=5),
    keyed=st.booleans(),
)
def test_joined_batches_keep_their_rows(parts: list[tuple[int, int, bool]], keyed: bool) -> None:
    batches: list[Batch] = []
    rows: list[tuple[int, Any, int]] = []
    for size, origin, column in parts:
        values = list(range(len(rows), len(rows) + size))
        rows += [(value, -value, origin) for value in values]
        batches.append(Batch(values, [-v for v in values] if keyed else None, [origin] * size if column else origin))
    whole = joined(batches)
    origins = [whole.origins] * len(rows) if isinstance(whole.origins, int) else whole.origins
    keys = [-value for value, _, _ in rows] if keyed else None
    assert (whole.values, whole.keys) == ([value for value, _, _ in rows], keys)
    assert origins == [origin for _, _, origin in rows]
