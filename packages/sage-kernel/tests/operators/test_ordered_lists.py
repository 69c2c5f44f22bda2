"""`ordered()` behind lists: batched functions, which answer for each item, and `batch`, whose lists have the place of
the item that fills them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.kernel.api import Batching, Contract, LocalEnvironment, PipelineError, Resources


def uneven(item: Any) -> Any:
    """Takes its time, now more, now less."""
    time.sleep(random.random() * 0.002)
    return item


async def uneven_async(item: Any) -> Any:
    """The same on an event loop."""
    await asyncio.sleep(random.random() * 0.004)
    return item


@pytest.mark.parametrize("max_ahead", [2, 1000])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_batched_functions_keep_the_places_of_their_items(asynchronous: bool, max_ahead: int) -> None:
    env = LocalEnvironment("lists", {"queue_capacity": 8, "watchdog_s": 10})

    def double(numbers: list[int]) -> list[int]:
        time.sleep(random.random() * 0.004)
        if any(n % 20 == 7 for n in numbers):
            raise ValueError(numbers)
        return [2 * n for n in numbers]

    async def double_async(numbers: list[int]) -> list[int]:
        await asyncio.sleep(random.random() * 0.004)
        return double(numbers)

    numbers = env.from_collection(range(200)).filter(lambda n: n % 3, parallelism=2)
    contract = Contract(resources=Resources(concurrency=3))
    function = double_async if asynchronous else double
    doubled = numbers.map(function, batch=Batching(size=4, max_wait_s=0.002), parallelism=2, contract=contract)
    spread = doubled.flatmap(lambda n: [n, -n], parallelism=2)
    expected = [out for n in range(200) if n % 3 and n % 20 != 7 for out in (2 * n, -2 * n)]
    assert spread.ordered(max_ahead=max_ahead).collect(allow_dead_letters=True) == expected


def test_lists_that_wait_for_ever_are_refused() -> None:
    env = LocalEnvironment("lists")
    batch = Batching(size=4, max_wait_s=None)
    stream = env.from_collection([1, 2]).map(lambda numbers: numbers, batch=batch, parallelism=2, name="made")
    with pytest.raises(PipelineError, match=r"behind 'made' could wait for ever.*give its Batching a max_wait_s"):
        stream.ordered().sink(print).compile()  # type: ignore[attr-defined]  # a LocalEnvironment


@pytest.mark.parametrize("what", ["batch", "interleave"])
def test_what_depends_on_the_run_has_no_place(what: str) -> None:
    env = LocalEnvironment("lists")
    numbers = env.from_collection([1, 2]).map(str, parallelism=2)
    stream = numbers.batch(2, name="made") if what == "batch" else numbers.interleave(numbers, name="made")
    with pytest.raises(PipelineError, match=r"ordered\(\) cannot stand behind 'made'.*call ordered\(\) before it"):
        stream.ordered().sink(print).compile()  # type: ignore[attr-defined]  # a LocalEnvironment


def test_lists_of_several_replicas_have_no_place() -> None:
    env = LocalEnvironment("lists")
    stream = env.from_collection([1, 2]).batch(2, parallelism=2, name="made").map(str, parallelism=3)
    with pytest.raises(PipelineError, match="which items share a list depends on the run, because it has 2 replicas"):
        stream.ordered().sink(print).compile()  # type: ignore[attr-defined]  # a LocalEnvironment


def _lists(items: list[int], size: int, keyed: bool) -> list[list[int]]:
    """What `batch` makes of items that come in this order: full lists, then the rest by the first item of each."""
    full: list[list[int]] = []
    begun: dict[int, list[int]] = {}
    for item in items:
        made = begun.setdefault(item % 3 if keyed else 0, [])
        made.append(item)
        if len(made) == size:
            full.append(begun.pop(item % 3 if keyed else 0))
    return full + list(begun.values())


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 60),
    size=st.integers(1, 9),
    keyed=st.booleans(),
    restored=st.booleans(),
    spreads=st.booleans(),
    asynchronous=st.booleans(),
    fusion=st.booleans(),
    max_ahead=st.sampled_from([1, 3, 1000]),
)
def test_lists_of_items_in_order_have_a_place(
    count: int, size: int, keyed: bool, restored: bool, spreads: bool, asynchronous: bool, fusion: bool, max_ahead: int
) -> None:
    env = LocalEnvironment("lists", {"queue_capacity": 8, "watchdog_s": 10, "fusion": fusion})
    stream: Any = env.from_collection(range(count))
    items = list(range(count))
    if restored:
        stream = stream.map(uneven, parallelism=2).ordered(max_ahead=max_ahead)
    if spreads:
        stream = stream.filter(lambda n: n % 4).flatmap(lambda n: [n, n + 1000, n + 2000][: n % 4])
        items = [out for n in items if n % 4 for out in [n, n + 1000, n + 2000][: n % 4]]
    if keyed:
        stream = stream.key_by(lambda n: n % 3)
    lists = stream.batch(size).map(uneven_async if asynchronous else uneven, parallelism=None if asynchronous else 3)
    assert lists.ordered(max_ahead=max_ahead).collect() == _lists(items, size, keyed)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 9), max_wait_s=st.sampled_from([0.0, 0.001, 5.0]), max_ahead=st.sampled_from([10, 1000]))
def test_lists_that_go_by_time_keep_the_places_of_their_items(size: int, max_wait_s: float, max_ahead: int) -> None:
    env = LocalEnvironment("lists", {"watchdog_s": 10})
    numbers = env.from_collection(range(80)).map(uneven)
    got = numbers.batch(size, max_wait_s).map(uneven, parallelism=3).ordered(max_ahead=max_ahead).collect()
    assert [number for made in got for number in made] == list(range(80))
    assert all(1 <= len(made) <= size for made in got)


def test_the_last_list_of_an_ended_source_holds_up_no_other_source() -> None:
    env = LocalEnvironment("lists", {"watchdog_s": 5})
    batching = Batching(size=1000, max_wait_s=100.0)
    ended = env.from_collection(range(3)).map(lambda numbers: numbers, batch=batching)
    batched = env.from_collection(range(3)).batch(1000, 100.0).flatmap(lambda numbers: numbers)

    def slow() -> Iterator[int]:
        for number in range(60):
            time.sleep(0.002)
            yield 1000 + number

    got = ended.union(batched, env.from_source(slow)).ordered(max_ahead=10).collect()
    assert sorted(got) == sorted([*range(3), *range(3), *range(1000, 1060)])
    assert [number for number in got if number >= 1000] == list(range(1000, 1060))
