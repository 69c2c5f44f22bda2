"""Side outputs: what an operator puts out besides what it returns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters

from sage.kernel.api import (
    CoMapFunction,
    Contract,
    DataStream,
    ErrorPolicy,
    Execution,
    FilterFunction,
    FlatMapFunction,
    IOSpec,
    JobFailedError,
    LocalEnvironment,
    MapFunction,
    PipelineError,
)
from sage.kernel.operators import ContextError, OperatorContext


class Half(MapFunction[int, int]):
    """Half of even numbers; odd ones go aside as well, and 0 cannot be halved for a while."""

    zeros = 0

    def execute(self, item: int) -> int:
        if item % 2 or not item:
            self.ctx.side_output("odd", item)
            self.ctx.side_output("unknown", item)
        if not item and type(self).zeros:
            type(self).zeros -= 1
            raise ValueError("zero")
        return item // 2


class AsyncHalf(Half):
    async def execute(self, item: int) -> int:  # type: ignore[override]
        await asyncio.sleep(0.001 * (item % 3))
        result = super().execute(item)
        await asyncio.sleep(0)
        return result


class Words(FlatMapFunction[str, str]):
    def execute(self, item: str) -> Any:
        for word in item.split():
            if word.isdigit():
                self.ctx.side_output("numbers", int(word))
            else:
                yield word


class Positive(FilterFunction[int]):
    def execute(self, item: int) -> bool:
        if item <= 0:
            self.ctx.side_output("not", item)
        return item > 0


class Both(CoMapFunction[int, int, int]):
    def execute1(self, item: int) -> int:
        self.ctx.side_output("seen", ("first", item))
        return item

    def execute2(self, item: int) -> int:
        self.ctx.side_output("seen", ("second", item))
        return -item


@pytest.mark.parametrize("function", [Half, AsyncHalf])
@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize("fusion", [True, False])
@pytest.mark.parametrize(("zeros", "retries", "dead"), [(0, 0, 0), (2, 2, 0), (3, 2, 1)])
def test_side_items_count_only_with_their_call(
    tmp_path: Path, function: type[Half], parallelism: int, fusion: bool, zeros: int, retries: int, dead: int
) -> None:
    function.zeros = zeros
    env = environment(tmp_path, fusion=fusion)
    policy = Contract(io=IOSpec(errors=ErrorPolicy(retries=retries, delay_s=0)))
    halves = env.from_collection([5, 0, 4, 3]).map(function, parallelism=parallelism, contract=policy, name="half")
    main: list[Any] = []
    odd: list[Any] = []
    halves.map(lambda n: n, name="behind").sink(main.append)
    halves.side_output("odd").sink(odd.append)
    result = finished(env)
    assert sorted(main) == sorted([2, 2, 1] + [0] * (1 - dead))
    assert sorted(odd) == sorted([5, 3] + [0] * (1 - dead))
    assert result.dead_letters == dead
    assert [letter.item for letter in letters(tmp_path)] == ["0"] * dead


def test_flatmap_filter_and_comap_have_side_outputs_too() -> None:
    env = LocalEnvironment("kinds")
    words = env.from_collection(["a 1", "2 b 3"]).flatmap(Words)
    assert (words.collect(), words.side_output("numbers").collect()) == (["a", "b"], [1, 2, 3])
    positive = env.from_collection([1, 0, -1]).filter(Positive)
    assert (positive.collect(), positive.side_output("not").collect()) == ([1], [0, -1])
    both = env.from_collection([1]).connect(env.from_collection([2])).comap(Both)
    assert sorted(both.collect()) == [-2, 1]
    assert sorted(both.side_output("seen").collect()) == [("first", 1), ("second", 2)]


@pytest.mark.parametrize("parallelism", [1, 3])
def test_side_items_keep_the_key_of_their_item(parallelism: int) -> None:
    env = LocalEnvironment("keyed")
    halves = env.from_collection(range(20)).key_by(lambda n: n % 5).map(Half, parallelism=parallelism)
    counts = halves.side_output("odd").count(emit="final", parallelism=parallelism)
    expected = {key: sum(1 for n in range(20) if n % 5 == key and (n % 2 or not n)) for key in range(5)}
    assert dict(counts.collect()) == expected


def test_the_main_stream_may_be_left_and_branches_taken_by_many(tmp_path: Path) -> None:
    env = environment(tmp_path)
    halves = env.from_collection([1, 2, 3]).map(Half, name="half")
    one: list[Any] = []
    two: list[Any] = []
    halves.side_output("odd").sink(one.append)
    halves.side_output("odd").map(str).sink(two.append)
    result = finished(env)
    assert (one, two) == ([1, 3], ["1", "3"])
    (found,) = [found for found in result.metrics.operators if found.operator == "half"]
    assert dict(found.counters) == {"dropped.unknown": 2}


def test_without_a_taker_side_items_are_dropped_and_counted(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[Any] = []
    env.from_collection([1, 2, 3]).map(Half, name="half").sink(out.append)
    (found,) = [found for found in finished(env).metrics.operators if found.operator == "half"]
    assert out == [0, 1, 1]
    assert dict(found.counters) == {"dropped.odd": 2, "dropped.unknown": 2}


class Endless(FlatMapFunction[int, int]):
    async def execute(self, item: int) -> Any:  # type: ignore[override]
        self.ctx.side_output("seen", item)
        while item:
            yield item


def test_an_endless_call_is_an_error_of_its_item(tmp_path: Path) -> None:
    env = environment(tmp_path)
    seen: list[int] = []
    few = Contract(io=IOSpec(outputs_max=10))
    numbers = env.from_collection([0, 1, 0]).flatmap(Endless, contract=few)
    numbers.side_output("seen").sink(seen.append)
    assert finished(env).dead_letters == 1
    assert seen == [0, 0]


class Afterwards(MapFunction[int, int]):
    def execute(self, item: int) -> int:
        self.ctx.side_output("late", item)
        return item

    def teardown(self) -> None:
        self.ctx.side_output("late", "too late")


@pytest.mark.parametrize("execution", [Execution.THREAD, Execution.ASYNC])
def test_what_is_put_aside_after_the_last_call_is_refused(tmp_path: Path, execution: Execution) -> None:
    env = environment(tmp_path)
    late: list[Any] = []
    stream = env.from_collection([1]).map(Afterwards, contract=Contract(execution=execution), name="last")
    stream.side_output("late").sink(late.append)
    with pytest.raises(JobFailedError, match="teardown of operator 'last' failed: ContextError: .*outside of an exec"):
        env.submit()
    assert late == [1]


def test_side_output_belongs_to_a_call() -> None:
    context = OperatorContext("late", branches=frozenset({"late"}))
    with pytest.raises(ContextError, match="outside of an execute"):
        context.side_output("late", 1)


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (
            lambda s: s.side_output("x"),
            "takes from a map, flatmap, filter, comap or join just before it, got 'collection'",
        ),
        (lambda s: s.map(str).side_output(""), "a side output is named by a text, got ''"),
        (lambda s: s.map(str).side_output(3), "named by a text, got 3"),
        (lambda s: s.map(str).union(s).side_output("x"), "got several streams"),
        (lambda s: s.map(str).side_output("x").side_output("y"), "just before it"),
        (lambda s: s.key_by(str).count().side_output("x"), "got 'count', a aggregate|got 'count'"),
        (lambda s: s.split({"a": bool})["a"].side_output("x"), "just before it"),
    ],
)
def test_streams_without_side_outputs_are_refused(declare: Callable[[DataStream], Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message) as refused:
        declare(LocalEnvironment("refused").from_collection([1]))
    assert "test_side_output.py:" in str(refused.value)
