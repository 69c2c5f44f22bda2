"""`join(within=...)`: pairs by event time, and a memory that the watermark bounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.kernel.api import Contract, IOSpec, KeyedStream, LocalEnvironment, PipelineError
from sage.kernel.operators import IntervalJoinSpec, OperatorContext

Event = tuple[Any, float]


def when(event: Event) -> float:
    return event[1]


def keyed(env: LocalEnvironment, events: list[Event]) -> KeyedStream:
    return env.from_collection(events).key_by(lambda event: event[0])


EVENTS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 40)), max_size=30)


@settings(max_examples=80)
@given(
    left=EVENTS,
    right=EVENTS,
    bounds=st.tuples(st.integers(-10, 10), st.integers(0, 10)),
    in_order=st.booleans(),
    parallelism=st.integers(1, 3),
    capacity=st.one_of(st.none(), st.integers(1, 3)),
)
def test_every_pair_within_the_interval_comes_once(
    left: list[Event],
    right: list[Event],
    bounds: tuple[int, int],
    in_order: bool,
    parallelism: int,
    capacity: int | None,
) -> None:
    """Streams in order need no lateness; others as much as their disorder."""
    lower, upper = bounds[0], bounds[0] + bounds[1]
    if in_order:
        left, right = sorted(left, key=when), sorted(right, key=when)
    env = LocalEnvironment("interval", {"queue_capacity": capacity, "watchdog_s": 10})
    joined = keyed(env, left).join(
        keyed(env, right),
        within=(lower, upper),
        time=when,
        lateness_s=0 if in_order else 40,
        parallelism=parallelism,
    )
    expected = [
        (one, other) for one in left for other in right if one[0] == other[0] and lower <= other[1] - one[1] <= upper
    ]
    assert sorted(joined.collect()) == sorted(expected)


def made(**changes: Any) -> Any:
    facts = {"function": None, "lower_s": 0, "upper_s": 10, "times": (when, when), "lateness_s": 0, "outputs_max": 100}
    operator = IntervalJoinSpec(**{**facts, **changes}).bind().function
    assert operator is not None
    operator.attach(OperatorContext("join", keyed=True, branches=frozenset({"late"})))
    operator.ctx.open_side()
    operator.ctx.enter("k")
    return operator


def test_what_can_meet_nobody_any_more_is_forgotten() -> None:
    join = made()
    for second in range(10_000):
        join.execute((0, ("k", second)))
        join.execute((1, ("k", second)))
    (left, right), (left_ends, right_ends) = join._kept, join._ends
    # A left item waits for 10 seconds of right ones; a right item only for left ones of its own time or before.
    assert len(left["k"]) == len(left_ends) == 11
    assert len(right["k"]) == len(right_ends) == 1


def test_a_silent_stream_holds_the_watermark_up() -> None:
    join = made()
    for second in range(1000):
        join.execute((0, ("k", second)))
    assert len(join._kept[0]["k"]) == 1000
    assert len(join.execute((1, ("k", 999)))) == 11
    assert len(join._kept[0]["k"]) == 11


def test_keys_without_items_leave_nothing_behind() -> None:
    join = made(upper_s=0)
    for number in range(1000):
        join.ctx.enter(number)
        assert len(join.execute((0, (number, number))) + join.execute((1, (number, number)))) == 1
    assert max(len(kept) for kept in join._kept) <= 1


def test_an_item_behind_the_watermark_is_late_and_not_joined() -> None:
    join = made(lateness_s=5)
    join.execute((0, ("k", 100)))
    join.execute((1, ("k", 100)))
    side = join.ctx.open_side()
    assert join.execute((1, ("k", 95))) == []
    assert side == []  # five seconds are allowed
    assert join.execute((0, ("k", 94.9))) == []
    assert [(put.branch, put.item) for put in side] == [("late", ("k", 94.9))]
    assert len(join._kept[0]["k"]) == 1


def test_late_items_go_to_a_side_output_or_are_counted(tmp_path: Path) -> None:
    def right() -> Iterator[Event]:
        yield ("k", 50.0)
        time.sleep(0.05)

    def left() -> Iterator[Event]:
        yield ("k", 49.0)
        yield ("k", 60.0)
        time.sleep(0.3)  # by then the watermark is 50
        yield ("k", 10.0)

    for taken in (True, False):
        env = environment(tmp_path)
        one, other = (env.from_source(source).key_by(lambda event: event[0]) for source in (left, right))
        joined = one.join(other, within=(0, 5), time=when, name="join")
        pairs: list[Any] = []
        late: list[Any] = []
        joined.sink(pairs.append)
        if taken:
            joined.side_output("late").sink(late.append)
        result = finished(env)
        (found,) = [found for found in result.metrics.operators if found.operator == "join"]
        assert pairs == [(("k", 49.0), ("k", 50.0))]
        assert late == ([("k", 10.0)] if taken else [])
        assert dict(found.counters) == ({} if taken else {"dropped.late": 1})


def test_each_stream_may_have_its_own_time_and_the_function_makes_the_output() -> None:
    env = LocalEnvironment("times")
    left = env.from_collection([{"id": 1, "at": 5}]).key_by(lambda item: item["id"])
    right = env.from_collection([(1, 7), (1, 99), (2, 7)]).key_by(lambda item: item[0])
    joined = left.join(
        right,
        lambda one, other: other[1] - one["at"],
        within=(0, 3),
        time=(lambda item: item["at"], lambda item: item[1]),
        lateness_s=100,
    )
    assert joined.collect() == [2]


def test_times_that_are_none_are_errors_of_their_item(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[Any] = []
    events: list[Any] = [("k", 1.0), ("k", None), ("k", float("nan")), ("k", "2"), ("k", True)]
    keyed(env, events).join(keyed(env, [("k", 1.0)]), within=(0, 0), time=when, lateness_s=9).sink(out.append)
    assert finished(env).dead_letters == 4
    assert out == [(("k", 1.0), ("k", 1.0))]
    assert "number of seconds, got None (of a datetime take .timestamp())" in letters(tmp_path)[0].error


def test_more_pairs_of_one_item_than_allowed() -> None:
    join = made(outputs_max=3)
    for _ in range(4):
        join.execute((0, ("k", 1)))
    with pytest.raises(Exception, match="more pairs of the key 'k' than io.outputs_max = 3"):
        join.execute((1, ("k", 1)))
    assert "k" not in join._kept[1]


async def later(event: Any) -> float:
    return 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"within": (0, 1)}, "needs time="),
        ({"within": (0, 1), "time": later}, "needs time=, a plain function"),
        ({"within": (0, 1), "time": (when,)}, "needs time="),
        ({"within": (2, 1), "time": when}, "lower_s <= upper_s, got .2, 1."),
        ({"within": 5, "time": when}, "two numbers of seconds, got 5"),
        ({"within": (0, float("inf")), "time": when}, "two numbers of seconds"),
        ({"within": (0, 1), "time": when, "lateness_s": -1}, "lateness_s must be a number of seconds >= 0, got -1"),
        ({"within": (0, 1), "time": when, "kind": "left"}, "is an inner join, got kind 'left'"),
        ({"time": when}, "go with within="),
        ({"lateness_s": 3}, "go with within="),
    ],
)
def test_what_is_no_interval_is_refused(arguments: dict[str, Any], message: str) -> None:
    env = LocalEnvironment("refused")
    declare: Callable[..., Any] = keyed(env, []).join
    with pytest.raises(PipelineError, match=message) as refused:
        declare(keyed(env, []), contract=Contract(io=IOSpec()), **arguments)
    assert "test_interval_join.py:" in str(refused.value)
