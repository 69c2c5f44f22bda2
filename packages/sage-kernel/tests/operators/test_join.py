"""`join` of two keyed streams: every pair once, whoever comes first."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.kernel.api import Contract, ErrorPolicy, Execution, IOSpec, KeyedStream, LocalEnvironment, PipelineError

ROWS = st.lists(st.tuples(st.sampled_from([None, 0, "", "a", 7]), st.integers(0, 3)), max_size=25)


def keyed(env: LocalEnvironment, rows: list[Any], parallelism: int = 1) -> KeyedStream:
    return env.from_collection(rows, parallelism=parallelism).key_by(lambda row: row[0])


@settings(max_examples=60)
@given(
    left=ROWS,
    right=ROWS,
    kind=st.sampled_from(["inner", "left"]),
    parallelism=st.integers(1, 3),
    sources=st.integers(1, 2),
    capacity=st.one_of(st.none(), st.integers(1, 3)),
    fusion=st.booleans(),
)
def test_every_pair_comes_once(
    left: list[Any],
    right: list[Any],
    kind: str,
    parallelism: int,
    sources: int,
    capacity: int | None,
    fusion: bool,
) -> None:
    env = LocalEnvironment("pairs", {"queue_capacity": capacity, "fusion": fusion, "watchdog_s": 10})
    joined = keyed(env, left, sources).join(keyed(env, right), kind=kind, parallelism=parallelism)
    expected = [(one, other) for one in left for other in right if one[0] == other[0]]
    if kind == "left":
        expected += [(one, None) for one in left if all(one[0] != other[0] for other in right)]
    assert sorted(joined.collect(), key=repr) == sorted(expected, key=repr)


@pytest.mark.parametrize("parallelism", [1, 3])
def test_outputs_keep_their_key_and_joins_can_follow_each_other(parallelism: int) -> None:
    env = LocalEnvironment("three")
    names = keyed(env, [(n, f"name{n}") for n in range(10)])
    orders = keyed(env, [(n, item) for n in range(10) for item in "ab"])
    towns = keyed(env, [(n, f"town{n}") for n in range(0, 10, 2)])
    both = names.join(orders, lambda name, order: (name[1], order[1]), parallelism=parallelism)
    three = both.join(towns, lambda pair, town: (*pair, town and town[1]), kind="left", parallelism=parallelism)
    assert sorted(three.collect()) == sorted(
        (f"name{n}", item, None if n % 2 else f"town{n}") for n in range(10) for item in "ab"
    )
    assert sorted(both.count(emit="final").collect()) == [(n, 2) for n in range(10)]


@pytest.mark.parametrize("refusals", [1, 3])
def test_a_function_that_raises_costs_its_item_and_makes_no_pair_twice(tmp_path: Path, refusals: int) -> None:
    """The right item comes last and meets three: the second of its pairs cannot be made at the first attempts."""
    env = environment(tmp_path)
    left = [("k", 1), ("k", 2), ("k", 3)]
    calls = [refusals]

    def pair(one: Any, other: Any) -> Any:
        if one[1] == 2 and calls[0]:
            calls[0] -= 1
            raise ValueError("not this one")
        return one[1], other[1]

    def late() -> Any:
        while env_done.count("k") < 3:
            time.sleep(0.001)
        yield ("k", "x")
        yield ("k", "y")

    env_done: list[str] = []
    seen = env.from_collection(left).map(lambda row: (env_done.append(row[0]), row)[1]).key_by(lambda row: row[0])
    # The left items are in the queue of the join, in front of the right ones, when the right source begins.
    out: list[Any] = []
    policy = Contract(io=IOSpec(errors=ErrorPolicy(retries=2, delay_s=0)))
    rights = env.from_source(late).key_by(lambda row: row[0])
    seen.join(rights, pair, contract=policy, name="join").sink(out.append)
    result = finished(env)
    if refusals == 1:
        assert sorted(out) == [(n, side) for n in (1, 2, 3) for side in "xy"]
        assert result.dead_letters == 0
        return
    assert result.dead_letters == 1
    (letter,) = letters(tmp_path)
    assert (letter.operator, letter.attempts, letter.key) == ("join", 3, "'k'")
    # Whichever item it was, it takes part in no pair, and each of the others in all of theirs.
    lost = letter.item
    assert sorted(out) == [
        (n, side) for n in (1, 2, 3) for side in "xy" if lost not in (repr(("k", n)), repr(("k", side)))
    ]


def test_a_left_item_whose_last_output_cannot_be_made_is_set_aside(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[Any] = []
    joined = keyed(env, [(1, "a"), (2, "b")]).join(keyed(env, [(2, "x")]), lambda a, b: a[1] + b[1], kind="left")
    joined.sink(out.append)
    assert finished(env).dead_letters == 1
    assert out == ["bx"]
    assert [(letter.item, letter.key) for letter in letters(tmp_path)] == [("(1, 'a')", "1")]


def test_more_pairs_of_one_item_than_allowed_are_an_error_of_that_item(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[Any] = []
    few = Contract(io=IOSpec(outputs_max=2))
    joined = keyed(env, [(1, n) for n in range(5)]).join(keyed(env, [(1, "x")]), contract=few, name="join")
    joined.sink(out.append)
    result = finished(env)
    pairs = len(out)
    # The right item meets as many as came before it; more than two, and it is set aside and nobody meets it.
    assert (pairs, result.dead_letters) in [(5, 0), (0, 1)]
    if result.dead_letters:
        assert "io.outputs_max = 2" in letters(tmp_path)[0].error


async def later(left: Any, right: Any) -> Any:
    return left, right


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda env: keyed(env, []).join(env.from_collection([1])), "join needs a key on both streams"),
        (lambda env: keyed(env, []).join(keyed(LocalEnvironment("other"), [])), "joins streams of one environment"),
        (lambda env: keyed(env, []).join([1]), "join takes streams"),
        (lambda env: keyed(env, []).join(keyed(env, []), kind="outer"), "kind must be 'inner' or 'left', got 'outer'"),
        (lambda env: keyed(env, []).join(keyed(env, []), 5), "takes a function of two items, got 5"),
        (lambda env: keyed(env, []).join(keyed(env, []), later), "takes a plain function"),
        (lambda env: keyed(env, []).join(keyed(env, []), contract=3), "contract must be a Contract"),
    ],
)
def test_what_cannot_be_joined_is_refused(declare: Callable[[LocalEnvironment], Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message) as refused:
        declare(LocalEnvironment("refused"))
    assert "test_join.py:" in str(refused.value)


def test_a_stream_without_keys_has_no_join() -> None:
    assert not hasattr(LocalEnvironment("x").from_collection([1]), "join")


def test_a_join_runs_on_an_event_loop_as_well() -> None:
    env = LocalEnvironment("loop")
    on_loop = Contract(execution=Execution.ASYNC)
    joined = keyed(env, [(n % 3, n) for n in range(30)]).join(
        keyed(env, [(0, "a"), (1, "b")]), kind="left", contract=on_loop, parallelism=2
    )
    got = joined.collect()
    assert len(got) == 30
    assert sum(right is None for _, right in got) == 10


def test_a_join_keeps_up_with_many_pairs() -> None:
    env = LocalEnvironment("many")
    left = keyed(env, [(n % 5000, n) for n in range(20_000)])
    right = keyed(env, [(n, -n) for n in range(5000)])
    assert len(left.join(right, lambda one, other: one[1] + other[1]).collect()) == 20_000
