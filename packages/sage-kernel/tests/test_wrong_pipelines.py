"""Pipelines that a newcomer writes and that cannot be run: the message says what was meant, and names the line."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters

from sage.common.errors import InvalidArgumentError
from sage.kernel.api import (
    AggregateFunction,
    Batching,
    CoMapFunction,
    Contract,
    ErrorPolicy,
    Execution,
    FlatMapFunction,
    IOSpec,
    LocalEnvironment,
    MapFunction,
    OnError,
    PipelineError,
    ReduceFunction,
    Resources,
    SinkFunction,
    SourceFunction,
    StateKind,
    StateSpec,
)
from sage.kernel.api.misnomers import NoSuchMethodError


def numbers() -> Any:
    """A stream of numbers; `Any`, because a type checker would see what is wrong with it."""
    return LocalEnvironment("tested").from_collection([1, 2])


def generate(item: Any) -> Iterator[Any]:
    yield item


class Bare:
    """A class that derives from nothing."""

    def execute(self, item: Any) -> Any:
        return item


class TwoItems(MapFunction[Any, Any]):
    def execute(self, item: Any, other: Any) -> Any:  # type: ignore[override]  # what the test is about
        return item


class YieldingSink(SinkFunction[Any]):
    def execute(self, item: Any) -> Any:
        yield item


class AddsNothing(AggregateFunction[Any, Any, Any]):
    def create(self) -> Any:
        return 0

    def add(self, accumulator: Any) -> Any:  # type: ignore[override]  # what the test is about
        return accumulator


class OneSided(CoMapFunction[Any, Any, Any]):
    def execute1(self, item: Any) -> Any:
        return item

    def execute2(self) -> Any:  # type: ignore[override]  # what the test is about
        return None


class TakesItem(SourceFunction[Any]):
    def execute(self, item: Any) -> Any:  # type: ignore[override]  # what the test is about
        return [item]


# -- a function that cannot be called as it will be --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: numbers().map(lambda a, b: a), r"one argument, the item, which <lambda>\(a, b\) .*tuple comes whole"),
        (lambda: numbers().map(lambda: 1), r"one argument, the item, which <lambda>\(\) cannot take \(operator"),
        (lambda: numbers().flatmap(lambda *, item: []), r"which <lambda>\(\*, item\) cannot take"),
        (lambda: numbers().filter(operator.lt), r"which lt\(a, b, /\) cannot take"),
        (lambda: numbers().key_by(functools.partial(lambda a, b: a, 1, 2)), r"key_by calls its function with one"),
        (lambda: numbers().sink(lambda: None), "sink calls its function with one argument"),
        (lambda: numbers().map(type("Plain", (), {})), "a class is called as a function"),
        (lambda: numbers().map(TwoItems), r"execute\(self, item: 'Any', other: 'Any'\)|TwoItems.execute"),
        (lambda: numbers().map(TwoItems()), "map calls its function with one argument"),
        (lambda: numbers().key_by(abs).reduce(lambda a: a), "two arguments, what has been folded so far and the item"),
        (lambda: numbers().key_by(abs).aggregate(lambda key: 0, operator.add), "with no argument, which|no argument"),
        (lambda: numbers().key_by(abs).aggregate(0, abs), "two arguments, the accumulator and the item, which abs"),
        (lambda: numbers().key_by(abs).aggregate(0, operator.add, lambda: 0), "one argument, the accumulator"),
        (lambda: numbers().key_by(abs).aggregate(AddsNothing), "two arguments, the accumulator and the item"),
        (lambda: numbers().distinct(lambda: 1), "filter calls its function with one argument"),
        (lambda: numbers().split({"a": lambda: True}), "split calls its function with one argument"),
        (lambda: LocalEnvironment("t").from_source(lambda name: [name]), "source calls its function with no argument"),
        (lambda: LocalEnvironment("t").from_source(TakesItem), "source calls its function with no argument"),
        (lambda: _both(lambda a, b: a.connect(b).comap(abs, lambda: 1)), "comap calls its function with one argument"),
        (lambda: _both(lambda a, b: a.connect(b).comap(OneSided)), "comap calls its function with one argument"),
        (lambda: _both(lambda a, b: a.join(b, lambda left: left), keyed=True), "the left item and the right item"),
    ],
)
def test_functions_with_other_parameters_are_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message) as caught:
        build()
    assert "test_wrong_pipelines.py:" in str(caught.value)


def _both(use: Callable[[Any, Any], Any], *, keyed: bool = False) -> Any:
    env = LocalEnvironment("tested")
    one, other = env.from_collection([1]), env.from_collection([2])
    return use(one.key_by(abs), other.key_by(abs)) if keyed else use(one, other)


def _injecting(function: Callable[..., Any]) -> Callable[[Any], Any]:
    @functools.wraps(function)
    def inner(item: Any) -> Any:
        return function("client", item)

    return inner


class _Static(MapFunction[Any, Any]):
    @staticmethod
    def execute(item: Any) -> Any:  # type: ignore[override]  # a static method can be called likewise
        return item


class _Called:
    def __call__(self, item: Any, scale: int = 1) -> Any:
        return item


@dataclass
class _Record:
    number: int
    name: str = ""


@pytest.mark.parametrize(
    "function",
    [
        str,
        int,
        abs,
        print,
        [].append,
        {}.get,
        "a".join,
        _injecting(lambda client, item: item),
        functools.lru_cache(lambda item: item),
        functools.partial(pow, 2),
        lambda *items: items,
        lambda item, other=1: item,
        _Static,
        _Called(),
        _Record,
        operator.itemgetter(0),
        operator.methodcaller("upper"),
    ],
)
def test_what_can_be_called_with_an_item_is_taken(function: Any) -> None:
    numbers().map(function)


@pytest.mark.parametrize("kind", ["map", "filter", "key_by", "sink"])
def test_generator_functions_are_for_flatmap(kind: str) -> None:
    with pytest.raises(PipelineError, match=rf"{kind} cannot use the generator function .*generate.*use flatmap"):
        getattr(numbers(), kind)(generate)
    numbers().flatmap(generate)


def test_methods_that_yield_are_refused_too() -> None:
    with pytest.raises(PipelineError, match="runs nothing"):
        numbers().sink(YieldingSink)
    with pytest.raises(PipelineError, match="runs nothing"):
        numbers().map(generate, batch=Batching(size=2))

    class Fine(FlatMapFunction[Any, Any]):
        def execute(self, item: Any) -> Any:
            yield item

    class Folds(ReduceFunction[Any]):
        def execute(self, so_far: Any, item: Any) -> Any:
            yield so_far

    assert numbers().flatmap(Fine).collect() == [1, 2]
    with pytest.raises(PipelineError, match="reduce cannot use the generator function"):
        numbers().key_by(abs).reduce(Folds)


@pytest.mark.parametrize("method", [list.append, set.add, dict.update])
def test_an_add_that_returns_nothing_is_refused(method: Any) -> None:
    with pytest.raises(PipelineError, match=rf"add .* new accumulator, \w+\.{method.__name__} returns None"):
        numbers().key_by(abs).aggregate(method.__objclass__, method)


# -- what is no function ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("name", r"lambda item: item\['name'\]"),
        (None, "pass the function itself, not what a call of it returns"),
        (3, "pass the function itself"),
        ({1}, "pass the function itself"),
        (Bare(), r"it has an execute\(\) and is no function, derive Bare from a function base"),
    ],
)
def test_the_message_guesses_what_was_meant(target: Any, hint: str) -> None:
    with pytest.raises(PipelineError, match=f"needs a class, an instance or a function, got .*: .*{hint}"):
        numbers().map(target)


def test_an_argument_too_many_is_named() -> None:
    with pytest.raises(PipelineError, match=r"config goes with an operator class; .* got config 2 \(operator 'abs'"):
        numbers().map(abs, 2)


def test_a_file_name_is_no_source() -> None:
    with pytest.raises(PipelineError, match=r"FileSource, \{\"file_path\": 'notes.txt'\}"):
        LocalEnvironment("tested").from_source("notes.txt")


# -- methods that are not there ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "hint"),
    [
        (lambda: numbers().reduce(max), r"call key_by\(...\) before it"),
        (lambda: _both(lambda a, b: a.union(b).count(), keyed=True), "no keys"),
        (lambda: numbers().join(numbers()), "no keys"),
        (lambda: numbers().flat_map(list), "it is called flatmap here"),
        (lambda: numbers().submit(), r"end the stream with .sink\(...\) or .print\(\), and call submit\(\)"),
        (lambda: numbers().colect(), "did you mean 'collect'"),
        (lambda: numbers().sink(print).map(abs), r"sink\(...\) and print\(\) end a stream and return the environment"),
        (lambda: numbers().print().collect(), "return the environment"),
        (lambda: numbers().sink(print).run(), r"run by submit\(\)"),
        (lambda: LocalEnvironment("t").from_colection([1]), "did you mean 'from_collection'"),
        (lambda: _both(lambda a, b: a.connect(b).map(abs)), r"say with comap\(...\) what becomes"),
        (lambda: numbers().split({"a": bool}).map(abs), r"take one by its name: parts\['name'\]"),
        (lambda: numbers().quantum(), "no attribute 'quantum' "),
    ],
)
def test_a_method_that_is_not_there_is_explained(use: Callable[[], Any], hint: str) -> None:
    with pytest.raises(NoSuchMethodError, match=hint) as caught:
        use()
    assert isinstance(caught.value, AttributeError)
    assert "test_wrong_pipelines.py:" in str(caught.value)


def test_streams_are_objects_like_others() -> None:
    stream = numbers()
    assert not hasattr(stream, "reduce")
    assert not hasattr(stream, "_nothing")
    assert getattr(stream, "quantum", None) is None
    with pytest.raises(TypeError):
        iter(stream)


# -- other wrong causes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("text", "a list, a tuple or a range is divided among replicas, a str is not"),
        ({1}, "a set is not"),
        ({"a": 1}, "a dict is not"),
        (iter([1]), "the list_iterator can be read only once"),
        (generate, "gives all its items to one reader"),
    ],
)
def test_why_a_source_has_one_replica(items: Any, message: str) -> None:
    env = LocalEnvironment("tested")
    make: Any = (lambda: generate(1)) if items is generate else None
    stream = env.from_source(make, parallelism=2) if make else env.from_collection(items, parallelism=2)
    with pytest.raises(PipelineError, match=f"parallelism 2 is not possible: .*{message}"):
        stream.sink(print).compile()  # type: ignore[attr-defined]  # the environment is a LocalEnvironment


@pytest.mark.parametrize(
    ("item", "key", "message"),
    [
        ({"a": 1}, None, r"hashable items, got dict: give it key=.*\(unhashable type: 'dict'\)"),
        ((1, [2]), None, r"hashable items, got tuple: .*\(unhashable type: 'list'\)"),
        ((1, 2), list, r"hashable keys, got list: let key= make .*\(unhashable type: 'list'\)"),
    ],
)
@pytest.mark.parametrize("keyed", [False, True])
def test_distinct_names_what_cannot_be_hashed(tmp_path: Path, keyed: bool, item: Any, key: Any, message: str) -> None:
    env = environment(tmp_path)
    stream: Any = env.from_collection([item])
    (stream.key_by(lambda item: 1) if keyed else stream).distinct(key).sink(print)
    finished(env)
    with pytest.raises(ValueError, match=message):
        raise ValueError(letters(tmp_path)[0].error)


def test_state_without_a_key_is_called_by_its_name(tmp_path: Path) -> None:
    class Keeps(MapFunction[Any, Any]):
        def execute(self, item: Any) -> Any:
            return self.ctx.state.get("seen")

    env = environment(tmp_path)
    env.from_collection([1]).key_by(abs).union(env.from_collection([2])).map(Keeps).sink(print)
    finished(env)
    assert "asked for ctx.state" in letters(tmp_path)[0].error
    assert "union, interleave, broadcast and rebalance forget the key" in letters(tmp_path)[0].error


def test_two_environments_of_one_name_are_two() -> None:
    with pytest.raises(PipelineError, match="streams of two that are both called 'tested'"):
        numbers().union(numbers())


def test_choices_of_a_contract_may_be_texts() -> None:
    made: Any = Contract(execution="process", state=StateSpec(kind="stateful"))  # type: ignore[arg-type]
    assert made.execution is Execution.PROCESS
    assert made.state.kind is StateKind.STATEFUL
    assert ErrorPolicy(on_error="fail").on_error is OnError.FAIL  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Contract(execution="proces"), "contract.execution must be one of 'auto', .*, got 'proces'"),  # type: ignore[arg-type]
        (lambda: Contract(io=ErrorPolicy()), r"contract.io must be an IOSpec.*ErrorPolicy stands in io"),  # type: ignore[arg-type]
        (lambda: Contract(resources=4), "contract.resources must be a Resources, got 4"),  # type: ignore[arg-type]
        (lambda: Contract(cpu_bound="yes"), "contract.cpu_bound must be a bool, got 'yes'"),  # type: ignore[arg-type]
        (lambda: IOSpec(errors=3), "io.errors must be an ErrorPolicy, got 3"),  # type: ignore[arg-type]
        (lambda: ErrorPolicy(backoff="linear"), "errors.backoff must be one of 'fixed', 'exponential'"),  # type: ignore[arg-type]
    ],
)
def test_a_contract_is_checked_when_it_is_made(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        make()


def test_the_plan_says_that_concurrency_is_for_async_functions() -> None:
    env = LocalEnvironment("tested")
    env.from_collection([1]).map(abs, contract=Contract(resources=Resources(concurrency=8))).sink(print)
    said = [note.text for note in env.compile().notes if (note.compiler_pass, note.subject) == ("execution", "abs")]
    assert "only async functions have several items in work at once: parallelism=8 gives as many" in said[0]
