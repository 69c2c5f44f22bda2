"""Turns what a user hands to the DSL (a class with config, an instance, a function, a lambda) into the
operator of one replica.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sage.kernel.graph import Contract, OperatorKind, PipelineError

from .calling import ARGUMENTS, check_call, hint_for
from .config import validate_config
from .connected import CoMapFunction, bind_comap
from .functions import (
    AggregateFunction,
    FilterFunction,
    FlatMapFunction,
    Function,
    KeyByFunction,
    MapFunction,
    ReduceFunction,
    SinkFunction,
    SourceFunction,
)
from .specs import BoundOperator, OperatorSpec

__all__ = ["AggregateSpec", "CallableSource", "FunctionFactory", "IterableSource"]

_END = object()

_BASES: dict[OperatorKind, type[Function]] = {
    OperatorKind.SOURCE: SourceFunction,
    OperatorKind.MAP: MapFunction,
    OperatorKind.FLATMAP: FlatMapFunction,
    OperatorKind.FILTER: FilterFunction,
    OperatorKind.KEY_BY: KeyByFunction,
    OperatorKind.REDUCE: ReduceFunction,
    OperatorKind.AGGREGATE: AggregateFunction,
    OperatorKind.COMAP: CoMapFunction,
    OperatorKind.SINK: SinkFunction,
}


_MAY_YIELD = frozenset({OperatorKind.SOURCE, OperatorKind.FLATMAP})


@dataclass(frozen=True, slots=True)
class AggregateSpec:
    """What `aggregate` folds with: a new accumulator, one step, the result of an accumulator; `builtin` is the name of
    a ready-made fold over the item itself, `ready_made` the name and the field of any ready-made fold.
    """

    create: Callable[[], Any]
    add: Callable[[Any, Any], Any]
    result: Callable[[Any], Any] | None
    builtin: str | None = None
    ready_made: tuple[str, Any] | None = None


class IterableSource(SourceFunction[Any]):
    """Source over an iterable of the user's program."""

    def __init__(self, iterable: Iterable[Any], used: list[bool] | None = None) -> None:
        super().__init__()
        self.iterable = iterable
        # Shared by the copies for all jobs: an iterator gives its items only once.
        self._used = [] if used is None else used

    def copy(self) -> IterableSource:
        """The source of one more replica or job."""
        return IterableSource(self.iterable, self._used)

    def execute(self) -> Iterable[Any]:
        """The items; an iterable with a length is split over the replicas by position."""
        if isinstance(self.iterable, Iterator):
            if self._used:
                raise PipelineError(
                    f"the {type(self.iterable).__name__} of source {self.ctx.name!r} was used up by an earlier run: "
                    "give a list, or a function that makes a new one (from_source)"
                )
            self._used.append(True)
        if self.ctx.parallelism > 1 and isinstance(self.iterable, (list, tuple, range)):
            return self.iterable[self.ctx.replica_index :: self.ctx.parallelism]
        return self.iterable

    def read_from(self, offset: Any) -> Iterable[Any]:
        """Slices what can be sliced, skips otherwise."""
        items = self.execute()
        return items[offset:] if isinstance(items, (list, tuple, range)) else super().read_from(offset)


class CallableSource(SourceFunction[Any]):
    """Source over a function that returns an iterable, or over a generator function, plain or `async`."""

    def __init__(self, make: Callable[[], Iterable[Any] | AsyncGenerator[Any, None]]) -> None:
        super().__init__()
        self.make = make

    def execute(self) -> Iterable[Any]:
        """Calls the function."""
        items = self.make()
        if isinstance(items, AsyncGenerator):
            return _on_own_loop(items)
        if not isinstance(items, Iterable):
            raise PipelineError(
                f"a source function must return an iterable (or be a generator), got {type(items).__name__}"
                f"{': did you forget to return, or to yield?' if items is None else ''} (source {self.ctx.name!r})"
            )
        return items


