"""What users hand over that cannot be used: each gets a clear error or a dead letter."""

from __future__ import annotations

import asyncio
import operator
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import SCRATCH, environment, finished, letters
from executions import ExecutionKind

from sage.kernel.api import (
    BadRecord,
    DeadLettersError,
    ErrorPolicy,
    JobFailedError,
    LocalEnvironment,
    MapFunction,
    PipelineError,
    SinkFunction,
)

# -- values and keys ---------------------------------------------------------------------------------------------------

VALUES: list[Any] = [None, 0, "", False, 0.0, (), [], {}, b"", -1]


@pytest.mark.parametrize("fusion", [True, False])
def test_empty_values_are_values(execution: ExecutionKind, tmp_path: Path, fusion: bool) -> None:
    env = environment(tmp_path, fusion=fusion)
    contract = execution.contract(concurrency=1)
    stream = env.from_collection(VALUES).map(execution.operator(lambda v: v, -1), contract=contract)
    stream = stream.filter(execution.operator(lambda v: True, -1), contract=contract)
    stream = stream.flatmap(execution.operator(lambda v: [v], -1), contract=contract)
    got = stream.collect()
    assert [repr(value) for value in got] == [repr(value) for value in VALUES]


def test_empty_keys_are_keys(execution: ExecutionKind, tmp_path: Path) -> None:
    env = environment(tmp_path)
    keys = [None, 0, "", (), b"", -1]
    counted = (
        env.from_collection(keys * 3)
        .key_by(execution.operator(lambda key: key, -1), name="key")
        .aggregate(0, lambda count, _: count + 1, emit="final", parallelism=3)
        .collect()
    )
    assert sorted(counted, key=repr) == sorted([(key, 3) for key in keys], key=repr)


@pytest.mark.parametrize("parallelism", [1, 3])
def test_equal_keys_are_one_key(tmp_path: Path, parallelism: int) -> None:
    env = environment(tmp_path)
    counted = (
        env.from_collection([1, 1.0, True, 0, 0.0, -0.0, False])
        .key_by(lambda key: key)
        .aggregate(0, lambda count, _: count + 1, emit="final", parallelism=parallelism)
        .collect()
    )
    assert sorted(count for _, count in counted) == [3, 4]


@pytest.mark.parametrize("fusion", [True, False])
@pytest.mark.parametrize(
    ("key", "message"),
    [
        ([1], "must be hashable, got list"),
        ({"a": 1}, "must be hashable, got dict"),
        ({1}, "use a frozenset"),
        (([],), "by"),
        (float("nan"), "cannot be used, got nan"),
        (("a", float("nan")), "cannot be used"),
        (object(), "cannot be used, got <object"),
    ],
)
def test_a_key_that_cannot_be_one_is_a_dead_letter(
    execution: ExecutionKind, tmp_path: Path, fusion: bool, key: Any, message: str
) -> None:
    env = environment(tmp_path, fusion=fusion)
    by = execution.operator(lambda n: key if n == 2 else n, -1)
    out = env.from_collection([1, 2, 3]).key_by(by, name="by").map(lambda n: n).collect(allow_dead_letters=True)
    assert sorted(out) == [1, 3]
    (letter,) = letters(tmp_path)
    assert letter.operator == "by"
    assert letter.item == "2"
    assert message in letter.error


def test_the_error_of_a_key_function_is_its_own(tmp_path: Path) -> None:
    """A TypeError out of a builtin, right behind a key that was refused: each gets its own message."""
    env = environment(tmp_path)
    env.from_collection([([1],), 5]).key_by(operator.itemgetter(0)).map(lambda n: n).collect(allow_dead_letters=True)
    first, second = letters(tmp_path)
    assert "must be hashable, got list" in first.error
    assert "must be hashable" not in second.error


async def _true(item: Any) -> bool:
    return True


@pytest.mark.parametrize("kind", ["map", "filter", "key_by", "sink", "flatmap", "reduce", "aggregate"])
@pytest.mark.parametrize("fusion", [True, False])
def test_a_coroutine_out_of_a_lambda_is_refused(tmp_path: Path, kind: str, fusion: bool) -> None:
    env = environment(Path(SCRATCH or tmp_path) / tmp_path.name, fusion=fusion)
    stream = env.from_collection(range(500), name="numbers")

    def fails(item: Any) -> Any:
        return _true(item)

    def end(item: Any) -> None:
        pass

    match kind:
        case "sink":
            stream.sink(fails, name="it")
        case "reduce":
            stream.key_by(lambda n: 0).reduce(lambda one, two: _true(two), name="it").sink(end)
        case "aggregate":
            stream.key_by(lambda n: 0).aggregate(0, lambda one, two: _true(two), name="it").sink(end)
        case _:
            arguments = {"name": "it"}
            getattr(stream, kind)(fails, **arguments).sink(end)
    try:
        result = finished(env)
        found = letters(env.config.home)
    finally:
        shutil.rmtree(env.config.home)
    assert result.dead_letters == (499 if kind == "reduce" else 500), "all of them, not only those of the first batch"
    assert all(letter.operator == "it" and "async def" in letter.error for letter in found)


def test_async_generators(tmp_path: Path) -> None:
    async def words(line: str) -> Any:
        for word in line.split():
            await asyncio.sleep(0)
            yield word

    env = environment(tmp_path)
    assert sorted(env.from_collection(["a b", "", "c"]).flatmap(words).collect()) == ["a", "b", "c"]


def test_async_generators_where_they_cannot_be_used_are_refused(tmp_path: Path) -> None:
    async def words(line: str = "") -> Any:
        yield line

    env = environment(tmp_path)
    with pytest.raises((PipelineError, JobFailedError, DeadLettersError), match=r"(?i)generator|coroutine|iterable"):
        env.from_collection(["a"]).map(words).collect()


