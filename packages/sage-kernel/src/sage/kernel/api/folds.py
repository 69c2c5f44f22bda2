"""What a keyed stream can fold: `reduce`, `aggregate`, and the ready-made `count`, `sum`, `min`, `max`, `mean`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import partial
from numbers import Number
from typing import Any, Self

from sage.kernel.graph import Contract, Emit, OperatorKind, PipelineError
from sage.kernel.operators import AggregateSpec, Function, builtin_aggregate
from sage.kernel.operators.calling import changes_only
from sage.kernel.operators.folds import same

from .base_stream import BaseStream, Config
from .declare import user_location

__all__ = ["KeyedFolds"]


class KeyedFolds(BaseStream):
    """The folds of a keyed stream; each keeps one value per key until the job ends.

    Each takes `emit`: "each" gives what has been folded so far after each item, "final" once per key at the end of the
    stream; and `parallelism` (replicas; each owns some of the keys), `contract` and `name`.
    """

    def reduce(
        self,
        function: Any,
        config: Config | None = None,
        *,
        emit: str = "each",
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> Self:
        """Folds the items of each key: `function(so_far, item)`; the first item of a key is its first
        `so_far`.

        Args:
            function: folds two into one: a function, or a `ReduceFunction` class or instance.
            config: of a class.
            emit: "each" gives what has been folded so far after each item, "final" once per key at the end of
                the stream.
            parallelism: replicas; each owns some of the keys.
            contract: what the operator needs, keeps and promises.
            name: unique in the pipeline.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> stream = LocalEnvironment("demo").from_collection([1, 2, 3, 4]).key_by(lambda n: n % 2)
            >>> stream.reduce(max, emit="final").collect()
            [3, 4]
        """
        facts: dict[str, Any] = {"parallelism": parallelism, "contract": contract, "name": name}
        return self._fold(OperatorKind.REDUCE, function, config, emit, facts)

    def aggregate(
        self,
        create: Any,
        add: Any = None,
        result: Any = None,
        *,
        config: Config | None = None,
        emit: str = "each",
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> Self:
        """Folds the items of each key into an accumulator and emits `(key, result)`.

        Args:
            create: makes the accumulator of a new key (`int`, `list`, a function), or an immutable first
                value (0, "", ()); or an `AggregateFunction` class or instance, which has all three.
            add: `add(accumulator, item)` returns the new accumulator. Behind a class its config may stand here.
            result: what an accumulator is turned into before it is emitted; None emits it as it is.
            config: of a class.
            emit: "each" after each item, "final" once per key at the end of the stream.
            parallelism: replicas; each owns some of the keys.
            contract: what the operator needs, keeps and promises.
            name: unique in the pipeline.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> words = LocalEnvironment("demo").from_collection("to be or not to be".split())
            >>> by_word = words.key_by(lambda word: word)
            >>> by_word.aggregate(0, lambda count, word: count + 1, emit="final").collect()
            [('to', 2), ('be', 2), ('or', 1), ('not', 1)]
        """
        facts: dict[str, Any] = {"parallelism": parallelism, "contract": contract, "name": name}
        if _is_function(create):
            if isinstance(add, Mapping) and config is None:
                add, config = None, add
            if add is not None or result is not None:
                raise PipelineError(
                    f"an AggregateFunction has its own add and result: give aggregate nothing but its config "
                    f"({user_location()})"
                )
            return self._fold(OperatorKind.AGGREGATE, create, config, emit, facts)
        if config is not None:
            raise PipelineError(f"config goes with an AggregateFunction class, got {create!r} ({user_location()})")
        return self._fold(OperatorKind.AGGREGATE, _spec(create, add, result), None, emit, facts)

    def count(
        self,
        *,
        emit: str = "each",
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> Self:
        """Counts the items of each key; emits `(key, count)`.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> words = LocalEnvironment("demo").from_collection("to be or not to be".split())
            >>> words.key_by(lambda word: word).count(emit="final").collect()
            [('to', 2), ('be', 2), ('or', 1), ('not', 1)]
        """
        return self._ready_made("count", None, emit, {"parallelism": parallelism, "contract": contract, "name": name})

    def sum(
        self,
        field: Any = None,
        *,
        emit: str = "each",
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> Self:
        """Adds up the items of each key, beginning with 0; emits `(key, sum)`.

        Args:
            field: None adds the items themselves, a name or a position `item[field]`, a function what it returns.
            emit: "each" after each item, "final" once per key at the end of the stream.
            parallelism: replicas; each owns some of the keys.
            contract: what the operator needs, keeps and promises.
            name: unique in the pipeline.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> pairs = LocalEnvironment("demo").from_collection([("a", 1), ("b", 5), ("a", 2)])
            >>> pairs.key_by(lambda pair: pair[0]).sum(1).collect()
            [('a', 1), ('b', 5), ('a', 3)]
        """
        return self._ready_made("sum", field, emit, {"parallelism": parallelism, "contract": contract, "name": name})

    def min(
        self,
        field: Any = None,
        *,
        emit: str = "each",
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> Self:
        """Keeps the smallest value of each key; emits `(key, smallest)`. The arguments are those of `sum`.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> prices = LocalEnvironment("demo").from_collection([{"eur": 3}, {"eur": 2}, {"eur": 4}])
            >>> prices.key_by(lambda item: "all").min("eur").collect()
            [('all', 3), ('all', 2), ('all', 2)]
        """
        return self._ready_made("min", field, emit, {"parallelism": parallelism, "contract": contract, "name": name})

    def max(
        self,
        field: Any = None,
        *,
        emit: str = "each",
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> Self:
        """Keeps the largest value of each key; emits `(key, largest)`. The arguments are those of `sum`.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> words = LocalEnvironment("demo").from_collection(["a", "ccc", "bb"])
            >>> words.key_by(lambda word: "all").max(len, emit="final").collect()
            [('all', 3)]
        """
        return self._ready_made("max", field, emit, {"parallelism": parallelism, "contract": contract, "name": name})

    def mean(
        self,
        field: Any = None,
        *,
        emit: str = "each",
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> Self:
        """Averages the values of each key; emits `(key, mean)`. The arguments are those of `sum`.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> numbers = LocalEnvironment("demo").from_collection([1, 2, 6])
            >>> numbers.key_by(lambda n: "all").mean().collect()
            [('all', 1.0), ('all', 1.5), ('all', 3.0)]
        """
        return self._ready_made("mean", field, emit, {"parallelism": parallelism, "contract": contract, "name": name})

    def _ready_made(self, fold: str, field: Any, emit: str, facts: dict[str, Any]) -> Self:
        try:
            spec = builtin_aggregate(fold, field)
        except PipelineError as error:
            raise PipelineError(f"{error} ({user_location()})") from None
        return self._fold(OperatorKind.AGGREGATE, spec, None, emit, {**facts, "default_name": fold})

    def _fold(
        self, kind: OperatorKind, target: Any, config: Config | None, emit: str, facts: Mapping[str, Any]
    ) -> Self:
        if emit not in tuple(Emit):
            raise PipelineError(f"emit must be 'each' or 'final', got {emit!r} ({user_location()})")
        return self._next(self._add(kind, target, config, options={"emit": Emit(emit)}, **facts))


def _is_function(target: Any) -> bool:
    """Whether it is a function base's class or instance, or a class that its author forgot to derive from one (no
    built-in type has both methods). Whether it is the right one is checked with the others.
    """
    if not isinstance(target, type):
        return isinstance(target, Function)
    return issubclass(target, Function) or all(callable(getattr(target, name, None)) for name in ("create", "add"))


def _spec(create: Any, add: Any, result: Any) -> AggregateSpec:
    if add is None or not callable(add):
        raise PipelineError(f"aggregate takes a function as add, got {add!r} ({user_location()})")
    if changes_only(add):
        raise PipelineError(
            f"add of an aggregate returns the new accumulator, {changes_only(add)} returns None: give "
            f"lambda so_far, item: ..., or an AggregateFunction ({user_location()})"
        )
    if result is not None and not callable(result):
        raise PipelineError(f"aggregate takes a function as result, got {result!r} ({user_location()})")
    if callable(create):
        return AggregateSpec(create, add, result)
    if not _is_immutable(create):
        kind = type(create).__name__
        raise PipelineError(
            f"aggregate would share the {kind} {create!r} between all keys: pass a function that makes a new "
            f"one for each, such as the type {kind} itself ({user_location()})"
        )
    return AggregateSpec(partial(same, create), add, result)


def _is_immutable(value: Any) -> bool:
    if isinstance(value, (tuple, frozenset)):
        return all(_is_immutable(part) for part in value)
    return value is None or isinstance(value, (str, bytes, Number, Enum))
