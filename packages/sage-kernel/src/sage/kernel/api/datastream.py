"""Streams: what operators are chained to. A stream is a promise of items; nothing runs before `submit()` or
`collect()`.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, Self

from sage.kernel.graph import Batching, Contract, DeadLettersError, Execution, OperatorKind, PipelineError, Routing
from sage.kernel.operators import InterleaveSpec, SinkFunction

from .base_stream import Config, Feed, check_together, feed_facts
from .batches import StreamBatches, check_batching
from .connected import ConnectedStreams, KeyedJoin
from .declare import declare, user_location
from .environment import Environment
from .feedback import StreamFeedback
from .folds import KeyedFolds
from .services import StreamAnswers
from .shapes import StreamShapes
from .waiting import wait_interruptible

__all__ = ["DataStream", "KeyedStream"]


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


class DataStream(StreamShapes, StreamBatches, StreamFeedback, StreamAnswers):
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

    def map(
        self,
        function: Any,
        config: Config | None = None,
        *,
        batch: Batching | None = None,
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> Self:
        """One item in, one item out.

        With `batch=` the function is called for many items at once: it takes a list and gives a list of as many
        outputs. Items of different keys may share a list, so `ctx.key` and side outputs are not there. If a call
        raises, the list is retried as the contract says, and then its items one by one, so that only the bad ones
        become dead letters: the function sees an item again.

        Args:
            function: the operator.
            config: of a class.
            batch: how lists come together; replaces `contract.io.batching`.
            parallelism: replicas; each gathers lists of its own.
            contract: what the operator needs, keeps and promises; `resources.concurrency` of an `async` batched
                function counts lists.
            name: unique in the pipeline.

        Example:
            >>> from sage.kernel.api import Batching, LocalEnvironment
            >>> words = LocalEnvironment("demo").from_collection(["a", "b", "c"])
            >>> words.map(str.upper).collect()
            ['A', 'B', 'C']
            >>> words.map(lambda some: [f"{word}/{len(some)}" for word in some], batch=Batching(size=2)).collect()
            ['a/2', 'b/2', 'c/1']
        """
        facts: dict[str, Any] = {"parallelism": parallelism, "contract": contract, "name": name}
        return self._next(self._add(OperatorKind.MAP, function, config, batching=check_batching(batch), **facts))

    def flatmap(
        self,
        function: Any,
        config: Config | None = None,
        *,
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> Self:
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
    ) -> Self:
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
                themselves are computed where the items are made, by as many replicas as make them.
            contract: what the key function needs, keeps and promises; it says nothing about the operators behind it.
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
        if any(feed.routing is not None for feed in self._feeds):
            raise PipelineError(
                f"key_by decides itself which replica an item goes to: leave out the broadcast() or rebalance() before "
                f"it ({user_location()})"
            )
        unkeyed = DataStream(self._env, self._feeds)
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
        feeds = self._feeds
        for other in others:
            feeds += check_together("union", self, other)._feeds
        return DataStream(self._env, feeds)

    def interleave(
        self,
        *others: DataStream,
        ahead: int = 1024,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> DataStream:
        """An item of this stream and of each of the others in turn, keys forgotten; a stream that has ended is left
        out. `union` takes items as they come instead, and waits for nobody.

        Args:
            others: streams of the same environment.
            ahead: items of one stream that may wait for the others; one that is further ahead no longer waits.
            contract: what the operator needs, keeps and promises.
            name: unique in the pipeline.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> env = LocalEnvironment("demo")
            >>> env.from_collection("abc").interleave(env.from_collection([1]), env.from_collection("xy")).collect()
            ['a', 1, 'x', 'b', 'y', 'c']
        """
        streams = (self, *(check_together("interleave", self, other) for other in others))
        if isinstance(ahead, bool) or not isinstance(ahead, int) or ahead < 1:
            raise PipelineError(f"interleave ahead must be a whole number >= 1, got {ahead!r} ({user_location()})")
        if isinstance(contract, Contract) and (
            contract.cpu_bound or contract.execution not in (Execution.AUTO, Execution.THREAD)
        ):
            raise PipelineError(f"interleave runs on a thread: it calls nobody's code ({user_location()})")
        if len(streams) == 1:
            return DataStream(self._env, self._feeds)
        sides = tuple(number for number, stream in enumerate(streams) for _ in stream._feeds)
        unkeyed = DataStream(self._env, tuple(feed for stream in streams for feed in stream._feeds))
        options = {"sides": sides, "single": "an interleaved stream has one order, so there is one replica"}
        facts: dict[str, Any] = {"parallelism": 1, "contract": contract, "name": name, "default_name": "interleave"}
        spec = InterleaveSpec(len(streams), ahead)
        return unkeyed._next(unkeyed._add(OperatorKind.INTERLEAVE, spec, options=options, **facts))

    def connect(self, other: DataStream) -> ConnectedStreams[Self]:
        """This stream and another one as the two inputs of one operator (`comap`), which sees the items of both as
        they come and may keep what it learns of one for the other.

        Both have keys or none has; with keys, items of a key of either stream meet the same replica.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> env = LocalEnvironment("demo")
            >>> words, numbers = env.from_collection(["a"]), env.from_collection([1, 2])
            >>> sorted(words.connect(numbers).comap(str.upper, str).collect())
            ['1', '2', 'A']
        """
        return ConnectedStreams(self, other)

    def broadcast(self) -> DataStream:
        """Each item to every replica of the next operator, which so works each item off as often as it has replicas;
        keys are forgotten. The usual use is a small stream of rules or settings: `items.connect(rules.broadcast())`.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> stream = LocalEnvironment("demo").from_collection(["rule"]).broadcast()
            >>> stream.map(str.upper, parallelism=3).collect()
            ['RULE', 'RULE', 'RULE']
        """
        return self._routed(Routing.BROADCAST)

    def rebalance(self) -> DataStream:
        """Items in turn to the replicas of the next operator, whatever their load; keys are forgotten. Without it an
        item goes to the replica that has the fewest waiting, or stays with the replica that it is at.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> stream = LocalEnvironment("demo").from_collection([1, 2, 3, 4]).rebalance()
            >>> sorted(stream.map(lambda n: n * 10, parallelism=2).collect())
            [10, 20, 30, 40]
        """
        return self._routed(Routing.ROUND_ROBIN)

    def _routed(self, routing: Routing) -> DataStream:
        return DataStream(self._env, tuple(replace(feed, routing=routing) for feed in self._feeds))

    def sink(
        self,
        function: Any,
        config: Config | None = None,
        *,
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
        ordered: bool = False,
    ) -> Environment:
        """Ends the stream; returns the environment, so that `.submit()` may follow.

        Args:
            function: takes an item.
            config: of a `SinkFunction` class.
            parallelism: replicas.
            contract: what the operator needs, keeps and promises.
            name: unique in the pipeline.
            ordered: the sink takes the items in the order of their source, one after the other: `ordered()` before it,
                one replica and, of an `async` sink, one item at a time.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> taken = []
            >>> numbers = LocalEnvironment("demo").from_collection([1, 2, 3])
            >>> job = numbers.map(lambda n: n * n, parallelism=2).sink(taken.append, ordered=True).submit()
            >>> taken
            [1, 4, 9]
        """
        facts: dict[str, Any] = {"parallelism": parallelism, "contract": contract, "name": name}
        if ordered:
            facts["options"] = {"single": "a sink that takes items in order has one replica", "in_order": True}
        stream = self.ordered() if ordered else self
        stream._add(OperatorKind.SINK, function, config, **facts)
        return self._env

    def print(
        self,
        prefix: str = "",
        *,
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> Environment:
        """Ends the stream by writing each item as a line to standard output; returns the environment.

        Args:
            prefix: stands before each item.
            parallelism: replicas; lines of several are whole, their order is open.
            contract: what the operator needs, keeps and promises.
            name: unique in the pipeline.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> job = LocalEnvironment("demo").from_collection([1, 2]).print("n=").submit()
            n=1
            n=2
        """
        facts: dict[str, Any] = {"parallelism": parallelism, "contract": contract, "name": name}
        self._add(OperatorKind.SINK, _PrintSink, {"prefix": prefix}, default_name="print", **facts)
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
            **feed_facts(self._feeds),
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


class KeyedStream(KeyedFolds, KeyedJoin, DataStream):
    """A stream whose items have a key. Operators on it see `self.ctx.key` and `self.ctx.state`, and keep the
    order of each key.
    """

    _keyed = True

    def __init__(self, env: Environment, inputs: tuple[str | Feed, ...], parallelism: int | None = None) -> None:
        super().__init__(env, inputs)
        self._parallelism = parallelism

    def _add(self, kind: OperatorKind, target: Any, config: Config | None = None, **arguments: Any) -> str:
        if arguments.get("parallelism") is None and kind is not OperatorKind.SINK:
            arguments["parallelism"] = self._parallelism
        return super()._add(kind, target, config, **arguments)

    def _next(self, name: str, branch: str | None = None) -> Self:
        return type(self)(self._env, (Feed(name, branch),), self._parallelism)
