"""`connect` + `comap`: two streams into one operator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters
from executions import ExecutionKind
from pydantic import BaseModel

from sage.common.errors import ConfigError
from sage.kernel.api import (
    CoMapFunction,
    ConnectedStreams,
    Contract,
    ErrorPolicy,
    IOSpec,
    LocalEnvironment,
    MapFunction,
    PipelineError,
)
from sage.kernel.graph import TypeMismatchError


class Rate(CoMapFunction[tuple[str, int], tuple[str, int], Any]):
    """Keeps the newest rate of each key and prices orders with it."""

    class Config(BaseModel, extra="forbid"):
        start: int = 1

    def execute1(self, item: tuple[str, int]) -> Any:
        return "order", item[0], item[1] * self.ctx.state.get("rate", self.config.start)

    def execute2(self, item: tuple[str, int]) -> Any:
        self.ctx.state["rate"] = item[1]
        return "rate", self.ctx.key, item[1]


class AsyncRate(Rate):
    async def execute1(self, item: tuple[str, int]) -> Any:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().execute1(item)

    async def execute2(self, item: tuple[str, int]) -> Any:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().execute2(item)


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize("capacity", [None, 1])
def test_each_item_meets_the_function_of_its_stream(
    execution: ExecutionKind, parallelism: int, capacity: int | None
) -> None:
    env = LocalEnvironment("two", {"queue_capacity": capacity, "watchdog_s": 10})
    first, second = env.from_collection(range(50)), env.from_collection(range(50))
    third = env.from_collection([100]).map(lambda n: n + 1)
    left = execution.operator(lambda n: ("left", n))
    right = execution.operator(lambda n: ("right", n))
    got = first.union(third).connect(second).comap(left, right, parallelism=parallelism).collect()
    assert sorted(got) == [("left", n) for n in [*range(50), 101]] + [("right", n) for n in range(50)]


@pytest.mark.parametrize("parallelism", [1, 2])
def test_one_stream_may_be_both(execution: ExecutionKind, parallelism: int) -> None:
    numbers = LocalEnvironment("self").from_collection([1, None, 0])
    double = numbers.connect(numbers).comap(
        execution.operator(lambda n: ("a", n)), execution.operator(lambda n: ("b", n)), parallelism=parallelism
    )
    assert sorted(double.collect(), key=repr) == sorted([(x, n) for x in "ab" for n in [1, None, 0]], key=repr)


@pytest.mark.parametrize("function", [Rate, AsyncRate])
@pytest.mark.parametrize("parallelism", [1, 3])
def test_both_methods_see_the_state_of_their_key(function: type[Rate], parallelism: int) -> None:
    """The rates come first: the orders are made out of what the first operator has put out for them."""
    env = LocalEnvironment("keyed")
    names = [f"c{number}" for number in range(20)]
    rates = env.from_collection([(name, 10 + number) for number, name in enumerate(names)]).key_by(lambda p: p[0])
    orders = env.from_collection([(name, 2) for name in names]).key_by(lambda p: p[0])
    priced = orders.connect(rates).comap(function, {"start": 7}, parallelism=parallelism)
    got = priced.collect()
    assert sorted(row for row in got if row[0] == "rate") == sorted(
        ("rate", name, 10 + number) for number, name in enumerate(names)
    )
    for kind, name, price in got:
        if kind == "order":
            assert price in (14, 2 * (10 + names.index(name)))
    # The order of one key decides: who came first is seen in the output, and the price agrees with it.
    for name in names:
        kinds = [row[0] for row in got if row[1] == name]
        price = next(row[2] for row in got if row[:2] == ("order", name))
        assert (price == 14) is (kinds == ["order", "rate"])


def test_outputs_keep_their_key(execution: ExecutionKind) -> None:
    env = LocalEnvironment("keys")
    evens = env.from_collection([2, 4]).key_by(lambda n: n % 2)
    odds = env.from_collection([1, 3, 5]).key_by(lambda n: n % 2)
    same = execution.operator(lambda n: n)
    counts = evens.connect(odds).comap(same, same, parallelism=2).count(emit="final", parallelism=2)
    assert sorted(counts.collect()) == [(0, 2), (1, 3)]


@pytest.mark.parametrize("retries", [0, 2])
def test_a_dead_letter_is_the_item_as_it_was(tmp_path: Path, execution: ExecutionKind, retries: int) -> None:
    env = environment(tmp_path)
    policy = ErrorPolicy(retries=retries, delay_s=0)
    out: list[Any] = []
    one = execution.operator(lambda n: 10 // n)
    other = execution.operator(lambda text: text.upper())
    stream = env.from_collection([0, 5]).connect(env.from_collection(["a", None]))
    stream.comap(one, other, contract=execution.contract(errors=policy), name="both").sink(out.append)
    assert finished(env).dead_letters == 2
    assert sorted(out, key=str) == [2, "A"]
    assert sorted((letter.item, letter.attempts) for letter in letters(tmp_path)) == [
        ("0", retries + 1),
        ("None", retries + 1),
    ]


def test_an_instance_works_and_state_is_shared_by_both_methods() -> None:
    class Counting(CoMapFunction[Any, Any, int]):
        def setup(self) -> None:
            self.calls = 0

        def execute1(self, item: Any) -> int:
            self.calls += 1
            return self.calls

        def execute2(self, item: Any) -> int:
            return self.execute1(item)

    env = LocalEnvironment("instance")
    assert sorted(env.from_collection("ab").connect(env.from_collection("c")).comap(Counting()).collect()) == [1, 2, 3]


class Half(CoMapFunction[Any, Any, Any]):
    def execute1(self, item: Any) -> Any:
        return item


class Underived:
    def execute1(self, item: Any) -> Any:
        return item


class Plain(MapFunction[int, int]):
    def execute(self, item: int) -> int:
        return item


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda both: both.comap(Half), "Half does not define execute2"),
        (lambda both: both.comap(Underived), "has an execute1.. but is no operator: derive it from CoMapFunction"),
        (lambda both: both.comap(Plain()), "comap needs a CoMapFunction, got Plain, which is a MapFunction"),
        (lambda both: both.comap(Plain, len), "takes two functions"),
        (lambda both: both.comap(len), "takes two functions, one for each stream, .*got one function"),
        (lambda both: both.comap(len, 3), "takes two functions, .*got 3"),
        (lambda both: both.comap(Rate, len), "has the functions of both streams"),
        (lambda both: both.comap(len, len, {"a": 1}), "config goes with an operator class"),
        (lambda both: both.comap(len, len, parallelism=0), "parallelism must be a whole number >= 1"),
    ],
)
def test_what_cannot_be_a_comap_is_refused(declare: Callable[[ConnectedStreams[Any]], Any], message: str) -> None:
    env = LocalEnvironment("refused")
    both = env.from_collection([1]).connect(env.from_collection([2]))
    with pytest.raises(PipelineError, match=message) as refused:
        declare(both)
    assert "test_connect.py:" in str(refused.value)


def test_streams_that_do_not_go_together_are_refused() -> None:
    env = LocalEnvironment("one")
    stream = env.from_collection([1])
    with pytest.raises(PipelineError, match="connect joins streams of one environment, got one of 'other'"):
        stream.connect(LocalEnvironment("other").from_collection([1]))
    with pytest.raises(PipelineError, match=r"connect takes streams, got \[1\]"):
        stream.connect([1])  # type: ignore[arg-type]
    with pytest.raises(PipelineError, match="the second has none: call key_by"):
        stream.key_by(lambda n: n).connect(stream)
    with pytest.raises(PipelineError, match="the first has none: call key_by"):
        stream.connect(stream.key_by(lambda n: n))
    with pytest.raises(ConfigError, match="unknown config key 'stat'"):
        stream.connect(stream).comap(Rate, {"stat": 1})


def of_text(text: str) -> str:
    return text


def of_number(number: int) -> int:
    return number


def test_types_are_checked_for_each_side() -> None:
    env = LocalEnvironment("typed")
    numbers, texts = env.from_collection([1]).map(of_number), env.from_collection(["a"]).map(of_text)
    assert sorted(map(str, texts.connect(numbers).comap(of_text, of_number).collect())) == ["1", "a"]
    with pytest.raises(TypeMismatchError, match="'of_number-2' takes int, but 'of_text' gives str|takes int, but"):
        texts.connect(numbers).comap(of_number, of_number).collect()
    with pytest.raises(TypeMismatchError, match="takes str, but"):
        texts.connect(numbers).comap(of_text, of_text).collect()


def test_the_plan_tells_both_inputs() -> None:
    env = LocalEnvironment("plan")
    first, second = (env.from_collection([1]).key_by(lambda n: n) for _ in range(2))
    both = first.connect(second).comap(len, len, parallelism=2, name="both", contract=Contract(io=IOSpec()))
    both.sink(print)
    plan = env.compile()
    assert sorted((edge.input_index, str(edge.routing)) for edge in plan.incoming("both[0]")) == [
        (0, "key_hash"),
        (1, "key_hash"),
    ]
    texts = [note.text for note in plan.notes if note.subject == "both" and note.compiler_pass == "fuse"]
    assert texts == ["begins a task: it has several inputs"]
