"""The bases that user operators derive from: Source, Map, FlatMap, Filter, KeyBy, Reduce, Aggregate and Sink functions.

Life of a function, always in one worker: `setup` once, `execute` for each item, `teardown` once (also after
an error). `execute` may be a plain or an `async` method. A class that declares a pydantic model as `Config`
has its configuration checked when the pipeline is built; without one, `self.config` is the dict as given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel

from sage.kernel.graph.contracts import Contract

from .config import validate_config
from .context import ContextError, OperatorContext

__all__ = [
    "AggregateFunction",
    "BadRecord",
    "FilterFunction",
    "FlatMapFunction",
    "Function",
    "KeyByFunction",
    "MapFunction",
    "ReduceFunction",
    "SinkFunction",
    "SourceFunction",
]

In = TypeVar("In")
Out = TypeVar("Out")
Acc = TypeVar("Acc")


class Function(ABC):  # noqa: B024  # its subclasses declare `execute`, each with its own signature
    """What all operator functions share: configuration, context, life cycle, state.

    Attributes:
        contract: what the operator needs, keeps and promises; `contract=` replaces it where the operator is
            used.
        Config: pydantic model of the configuration, or None for a free dict.
        config: the configuration: an instance of `Config` where there is one, else a dict.
    """

    contract: ClassVar[Contract] = Contract()
    Config: ClassVar[type[BaseModel] | None] = None
    _ctx: OperatorContext | None = None
    _attached = False

    def __init__(self, config: Mapping[str, Any] | BaseModel | None = None) -> None:
        self.config: Any = validate_config(type(self).__name__, type(self).Config, config)

    @property
    def ctx(self) -> OperatorContext:
        """Name, replica index, parallelism, key, keyed state, logger and metrics; there from `setup` on.

        Raises:
            ContextError: called before the runtime has started this replica.
        """
        if self._ctx is None:
            raise ContextError(
                f"{type(self).__name__}.ctx is there from setup() on, not in __init__: move this code into setup()"
            )
        return self._ctx

    def attach(self, ctx: OperatorContext) -> None:
        """Give this replica its context; the runtime calls it before `setup`.

        Raises:
            ContextError: this very object works for another running job.
        """
        if self._attached:
            raise ContextError(
                f"this {type(self).__name__} instance works in a running job already: pass the class, which is made "
                "anew for each job"
            )
        self._attached = True
        self._ctx = ctx

    def detach(self) -> None:
        """The job has ended; the runtime calls it after `teardown`. `ctx` stays, for its metrics."""
        self._attached = False

    def setup(self) -> None:
        """Open what `execute` needs (files, clients, models). Called once, in the worker that runs
        `execute`.
        """

    def teardown(self) -> None:
        """Close what `setup` opened. Called once, also after an error; never called when `setup` itself was
        not.
        """

    def get_state(self) -> Any:
        """State of this replica as a picklable value; None where there is none."""
        return None

    def restore_state(self, state: Any) -> None:
        """Take back what `get_state` returned."""


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that a source met and could not read; yielded like an item, it becomes a dead letter and the
    source goes on.

    Attributes:
        item: what is known of the record (a line, a path).
        error: why it could not be read.
    """

    item: Any
    error: Exception


class SourceFunction(Function, Generic[Out]):
    """Where items come from. Replayable: it can start again at an offset and says the offset that it has
    reached.

    Attributes:
        blocking: whether fetching the next item may wait for something outside (a socket, a clock). False
            lets the runtime fetch many items at once.
        timed: whether `execute` yields `(value, arrival_ns)`, `arrival_ns` being the intended arrival on the
            clock of `time.monotonic_ns`; latency is then measured from there.

    Example:
        >>> class Count(SourceFunction[int]):
        ...     def execute(self):
        ...         yield from range(5)
        >>> source = Count()
        >>> list(source.read_from(3)), source.offset_after(5)
        ([3, 4], 5)
    """

    blocking: ClassVar[bool] = True
    timed: ClassVar[bool] = False

    @abstractmethod
    def execute(self) -> Iterable[Out]:
        """Yield the items from the beginning."""

    def read_from(self, offset: Any) -> Iterable[Out]:
        """Yield the items that follow `offset`, which `offset_after` gave in an earlier run.

        The default counts items and skips as many: right for each source that repeats itself; override it to
        seek.
        """
        return islice(self.execute(), offset, None)

    def offset_after(self, count: int) -> Any:
        """Offset (a JSON value) just behind the last item yielded; `count` is how many that makes since the
        beginning.
        """
        return count


