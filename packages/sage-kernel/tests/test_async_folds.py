"""`reduce` and `aggregate` with `async` functions: the same state as with plain ones, one item of a key at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.kernel.api import Contract, ErrorPolicy, IOSpec, LocalEnvironment


async def joined(so_far: tuple[Any, ...], item: int) -> tuple[Any, ...]:
    await asyncio.sleep(0.0002 if item % 5 == 0 else 0)
    return (*so_far, item)


async def passed_on(item: Any) -> Any:
    await asyncio.sleep(0)
    return item


@settings(max_examples=25)
@given(
    items=st.lists(st.integers(0, 40), max_size=40),
    keys=st.integers(1, 5),
    parallelism=st.integers(1, 3),
    fusion=st.booleans(),
    capacity=st.integers(1, 4),
)
def test_the_state_of_each_key_is_its_items_in_order(
    items: list[int], keys: int, parallelism: int, fusion: bool, capacity: int
) -> None:
    env = LocalEnvironment("folds", {"fusion": fusion, "queue_capacity": capacity, "watchdog_s": 10})
    stream = env.from_collection(items).key_by(lambda item: item % keys)
    got = stream.aggregate((), joined, emit="final", parallelism=parallelism).map(passed_on).collect()
    expected: dict[int, tuple[int, ...]] = {}
    for item in items:
        expected[item % keys] = (*expected.get(item % keys, ()), item)
    assert sorted(got) == sorted(expected.items())


def test_each_step_of_a_reduce_is_emitted(tmp_path: Path) -> None:
    async def add(so_far: int, item: int) -> int:
        await asyncio.sleep(0)
        return so_far + item

    stream = environment(tmp_path).from_collection([1, 2, 3]).key_by(lambda item: "all")
    assert stream.reduce(add).collect() == [1, 3, 6]


@pytest.mark.parametrize("emit", ["each", "final"])
def test_an_item_that_cannot_be_folded_is_set_aside(tmp_path: Path, emit: str) -> None:
    async def add(so_far: int, item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return so_far + item

    env = environment(tmp_path)
    out: list[Any] = []
    retry = Contract(io=IOSpec(errors=ErrorPolicy(retries=1, delay_s=0)))
    stream = env.from_collection([1, 2, 3]).key_by(lambda item: "all")
    stream.aggregate(0, add, emit=emit, contract=retry, name="sum").sink(out.append)
    assert finished(env).dead_letters == 1
    assert out[-1] == ("all", 4)
    assert [(letter.operator, letter.item, letter.attempts) for letter in letters(tmp_path)] == [("sum", "2", 2)]


def test_many_keys_at_the_end_of_the_stream_go_through_a_short_queue(tmp_path: Path) -> None:
    env = environment(tmp_path, queue_capacity=3)
    stream = env.from_collection(range(3000)).key_by(lambda item: item)
    assert len(stream.aggregate((), joined, emit="final").map(passed_on).collect()) == 3000
