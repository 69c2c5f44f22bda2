"""Packets that an event loop works off in one go: nothing waits for an operator that suspends, all is counted."""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from environments import SCRATCH, environment, letters
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.kernel.api import (
    Contract,
    ErrorPolicy,
    IOSpec,
    JobFailedError,
    LocalEnvironment,
    MapFunction,
    OnError,
    Resources,
)

ITEMS = 6_000


def contract(concurrency: int = 8, **errors: Any) -> Contract:
    return Contract(resources=Resources(concurrency=concurrency), io=IOSpec(errors=ErrorPolicy(**errors)))


def counts(env: LocalEnvironment, outputs: list[Any]) -> dict[str, tuple[int, int, int]]:
    job = env.submit()
    return {each.operator: (each.items_in, each.items_out, each.errors) for each in job.metrics().operators}


def test_one_that_suspends_holds_nobody_up() -> None:
    """After thousands of quick answers one call waits until everything behind it is through."""
    env = LocalEnvironment("waits")
    outputs: list[int] = []
    behind = asyncio.Event()

    async def call(item: int) -> int:
        if item == ITEMS // 2:
            await asyncio.wait_for(behind.wait(), 20)
        if item == ITEMS - 1:
            behind.set()
        return item

    env.from_collection(range(ITEMS)).map(call, name="call", contract=contract()).sink(outputs.append)
    found = counts(env, outputs)
    assert outputs[-1] == ITEMS // 2
    assert sorted(outputs) == list(range(ITEMS))
    assert found["call"] == (ITEMS, ITEMS, 0)


def test_concurrency_holds_for_calls_that_suspend_after_quick_ones() -> None:
    env = LocalEnvironment("cap")
    outputs: list[int] = []
    running = most = 0

    async def call(item: int) -> int:
        nonlocal running, most
        if item > ITEMS // 2 and item % 3 == 0:
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.0005)
            running -= 1
        return item

    env.from_collection(range(ITEMS)).map(call, name="call", contract=contract(4)).sink(outputs.append)
    assert counts(env, outputs)["call"] == (ITEMS, ITEMS, 0)
    assert sorted(outputs) == list(range(ITEMS))
    assert 2 <= most <= 4


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    suspends=st.sampled_from([0.0, 0.001, 0.05, 0.5]),
    raises=st.sampled_from([0.0, 0.002, 0.1]),
    retries=st.integers(0, 1),
)
def test_counts_of_a_chain_are_those_of_a_loop(seed: int, suspends: float, raises: float, retries: int) -> None:
    """Map, filter, map, with errors and suspensions at random places; the numbers are those of plain Python."""
    draw = random.Random(seed)
    size = 3_000
    waits = [{item for item in range(size) if draw.random() < suspends} for _ in range(3)]
    bad = [{item for item in range(size) if draw.random() < raises} for _ in range(3)]

    async def step(index: int, item: int) -> None:
        if item in waits[index]:
            await asyncio.sleep(0)
        if item in bad[index]:
            raise ValueError(item)

    async def first(item: int) -> int:
        await step(0, item)
        return item

    async def keeps(item: int) -> bool:
        await step(1, item)
        return item % 3 != 0

    async def last(item: int) -> int:
        await step(2, item)
        return -item

    policy = contract(6, retries=retries, delay_s=0.0)
    outputs: list[int] = []
    with tempfile.TemporaryDirectory(dir=SCRATCH) as home:
        env = environment(Path(home))
        stream = env.from_collection(range(size)).map(first, name="first", contract=policy)
        stream.filter(keeps, name="keeps", contract=policy).map(last, name="last", contract=policy).sink(outputs.append)
        found = counts(env, outputs)

    came = set(range(size))
    for index, name in enumerate(("first", "keeps", "last")):
        fell = came & bad[index]
        passed = came - fell
        if name == "keeps":
            passed = {item for item in passed if item % 3}
        assert found[name] == (len(came), len(passed), len(fell) * (1 + retries)), name
        came = passed
    assert sorted(outputs) == sorted(-item for item in came)


def test_what_came_through_before_a_failure_counts() -> None:
    env = LocalEnvironment("fails")

    async def call(item: int) -> int:
        if item == 4_321:
            raise ValueError("no")
        return item

    policy = contract(1, on_error=OnError.FAIL)
    env.from_collection(range(ITEMS)).map(call, name="call", contract=policy).sink([].append)
    job = env.submit(wait=False)
    with pytest.raises(JobFailedError, match="4321|call"):
        job.wait()
    (found,) = [each for each in job.metrics().operators if each.operator == "call"]
    assert (found.items_in, found.items_out, found.errors) == (4_322, 4_321, 1)


class Runs(MapFunction[int, tuple[int, int, int]]):
    """How often its key has come, one item at a time."""

    contract = contract(1)

    async def execute(self, item: int) -> tuple[int, int, int]:
        if item == ITEMS - 1:
            raise ValueError(item)
        state = self.ctx.state
        state["seen"] = state.get("seen", 0) + 1
        return item, self.ctx.key, state["seen"]


@pytest.mark.parametrize("parallelism", [1, 2])
def test_each_call_knows_the_key_of_its_own_item(tmp_path: Path, parallelism: int) -> None:
    env = environment(tmp_path)
    outputs: list[tuple[int, int, int]] = []
    stream = env.from_collection(range(ITEMS)).key_by(lambda item: item % 7)
    stream.map(Runs, parallelism=parallelism).sink(outputs.append)
    env.submit()
    assert sorted(outputs) == [(item, item % 7, item // 7 + 1) for item in range(ITEMS - 1)]
    (letter,) = letters(tmp_path)
    assert letter.key == str((ITEMS - 1) % 7)
