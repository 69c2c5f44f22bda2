"""`distinct`: the first item of each kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters
from hypothesis import given
from hypothesis import strategies as st

from sage.kernel.api import Contract, DataStream, ErrorPolicy, Execution, IOSpec, LocalEnvironment, PipelineError


def unique(items: list[Any], key: Callable[[Any], Any] = lambda item: item) -> list[Any]:
    seen, out = [], []
    for item in items:
        if key(item) not in seen:
            seen.append(key(item))
            out.append(item)
    return out


@given(st.lists(st.one_of(st.none(), st.integers(0, 5), st.sampled_from(["", "a", (1, 2)])), max_size=30))
def test_the_first_of_each_kind_passes_in_order(items: list[Any]) -> None:
    stream = LocalEnvironment("plain").from_collection(items)
    assert stream.distinct().collect() == unique(items)
    assert stream.distinct(repr).collect() == unique(items, repr)


@given(items=st.lists(st.integers(0, 30), max_size=40), parallelism=st.integers(1, 3))
def test_behind_a_key_each_key_has_its_own(items: list[int], parallelism: int) -> None:
    keyed = LocalEnvironment("keyed").from_collection(items).key_by(lambda n: n % 3)
    got = keyed.distinct(lambda n: n // 10, parallelism=parallelism).collect()
    for key in range(3):
        own = [n for n in items if n % 3 == key]
        assert [n for n in got if n % 3 == key] == unique(own, lambda n: n // 10)


@given(items=st.lists(st.integers(0, 9), max_size=40), max_keys=st.integers(1, 5))
def test_the_memory_is_bounded_and_the_oldest_forgotten(items: list[int], max_keys: int) -> None:
    seen: list[int] = []
    expected = []
    for item in items:
        if item not in seen:
            expected.append(item)
            seen = [*seen, item][-max_keys:]
    assert LocalEnvironment("bounded").from_collection(items).distinct(max_keys=max_keys).collect() == expected


def test_items_that_cannot_be_compared_are_set_aside(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[Any] = []
    env.from_collection([1, {"a": 1}, 1, [2]]).distinct(name="once").sink(out.append)
    assert finished(env).dead_letters == 2
    assert out == [1]
    assert "distinct 'once' needs hashable items, got dict: give it key=" in letters(tmp_path)[0].error


def test_a_key_that_raises_is_retried_and_remembers_nothing(tmp_path: Path) -> None:
    refusals = [1]

    def key(item: int) -> int:
        if refusals[0]:
            refusals[0] -= 1
            raise ValueError("not yet")
        return item

    env = environment(tmp_path)
    out: list[Any] = []
    policy = Contract(io=IOSpec(errors=ErrorPolicy(retries=1, delay_s=0)))
    env.from_collection([1, 1, 2]).distinct(key, contract=policy).sink(out.append)
    assert finished(env).dead_letters == 0
    assert out == [1, 2]


def test_it_runs_on_an_event_loop_as_well() -> None:
    stream = LocalEnvironment("loop").from_collection([1, 2, 1])
    assert stream.distinct(contract=Contract(execution=Execution.ASYNC)).collect() == [1, 2]


async def later(item: Any) -> Any:
    return item


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda s: s.distinct(parallelism=2).collect(), "parallelism 2 is not possible: distinct of several replicas"),
        (lambda s: s.distinct(3), "takes a plain function as key, got 3"),
        (lambda s: s.distinct(later), "takes a plain function as key"),
        (lambda s: s.distinct(max_keys=0), "max_keys must be a whole number >= 1, got 0"),
        (lambda s: s.distinct(max_keys=2.5), "max_keys must be a whole number >= 1, got 2.5"),
    ],
)
def test_what_cannot_be_distinct_is_refused(declare: Callable[[DataStream], Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message) as refused:
        declare(LocalEnvironment("refused").from_collection([1]))
    assert "test_distinct.py:" in str(refused.value)