class MapFunction(Function, Generic[In, Out]):
    """One item in, one item out.

    Example:
        >>> class Double(MapFunction[int, int]):
        ...     def execute(self, item):
        ...         return 2 * item
        >>> Double().execute(21)
        42
    """

    @abstractmethod
    def execute(self, item: In) -> Out | Awaitable[Out]:
        """Return the output for `item`; `None` is an output like any other."""


class FlatMapFunction(Function, Generic[In, Out]):
    """One item in, any number of items out.

    All outputs of an item are passed on together: if `execute` raises after some, none is, and the item is
    retried or set aside whole.

    Example:
        >>> class Words(FlatMapFunction[str, str]):
        ...     def execute(self, item):
        ...         return item.split()
        >>> Words().execute("a b")
        ['a', 'b']
    """

    @abstractmethod
    def execute(self, item: In) -> Iterable[Out] | Awaitable[Iterable[Out]]:
        """Return the outputs for `item`: a list, or a generator (at most `contract.io.outputs_max` items)."""


class FilterFunction(Function, Generic[In]):
    """Keeps the items for which `execute` is true.

    Example:
        >>> class Even(FilterFunction[int]):
        ...     def execute(self, item):
        ...         return item % 2 == 0
        >>> Even().execute(4)
        True
    """

    @abstractmethod
    def execute(self, item: In) -> bool | Awaitable[bool]:
        """Whether to keep `item`."""


class KeyByFunction(Function, Generic[In]):
    """Gives each item its key: a hashable value that means the same in each process (`sage.common.hashing`).

    Example:
        >>> class ByUser(KeyByFunction[dict]):
        ...     def execute(self, item):
        ...         return item["user"]
        >>> ByUser().execute({"user": "ada"})
        'ada'
    """

    @abstractmethod
    def execute(self, item: In) -> Hashable:
        """The key of `item`."""


class ReduceFunction(Function, Generic[In]):
    """Folds two items of a key into one.

    Example:
        >>> class Longer(ReduceFunction[str]):
        ...     def execute(self, so_far, item):
        ...         return max(so_far, item, key=len)
        >>> Longer().execute("a", "bc")
        'bc'
    """

    @abstractmethod
    def execute(self, so_far: In, item: In) -> In | Awaitable[In]:
        """Return what `so_far`, the fold of the key's items until now, and `item` make together."""


class AggregateFunction(Function, Generic[In, Acc, Out]):
    """Folds the items of a key into an accumulator.

    `add` may be a plain or an `async` method; `create` and `result` are plain ones. `self.ctx.key` is the key in all
    three.

    Example:
        >>> class Mean(AggregateFunction[float, tuple[float, int], float]):
        ...     def create(self):
        ...         return 0.0, 0
        ...     def add(self, accumulator, item):
        ...         return accumulator[0] + item, accumulator[1] + 1
        ...     def result(self, accumulator):
        ...         return accumulator[0] / accumulator[1]
        >>> mean = Mean()
        >>> mean.result(mean.add(mean.add(mean.create(), 1), 2))
        1.5
    """

    @abstractmethod
    def create(self) -> Acc:
        """Return the accumulator of a key that has not come yet; a new object each time where it can be changed."""

    @abstractmethod
    def add(self, accumulator: Acc, item: In) -> Acc | Awaitable[Acc]:
        """Return the accumulator with `item` in it: a new one, or the given one changed."""

    def result(self, accumulator: Acc) -> Out:
        """Return what is emitted for `accumulator`; the default emits it as it is."""
        return accumulator  # type: ignore[return-value]  # a class that leaves this out has Out = Acc


class SinkFunction(Function, Generic[In]):
    """Where items end.

    `finish` is called once per replica behind its last item, before `teardown`, when the stream has come to its end:
    by itself, or because the job was stopped and drained. After a failed or aborted job it is not called.

    Example:
        >>> class Keep(SinkFunction[int]):
        ...     def setup(self):
        ...         self.items = []
        ...     def execute(self, item):
        ...         self.items.append(item)
        >>> sink = Keep(); sink.setup(); sink.execute(1); sink.items
        [1]
    """

    @abstractmethod
    def execute(self, item: In) -> Awaitable[None] | None:
        """Take `item`; a return value is ignored."""

    def finish(self) -> None:
        """The stream has ended and every item has been taken: commit, or write what comes last. If it raises, the
        job fails.
        """
