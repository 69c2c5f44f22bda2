"""`map(function, batch=Batching(...))`: lists in, lists of the same length out; only bad items become dead letters."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters
from executions import ExecutionKind
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.common.errors import InvalidArgumentError
from sage.kernel.api import (
    Batching,
    Contract,
    DeadLettersError,
    ErrorPolicy,
    IOSpec,
    JobFailedError,
    JobState,
    LocalEnvironment,
    MapFunction,
    OnError,
    PipelineError,
    Resources,
    SourceFunction,
)
from sage.kernel.graph import TypeMismatchError

ListFunction = Callable[[list[Any]], Any]


def plain(function: ListFunction) -> ListFunction:
    return function


def awaited(function: ListFunction) -> ListFunction:
    async def call(items: list[Any]) -> Any:
        await asyncio.sleep(0)
        return function(items)

    return call


BOTH = pytest.mark.parametrize("form", [plain, awaited])


@BOTH
@settings(max_examples=40, deadline=None)
@given(
    items=st.integers(0, 60),
    size=st.integers(1, 9),
    max_wait_s=st.sampled_from([None, 0.0, 0.002, 30.0]),
    parallelism=st.integers(1, 3),
    fusion=st.booleans(),
    capacity=st.sampled_from([None, 1, 3]),
)
def test_each_item_has_its_output(
    form: Callable[[ListFunction], ListFunction],
    items: int,
    size: int,
    max_wait_s: float | None,
    parallelism: int,
    fusion: bool,
    capacity: int | None,
) -> None:
    env = LocalEnvironment("each", {"fusion": fusion, "queue_capacity": capacity, "watchdog_s": 10})
    sizes: list[int] = []

    def double(some: list[int]) -> list[int]:
        sizes.append(len(some))
        return [2 * number for number in some]

    stream = env.from_collection(range(items)).map(lambda n: n + 1)
    batching = Batching(size=size, max_wait_s=max_wait_s)
    doubled = stream.map(form(double), batch=batching, parallelism=parallelism).map(lambda n: n)
    assert Counter(doubled.collect()) == Counter(2 * number for number in range(1, items + 1))
    assert all(1 <= length <= size for length in sizes)
    if max_wait_s is None:
        assert sum(1 for length in sizes if length < size) <= parallelism


def test_between_operators_of_each_kind(execution: ExecutionKind) -> None:
    env = LocalEnvironment("between", {"watchdog_s": 10})
    contract = execution.contract(concurrency=3)
    stream = env.from_collection(range(300)).map(execution.operator(lambda n: n), contract=contract, parallelism=2)
    batching = Batching(size=8, max_wait_s=0.001)
    call = execution.operator(lambda some: [(number, len(some)) for number in some])
    lists = stream.map(call, batch=batching, contract=contract)
    found = lists.map(execution.operator(lambda pair: pair[0]), contract=contract).collect()
    assert Counter(found) == Counter(range(300))


@BOTH
@pytest.mark.parametrize("max_wait_s", [None, 0.002])
@pytest.mark.parametrize("parallelism", [1, 3])
def test_each_key_keeps_its_order(form: Any, max_wait_s: float | None, parallelism: int) -> None:
    """Most items have one key: nothing waits for ever for a list that they alone cannot fill at once."""
    env = LocalEnvironment("keys", {"watchdog_s": 10})
    items = [(0 if number % 10 else number % 7, number) for number in range(400)]
    stream = env.from_collection(items).key_by(lambda pair: pair[0])
    batching = Batching(size=16, max_wait_s=max_wait_s)
    mapped = stream.map(form(lambda some: some), batch=batching, parallelism=parallelism)
    found = dict(mapped.aggregate(list, lambda all_, pair: [*all_, pair[1]], emit="final").collect())
    expected: dict[int, list[int]] = {}
    for key, number in items:
        expected.setdefault(key, []).append(number)
    assert found == expected


def test_async_lists_are_under_way_at_once_up_to_the_cap() -> None:
    under_way = most = 0

    async def wait(some: list[int]) -> list[int]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        return some

    env = LocalEnvironment("cap", {"watchdog_s": 10})
    contract = Contract(resources=Resources(concurrency=3), io=IOSpec(batching=Batching(size=5, max_wait_s=None)))
    found = env.from_collection(range(100)).map(wait, contract=contract).collect()
    assert Counter(found) == Counter(range(100))
    assert most == 3


class Model(MapFunction[list[str], list[str]]):
    """Works on lists, with a life cycle and a counter."""

    contract = Contract(io=IOSpec(batching=Batching(size=3, max_wait_s=None)))

    def setup(self) -> None:
        self.prefix = self.config["prefix"]

    def execute(self, item: list[str]) -> list[str]:
        self.ctx.metrics.count("lists")
        return [self.prefix + text for text in item]


def test_a_class_declares_it_in_its_contract(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[str] = []
    env.from_collection("abcd").map(Model, {"prefix": "-"}, name="model").sink(out.append)
    result = finished(env)
    assert out == ["-a", "-b", "-c", "-d"]
    model = result.metrics.operators[1]
    assert (model.items_in, model.items_out) == (4, 4)
    assert model.counters == {"lists": 2}


@pytest.mark.parametrize("given", [tuple, lambda some: (n for n in some), iter])
def test_any_sequence_of_outputs_will_do(given: ListFunction) -> None:
    stream = LocalEnvironment("sequence").from_collection([1, 2, 3])
    assert stream.map(given, batch=Batching(size=2)).collect() == [1, 2, 3]


def test_the_rows_of_an_array_are_the_outputs() -> None:
    numpy = pytest.importorskip("numpy")
    stream = LocalEnvironment("array").from_collection([1, 2, 3])
    rows = stream.map(lambda some: numpy.array([[n, 2 * n] for n in some]), batch=Batching(size=2)).collect()
    assert [row.tolist() for row in rows] == [[1, 2], [2, 4], [3, 6]]


@BOTH
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda some: some[:-1], "must return one output for each item, got 2 output(s) for 3 item(s)"),
        (lambda some: [*some, 0], "must return one output for each item, got 4 output(s) for 3 item(s)"),
        (lambda some: iter([*some, 0, 0]), "must return one output for each item, got more than 3 output(s) for 3"),
        (lambda some: None, "must return a list of outputs, got NoneType: did you forget to return?"),
        (lambda some: "abc", "must return a list of outputs, got str"),
        (lambda some: {1: 2}, "must return a list of outputs, got dict"),
    ],
)
def test_another_length_is_an_error_that_names_both(form: Any, given: ListFunction, message: str) -> None:
    stream = LocalEnvironment("length", {"watchdog_s": 10}).from_collection([1, 2, 3])
    with pytest.raises(DeadLettersError) as caught:
        stream.map(form(given), batch=Batching(size=3), name="embed").collect()
    assert message in str(caught.value)
    assert "'embed'" in str(caught.value)


@BOTH
@pytest.mark.parametrize("retries", [0, 2])
def test_only_the_bad_items_become_dead_letters(form: Any, retries: int, tmp_path: Path) -> None:
    calls: list[list[int]] = []

    def check(some: list[int]) -> list[int]:
        calls.append(list(some))
        if 5 in some or 6 in some:
            raise ValueError("five or six")
        some.reverse()
        return some[::-1]

    env = environment(tmp_path)
    contract = Contract(io=IOSpec(errors=ErrorPolicy(retries=retries, delay_s=0.001)))
    out: list[int] = []
    env.from_collection(range(12)).map(
        form(check), batch=Batching(size=4, max_wait_s=None), contract=contract, name="check"
    ).sink(out.append)
    result = finished(env)
    assert Counter(out) == Counter(set(range(12)) - {5, 6})
    assert [(letter.item, letter.attempts, letter.error) for letter in letters(tmp_path)] == [
        ("5", retries + 2, "five or six"),
        ("6", retries + 2, "five or six"),
    ]
    assert [calls.count(some) for some in ([0, 1, 2, 3], [4, 5, 6, 7], [5], [7])] == [1, retries + 1, 1, 1]
    counted = result.metrics.operators[1]
    assert (counted.items_in, counted.items_out, counted.dead_letters) == (12, 10, 2)
    assert (counted.errors, counted.retries) == (retries + 3, retries)


@BOTH
def test_a_list_that_succeeds_on_retry_is_passed_on_once(form: Any, tmp_path: Path) -> None:
    failed: list[int] = []

    def shaky(some: list[int]) -> list[int]:
        if len(failed) < 2:
            failed.append(1)
            raise ValueError("not yet")
        return some

    env = environment(tmp_path)
    contract = Contract(io=IOSpec(errors=ErrorPolicy(retries=2, delay_s=0.001)))
    out: list[int] = []
    env.from_collection(range(6)).map(form(shaky), batch=Batching(size=3), contract=contract).sink(out.append)
    assert finished(env).dead_letters == 0
    assert sorted(out) == list(range(6))


@BOTH
def test_fail_names_the_bad_item(form: Any, tmp_path: Path) -> None:
    env = environment(tmp_path)
    contract = Contract(io=IOSpec(errors=ErrorPolicy(on_error=OnError.FAIL)))
    stream = env.from_collection(range(6)).map(
        form(lambda some: [1 // (4 - number) for number in some]), batch=Batching(size=6), contract=contract
    )
    stream.sink(lambda n: None)
    with pytest.raises(JobFailedError, match=r"raised for the item 4 after 2 attempt\(s\)"):
        env.submit()


def test_a_time_limit_ends_the_call_of_a_list(tmp_path: Path) -> None:
    async def slow(some: list[int]) -> list[int]:
        await asyncio.sleep(0 if 1 not in some else 60)
        return some

    env = environment(tmp_path)
    contract = Contract(io=IOSpec(timeout_s=0.05, batching=Batching(size=2, max_wait_s=None)))
    out: list[int] = []
    env.from_collection(range(4)).map(slow, contract=contract, name="slow").sink(out.append)
    finished(env)
    assert sorted(out) == [0, 2, 3]
    (letter,) = letters(tmp_path)
    assert letter.error == "operator 'slow' did not answer within 0.05 s (contract.io.timeout_s)"


class Endless(SourceFunction[int]):
    """Numbers, for ever."""

    def execute(self) -> Iterator[int]:
        number = 0
        while True:
            time.sleep(0.001)
            yield number
            number += 1


@BOTH
@pytest.mark.parametrize("max_wait_s", [None, 0.005])
def test_stop_works_off_what_was_taken(form: Any, max_wait_s: float | None, tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[int] = []
    batching = Batching(size=7, max_wait_s=max_wait_s)
    env.from_source(Endless, name="numbers").map(form(lambda some: some), batch=batching).sink(out.append)
    job = env.submit(wait=False)
    time.sleep(0.2)
    job.stop(5)
    result = job.wait(10)
    assert result.state is JobState.STOPPED
    assert sorted(out) == list(range(result.offsets["numbers"][0]))


@BOTH
def test_abort_in_the_middle_of_a_call_ends_soon(form: Any, tmp_path: Path) -> None:
    entered = threading.Event()

    async def waits(some: list[int]) -> list[int]:
        entered.set()
        await asyncio.sleep(60)
        return some

    def retried(some: list[int]) -> list[int]:
        entered.set()
        raise ValueError("again")

    env = environment(tmp_path)
    contract = Contract(io=IOSpec(errors=ErrorPolicy(retries=3, delay_s=60)))
    function: Any = waits if form is awaited else retried
    env.from_collection(range(10)).map(function, batch=Batching(size=4), contract=contract).sink(lambda n: None)
    job = env.submit(wait=False)
    assert entered.wait(5)
    begun = time.monotonic()
    job.abort("enough")
    assert job.wait(10).state is JobState.ABORTED
    assert time.monotonic() - begun < 2


def test_back_pressure_bounds_what_is_taken(tmp_path: Path) -> None:
    """A sink that stands still: no more is read than fits into the queues, the lists and the hands of the tasks."""
    release = threading.Event()
    given: list[int] = []

    class Counting(SourceFunction[int]):
        def execute(self) -> Iterator[int]:
            for number in range(5000):
                given.append(number)
                yield number

    async def same(some: list[int]) -> list[int]:
        return some

    env = environment(tmp_path, queue_capacity=4)
    contract = Contract(resources=Resources(concurrency=2), io=IOSpec(batching=Batching(size=5)))
    env.from_source(Counting).map(same, contract=contract).sink(lambda n: release.wait(20))
    job = env.submit(wait=False)
    time.sleep(0.4)
    taken = len(given)
    time.sleep(0.2)
    assert len(given) == taken < 60
    release.set()
    assert job.wait(10).state is JobState.FINISHED
    assert len(given) == 5000


@BOTH
def test_a_source_that_is_quiet_is_no_standstill(form: Any, tmp_path: Path) -> None:
    """Before the first item, and with a list that waits for more."""

    class Quiet(SourceFunction[int]):
        def execute(self) -> Iterator[int]:
            time.sleep(0.8)
            yield 1
            time.sleep(0.8)
            yield 2

    env = environment(tmp_path, watchdog_s=0.4)
    out: list[int] = []
    env.from_source(Quiet).map(form(lambda some: some), batch=Batching(size=5, max_wait_s=10.0)).sink(out.append)
    assert finished(env).state is JobState.FINISHED
    assert out == [1, 2]


def test_types_are_those_of_the_items() -> None:
    def lengths(texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    def half(number: int) -> float:
        return number / 2

    def shout(text: str) -> str:
        return text.upper()

    def names() -> Iterator[str]:
        yield from ("a", "bc")

    stream = LocalEnvironment("types").from_source(names).map(lengths, batch=Batching(size=2))
    assert stream.map(half).collect() == [0.5, 1.0]
    with pytest.raises(TypeMismatchError, match="'shout' takes str, but 'lengths' gives int"):
        stream.map(shout).collect()


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda s: s.map(list, batch=3), r"batch= takes a Batching\(size=..., max_wait_s=...\), got 3 \(.*\.py"),
        (lambda s: s.filter(list, contract=ON_LISTS).collect(), "only the function of a map can be batched"),
        (lambda s: s.map(list, batch=Batching()).side_output("x").collect(), "a batched function has no side outputs"),
    ],
)
def test_bad_arguments_are_refused(declare: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        declare(LocalEnvironment("bad").from_collection([1]))


ON_LISTS = Contract(io=IOSpec(batching=Batching()))


@pytest.mark.parametrize("facts", [{"size": 0}, {"size": 1.5}, {"size": True}, {"max_wait_s": -1}, {"max_wait_s": "1"}])
def test_bad_batchings_are_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"batching\."):
        Batching(**facts)
    with pytest.raises(InvalidArgumentError, match=r"io\.batching must be a Batching"):
        IOSpec(batching=facts)  # type: ignore[arg-type]
