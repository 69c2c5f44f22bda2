"""Rows on their way to a process, and which of its outputs belong to which row."""

from __future__ import annotations

import functools
import inspect
from bisect import bisect_right
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sage.kernel.graph import BaseTransformation
from sage.kernel.operators import Function, FunctionFactory

__all__ = ["Batch", "Counts", "is_instance", "joined", "kept_outputs", "rows_of", "undone"]


Counts = tuple[int, int, int, int, int]
"""Items in, items out, errors, retries, dead letters."""


@dataclass(slots=True, eq=False)
class Batch:
    """Rows on their way to the process or waiting to be sent.

    Attributes:
        done: how many of them are answered.
        alone: it is one row of those with which a process has died.
        attempts: processes that have died with this row alone.
        spared: times that a line was lost with this row alone of which another process has died than the one that had
            it.
    """

    values: Sequence[Any]
    keys: Sequence[Hashable] | None
    origins: int | list[int]
    done: int = 0
    alone: bool = False
    attempts: int = 0
    spared: int = 0

    def rows(self) -> list[Batch]:
        """Its rows without an answer, each by itself."""
        return [
            Batch(
                [value],
                None if self.keys is None else [self.keys[index]],
                self.origins if isinstance(self.origins, int) else [self.origins[index]],
                alone=True,
                attempts=self.attempts,
                spared=self.spared,
            )
            for index, value in enumerate(self.values)
            if index >= self.done
        ]


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches of which nothing is answered yet, as one.

    Example:
        >>> joined([Batch([1], None, 7), Batch([2, 3], None, [7, 8])])
        Batch(values=[1, 2, 3], keys=None, origins=[7, 7, 8], done=0, alone=False, attempts=0, spared=0)
    """
    first = batches[0]
    if len(batches) == 1:
        return first
    origins: int | list[int] = first.origins
    if any(batch.origins != origins or not isinstance(batch.origins, int) for batch in batches):
        columns = [
            [batch.origins] * len(batch.values) if isinstance(batch.origins, int) else batch.origins
            for batch in batches
        ]
        origins = [origin for column in columns for origin in column]
    return Batch(
        [value for batch in batches for value in batch.values],
        None if first.keys is None else [key for batch in batches for key in batch.keys or ()],
        origins,
        alone=first.alone,
    )


def rows_of(
    errors: Mapping[int, Exception], starts: Sequence[int] | None, outputs: int
) -> dict[int, tuple[Exception, range]]:
    """The rows that are to be set aside: by row its first error and all of its outputs.

    Args:
        errors: what is wrong with outputs, by their index.
        starts: for each row, how many outputs there were before it; None where each row has exactly one.
        outputs: how many there are.

    Example:
        >>> error = ValueError("no")
        >>> rows_of({2: error}, [0, 2, 2, 5], 6)
        {2: (ValueError('no'), range(2, 5))}
        >>> rows_of({2: error}, None, 6)
        {2: (ValueError('no'), range(2, 3))}
    """
    found: dict[int, tuple[Exception, range]] = {}
    for index, error in sorted(errors.items()):
        if starts is None:
            found[index] = (error, range(index, index + 1))
            continue
        row = bisect_right(starts, index) - 1
        end = starts[row + 1] if row + 1 < len(starts) else outputs
        found.setdefault(row, (error, range(starts[row], end)))
    return found


def kept_outputs(
    values: Sequence[Any], keys: Sequence[Hashable], origins: Sequence[int], gone: set[int]
) -> tuple[list[Any], list[Hashable], list[int]]:
    """The columns of outputs without those whose index is in `gone`; a column may be empty."""
    return (
        [value for index, value in enumerate(values) if index not in gone],
        [key for index, key in enumerate(keys) if index not in gone],
        [origin for index, origin in enumerate(origins) if index not in gone],
    )


def undone(steps: int, exploding: int, outputs: int) -> list[Counts]:
    """For each operator, what to add to its counts when a row that has gone through all of them is set aside as a
    whole: it came in, and got no further. What became of it between a flatmap and the last operator stays counted.

    Args:
        steps: operators of the chain.
        exploding: position of the first that makes several items of one; `steps` without such.
        outputs: how many the row had.

    Example:
        >>> undone(3, 3, 1)
        [(0, -1, 0, 0, 0), (-1, -1, 0, 0, 0), (-1, -1, 1, 0, 0)]
    """
    last = steps - 1
    return [
        (
            -1 if 0 < position <= exploding else 0,
            -outputs if position == last else -1 if position < exploding else 0,
            1 if position == last else 0,
            0,
            0,
        )
        for position in range(steps)
    ]


def is_instance(operator: BaseTransformation) -> bool:
    """Whether it was given as an object that may keep something in itself: no function, and no class, which is made
    anew for each replica anyway.
    """
    factory = operator.factory
    target = factory.target if isinstance(factory, FunctionFactory) else None
    if inspect.ismethod(target):
        target = target.__self__
    if isinstance(target, Function):
        return True
    return callable(target) and not (isinstance(target, (type, functools.partial)) or inspect.isroutine(target))
