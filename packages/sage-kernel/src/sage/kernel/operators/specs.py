"""What operators that the library itself makes have in common: a picklable description, out of which the operator of
each replica is made.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .functions import Function

__all__ = ["BoundOperator", "OperatorSpec", "Together"]

Together = Callable[[int, Sequence[Any], Sequence[Hashable]], tuple[list[Any], Sequence[int]] | None]


@dataclass(frozen=True, slots=True)
class BoundOperator:
    """The operator of one replica.

    Attributes:
        call: what to call for an item (of folds: for an accumulator and an item).
        function: the function object behind it, if any.
        create: makes the accumulator of a new key (aggregate).
        result: what an accumulator is turned into (aggregate), None for the accumulator itself.
        builtin: name of the ready-made fold that it is, or None; `call` does what that name says and nothing else.
        leftovers: gives (key, what was kept) at the end of the stream, None where nothing is kept for it.
        last: the output for what was kept.
        ended: told which of its streams has ended, gives what can go on now.
        together: `together(side, items, keys)` does for many items of one stream what `call` does for each; the outputs
            of all and how many each of them has, or None, and nothing done, where they have to be called one by one.
            The list of the outputs is good until the next call.
    """

    call: Callable[..., Any]
    function: Function | None
    create: Callable[[], Any] | None = None
    result: Callable[[Any], Any] | None = None
    builtin: str | None = None
    leftovers: Callable[[], Iterable[tuple[Hashable, Any]]] | None = None
    last: Callable[[Any], Any] | None = None
    ended: Callable[[int], list[Any]] | None = None
    together: Together | None = None


class OperatorSpec(ABC):
    """What `FunctionFactory` takes besides the user's functions; a frozen dataclass, so that it can travel."""

    @property
    @abstractmethod
    def entries(self) -> tuple[Callable[..., Any], ...]:
        """The user's functions that get items."""

    @abstractmethod
    def bind(self) -> BoundOperator:
        """The operator of one replica."""

    @property
    def is_async(self) -> bool:
        """Whether one of the user's functions is a coroutine function."""
        return any(inspect.iscoroutinefunction(entry) for entry in self.entries)
