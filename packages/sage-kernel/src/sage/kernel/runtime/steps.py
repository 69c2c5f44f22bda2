"""One operator of a chain as the runtime sees it, and what follows from one call of it.

A chain is run in two ways that must agree: generated code for whole batches (`codegen`), and step by step
(`Chain.process`) for what is
rare: retries, items behind a retried one, results at the end of the stream.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from sage.common.errors import InvalidArgumentError
from sage.common.hashing import stable_hash
from sage.kernel.graph import Emit, IOSpec, OperatorKind
from sage.kernel.operators import Function, OperatorContext
from sage.kernel.operators.specs import Together
from sage.kernel.telemetry import OperatorCounters

from .gather import Gather
from .item_errors import ItemError, UnawaitedError, check_output

__all__ = [
    "FOLDS",
    "CancelledCallError",
    "Interrupted",
    "ItemError",
    "KeyGuard",
    "ResultError",
    "Step",
    "StepFailed",
    "UnawaitedError",
    "bounded",
    "cancelled_call",
    "check_output",
    "explode",
]

FOLDS = frozenset({OperatorKind.REDUCE, OperatorKind.AGGREGATE})
"""Kinds that keep an accumulator for each key."""

Output = tuple[Any, Hashable]
_NOTHING = object()


class Interrupted(BaseException):
    """The job is being aborted; leaves the worker past all handlers of operator errors, hence no
    `Exception`.
    """


class StepFailed(BaseException):
    """An operator raised and its contract says that the job fails; no `Exception` for the same reason."""

    def __init__(self, message: str, error: BaseException) -> None:
        super().__init__(message)
        self.error = error


class CancelledCallError(ItemError):
    """An operator let a `CancelledError` out that nobody of the runtime has caused."""


class ResultError(ItemError):
    """The `result` of an aggregate raised: its item has been folded, and must not be folded again."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class KeyGuard:
    """Checks each distinct key once: hashable, equal to itself, the same in each process.

    Example:
        >>> guard = KeyGuard("by_user")
        >>> guard.check("ada"); "ada" in guard.known
        True
        >>> guard.check([1])
        Traceback (most recent call last):
        ...
        sage.kernel.runtime.item_errors.ItemError: the key of 'by_user' must be hashable, got list [1]: use a tuple
    """

    _KNOWN_MAX = 1 << 16

    __slots__ = ("known", "operator")

    def __init__(self, operator: str) -> None:
        self.operator = operator
        self.known: set[Hashable] = set()

    def check(self, key: Any) -> None:
        """Accept `key` or raise.

        Raises:
            ItemError: it cannot be a key.
        """
        try:
            stable_hash(key)
            if len(self.known) >= self._KNOWN_MAX:
                self.known.clear()
            self.known.add(key)
        except (TypeError, InvalidArgumentError) as error:
            check_output(self.operator, key)
            text = repr(key)
            text = text if len(text) <= 80 else text[:77] + "..."
            if isinstance(key, (list, dict, set, bytearray)):
                hint = "use a frozenset" if isinstance(key, set) else "use a tuple"
                raise ItemError(
                    f"the key of {self.operator!r} must be hashable, got {type(key).__name__} {text}: {hint}"
                ) from error
            raise ItemError(f"the key of {self.operator!r} cannot be used, got {text}: {error}") from error


