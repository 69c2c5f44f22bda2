"""`interleave`: an item of each stream in turn."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished
from executions import ExecutionKind
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.kernel.api import Batching, Contract, DataStream, Execution, LocalEnvironment, PipelineError


def in_turn(streams: list[list[Any]]) -> list[Any]:
    absent = object()
    rounds = itertools.zip_longest(*streams, fillvalue=absent)
    return [item for one_round in rounds for item in one_round if item is not absent]


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    fusion=st.booleans(),
    capacity=st.one_of(st.none(), st.integers(1, 3)),
)
def test_the_streams_take_turns(lengths: list[int], fusion: bool, capacity: int | None) -> None:
    env = LocalEnvironment("turns", {"fusion": fusion, "queue_capacity": capacity, "watchdog_s": 10})
    items = [[(number, position) for position in range(length)] for number, length in enumerate(lengths)]
    first, *others = (env.from_collection(each) for each in items)
    assert first.interleave(*others).map(lambda item: item).collect() == in_turn(items)


@pytest.mark.parametrize("parallelism", [1, 3])
def test_streams_may_have_several_replicas_and_inputs(execution: ExecutionKind, parallelism: int) -> None:
    env = LocalEnvironment("replicas")
    same = execution.operator(lambda item: item)
    one = env.from_collection(range(50)).map(same, parallelism=parallelism, contract=execution.contract())
    two = env.from_collection(range(50, 75)).union(env.from_collection(range(75, 100)))
    got = one.interleave(two).collect()
    assert sorted(got) == list(range(100))
    assert [item < 50 for item in got] == [True, False] * 50


def test_a_stream_that_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    """The slow stream's items come out as they come in, once the other one has ended."""
    times: list[float] = []

    def slow() -> Iterator[int]:
        for number in range(5):
            time.sleep(0.03)
            yield number

    env = environment(tmp_path)
    out: list[Any] = []

    def taken(item: Any) -> None:
        out.append(item)
        times.append(time.monotonic())

    env.from_source(slow).interleave(env.from_collection(["a"])).sink(taken)
    finished(env)
    assert out == [0, "a", 1, 2, 3, 4]
    assert times[-1] - times[0] > 0.09


def test_a_silent_stream_holds_up_so_many_and_no_more(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[Any] = []
    waited_for: list[int] = []

    def silent() -> Iterator[str]:
        deadline = time.monotonic() + 5
        while len(out) < 90 and time.monotonic() < deadline:
            time.sleep(0.001)
        waited_for.append(len(out))
        yield "late"

    env.from_source(silent).interleave(env.from_collection(range(100)), ahead=10).sink(out.append)
    finished(env)
    assert waited_for == [90]
    assert [item for item in out if item != "late"] == list(range(100))
    assert out.index("late") == 90


def test_the_counters_agree_and_keys_are_forgotten(tmp_path: Path) -> None:
    env = environment(tmp_path)
    keyed = env.from_collection([1, 2, 3]).key_by(lambda n: n)
    mixed = keyed.interleave(keyed, name="mixed")
    assert not hasattr(mixed, "reduce")
    out: list[Any] = []
    mixed.sink(out.append, name="end")
    counted = {found.operator: (found.items_in, found.items_out) for found in finished(env).metrics.operators}
    assert (counted["mixed"], counted["end"]) == ((6, 6), (6, 6))
    assert out == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda s: s.interleave([1]), "interleave takes streams, got"),
        (lambda s: s.interleave(LocalEnvironment("o").from_collection([])), "interleave joins streams of one env"),
        (lambda s: s.interleave(s, ahead=0), "ahead must be a whole number >= 1, got 0"),
        (lambda s: s.interleave(s, contract=Contract(execution=Execution.ASYNC)), "runs on a thread"),
        (lambda s: s.interleave(s, contract=Contract(cpu_bound=True)), "runs on a thread"),
    ],
)
def test_what_cannot_be_interleaved_is_refused(declare: Callable[[DataStream], Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message) as refused:
        declare(LocalEnvironment("refused").from_collection([1]))
    assert "test_interleave.py:" in str(refused.value)


def test_more_replicas_are_refused() -> None:
    env = LocalEnvironment("replicas", {"parallelism": {"interleave": 2}})
    stream = env.from_collection([1])
    with pytest.raises(PipelineError, match="parallelism 2 is not possible: an interleaved stream has one order"):
        stream.interleave(stream).collect()


@pytest.mark.parametrize("fusion", [True, False])
def test_what_waited_for_its_turn_reaches_an_operator_on_lists(fusion: bool) -> None:
    """The other stream ends; what waited for it goes on, also where a batched function shares the task."""
    env = LocalEnvironment("lists", {"fusion": fusion})
    mixed = env.from_collection([]).interleave(env.from_collection([1, 2, 3]))
    doubled = mixed.map(lambda some: [n * 2 for n in some], batch=Batching(size=2, max_wait_s=None))
    assert doubled.collect() == [2, 4, 6]
