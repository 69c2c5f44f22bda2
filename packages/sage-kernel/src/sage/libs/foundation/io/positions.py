"""The base of sources that know where they are in their medium and can go there again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from sage.common.errors import InvalidArgumentError
from sage.kernel.operators import BadRecord, SourceFunction

__all__ = ["PositionedSource"]

Out = TypeVar("Out")


class PositionedSource(SourceFunction[Out]):
    """A source whose offset is a place in its medium, so that starting again costs a seek and not a second
    reading.

    The offset is `[where, number]`: a place that `scan` understands (bytes, a path) and how many records were
    met until there. With parallelism above 1 each replica takes its share of the records by `number`, so none
    is read twice or left out.

    Example:
        >>> class Letters(PositionedSource[str]):
        ...     def scan(self, where, number):
        ...         for place in range(where or 0, 5):
        ...             number += 1
        ...             yield "abcde"[place], [place + 1, number]
        >>> source = Letters()
        >>> items = iter(source.execute()); next(items), next(items), source.offset_after(2)
        ('a', 'b', [2, 2])
        >>> list(Letters().read_from([2, 2]))
        ['c', 'd', 'e']
    """

    _position: list[Any] | None = None

    @abstractmethod
    def scan(self, where: Any, number: int) -> Iterator[tuple[Out | BadRecord, list[Any]]]:
        """Yield `(record, [where, number] just behind it)`; `where` is None at the beginning."""

    def execute(self) -> Iterable[Out]:
        """Yield the records from the beginning; unreadable ones as `BadRecord`."""
        return self._follow(None, 0)

    def read_from(self, offset: Any) -> Iterable[Out]:
        """Yield the records behind `offset`.

        Raises:
            InvalidArgumentError: `offset` is not one of this kind of source.
        """
        match offset:
            case None:
                return self._follow(None, 0)
            case [where, int(number)]:
                return self._follow(where, number)
            case _:
                raise InvalidArgumentError(
                    f"offset of {type(self).__name__} must be [where, number], got {offset!r} (from another source?)"
                )

    def offset_after(self, count: int) -> Any:
        """`[where, number]` just behind the last record yielded; None before the first."""
        return self._position

    def _follow(self, where: Any, number: int) -> Iterator[Any]:
        self._position = None if where is None and number == 0 else [where, number]
        replica, replicas = (0, 1) if self._ctx is None else (self._ctx.replica_index, self._ctx.parallelism)
        for record, position in self.scan(where, number):
            if replicas > 1 and (position[1] - 1) % replicas != replica:
                continue
            # Set before the yield: the runtime asks for the offset while this generator rests.
            self._position = position
            yield record