def _endless() -> Iterator[int]:
    while True:
        yield 1


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (None, "did you forget to return"),
        ("ab", "must return an iterable of items, got str 'ab'"),
        (b"ab", "got bytes"),
        (5, "got int 5"),
        ({"a": 1}, "got dict"),
        ("endless", "gave more than 100000 outputs"),
    ],
)
def test_what_flatmap_cannot_use(execution: ExecutionKind, tmp_path: Path, output: Any, message: str) -> None:
    def give(number: int) -> Any:
        if number != 2:
            return [number]
        return _endless() if output == "endless" else output

    env = environment(tmp_path)
    stream = env.from_collection([1, 2, 3]).flatmap(execution.operator(give, -1), contract=execution.contract())
    assert sorted(stream.collect(allow_dead_letters=True)) == [1, 3]
    (letter,) = letters(tmp_path)
    assert message in letter.error


def test_flatmap_outputs_are_passed_on_all_or_none(execution_here: ExecutionKind, tmp_path: Path) -> None:
    attempts: list[int] = []

    def torn(number: int) -> Iterator[int]:
        attempts.append(number)
        yield number
        yield number
        if len(attempts) == 1:
            raise ValueError("in the middle")

    env = environment(tmp_path)
    errors = ErrorPolicy(retries=1, delay_s=0)
    if not execution_here.is_async:
        function: Any = torn
    else:

        async def function(number: int) -> list[int]:
            return list(torn(number))

    out = env.from_collection([7]).flatmap(function, contract=execution_here.contract(errors=errors)).collect()
    assert out == [7, 7]


# -- pipelines that are none -------------------------------------------------------------------------------------------


def _here() -> str:
    return "test_bad_input.py:"


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda env: env.submit(), "is empty"),
        (lambda env: (env.from_collection([1], name="numbers"), env.submit()), "stream of 'numbers' goes nowhere"),
        (
            lambda env: (env.from_collection([1]).map(len, name="dangling"), env.submit()),
            "stream of 'dangling' goes nowhere",
        ),
        (lambda env: env.from_collection([1]).map(5), "map needs a class, an instance or a function, got 5"),
        (lambda env: env.from_collection([1]).map(Sink), "map needs a MapFunction, got Sink, which is a SinkFunction"),
        (lambda env: env.from_collection([1]).map(Abstract), "Abstract does not define execute"),
        (lambda env: env.from_collection([1]).map(len, {"a": 1}), "config goes with an operator class"),
        (
            lambda env: env.from_collection([1]).map(len, parallelism=0),
            "parallelism must be a whole number >= 1, got 0",
        ),
        (lambda env: env.from_collection([1]).map(len, parallelism=True), "got True"),
        (lambda env: env.from_collection([1]).map(len, parallelism=1.5), "got 1.5"),
        (lambda env: env.from_collection([1]).map(len, contract=3), "contract must be a Contract, got 3"),
        (lambda env: env.from_collection([1]).map(len, name=""), "an operator name is made of"),
        (lambda env: env.from_collection([1]).map(len, name="a\nb"), "an operator name is made of"),
        (lambda env: env.from_collection([1]).map(len, name="n").map(len, name="n"), "names must be unique, got 'n'"),
        (lambda env: env.from_collection(5), "from_collection takes an iterable, got 5"),
        (lambda env: env.from_batch("ab"), "from_batch takes a list"),
        (lambda env: env.from_source([1]), "from_source takes a source class"),
        (lambda env: env.from_collection([1]).union(5), "union takes streams, got 5"),
        (
            lambda env: env.from_collection([1]).union(LocalEnvironment("other").from_collection([1])),
            "union joins streams of one environment",
        ),
        (lambda env: env.from_collection([1]).key_by(len).aggregate([], max), "would share the list"),
        (lambda env: env.from_collection([1]).key_by(len).aggregate(0, 5), "aggregate takes a function as add, got 5"),
        (lambda env: env.from_collection([1]).key_by(len).reduce(max, emit="never"), "emit must be 'each' or 'final'"),
        (lambda env: env.from_collection(iter([1]), parallelism=2).sink(len).submit(), "can be read only once"),
    ],
)
def test_wrong_pipelines(tmp_path: Path, declare: Callable[[LocalEnvironment], Any], message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        declare(environment(tmp_path))
    assert message in str(caught.value)
    if message != "is empty":
        assert _here() in str(caught.value), "the message names the line of the user's file"


async def _true_of_two(one: Any, two: Any) -> bool:
    return True


class Sink(SinkFunction[Any]):
    """A sink."""

    def execute(self, item: Any) -> None:
        """Takes it."""


class Abstract(MapFunction[Any, Any]):
    """Nothing in it."""


def test_an_operator_called_collect(tmp_path: Path) -> None:
    def collect(number: int) -> int:
        return number

    assert environment(tmp_path).from_collection([1]).map(collect).collect() == [1]


@pytest.mark.parametrize("name", ["", "  ", 5])
def test_environment_names(name: Any) -> None:
    with pytest.raises(PipelineError, match="needs a name that is not empty"):
        LocalEnvironment(name)


def test_a_generator_function_may_yield_bad_records(tmp_path: Path) -> None:
    env = environment(tmp_path)

    def records() -> Iterator[Any]:
        yield 1
        yield BadRecord("line 2", ValueError("torn"))
        yield 3

    out: list[Any] = []
    env.from_source(records, name="records").sink(out.append)
    assert finished(env).dead_letters == 1
    assert out == [1, 3]
    assert [(letter.operator, letter.item, letter.error) for letter in letters(tmp_path)] == [
        ("records", "'line 2'", "torn")
    ]
