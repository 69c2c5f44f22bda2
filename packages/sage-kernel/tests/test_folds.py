"""`reduce` and `aggregate` with classes and instances, the ready-made folds, and what follows when `result` raises."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from sage.common.errors import ConfigError
from sage.kernel.api import (
    AggregateFunction,
    Contract,
    ErrorPolicy,
    IOSpec,
    KeyedStream,
    LocalEnvironment,
    MapFunction,
    OnError,
    PipelineError,
    ReduceFunction,
)
from sage.kernel.graph import TypeMismatchError


class Joined(ReduceFunction[str]):
    """Joins texts; says when it was set up and torn down."""

    class Config(BaseModel, extra="forbid"):
        between: str = "+"

    life: list[str] = []

    def setup(self) -> None:
        self.life.append(f"setup {self.ctx.name}")

    def execute(self, so_far: str, item: str) -> str:
        return f"{so_far}{self.config.between}{item}"

    def teardown(self) -> None:
        self.life.append("teardown")


class AsyncJoined(ReduceFunction[str]):
    async def execute(self, so_far: str, item: str) -> str:
        await asyncio.sleep(0)
        return f"{self.ctx.key}:{so_far}{item}"


class Mean(AggregateFunction[int, list[int], tuple[Any, float]]):
    """In place; the result knows its key."""

    def create(self) -> list[int]:
        return [0, 0]

    def add(self, accumulator: list[int], item: int) -> list[int]:
        accumulator[0] += item
        accumulator[1] += 1
        return accumulator

    def result(self, accumulator: list[int]) -> tuple[Any, float]:
        return self.ctx.key, accumulator[0] / accumulator[1]


class Bag(AggregateFunction[int, tuple[int, ...], tuple[int, ...]]):
    """Emits its accumulator as it is."""

    def create(self) -> tuple[int, ...]:
        return (self.config.get("first", -1),)

    async def add(self, accumulator: tuple[int, ...], item: int) -> tuple[int, ...]:
        await asyncio.sleep(0)
        return (*accumulator, item)


def by_parity(items: list[int], **config: Any) -> KeyedStream:
    return LocalEnvironment("folds", config).from_collection(items).key_by(lambda item: item % 2)


@pytest.mark.parametrize("make", [lambda: (Joined, {"between": "-"}), lambda: (Joined({"between": "-"}), None)])
def test_reduce_takes_a_class_with_its_config_or_an_instance(make: Callable[[], tuple[Any, Any]]) -> None:
    Joined.life.clear()
    function, config = make()
    texts = LocalEnvironment("texts").from_collection(["a", "b", "c"]).key_by(lambda text: "all")
    assert texts.reduce(function, config, name="join").collect() == ["a", "a-b", "a-b-c"]
    assert Joined.life == ["setup join", "teardown"]


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize("emit", ["each", "final"])
@pytest.mark.parametrize("fusion", [True, False])
def test_aggregate_classes_see_their_key(parallelism: int, emit: str, fusion: bool) -> None:
    stream = by_parity([1, 2, 3, 4], fusion=fusion).aggregate(Mean, emit=emit, parallelism=parallelism)
    last = dict(stream.collect())
    assert last == {0: (0, 3.0), 1: (1, 2.0)}


def test_async_classes_fold() -> None:
    texts = LocalEnvironment("texts").from_collection(["a", "b"]).key_by(lambda text: "k")
    assert texts.reduce(AsyncJoined).collect() == ["a", "k:ab"]
    bags = by_parity([1, 2, 3]).aggregate(Bag, {"first": 9}, emit="final")
    assert sorted(bags.collect()) == [(0, (9, 2)), (1, (9, 1, 3))]


def test_an_instance_keeps_to_one_replica_and_is_copied_for_more() -> None:
    mean = Mean()
    assert dict(by_parity([1, 3, 5]).aggregate(mean, parallelism=2, emit="final").collect()) == {1: (1, 3.0)}


class Coroutine(AggregateFunction[int, int, int]):
    def create(self) -> int:
        return 0

    def add(self, accumulator: int, item: int) -> int:
        return accumulator

    async def result(self, accumulator: int) -> int:  # type: ignore[override]
        return accumulator


class Half(AggregateFunction[int, int, int]):
    def create(self) -> int:
        return 0


class Underived:
    def create(self) -> int:
        return 0

    def add(self, accumulator: int, item: int) -> int:
        return accumulator


class Texts(AggregateFunction[str, int, int]):
    def create(self) -> int:
        return 0

    def add(self, accumulator: int, item: str) -> int:
        return accumulator + len(item)


async def later(accumulator: Any) -> Any:
    return accumulator


def number(text: str) -> int:
    return len(text)


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda keyed: keyed.aggregate(Coroutine), "result.. must be a plain method"),
        (lambda keyed: keyed.aggregate(Half), "Half does not define add"),
        (lambda keyed: keyed.aggregate(Underived), "Underived has an add.. but is no operator: derive it from Aggr"),
        (lambda keyed: keyed.aggregate(Joined), "aggregate needs an AggregateFunction, got Joined, which is a Reduce"),
        (lambda keyed: keyed.aggregate(Joined(), max), "has its own add"),
        (lambda keyed: keyed.aggregate(Mean, max), "has its own add"),
        (lambda keyed: keyed.aggregate(int, max, config={"a": 1}), "config goes with an AggregateFunction"),
        (lambda keyed: keyed.aggregate(int, max, later), "takes a plain function as result, got the coroutine"),
        (lambda keyed: keyed.aggregate(list), "takes a function as add, got None"),
        (lambda keyed: keyed.aggregate([], max), "would share the list"),
        (lambda keyed: keyed.reduce(Mean), "reduce needs a ReduceFunction, got Mean, which is an AggregateFunction"),
        (lambda keyed: keyed.map(Mean), "map needs a MapFunction"),
        (lambda keyed: keyed.reduce(max, {"a": 1}), "config goes with an operator class"),
        (lambda keyed: keyed.count(emit="last"), "emit must be"),
        (lambda keyed: keyed.sum(2.5), "sum takes a field name, a position or a function"),
        (lambda keyed: keyed.mean(True), "mean takes a field name"),
    ],
)
def test_what_cannot_fold_is_refused_on_its_line(declare: Callable[[KeyedStream], Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message) as refused:
        declare(by_parity([1]))
    assert "test_folds.py:" in str(refused.value)


def test_the_config_and_the_types_of_folds_are_checked() -> None:
    with pytest.raises(ConfigError, match="'betwen'; did you mean 'between'"):
        by_parity([1]).reduce(Joined, {"betwen": "x"})
    numbers = LocalEnvironment("typed").from_collection(["a"]).map(number).key_by(lambda item: item)
    with pytest.raises(TypeMismatchError, match="'Texts' takes str, but 'key_by' gives int"):
        numbers.aggregate(Texts).collect()
    with pytest.raises(TypeMismatchError, match="'Joined' takes str"):
        numbers.reduce(Joined).collect()


REFERENCE: dict[str, Callable[[list[int]], Any]] = {
    "count": len,
    "sum": sum,
    "min": min,
    "max": max,
    "mean": statistics.fmean,
}


@settings(max_examples=30)
@given(
    items=st.lists(st.integers(-100, 100), max_size=40),
    fold=st.sampled_from(sorted(REFERENCE)),
    emit=st.sampled_from(["each", "final"]),
    form=st.sampled_from(["item", "position", "name", "function"]),
    parallelism=st.integers(1, 3),
)
def test_ready_made_folds(items: list[int], fold: str, emit: str, form: str, parallelism: int) -> None:
    shapes: dict[str, tuple[Callable[[int], Any], Any]] = {
        "item": (lambda n: n, None),
        "position": (lambda n: ("x", n), 1),
        "name": (lambda n: {"n": n}, "n"),
        "function": (lambda n: [[n]], lambda item: item[0][0]),
    }
    shape, field = shapes[form]
    stream = LocalEnvironment("ready").from_collection([(n % 3, shape(n)) for n in items]).key_by(lambda pair: pair[0])
    values = stream.map(lambda pair: pair[1])
    arguments = () if fold == "count" else (field,)
    got = getattr(values, fold)(*arguments, emit=emit, parallelism=parallelism).collect()
    expected = []
    for key in range(3):
        own = [n for n in items if n % 3 == key]
        steps = range(1, len(own) + 1) if emit == "each" else [len(own)] * bool(own)
        expected += [(key, pytest.approx(REFERENCE[fold](own[:step]))) for step in steps]
    assert sorted(got, key=lambda pair: pair[0]) == expected


def test_ready_made_folds_have_their_names_and_none_is_a_value() -> None:
    stream = by_parity([1])
    stream.count(), stream.count(), stream.max()
    names = [operator.name for operator in stream._env.graph.transformations]
    assert names == ["collection", "key_by", "count", "count-2", "max"]
    nones = LocalEnvironment("none").from_collection([None]).key_by(lambda item: None)
    assert nones.min().collect() == [(None, None)]


class Reluctant(AggregateFunction[int, list[int], int]):
    """Adds in place; the result of a sum that is a multiple of ten cannot be had at the first attempts."""

    refusals = 0

    def create(self) -> list[int]:
        return []

    def add(self, accumulator: list[int], item: int) -> list[int]:
        accumulator.append(item)
        return accumulator

    def result(self, accumulator: list[int]) -> int:
        if sum(accumulator) == 6 and type(self).refusals:
            type(self).refusals -= 1
            raise ValueError("not six")
        return sum(accumulator)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("fusion", [True, False])
@pytest.mark.parametrize(("refusals", "retries", "dead"), [(2, 2, 0), (3, 2, 1), (1, 0, 1)])
def test_a_result_that_raises_does_not_add_the_item_again(
    tmp_path: Path, asynchronous: bool, fusion: bool, refusals: int, retries: int, dead: int
) -> None:
    class Later(Reluctant):
        async def add(self, accumulator: list[int], item: int) -> list[int]:  # type: ignore[override]
            return super().add(accumulator, item)

    function: type[Reluctant] = Later if asynchronous else Reluctant
    function.refusals = refusals
    out: list[Any] = []
    env = environment(tmp_path, fusion=fusion)
    keyed = env.from_collection([1, 2, 3, 4]).key_by(lambda item: "k")
    policy = Contract(io=IOSpec(errors=ErrorPolicy(retries=retries, delay_s=0)))
    keyed.aggregate(function, contract=policy, name="sum").sink(out.append)
    result = finished(env)
    sums = [total for _, total in out]
    assert sums == ([1, 3, 10] if dead else [1, 3, 6, 10])
    assert result.dead_letters == dead
    assert [(letter.item, letter.attempts) for letter in letters(tmp_path)] == [("3", retries + 1)] * dead
    counted = {found.operator: found for found in result.metrics.operators}["sum"]
    assert (counted.items_in, counted.items_out, counted.errors) == (4, 4 - dead, refusals)


def test_a_job_that_fails_has_counted_what_it_had_begun(tmp_path: Path) -> None:
    def fails(item: int) -> int:
        return 1 // (item - 500)

    env = environment(tmp_path)
    strict = Contract(io=IOSpec(errors=ErrorPolicy(on_error=OnError.FAIL)))
    kept: list[int] = []
    stream = env.from_collection(range(1000)).filter(lambda item: item % 2 == 0, name="even")
    stream.map(fails, contract=strict, name="fails").sink(kept.append, name="end")
    job = env.submit(wait=False)
    with pytest.raises(Exception, match="ZeroDivisionError"):
        job.wait(10)
    metrics = job.metrics()
    counted = {found.operator: (found.items_in, found.items_out) for found in metrics.operators}
    assert len(kept) == 250
    assert counted == {"collection": (501, 501), "even": (501, 251), "fails": (251, 250), "end": (250, 250)}
    assert metrics.items_in == 501


class Plain(MapFunction[int, int]):
    def execute(self, item: int) -> int:
        return item


def test_print_and_collections_take_what_every_operator_takes(capsys: pytest.CaptureFixture[str]) -> None:
    contract = Contract(io=IOSpec(queue_capacity=3))
    env = LocalEnvironment("facts")
    env.from_batch([1, 2], parallelism=2, contract=contract, name="two").print(
        "> ", parallelism=2, contract=contract, name="shown"
    )
    env.from_collection([3], contract=contract).map(Plain).print()
    plan = env.compile()
    assert {task.id.partition("[")[0] for task in plan.tasks} == {"two", "shown", "collection"}
    assert env.graph["shown"].contract is env.graph["two"].contract is env.graph["collection"].contract
    env.submit()
    assert sorted(capsys.readouterr().out.splitlines()) == ["3", "> 1", "> 2"]
