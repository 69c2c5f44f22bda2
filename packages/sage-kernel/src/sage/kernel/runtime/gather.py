"""Rows that wait for each other: those of a `batch`, which become one item, and those of a batched function, which are
worked on in one call.

Invariants: each row that is added leaves in exactly one list; a list holds at most `size` rows, in the order in which
they were added; lists that are open are in the order in which they were begun, so the first is due first.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sized
from dataclasses import dataclass
from typing import Any, Protocol

from sage.kernel.graph import BaseTransformation, OperatorKind
from sage.kernel.operators import BatchSpec, FunctionFactory

from .item_errors import ItemError, check_output
from .laps import with_most_rounds
from .places import END, Stamp, placed

__all__ = [
    "Gather",
    "Gathered",
    "ListCallError",
    "ListLengthError",
    "Row",
    "alone_error",
    "check_results",
    "create_gather",
]

Row = tuple[Any, Hashable, int]
"""Value, key, origin."""


@dataclass(slots=True)
class Gathered:
    """A list of rows as columns.

    Attributes:
        since_ns: when its first row came.
    """

    values: list[Any]
    keys: list[Hashable]
    origins: list[int]
    since_ns: int

    def rows(self) -> list[Gathered]:
        """Its rows, each by itself."""
        columns = zip(self.values, self.keys, self.origins, strict=True)
        return [Gathered([value], [key], [origin], self.since_ns) for value, key, origin in columns]


class ListCallError(ItemError):
    """The call of a batched function failed; its rows have no outputs yet."""

    def __init__(self, gathered: Gathered, error: Exception) -> None:
        super().__init__(str(error))
        self.gathered = gathered
        self.error = error


class ListLengthError(ItemError):
    """A batched function gave more or fewer outputs than it got items."""


class _Call(Protocol):
    def __call__(self, items: list[Any], /) -> Any: ...


class Gather:
    """Gathers the rows of one operator of one replica.

    Args:
        name: of the operator.
        size: rows of a full list.
        max_wait_s: how long the first row of a list may wait for others; None for ever.
        by_key: rows of different keys never share a list.
        call: the batched function; None makes an item out of each list.
        now: monotonic clock in ns.

    Example:
        >>> gather = Gather("pairs", 2, None, now=lambda: 0)
        >>> gather.add("a", None, 7), gather.add("b", None, 5)
        (None, [(['a', 'b'], None, 5)])
    """

    __slots__ = ("_by_key", "_call", "_max_wait_ns", "_name", "_now", "_open", "_size")

    def __init__(
        self,
        name: str,
        size: int,
        max_wait_s: float | None,
        *,
        by_key: bool = False,
        call: _Call | None = None,
        now: Callable[[], int],
    ) -> None:
        self._name = name
        self._size = size
        self._max_wait_ns = None if max_wait_s is None else int(max_wait_s * 1e9)
        self._by_key = by_key
        self._call = call
        self._now = now
        self._open: dict[Hashable, Gathered] = {}

    @property
    def waiting(self) -> int:
        """Rows in lists that are open."""
        return sum(len(gathered.values) for gathered in list(self._open.values()))

    @property
    def held(self) -> list[int]:
        """The origins of the rows in lists that are open, where the place of such a row in an order is kept free. The
        lists of a `batch` that wait for ever keep none free, or the source could wait for them: they have the place of
        the row that fills them.
        """
        if self._call is None and self._max_wait_ns is None:
            return []
        return [origin for gathered in list(self._open.values()) for origin in gathered.origins]

    def put(self, value: Any, key: Hashable, origin: int) -> Gathered | None:
        """Take one more row; the list that is full with it, None where none is."""
        place = key if self._by_key else None
        gathered = self._open.get(place)
        if gathered is None:
            since_ns = 0 if self._max_wait_ns is None else self._now()
            gathered = self._open[place] = Gathered([value], [key], [origin], since_ns)
        else:
            gathered.values.append(value)
            gathered.keys.append(key)
            gathered.origins.append(origin)
        if len(gathered.values) < self._size:
            return None
        return self._open.pop(place)

    def add(self, value: Any, key: Hashable, origin: int) -> list[Row] | None:
        """Take one more row; the outputs of the list that is full with it, None where none is.

        Raises:
            ListCallError: the call failed.
        """
        gathered = self.put(value, key, origin)
        return None if gathered is None else self.outputs(gathered)

    @property
    def due_ns(self) -> int | None:
        """When the first open list has to go, None where none ever has to."""
        if self._max_wait_ns is None or not self._open:
            return None
        return next(iter(self._open.values())).since_ns + self._max_wait_ns

    def take(self, now: int | None = None) -> Gathered | None:
        """Close the first open list if it is due at `now`; without a time, whether it is due or not."""
        if not self._open:
            return None
        place, gathered = next(iter(self._open.items()))
        if now is not None and (self._max_wait_ns is None or gathered.since_ns + self._max_wait_ns > now):
            return None
        del self._open[place]
        return gathered

    def outputs(self, gathered: Gathered) -> list[Row]:
        """The outputs of a closed list.

        Raises:
            ListCallError: the call failed.
        """
        if self._call is None:
            return [(gathered.values, gathered.keys[0], self._list_origin(gathered))]
        try:
            # A copy: the function may change the list, and a retry needs it as it was.
            results = check_results(self._name, self._call(gathered.values[:]), len(gathered.values))
        except Exception as error:  # the boundary to user code: it is the list's error
            raise ListCallError(gathered, error) from error
        return list(zip(results, gathered.keys, gathered.origins, strict=True))

    def _list_origin(self, gathered: Gathered) -> int:
        # The list has waited as long as its oldest item.
        oldest, first, last = min(gathered.origins), gathered.origins[0], gathered.origins[-1]
        if not isinstance(first, Stamp) or not isinstance(last, Stamp):
            return with_most_rounds(oldest, gathered.origins)
        if self._max_wait_ns is None and len(gathered.values) < self._size:
            return placed(int(oldest), (END, *first.place))
        return placed(int(oldest), last.place)


def check_results(name: str, results: Any, items: int) -> list[Any]:
    """What a batched function gave for so many items, as a list of as many outputs.

    Raises:
        ItemError: no list.
        ListLengthError: one of another length.

    Example:
        >>> check_results("embed", [1, 2], 3)
        Traceback (most recent call last):
        ...
        sage.kernel.runtime.gather.ListLengthError: batched map 'embed' must return one output for each item, got 2
        output(s) for 3 item(s)
    """
    if isinstance(results, (str, bytes, dict, set, frozenset)) or not isinstance(results, Iterable):
        check_output(name, results)
        hint = ": did you forget to return?" if results is None else ""
        raise ItemError(f"batched map {name!r} must return a list of outputs, got {type(results).__name__}{hint}")
    # Any sequence, also the rows of an array; a generator is read no further than its fault shows.
    if isinstance(results, Sized):
        outputs = list(results) if len(results) == items else None
        count = str(len(results))
    else:
        read = [output for output, _ in zip(results, range(items + 1), strict=False)]
        outputs = read if len(read) == items else None
        count = f"more than {items}" if len(read) > items else str(len(read))
    if outputs is None:
        raise ListLengthError(
            f"batched map {name!r} must return one output for each item, got {count} output(s) for {items} item(s)"
        )
    return outputs


def alone_error(of_list: Exception, alone: Exception) -> Exception:
    """What is told of an item that failed in a list and alone: its own error, except that the length of a whole list
    says more than that of one.
    """
    if isinstance(of_list, ListLengthError) and isinstance(alone, ListLengthError):
        return of_list
    if alone.__cause__ is None and alone is not of_list:
        alone.__cause__ = of_list
    return alone


def create_gather(operator: BaseTransformation, call: Callable[..., Any], now: Callable[[], int]) -> Gather | None:
    """What gathers the rows of one replica of an operator, None where each is worked on alone."""
    if operator.kind is OperatorKind.BATCH:
        assert isinstance(operator.factory, FunctionFactory)
        spec = operator.factory.target
        assert isinstance(spec, BatchSpec)
        return Gather(operator.name, spec.size, spec.max_wait_s, by_key=operator.keyed_input, now=now)
    batching = operator.contract.io.batching
    if batching is None:
        return None
    return Gather(operator.name, batching.size, batching.max_wait_s, call=call, now=now)