def _on_own_loop(items: AsyncGenerator[Any, None]) -> Iterator[Any]:
    """The items of an async generator, one at a time."""

    async def following() -> Any:
        return await anext(items, _END)

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        try:
            while (item := loop.run_until_complete(following())) is not _END:
                yield item
        finally:
            loop.run_until_complete(items.aclose())


@dataclass(frozen=True, slots=True)
class FunctionFactory:
    """Makes the operator of one replica from the user's code.

    Attributes:
        kind: what it will be used as.
        target: a `Function` subclass, an instance of one, a callable, an `AggregateSpec` or an `OperatorSpec`.
        config: configuration of a class.
        where: operator and line, for messages.

    Example:
        >>> factory = FunctionFactory.build(OperatorKind.MAP, str.upper, None, "(operator 'upper')")
        >>> factory.create(0, 1).call("a"), factory.is_async, factory.description
        ('A', False, 'str.upper')
    """

    kind: OperatorKind
    target: Any
    config: Any
    where: str

    @classmethod
    def build(cls, kind: OperatorKind, target: Any, config: Mapping[str, Any] | None, where: str) -> FunctionFactory:
        """Check that `target` can be used as `kind`, and its configuration.

        Raises:
            PipelineError: it cannot.
            ConfigError: a config key is missing, unknown or of the wrong type.
        """
        factory = cls(kind, target, config, where)
        base = _BASES.get(kind)
        factory._check_life_cycle()
        method = {OperatorKind.AGGREGATE: "add", OperatorKind.COMAP: "execute1"}.get(kind, "execute")
        if isinstance(target, type) and not factory._is_function_class and callable(getattr(target, method, None)):
            wanted = base.__name__ if base is not None else "a function base"
            raise PipelineError(
                f"{target.__name__} has an {method}() but is no operator: derive it from {wanted} {where}"
            )
        if factory._is_function_class:
            if base is not None and not issubclass(target, base):
                raise PipelineError(f"{kind} needs {_article(base)}, got {_bases_of(target)} {where}")
            abstract = sorted(getattr(target, "__abstractmethods__", ()))
            if abstract:
                raise PipelineError(f"{target.__name__} does not define {', '.join(abstract)}() {where}")
            factory._check_generator()
            factory._check_calls()
            # The checked model stays the configuration: what was validated is what every replica gets.
            return cls(kind, target, validate_config(f"{target.__name__} {where}", target.Config, config), where)
        if isinstance(target, Function):
            if base is not None and not isinstance(target, base):
                raise PipelineError(f"{kind} needs {_article(base)}, got {_bases_of(type(target))} {where}")
        elif not callable(target) and not isinstance(target, (AggregateSpec, OperatorSpec)):
            raise PipelineError(
                f"{kind} needs a class, an instance or a function, got {target!r}{hint_for(target)} {where}"
            )
        if config is not None:
            raise PipelineError(
                f"config goes with an operator class; {target!r} is not one, got config {config!r} {where}"
            )
        factory._check_generator()
        factory._check_calls()
        return factory

    def _check_generator(self) -> None:
        if self.kind is not OperatorKind.FLATMAP and self._entry_is(inspect.isasyncgenfunction):
            raise PipelineError(
                f"{self.kind} cannot use the async generator {self.description}: only flatmap can {self.where}"
            )

        if self.kind not in _MAY_YIELD and self._entry_is(inspect.isgeneratorfunction):
            raise PipelineError(
                f"{self.kind} cannot use the generator function {self.description}, a call of which runs nothing and "
                f"returns a generator: to give several items use flatmap, else return instead of yield {self.where}"
            )

    def _check_calls(self) -> None:
        """Each function of the user's must be one that can be called as it will be."""
        for name, function, arguments in self._calls():
            static = self._is_function_class and isinstance(
                inspect.getattr_static(self.target, name), (staticmethod, classmethod)
            )
            check_call(function, arguments, str(self.kind), self.where, self._is_function_class and not static)

    def _calls(self) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
        """Name, function and arguments of each call that the runtime makes."""
        target = self.target
        if isinstance(target, CallableSource):
            yield "make", target.make, ()
        elif self._is_a(CoMapFunction):
            yield "execute1", target.execute1, ("the item",)
            yield "execute2", target.execute2, ("the item",)
        elif self._is_a(AggregateFunction) or (isinstance(target, AggregateSpec) and target.ready_made is None):
            yield "create", target.create, ()
            yield "add", target.add, ("the accumulator", "the item")
            if target.result is not None:
                yield "result", target.result, ("the accumulator",)
        elif not isinstance(target, (AggregateSpec, IterableSource)):
            for entry in self.entries:
                yield "execute", entry, ARGUMENTS.get(self.kind, ("the item",))

    def _check_life_cycle(self) -> None:
        if isinstance(self.target, AggregateSpec):
            for name, given in (("create", self.target.create), ("result", self.target.result)):
                if inspect.iscoroutinefunction(given):
                    raise PipelineError(
                        f"aggregate takes a plain function as {name}, got the coroutine function "
                        f"{given.__qualname__}: only `add` can be `async` {self.where}"
                    )
            return
        if not self._is_function_class and not isinstance(self.target, Function):
            return
        names = ["setup", "teardown"]
        if self._is_a(SinkFunction):
            names.append("finish")
        if self._is_a(AggregateFunction):
            names += ["create", "result"]
        for name in names:
            if inspect.iscoroutinefunction(getattr(self.target, name)):
                raise PipelineError(
                    f"{name}() must be a plain method, an `async` one would never be awaited {self.where}"
                )

    def _is_a(self, base: type[Any]) -> bool:
        return issubclass(self.target, base) if self._is_function_class else isinstance(self.target, base)

    @property
    def _is_function_class(self) -> bool:
        return isinstance(self.target, type) and issubclass(self.target, Function)

    @property
    def contract(self) -> Contract:
        """The contract that the user's class declares, the default one for plain functions."""
        if self._is_function_class or isinstance(self.target, Function):
            contract: Contract = self.target.contract
            return contract
        return Contract()

    @property
    def entry(self) -> Any:
        """The callable that gets the items, unbound for a class; its annotations are the operator's types."""
        if self._is_a(AggregateFunction):
            return self.target.add
        if self._is_a(CoMapFunction):
            return self.target.execute1
        if self._is_function_class or isinstance(self.target, Function):
            return self.target.execute
        if isinstance(self.target, OperatorSpec):
            return next(iter(self.target.entries), None)
        return self.target.add if isinstance(self.target, AggregateSpec) else self.target

    @property
    def entries(self) -> tuple[Any, ...]:
        """All callables that get items: two where there are two streams."""
        if self._is_a(CoMapFunction):
            return self.target.execute1, self.target.execute2
        return self.target.entries if isinstance(self.target, OperatorSpec) else (self.entry,)

    @property
    def is_method(self) -> bool:
        """Whether `entry` is an unbound method whose first parameter is `self`."""
        return self._is_function_class

    @property
    def is_async(self) -> bool:
        """Whether the user's code is a coroutine function, or an async generator function."""
        return self._entry_is(inspect.iscoroutinefunction) or self._entry_is(inspect.isasyncgenfunction)

    def _entry_is(self, test: Callable[[Any], bool]) -> bool:
        return any(_function_is(entry, test) for entry in self.entries)

    @property
    def why_single(self) -> str:
        """Why there can be one replica only, "" where there can be several."""
        if isinstance(self.target, CallableSource):
            return (
                f"the function {self.description} gives all its items to one reader; give a source class "
                "(self.ctx.replica_index tells replicas apart) or a list"
            )
        if not isinstance(self.target, IterableSource) or isinstance(self.target.iterable, (list, tuple, range)):
            return ""
        kind = type(self.target.iterable).__name__
        if isinstance(self.target.iterable, Iterator):
            return (
                f"the {kind} can be read only once; give a list, or a source class (self.ctx.replica_index tells "
                "replicas apart)"
            )
        return f"a list, a tuple or a range is divided among replicas, a {kind} is not; give list(...) of it"

    @property
    def description(self) -> str:
        """`module:qualified_name` of the user's code, for plans and messages."""
        target = self.target
        if isinstance(target, IterableSource):
            return f"collection of {type(target.iterable).__name__}"
        if isinstance(target, CallableSource):
            target = target.make
        if isinstance(target, AggregateSpec):
            target = target.add
        if isinstance(target, OperatorSpec):
            target = self.entry or type(target)
        while isinstance(target, functools.partial):
            target = target.func
        if not isinstance(target, type) and not inspect.isroutine(target):
            target = type(target)
        module = getattr(target, "__module__", None)
        name = getattr(target, "__qualname__", repr(target))
        return name if module in (None, "builtins") else f"{module}:{name}"

    def create(self, replica_index: int, parallelism: int) -> BoundOperator:
        """The operator of one replica. An instance serves a single replica itself; more replicas get deep
        copies of it.

        Raises:
            PipelineError: the user's constructor raised, or the instance cannot be copied.
        """
        target = self.target
        function: Any
        if isinstance(target, OperatorSpec):
            return target.bind()
        if isinstance(target, AggregateSpec):
            return BoundOperator(target.add, None, target.create, target.result, target.builtin)
        if self._is_function_class:
            try:
                function = target(self.config) if _takes_config(target) else target()
            except Exception as error:  # the user's constructor may raise anything
                raise PipelineError(f"{target.__name__} could not be made: {error!r} {self.where}") from error
            return _bind(function)
        if isinstance(target, Function):
            # Any: which of the bases it is, and so that it has `execute`, was checked when it was built.
            shared = parallelism == 1 and not isinstance(target, (IterableSource, CallableSource))
            return _bind(target if shared else self._copy(target, parallelism))
        return BoundOperator(target, None)

    def _copy(self, target: Function, parallelism: int) -> Function:
        if isinstance(target, IterableSource):
            return target.copy()
        if isinstance(target, CallableSource):
            return CallableSource(target.make)
        try:
            # Without the context of a job that it has served: that has handles which cannot be copied.
            clone = copy.deepcopy(target, {id(target._ctx): None} if target._ctx is not None else None)
            clone.detach()
            return clone
        except Exception as error:  # deepcopy raises whatever the instance's attributes raise
            raise PipelineError(
                f"parallelism {parallelism} needs a copy of the {type(target).__name__} instance for each "
                f"replica, and it cannot be copied: {error!r}; pass the class with a config instead {self.where}"
            ) from error


def _bind(function: Any) -> BoundOperator:
    if isinstance(function, AggregateFunction):
        # Emitting the accumulator as it is costs no call.
        keeps = type(function).result is AggregateFunction.result
        return BoundOperator(function.add, function, function.create, None if keeps else function.result)
    if isinstance(function, CoMapFunction):
        return BoundOperator(bind_comap(function.execute1, function.execute2), function)
    return BoundOperator(function.execute, function)


def _function_is(function: Any, test: Callable[[Any], bool]) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or isinstance(function, type):
        return test(function)
    return test(type(function).__call__)


def _takes_config(target: type[Function]) -> bool:
    """Whether the constructor has a parameter for the configuration (a subclass may have replaced it by one
    that has none).
    """
    if target.__init__ is Function.__init__:
        return True
    return any(
        parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        for parameter in inspect.signature(target).parameters.values()
    )


def _bases_of(target: type) -> str:
    kinds = [_article(base) for base in _BASES.values() if issubclass(target, base)]
    return f"{target.__name__}, which is {' and '.join(kinds)}" if kinds else target.__name__


def _article(base: type) -> str:
    return f"{'an' if base.__name__[0] in 'AEIOU' else 'a'} {base.__name__}"
