"""`ordered()` behind `interleave`: what that has put out has an order of its own, and comes back into it."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.kernel.api import Batching, Contract, Execution, JobState, LocalEnvironment, MapFunction, PipelineError

BEHIND = ("map", "async", "filter", "flatmap", "split", "key", "lists", "fails")


def in_turn(streams: list[list[Any]]) -> list[Any]:
    absent = object()
    rounds = itertools.zip_longest(*streams, fillvalue=absent)
    return [item for one_round in rounds for item in one_round if item is not absent]


def uneven(item: Any) -> Any:
    """Takes its time, now more, now less."""
    time.sleep(random.random() * 0.001)
    return item


async def uneven_async(item: Any) -> Any:
    """The same on an event loop."""
    await asyncio.sleep(random.random() * 0.002)
    return item


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=2, max_size=3),
    before=st.sampled_from(["nothing", "filter", "flatmap", "ordered"]),
    behind=st.lists(
        st.sampled_from(["map", "async", "filter", "flatmap", "split", "key", "lists", "fails"]), max_size=3
    ),
    fusion=st.booleans(),
    capacity=st.sampled_from([None, 1, 3]),
    max_ahead=st.sampled_from([1, 3, 1000]),
)
def test_the_order_of_the_turns_comes_back(
    lengths: list[int], before: str, behind: list[str], fusion: bool, capacity: int | None, max_ahead: int
) -> None:
    env = LocalEnvironment("turns", {"fusion": fusion, "queue_capacity": capacity, "watchdog_s": 10})
    items = [[1000 * (number + 1) + position for position in range(length)] for number, length in enumerate(lengths)]
    streams: list[Any] = [env.from_collection(each) for each in items]
    match before:
        case "filter":
            streams[0] = streams[0].filter(lambda n: n % 3)
            items[0] = [n for n in items[0] if n % 3]
        case "flatmap":
            streams[1] = streams[1].flatmap(lambda n: [n] * (n % 3))
            items[1] = [n for n in items[1] for _ in range(n % 3)]
        case "ordered":
            streams[0] = streams[0].map(uneven, parallelism=2).ordered(max_ahead=max_ahead)
    stream: Any = streams[0].interleave(*streams[1:])
    expected = in_turn(items)
    for what in behind:
        match what:
            case "map":
                stream = stream.map(uneven, parallelism=3)
            case "async":
                stream = stream.map(uneven_async)
            case "filter":
                stream = stream.filter(lambda n: n % 4, parallelism=2)
                expected = [n for n in expected if n % 4]
            case "flatmap":
                stream = stream.flatmap(lambda n: [n] * (n % 3), parallelism=2)
                expected = [n for n in expected for _ in range(n % 3)]
            case "split":
                parts = stream.split({"odd": lambda n: n % 2})
                stream = parts["odd"].map(uneven, parallelism=2).union(parts["rest"])
            case "key":
                stream = stream.key_by(lambda n: n % 5).map(uneven, parallelism=2)
            case "lists":
                stream = stream.map(lambda some: some, batch=Batching(size=4, max_wait_s=0.001), parallelism=2)
            case "fails":
                stream = stream.map(_not_seven, parallelism=2)
                expected = [n for n in expected if n % 10 != 7]
    assert stream.ordered(max_ahead=max_ahead).collect(allow_dead_letters=True) == expected


def _not_seven(number: int) -> int:
    if number % 10 == 7:
        raise ValueError(number)
    return number


def test_in_processes(tmp_path: Path) -> None:
    env = environment(tmp_path)
    mixed = env.from_collection(range(40)).interleave(env.from_collection(range(100, 120)))
    apart = mixed.map(uneven, parallelism=2, contract=Contract(execution=Execution.PROCESS))
    assert apart.ordered(max_ahead=5).collect() == in_turn([list(range(40)), list(range(100, 120))])


def test_lists_of_items_in_turn_and_what_is_emitted_at_the_end(tmp_path: Path) -> None:
    env = environment(tmp_path)
    mixed = env.from_collection(range(10)).interleave(env.from_collection(range(100, 105)))
    turns = in_turn([list(range(10)), list(range(100, 105))])
    lists = mixed.batch(4).map(uneven, parallelism=2).ordered().collect()
    assert lists == [turns[0:4], turns[4:8], turns[8:12], turns[12:]]
    sums = mixed.key_by(lambda n: n % 3).sum(emit="final").map(uneven, parallelism=2).ordered().collect()
    assert [key for key, _ in sums] == [0, 1, 2]


def test_it_costs_nothing_where_the_order_is_that_of_the_turns(tmp_path: Path) -> None:
    env = environment(tmp_path)
    mixed = env.from_collection([1, 2]).interleave(env.from_collection(["a"]))
    mixed.map(str).ordered(name="back").sink(print)
    notes = [note.text for note in env.compile().notes if (note.compiler_pass, note.subject) == ("ordering", "back")]
    assert notes == ["left out: nothing between it and its source can change the order"]


def test_the_turns_stay_within_max_ahead(tmp_path: Path) -> None:
    env = environment(tmp_path)
    mixed = env.from_collection(range(300)).interleave(env.from_collection(range(1000, 1300)))

    def first_is_slow(number: int) -> int:
        time.sleep(0.3 if number == 0 else 0)
        return number

    mixed.map(first_is_slow, parallelism=2, name="work").ordered(max_ahead=10, name="back").sink(lambda item: None)
    counted = {found.operator: found.counters for found in finished(env).metrics.operators}
    assert 1 <= counted["back"]["waited_max"] <= 10


def test_it_takes_turns_with_another_stream(tmp_path: Path) -> None:
    env = environment(tmp_path)
    mixed = env.from_collection([1, 2]).interleave(env.from_collection([3, 4]))
    both = mixed.map(uneven, parallelism=2).union(env.from_collection("abcdef")).ordered()
    assert both.collect() == [1, "a", 3, "b", 2, "c", 4, "d", "e", "f"]


@pytest.mark.parametrize("abort", [False, True])
def test_a_stop_works_off_what_waits_for_its_turn(tmp_path: Path, abort: bool) -> None:
    env = environment(tmp_path, grace_s=20.0)
    taken: list[int] = []

    def slow(number: int) -> int:
        time.sleep(0.002)
        return number

    def endless(first: int) -> Iterator[int]:
        for number in itertools.count(first, 2):
            time.sleep(0.0005)
            yield number

    mixed = env.from_source(lambda: endless(0)).interleave(env.from_source(lambda: endless(1)), ahead=100_000)
    mixed.map(slow, parallelism=2).ordered(max_ahead=4).sink(taken.append)
    job = env.submit(wait=False)
    deadline = time.monotonic() + 10
    while len(taken) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    (job.abort if abort else job.stop)()
    assert job.wait(15).state is (JobState.ABORTED if abort else JobState.STOPPED)
    assert taken[:20] == list(range(20))
    even, odd = [n for n in taken if n % 2 == 0], [n for n in taken if n % 2]
    assert even == list(range(0, 2 * len(even), 2))
    assert odd == list(range(1, 2 * len(odd) + 1, 2))


class _Keeps(MapFunction[int, int]):
    def execute(self, number: int) -> int:
        if number % 2:
            self.ctx.side_output("odd", number)
        return number


def test_side_outputs_of_the_same_task(tmp_path: Path) -> None:
    """They go out of the task of the interleave itself; each output has a place of its own."""
    env = environment(tmp_path)
    mixed = env.from_collection(range(6)).interleave(env.from_collection(range(10, 16)))
    kept = mixed.map(_Keeps)
    odd = kept.side_output("odd").map(uneven, parallelism=2)
    got = kept.map(uneven, parallelism=2).union(odd).ordered().collect()
    turns = in_turn([list(range(6)), list(range(10, 16))])
    assert got == [out for n in turns for out in ([n, n] if n % 2 else [n])]


def test_streams_that_come_out_of_order_are_refused() -> None:
    env = LocalEnvironment("refused")
    one, two = env.from_collection([1]), env.from_collection([2])
    mixed = one.map(uneven, parallelism=2, name="work").interleave(two, name="turns")
    with pytest.raises(PipelineError, match=r"behind 'turns'.*'work' has 2 replicas; call ordered\(\) before it, on"):
        mixed.ordered().sink(print).compile()  # type: ignore[attr-defined]  # a LocalEnvironment
    env = LocalEnvironment("refused")
    one, two = env.from_collection([1]), env.from_collection([2])
    mixed = one.interleave(two.union(one), name="again")
    with pytest.raises(PipelineError, match="behind 'again'.*one of its streams is a union"):
        mixed.map(uneven, parallelism=2).ordered().sink(print).compile()  # type: ignore[attr-defined]


def test_ways_that_would_wait_for_each_other_are_refused() -> None:
    env = LocalEnvironment("refused")
    one, two = (env.from_collection([1], name=name) for name in ("one", "two"))
    around = one.interleave(two, name="turns").union(one)
    with pytest.raises(PipelineError, match="items of 'one' come through it and past it, and each way would wait"):
        around.ordered().sink(print).compile()  # type: ignore[attr-defined]  # a LocalEnvironment
    env = LocalEnvironment("refused")
    one, two, three = (env.from_collection([1], name=name) for name in ("one", "two", "three"))
    twice = one.interleave(two, name="left").union(two.interleave(three, name="right"))
    with pytest.raises(PipelineError, match="items of 'two' come through it and through '(left|right)', and each way"):
        twice.ordered().sink(print).compile()  # type: ignore[attr-defined]  # a LocalEnvironment
