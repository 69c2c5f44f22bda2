"""`fill(max_rounds=)`: an item that has gone round as often as it may leaves the loop."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters
from executions import ExecutionKind
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.kernel.api import Batching, Contract, ErrorPolicy, IOSpec, JobFailedError, LocalEnvironment, PipelineError
from sage.kernel.api.replay import DeadLetterRetry
from sage.kernel.runtime.laps import next_lap, rounds_of, with_most_rounds


def up(pair: tuple[Any, int]) -> tuple[Any, int]:
    """Counts how often the item was worked on."""
    return pair[0], pair[1] + 1


def spread(pair: tuple[Any, int]) -> list[tuple[Any, int]]:
    """Two items of each."""
    return [(f"{pair[0]}{which}", pair[1] + 1) for which in "ab"]


def endless(env: LocalEnvironment, step: Any, max_rounds: int, facts: dict[str, Any], items: Any) -> tuple[Any, Any]:
    """Nothing is ever done but what is named so; the future and what is done."""
    again = env.from_future("again")
    behind = env.from_collection(items).union(again).map(step, **facts)
    again.fill(behind.filter(lambda pair: pair[0] != "done"), max_in_flight=7, max_rounds=max_rounds)
    return again, behind.filter(lambda pair: pair[0] == "done")


@pytest.mark.parametrize("parallelism", [1, 3])
def test_what_goes_round_too_often_becomes_a_dead_letter(
    execution: ExecutionKind, tmp_path: Path, parallelism: int
) -> None:
    env = environment(tmp_path, queue_capacity=3)
    facts: dict[str, Any] = {"parallelism": parallelism, "contract": execution.contract(concurrency=3)}
    out: list[Any] = []
    items = [("done", 0), *((n, 0) for n in range(20)), ("done", 5)]
    _, done = endless(env, execution.operator(up), 4, facts, items)
    done.sink(out.append)
    assert finished(env).dead_letters == 20
    assert sorted(out) == [("done", 1), ("done", 6)]
    found = letters(tmp_path)
    # Worked on when it entered, and each time it came back.
    assert sorted(letter.item for letter in found) == sorted(f"({n}, 5)" for n in range(20))
    assert {(letter.operator, letter.attempts) for letter in found} == {("again", 1)}
    assert "more than max_rounds=4 time(s)" in found[0].error
    assert "again.side_output('exhausted')" in found[0].error


@pytest.mark.parametrize("max_rounds", [1, 3])
def test_it_may_leave_the_loop_instead(execution: ExecutionKind, tmp_path: Path, max_rounds: int) -> None:
    env = environment(tmp_path)
    facts: dict[str, Any] = {"parallelism": 2, "contract": execution.contract(concurrency=3)}
    again, done = endless(env, execution.operator(up), max_rounds, facts, [(n, 0) for n in range(9)])
    out: list[Any] = []
    done.union(again.side_output("exhausted")).sink(out.append)
    result = finished(env)
    assert result.dead_letters == 0
    assert sorted(out) == [(n, max_rounds + 1) for n in range(9)]
    (future,) = (found for found in result.metrics.operators if found.operator == "again")
    assert (future.items_in, future.items_out) == (9 * (max_rounds + 1), 9 * (max_rounds + 1))


@settings(max_examples=40, deadline=None)
@given(
    body=st.lists(st.sampled_from(["map", "async", "lists", "batch", "key", "split", "fails"]), max_size=4),
    max_rounds=st.integers(1, 4),
    items=st.integers(0, 12),
    capacity=st.sampled_from([None, 1, 3]),
    fusion=st.booleans(),
)
def test_rounds_are_counted_through_all_operators(
    body: list[str], max_rounds: int, items: int, capacity: int | None, fusion: bool
) -> None:
    env = LocalEnvironment("rounds", {"queue_capacity": capacity, "fusion": fusion, "watchdog_s": 10})
    again = env.from_future("again")
    stream: Any = env.from_collection([(n, 0) for n in range(items)]).union(again).map(up)
    for what in body:
        stream = _with(stream, what)
    again.fill(stream, max_in_flight=5, max_rounds=max_rounds)
    assert sorted(again.side_output("exhausted").collect()) == [(n, max_rounds + 1) for n in range(items)]


async def _same_async(item: Any) -> Any:
    return item


def _with(stream: Any, what: str) -> Any:
    match what:
        case "map":
            return stream.map(lambda item: item, parallelism=3)
        case "async":
            return stream.map(_same_async)
        case "lists":
            return stream.map(lambda some: some, batch=Batching(size=3, max_wait_s=0.001))
        case "batch":
            # A list has gone round as often as the one of its items that has most.
            return stream.batch(1, 0.001).flatmap(lambda some: some, parallelism=2)
        case "key":
            return stream.key_by(lambda pair: pair[0] % 3).map(lambda item: item, parallelism=2)
        case "split":
            parts = stream.split({"odd": lambda pair: pair[0] % 2})
            return parts["odd"].map(lambda item: item).union(parts["rest"])
    tries: Counter[Any] = Counter()

    def first_fails(item: Any) -> Any:
        tries[item] += 1
        if tries[item] == 1:
            raise ValueError(item)
        return item

    return stream.map(first_fails, contract=Contract(io=IOSpec(errors=ErrorPolicy(retries=1, delay_s=0.0))))


def test_what_an_item_becomes_has_gone_round_as_often(execution: ExecutionKind, tmp_path: Path) -> None:
    env = environment(tmp_path)
    again = env.from_future("again")
    facts = {"contract": execution.contract(), "parallelism": 2}
    behind = env.from_collection([("x", 0)]).union(again).flatmap(execution.operator(spread), **facts)
    again.fill(behind, max_in_flight=100, max_rounds=2)
    got = sorted(again.side_output("exhausted").collect())
    assert got == sorted((f"x{one}{two}{three}", 3) for one in "ab" for two in "ab" for three in "ab")


def test_each_future_of_a_nested_loop_counts_for_itself(tmp_path: Path) -> None:
    env = environment(tmp_path)
    inner, outer = env.from_future("inner"), env.from_future("outer")
    behind = env.from_collection([("in", 0), ("out", 0)]).union(inner, outer).map(up)
    inner.fill(behind.filter(lambda pair: pair[0] == "in"), max_rounds=2)
    outer.fill(behind.filter(lambda pair: pair[0] == "out"), max_rounds=5)
    left = inner.side_output("exhausted").union(outer.side_output("exhausted"))
    assert sorted(left.collect()) == [("in", 3), ("out", 6)]


def test_a_retried_letter_may_go_round_as_often_again(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[Any] = []
    again = env.from_future("again")
    behind = env.from_collection([("x", 0)]).union(again).map(up)
    again.fill(behind.filter(lambda pair: pair[1] < 6), max_rounds=3)
    behind.filter(lambda pair: pair[1] == 6).sink(out.append)
    assert finished(env).dead_letters == 1
    with DeadLetterRetry(env) as retry:
        outcome = retry.commit(retry.submit().wait(10))
    assert (outcome.retried, outcome.failed_again, out) == (1, 0, [("x", 6)])


def test_the_budget_of_dead_letters_counts_them(tmp_path: Path) -> None:
    env = environment(tmp_path, max_dead_letters=3)
    _, done = endless(env, up, 2, {}, [(n, 0) for n in range(100)])
    done.sink(print)
    with pytest.raises(JobFailedError, match="max_dead_letters|dead letters"):
        env.submit()


def test_wrong_bounds_are_refused() -> None:
    env = LocalEnvironment("wrong")
    again = env.from_future("again")
    stream = env.from_collection([1]).union(again).map(lambda n: n)
    for wrong in (0, -1, True, 1.5, "3"):
        with pytest.raises(PipelineError, match=r"max_rounds must be a whole number >= 1 or None, got .*'again'"):
            again.fill(stream, max_rounds=wrong)  # type: ignore[arg-type]
    again.fill(stream.filter(lambda n: n), max_rounds=None)
    stream.union(again.side_output("exhausted")).sink(print)
    with pytest.raises(PipelineError, match=r"'exhausted' of the future 'again' would never.*max_rounds=\.\.\."):
        env.compile()
    with pytest.raises(PipelineError, match="side_output takes from a map"):
        again.side_output("late")


def test_the_plan_says_where_items_leave() -> None:
    env = LocalEnvironment("explained")
    again = env.from_future("again")
    stream = env.from_collection([1]).union(again).map(lambda n: n)
    again.fill(stream.filter(lambda n: n), max_rounds=3)
    stream.sink(print)
    assert any("comes back to 'again' more than 3 time(s) is set aside" in note.text for note in env.compile().notes)


def test_laps_travel_and_count() -> None:
    lap = next_lap(next_lap(7, "a"), "b")
    copy = pickle.loads(pickle.dumps([lap]))[0]
    assert (int(copy), rounds_of(copy, "a"), rounds_of(copy, "b"), rounds_of(7, "a")) == (7, 1, 1, 0)
    most = with_most_rounds(1, [next_lap(lap, "a"), lap, 5])
    assert (int(most), rounds_of(most, "a"), rounds_of(most, "b")) == (1, 2, 1)
