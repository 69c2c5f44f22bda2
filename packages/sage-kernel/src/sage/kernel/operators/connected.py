"""Operators on two streams: `comap` and `join`. An item reaches them as `(side, item)`; side 0 is the first stream."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Generic, TypeVar

from sage.common.errors import SageError

from .functions import Function
from .specs import BoundOperator, OperatorSpec

__all__ = ["CoMapFunction", "CoMapSpec", "JoinSizeError", "JoinSpec", "bind_comap"]

Left = TypeVar("Left")
Right = TypeVar("Right")
Out = TypeVar("Out")

Sided = tuple[int, Any]

_TOGETHER_MAX = 1 << 14
"""Pairs of one call for many items; more are not held at a time, and then it no longer matters how they are made."""


class CoMapFunction(Function, Generic[Left, Right, Out]):
    """One item in from either of two streams, one item out. Both methods see the same `self`; on keyed streams also
    the same `self.ctx.state` of a key.

    Example:
        >>> class Priced(CoMapFunction[str, float, str]):
        ...     rate = 1.0
        ...     def execute1(self, item):
        ...         return f"{item} at {self.rate}"
        ...     def execute2(self, item):
        ...         self.rate = item
        ...         return "new rate"
        >>> priced = Priced()
        >>> priced.execute1("tea"), priced.execute2(2.5), priced.execute1("tea")
        ('tea at 1.0', 'new rate', 'tea at 2.5')
    """

    @abstractmethod
    def execute1(self, item: Left) -> Out | Awaitable[Out]:
        """Return the output for an item of the first stream."""

    @abstractmethod
    def execute2(self, item: Right) -> Out | Awaitable[Out]:
        """Return the output for an item of the second stream."""


def bind_comap(first: Callable[[Any], Any], second: Callable[[Any], Any]) -> Callable[[Sided], Any]:
    """One function of `(side, item)` out of one for each side."""
    if inspect.iscoroutinefunction(first) and inspect.iscoroutinefunction(second):

        async def comap_async(sided: Sided) -> Any:
            return await (second if sided[0] else first)(sided[1])

        return comap_async

    def comap(sided: Sided) -> Any:
        return (second if sided[0] else first)(sided[1])

    return comap


@dataclass(frozen=True, slots=True)
class CoMapSpec(OperatorSpec):
    """`comap` with one function for each stream."""

    first: Callable[[Any], Any]
    second: Callable[[Any], Any]

    @property
    def entries(self) -> tuple[Callable[..., Any], ...]:
        """Both functions."""
        return self.first, self.second

    def bind(self) -> BoundOperator:
        """The operator of one replica."""
        return BoundOperator(bind_comap(self.first, self.second), None)


class JoinSizeError(SageError):
    """One item meets more items of its key than one call may put out."""


@dataclass(frozen=True, slots=True)
class JoinSpec(OperatorSpec):
    """`join` of two keyed streams.

    Attributes:
        function: makes the output of a pair; None gives the pair itself.
        keeps_left: whether a left item without a partner is emitted, with None, at the end of the stream.
        outputs_max: most pairs of one item.
    """

    function: Callable[[Any, Any], Any] | None
    keeps_left: bool
    outputs_max: int

    @property
    def entries(self) -> tuple[Callable[..., Any], ...]:
        """The function of a pair."""
        return () if self.function is None else (self.function,)

    def bind(self) -> BoundOperator:
        """The operator of one replica."""
        join = _Join(self)
        return BoundOperator(
            join.execute,
            join,
            leftovers=join.unmatched if self.keeps_left else None,
            last=join.without_partner,
            together=join.execute_together if self.function is None else None,
        )


class _Join(Function):
    """Keeps all items of both sides by key and pairs each new one with those of the other side.

    Invariant: an item is kept if and only if its call has succeeded; so a pair is put out once, by whichever of the
    two comes second.
    """

    def __init__(self, spec: JoinSpec) -> None:
        super().__init__()
        self._function = spec.function
        self._outputs_max = spec.outputs_max
        # One look-up finds both sides of a key.
        self._kept: dict[Hashable, tuple[list[Any], list[Any]]] = {}
        # Used again for each packet: the garbage collector need not look at what lies in old lists.
        self._partners: list[Any] = []
        self._outputs: list[Any] = []

    def execute(self, sided: Sided) -> list[Any]:
        """The outputs of all pairs that the item makes."""
        side, item = sided
        key = self.ctx.key
        try:
            kept = self._kept[key]
        except KeyError:
            kept = self._kept[key] = [], []
        mine, others = kept[side], kept[1 - side]
        if not others:
            mine.append(item)
            return []
        if len(others) > self._outputs_max:
            raise JoinSizeError(
                f"join {self.ctx.name!r}: one item meets {len(others)} items of the key {key!r}, more than "
                f"io.outputs_max = {self._outputs_max}: reduce one of the streams before it, or raise the limit"
            )
        function = self._function
        if function is None:
            outputs = list(zip(others, repeat(item)) if side else zip(repeat(item), others))
        elif side:
            outputs = [function(other, item) for other in others]
        else:
            outputs = [function(item, other) for other in others]
        mine.append(item)
        return outputs

    def execute_together(
        self, side: int, items: Sequence[Any], keys: Sequence[Hashable]
    ) -> tuple[list[Any], Sequence[int]] | None:
        """`execute` for many items of one side: they do not meet each other, so one pass can follow the other.

        The passes are loops of the interpreter in C. Each item and each partner lies somewhere in memory, and a loop
        that does nothing but take one after the other has many of them under way at a time; by the time pairs are
        made of them, they are in the caches.
        """
        every = self._kept
        try:
            try:
                found = list(map(every.__getitem__, keys))
            except KeyError:
                found = [every.get(key) or every.setdefault(key, ([], [])) for key in keys]
        except Exception:  # a key of the user's may raise anything when it is compared: an error of its item
            return None
        columns = list(zip(*found, strict=True))
        mine, others = columns[side], columns[1 - side]
        counts = list(map(len, others))
        total = sum(counts)
        if total > _TOGETHER_MAX or max(counts) > self._outputs_max:
            return None
        partners, outputs = self._partners, self._outputs
        partners.clear()
        outputs.clear()
        _exhaust(map(partners.extend, others))
        _exhaust(map(list.append, mine, items))
        # Making pairs calls the garbage collector, which looks at all that is new: so less is there by then.
        del found, columns, mine, others
        own = chain.from_iterable(map(repeat, items, counts))
        outputs.extend(zip(partners, own, strict=True) if side else zip(own, partners, strict=True))
        partners.clear()
        return outputs, counts

    def unmatched(self) -> Iterable[tuple[Hashable, Any]]:
        """(key, item) of each left item that has met no partner."""
        return [(key, item) for key, (left, right) in self._kept.items() if not right for item in left]

    def without_partner(self, item: Any) -> Any:
        """The output of such an item."""
        return (item, None) if self._function is None else self._function(item, None)

    def get_state(self) -> Any:
        """The items of both sides by key."""
        return self._kept

    def restore_state(self, state: Any) -> None:
        """Take them back."""
        self._kept = state


_exhaust = deque[Any](maxlen=0).extend