@dataclass(slots=True, kw_only=True)
class Step:
    """One operator of one replica.

    Attributes:
        call: the user's code: `call(item)`, or `call(accumulator, item)` of reduce and aggregate.
        function: the function object, where there is one.
        enter: makes a key the current one in the operator's context; None where nobody looks.
        create: new accumulator (aggregate).
        result: what an accumulator is turned into (aggregate), None for the accumulator itself.
        builtin: name of the ready-made fold that `call` is, or None.
        state: accumulators by key (reduce, aggregate).
        guard: checks keys (key_by).
        sided: an item is `(side, item)`, of an operator on two streams.
        leftovers: gives (key, what was kept) at the end of the stream; None where nothing is kept for it.
        last: the output for what was kept.
        ended: told which of its streams has ended, gives what can go on now; None where nobody asks.
        together: calls it for many items of one stream at once, see `BoundOperator`; None where nobody can.
        gather: what its items wait in for each other (batch, batched map), None where each is worked on alone.
    """

    name: str
    kind: OperatorKind
    call: Callable[..., Any]
    function: Function | None
    context: OperatorContext
    io: IOSpec
    counters: OperatorCounters
    is_async: bool = False
    enter: Callable[[Hashable], None] | None = None
    emit: Emit = Emit.EACH
    create: Callable[[], Any] | None = None
    result: Callable[[Any], Any] | None = None
    builtin: str | None = None
    state: dict[Hashable, Any] = field(default_factory=dict)
    guard: KeyGuard | None = None
    sided: bool = False
    leftovers: Callable[[], Iterable[tuple[Hashable, Any]]] | None = None
    last: Callable[[Any], Any] | None = None
    ended: Callable[[int], list[Any]] | None = None
    together: Together | None = None
    gather: Gather | None = None

    def apply(self, value: Any, key: Hashable) -> list[Output]:
        """Call the operator once; its outputs with their keys. Raises what the user's code raises."""
        if self.enter is not None:
            self.enter(key)
        if self.kind in FOLDS:
            return self._fold(value, key)
        return self.outputs(self.call(value), value, key)

    async def apply_async(self, value: Any, key: Hashable) -> list[Output]:
        """`apply` for a coroutine function, an async generator (flatmap), or a function that runs on the
        event loop.
        """
        if self.enter is not None:
            self.enter(key)
        if self.kind in FOLDS:
            return await self._fold_async(value, key)
        result = self.call(value)
        if inspect.isawaitable(result):
            result = await result
        elif inspect.isasyncgen(result):
            result = [item async for item in bounded(result, self.name, self.io.outputs_max)]
        return self.outputs(result, value, key)

    def outputs(self, result: Any, value: Any, key: Hashable) -> list[Output]:
        """What follows from `result`, which the operator returned for `value`."""
        match self.kind:
            case OperatorKind.MAP:
                check_output(self.name, result)
                return [(result, key)]
            case OperatorKind.ORDERED:
                return [(result, key)]
            case OperatorKind.FILTER:
                check_output(self.name, result)
                return [(value, key)] if result else []
            case OperatorKind.FLATMAP:
                return [(item, key) for item in explode(self.name, result, self.io.outputs_max)]
            case OperatorKind.KEY_BY:
                assert self.guard is not None
                check_output(self.name, result)
                self.guard.check(result)
                return [(value, result)]
        check_output(self.name, result)
        return []

    def _first(self) -> Any:
        """The accumulator of a new key, `_NOTHING` where its first item is that."""
        if self.kind is OperatorKind.REDUCE:
            return _NOTHING
        assert self.create is not None
        return self.create()

    def _fold(self, value: Any, key: Hashable) -> list[Output]:
        so_far = self.state[key] if key in self.state else self._first()
        return self._folded(value if so_far is _NOTHING else self.call(so_far, value), key)

    async def _fold_async(self, value: Any, key: Hashable) -> list[Output]:
        # Items of one key come one after the other, so nobody else folds into this accumulator meanwhile.
        so_far = self.state[key] if key in self.state else self._first()
        if so_far is not _NOTHING:
            value = self.call(so_far, value)
            if inspect.isawaitable(value):
                value = await value
        return self._folded(value, key)

    def _folded(self, accumulator: Any, key: Hashable) -> list[Output]:
        check_output(self.name, accumulator)
        if self.kind is OperatorKind.REDUCE:
            self.state[key] = accumulator
            return [(accumulator, key)] if self.emit is Emit.EACH else []
        # The state comes first: an `add` that changes its accumulator in place has folded the item in any case, so
        # whatever happens to the result, the item counts, and counts once.
        self.state[key] = accumulator
        if self.emit is not Emit.EACH:
            return []
        try:
            return [self._aggregated(key, accumulator)]
        except Exception as error:  # the user's `result` may raise anything
            raise ResultError(error) from error

    def result_again(self, key: Hashable) -> list[Output]:
        """The outputs of an item that has been folded and whose `result` raised. Raises what `result` raises."""
        if self.enter is not None:
            self.enter(key)
        return [self._aggregated(key, self.state[key])]

    def _aggregated(self, key: Hashable, accumulator: Any) -> Output:
        return (key, accumulator if self.result is None else self.result(accumulator)), key

    def kept(self) -> Iterable[tuple[Hashable, Any]]:
        """What waits for the end of the stream: (key, accumulator), in the order in which keys first came."""
        if self.leftovers is not None:
            return self.leftovers()
        return self.state.items() if self.emit is Emit.FINAL else ()

    def final_output(self, key: Hashable, accumulator: Any) -> Output:
        """What is emitted for a key at the end of the stream. Raises what the user's `result` raises."""
        if self.enter is not None:
            self.enter(key)
        if self.last is not None:
            return self.last(accumulator), key
        return (accumulator, key) if self.kind is OperatorKind.REDUCE else self._aggregated(key, accumulator)


def cancelled_call(name: str, error: asyncio.CancelledError) -> CancelledCallError:
    """The item's error for a `CancelledError` out of an operator; raises it again where the job ends the
    task.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise error
    refused = CancelledCallError(f"operator {name!r} awaited something that was cancelled")
    refused.__cause__ = error
    return refused


def explode(name: str, result: Any, outputs_max: int) -> list[Any]:
    """The outputs of one `flatmap` call as a list: all of them or an error, so that an item is never passed
    on in part.

    Raises:
        ItemError: no iterable, a string, or more than `outputs_max` outputs.

    Example:
        >>> explode("words", (word for word in ["a", "b"]), 10)
        ['a', 'b']
        >>> explode("words", "ab", 10)
        Traceback (most recent call last):
        ...
        sage.kernel.runtime.item_errors.ItemError: flatmap 'words' must return an iterable of items, got str 'ab':
        to pass the whole on use map
    """
    if isinstance(result, (str, bytes, dict)) or not isinstance(result, Iterable):
        check_output(name, result)
        text = repr(result)
        text = text if len(text) <= 80 else text[:77] + "..."
        hint = "" if result is None else ": to pass the whole on use map"
        hint = ": did you forget to return?" if result is None else hint
        raise ItemError(f"flatmap {name!r} must return an iterable of items, got {type(result).__name__} {text}{hint}")
    items = result if isinstance(result, list) else list(islice(result, outputs_max + 1))
    if len(items) > outputs_max:
        raise _too_many(name, outputs_max)
    return items


async def bounded(items: Any, name: str, outputs_max: int) -> Any:
    """The outputs of an async generator, at most `outputs_max`.

    Raises:
        ItemError: there are more.
    """
    count = 0
    async for item in items:
        count += 1
        if count > outputs_max:
            raise _too_many(name, outputs_max)
        yield item


def _too_many(name: str, outputs_max: int) -> ItemError:
    return ItemError(
        f"flatmap {name!r} gave more than {outputs_max} outputs for one item: an endless generator belongs "
        f"into a source; a long one "
        "needs contract=Contract(io=IOSpec(outputs_max=...))"
    )
