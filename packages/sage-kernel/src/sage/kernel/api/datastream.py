"""Streams: what operators are chained to. A stream is a promise of items; nothing runs before `submit()` or
`collect()`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from enum import Enum
from numbers import Number
from typing import Any

from sage.kernel.graph import Contract, DeadLettersError, Emit, OperatorKind, PipelineError
from sage.kernel.operators import AggregateSpec, SinkFunction

from .declare import declare, user_location
from .environment import Environment
from .waiting import wait_interruptible

__all__ = ["DataStream", "KeyedStream"]

Config = Mapping[str, Any]


class _CollectSink(SinkFunction[Any]):
    """Gathers the items of a `collect()` in a list."""

    def __init__(self, items: list[Any]) -> None:
        super().__init__()
        self._items = items

    def execute(self, item: Any) -> None:
        """Keep the item."""
        self._items.append(item)


class _PrintSink(SinkFunction[Any]):
    """Writes each item as a line to the standard output of the process; the config has its `prefix`."""

    def execute(self, item: Any) -> None:
        """One line."""
        sys.stdout.write(f"{self.config['prefix']}{item}\n")

    def teardown(self) -> None:
        """Nothing may stay in the buffer."""
        sys.stdout.flush()


class DataStream:
    """A stream of items. Its methods add an operator and return the stream behind it.

    Each takes, as the operator: a function class with a config, an instance of one, a plain or `async`
    function, or a lambda; and

    - `parallelism`: replicas of the operator (default 1),
    - `contract`: what it needs, keeps and promises (default: what its class declares),
    - `name`: unique in the pipeline (default: made from the function's name).

    Example:
        >>> from sage.kernel.api import LocalEnvironment
        >>> env = LocalEnvironment("demo")
        >>> env.from_collection([1, 2, 3]).map(lambda n: n * n).filter(lambda n: n > 1).collect()
        [4, 9]
    """

    def __init__(self, env: Environment, inputs: tuple[str, ...]) -> None:
        self._env = env
        self._inputs = inputs

    _keyed = False

    def _add(self, kind: OperatorKind, target: Any, config: Config | None = None, **arguments: Any) -> str:
        return declare(
            self._env.graph, kind, target, config, inputs=self._inputs, keyed_input=self._keyed, **arguments
        ).name

    def _next(self, name: str) -> DataStream:
        return type(self)(self._env, (name,))

    def map(
        self,
        function: Any,
        config: Config | None = None,
        *,
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> DataStream:
        """One item in, one item out.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> LocalEnvironment("demo").from_collection(["a", "b"]).map(str.upper).collect()
            ['A', 'B']
        """
        return self._next(
            self._add(OperatorKind.MAP, function, config, parallelism=parallelism, contract=contract, name=name)
        )

    def flatmap(
        self,
        function: Any,
        config: Config | None = None,
        *,
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> DataStream:
        """One item in, any number of items out: the function returns an iterable.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> LocalEnvironment("demo").from_collection(["a b", "c"]).flatmap(str.split).collect()
            ['a', 'b', 'c']
        """
        return self._next(
            self._add(OperatorKind.FLATMAP, function, config, parallelism=parallelism, contract=contract, name=name)
        )

    def filter(
        self,
        function: Any,
        config: Config | None = None,
        *,
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> DataStream:
        """Keeps the items for which the function is true.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> numbers = LocalEnvironment("demo").from_collection([0, 1, None, 2])
            >>> numbers.filter(lambda n: n is not None).collect()
            [0, 1, 2]
        """
        return self._next(
            self._add(OperatorKind.FILTER, function, config, parallelism=parallelism, contract=contract, name=name)
        )

    def key_by(
        self,
        function: Any,
        config: Config | None = None,
        *,
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> KeyedStream:
        """Gives each item a key. Behind it all items of a key meet the same replica of each operator, in their order.

        A key is a hashable value; `None`, 0 and "" are keys like any other.

        Args:
            function: gives the key of an item; an `async` one is called for one item at a time, so that items of a
                key stay in order.
            config: of a `KeyByFunction` class.
            parallelism: replicas of the operators behind it (not of sinks) that do not say otherwise. The keys
                themselves are computed where the items are made.
            contract: what the key function needs, keeps and promises.
            name: unique in the pipeline.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> pairs = LocalEnvironment("demo").from_collection([("a", 1), ("b", 5), ("a", 2)])
            >>> by_name = pairs.key_by(lambda pair: pair[0])
            >>> by_name.reduce(lambda one, two: (one[0], one[1] + two[1])).collect()
            [('a', 1), ('b', 5), ('a', 3)]
        """
        if parallelism is not None and (
            isinstance(parallelism, bool) or not isinstance(parallelism, int) or parallelism < 1
        ):
            raise PipelineError(f"parallelism must be a whole number >= 1, got {parallelism!r} ({user_location()})")
        # A new key forgets the one before: the items meet the key function wherever they are.
        unkeyed = DataStream(self._env, self._inputs)
        added = unkeyed._add(OperatorKind.KEY_BY, function, config, contract=contract, name=name)
        return KeyedStream(self._env, (added,), parallelism)

    def union(self, *others: DataStream) -> DataStream:
        """The items of this stream and of the others, each once, in the order in which they come; keys are
        forgotten.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> env = LocalEnvironment("demo")
            >>> sorted(env.from_collection([1, 2]).union(env.from_collection([3])).collect())
            [1, 2, 3]
        """
        inputs = self._inputs
        for other in others:
            if not isinstance(other, DataStream):
                raise PipelineError(f"union takes streams, got {other!r} ({user_location()})")
            if other._env is not self._env:
                raise PipelineError(
                    f"union joins streams of one environment, got one of {other._env.name!r} and one of "
                    f"{self._env.name!r} "
                    f"({user_location()})"
                )
            inputs += other._inputs
        return DataStream(self._env, inputs)

    def sink(
        self,
        function: Any,
        config: Config | None = None,
        *,
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> Environment:
        """Ends the stream; returns the environment, so that `.submit()` may follow."""
        self._add(OperatorKind.SINK, function, config, parallelism=parallelism, contract=contract, name=name)
        return self._env

    def print(self, prefix: str = "", *, name: str | None = None) -> Environment:
        """Ends the stream by writing each item as a line to standard output."""
        self._add(OperatorKind.SINK, _PrintSink, {"prefix": prefix}, name=name, default_name="print", parallelism=1)
        return self._env

    def collect(self, *, allow_dead_letters: bool = False) -> list[Any]:
        """Run what leads to this stream and return its items as a list.

        Only this stream and what is above it runs; other sinks of the environment do not.

        Raises:
            DeadLettersError: items could not be processed (unless allowed); `collected` holds the outputs of
                the others.
            JobFailedError: the job failed.
            KeyboardInterrupt: Ctrl-C; the job has been drained or aborted by then.
        """
        items: list[Any] = []
        graph = self._env.subgraph(self._inputs)
        declare(
            graph,
            OperatorKind.SINK,
            _CollectSink(items),
            inputs=self._inputs,
            name=None if "collect" in graph else "collect",
            parallelism=1,
        )
        job = self._env.run_graph(graph)
        wait_interruptible(job.wait, job)
        result = job.wait()
        if result.dead_letters and not allow_dead_letters:
            first = job.first_dead_letter
            raise DeadLettersError(
                f"{result.dead_letters} item(s) could not be processed; the first: operator "
                f"{first.operator!r}, item {first.item}: "
                f"{first.error_type}: {first.error}. The outputs of the others are in .collected; "
                f"collect(allow_dead_letters=True) "
                "returns them",
                items,
            )
        return items


class KeyedStream(DataStream):
    """A stream whose items have a key. Operators on it see `self.ctx.key` and `self.ctx.state`, and keep the
    order of each key.
    """

    _keyed = True

    def __init__(self, env: Environment, inputs: tuple[str, ...], parallelism: int | None = None) -> None:
        super().__init__(env, inputs)
        self._parallelism = parallelism

    def _add(self, kind: OperatorKind, target: Any, config: Config | None = None, **arguments: Any) -> str:
        if arguments.get("parallelism") is None and kind is not OperatorKind.SINK:
            arguments["parallelism"] = self._parallelism
        return super()._add(kind, target, config, **arguments)

    def _next(self, name: str) -> KeyedStream:
        return KeyedStream(self._env, (name,), self._parallelism)

    def reduce(
        self,
        function: Callable[[Any, Any], Any],
        *,
        emit: str = "each",
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> KeyedStream:
        """Folds the items of each key: `function(so_far, item)`; the first item of a key is its first
        `so_far`.

        Args:
            function: folds two into one.
            parallelism: replicas; each owns some of the keys.
            contract: what the operator needs, keeps and promises.
            name: unique in the pipeline.
            emit: "each" gives what has been folded so far after each item, "final" once per key at the end of
                the stream.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> stream = LocalEnvironment("demo").from_collection([1, 2, 3, 4]).key_by(lambda n: n % 2)
            >>> stream.reduce(max, emit="final").collect()
            [3, 4]
        """
        return self._fold(OperatorKind.REDUCE, function, emit, parallelism, contract, name)

    def aggregate(
        self,
        create: Any,
        add: Callable[[Any, Any], Any],
        result: Callable[[Any], Any] | None = None,
        *,
        emit: str = "each",
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> KeyedStream:
        """Folds the items of each key into an accumulator and emits `(key, result)`.

        Args:
            create: makes the accumulator of a new key (`int`, `list`, a function), or an immutable first
                value (0, "", ()).
            add: `add(accumulator, item)` returns the new accumulator.
            result: what an accumulator is turned into before it is emitted; None emits it as it is.
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
        for what, given in (("add", add), ("result", result)):
            if given is not None and not callable(given):
                raise PipelineError(f"aggregate takes a function as {what}, got {given!r} ({user_location()})")
        if not callable(create):
            if not _is_immutable(create):
                kind = type(create).__name__
                raise PipelineError(
                    f"aggregate would share the {kind} {create!r} between all keys: pass a function that makes a new "
                    f"one for each, such as the type {kind} itself ({user_location()})"
                )
            first = create

            def create() -> Any:
                return first

        return self._fold(OperatorKind.AGGREGATE, AggregateSpec(create, add, result), emit, parallelism, contract, name)

    def _fold(
        self,
        kind: OperatorKind,
        target: Any,
        emit: str,
        parallelism: int | None,
        contract: Contract | None,
        name: str | None,
    ) -> KeyedStream:
        if emit not in tuple(Emit):
            raise PipelineError(f"emit must be 'each' or 'final', got {emit!r} ({user_location()})")
        added = self._add(
            kind, target, parallelism=parallelism, contract=contract, name=name, options={"emit": Emit(emit)}
        )
        return KeyedStream(self._env, (added,), self._parallelism)


def _is_immutable(value: Any) -> bool:
    if isinstance(value, (tuple, frozenset)):
        return all(_is_immutable(part) for part in value)
    return value is None or isinstance(value, (str, bytes, Number, Enum))
