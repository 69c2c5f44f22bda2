"""What generated code needs where many items are worked on in one call: an operator that takes a whole packet, or a
sink that is a list.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import accumulate, chain, repeat
from types import BuiltinMethodType
from typing import Any

from sage.kernel.graph import OperatorKind

from .steps import Step

__all__ = ["TOGETHER_MIN", "extend_of", "key_at", "key_column"]

TOGETHER_MIN = 8
"""Smaller packets are run row by row: a call for all of them costs what some rows do."""


def extend_of(step: Step) -> Callable[[list[Any]], None] | None:
    """For a sink that is the `append` of a list: what does the same for many items; else None.

    Example:
        >>> from sage.kernel.graph import IOSpec
        >>> from sage.kernel.operators import OperatorContext
        >>> from sage.kernel.telemetry import OperatorCounters
        >>> def sink(call):
        ...     facts = {"context": OperatorContext("out"), "io": IOSpec(), "counters": OperatorCounters("out")}
        ...     return Step(name="out", kind=OperatorKind.SINK, call=call, function=None, **facts)
        >>> items = []
        >>> extend_of(sink(items.append))(["a", "b"]), items
        (None, ['a', 'b'])
        >>> extend_of(sink(print)) is None
        True
    """
    call = step.call
    if step.kind is not OperatorKind.SINK or not isinstance(call, BuiltinMethodType) or call.__name__ != "append":
        return None
    # Of a class derived from list both may do anything.
    items = call.__self__
    return items.extend if type(items) is list else None


def key_column(keys: Sequence[Hashable], counts: Sequence[int]) -> Iterator[Hashable]:
    """The key of each output, where item `i` has `keys[i]` and `counts[i]` outputs.

    Example:
        >>> list(key_column(["a", "b", "c"], [2, 0, 1]))
        ['a', 'a', 'c']
    """
    return chain.from_iterable(map(repeat, keys, counts))


def key_at(keys: Sequence[Hashable], counts: Sequence[int], output: int) -> Hashable:
    """The key of one output.

    Example:
        >>> [key_at(["a", "b", "c"], [2, 0, 1], output) for output in range(3)]
        ['a', 'a', 'c']
    """
    return next(key for key, behind in zip(keys, accumulate(counts), strict=True) if output < behind)
