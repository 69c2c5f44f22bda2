"""Places: where an item belongs in the order of its source, and who knows which places are still on their way.

Rows between a source and an `ordered()` carry a `Stamp` where others carry their origin. The first number of a place
counts the items of all sources in turn (item `k` of source `s` of `n` is `k * n + s`); what follows tells the outputs
of one item apart. Nothing here waits or calls anybody, except `SequenceTracker`, which has the lock.

Invariants: a place is complete when its source has passed it and no row of it is alive; `frontier` is the first place
that is not complete; no source emits a place that is `max_ahead` or more beyond the frontier.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sage.common.errors import SageError
from sage.kernel.packet import Packet

__all__ = [
    "END",
    "DatedState",
    "OrderLostError",
    "Place",
    "Resequencer",
    "Row",
    "SequenceTracker",
    "Stamp",
    "merged_place",
    "placed",
]

Place = tuple[int, ...]

END = 1 << 62
"""First number of the places of what is emitted at the end of the stream: behind all items."""


class OrderLostError(SageError):
    """A row came for a place that has been passed: an operator has kept it beyond the end of its call."""


class Stamp(int):
    """An origin that knows its place. Two are equal only if they are the same: equal times are nothing to join by.

    Its value is the origin, in ns of the backend's monotonic clock.

    Example:
        >>> stamp = placed(1_000, (7, 0))
        >>> stamp + 1, stamp.place, stamp == placed(1_000, (7, 0))
        (1001, (7, 0), False)
    """

    place: Place

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    __hash__ = object.__hash__

    def __reduce__(self) -> tuple[Callable[..., Stamp], tuple[int, Place]]:
        return placed, (int(self), self.place)


def placed(origin: int, place: Place) -> Stamp:
    """The stamp of an origin and a place."""
    stamp = Stamp(origin)
    stamp.place = place
    return stamp


def merged_place(place: Place, input_index: int) -> Place:
    """The place behind an operator with several inputs: those of the first input come first.

    Example:
        >>> merged_place((7, 2), 1)
        (7, 1, 2)
    """
    return place[0], input_index, *place[1:]


class DatedState(dict[Hashable, Any]):
    """The accumulators of a fold that emits at the end, with the place at which each key first came.

    Attributes:
        stamp: of the row that is being folded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stamp: int | None = None
        self._first: dict[Hashable, Place] = {}

    def __setitem__(self, key: Hashable, value: Any) -> None:
        super().__setitem__(key, value)
        if self.stamp is not None:
            self.note(key, self.stamp)

    def note(self, key: Hashable, stamp: int) -> None:
        """A row of `key` has been folded."""
        if isinstance(stamp, Stamp):
            first = self._first.get(key)
            if first is None or stamp.place < first:
                self._first[key] = stamp.place

    def end_stamp(self, key: Hashable, now: int) -> Stamp:
        """Where the result of `key` belongs: at the end, in the order in which the keys first came."""
        return placed(now, (END, *self._first.get(key, (END,))))


class SequenceTracker:
    """Knows which places are complete, for one `ordered()`. All methods may be called from any thread.

    Args:
        sources: the source replicas that lead to it, as their numbers in a turn.
        width: source replicas in a turn.
        max_ahead: items that all sources together may be ahead of the frontier; each may be one.

    Attributes:
        frontier: first place that is not complete.
        limit: first place that must not be emitted yet.

    Example:
        >>> tracker = SequenceTracker([0], width=1, max_ahead=2)
        >>> tracker.report({1: -1}), tracker.frontier
        (None, 0)
        >>> tracker.report({0: -1}), tracker.frontier, tracker.limit
        (None, 2, 4)
    """

    def __init__(self, sources: Iterable[int], width: int, max_ahead: int) -> None:
        own = set(sources)
        self._width = width
        self._ends: list[int | None] = [None if source in own else 0 for source in range(width)]
        self._ahead = max(width, max_ahead * width // len(own))
        self._changed = threading.Condition(threading.Lock())
        self._waiting = 0
        # A place that is in neither is alive once, if its source has emitted it.
        self._alive: dict[int, int] = {}
        self._complete: set[int] = set()
        self._nudge: Callable[[], None] | None = None
        self._nudged = False
        self.frontier = 0
        self.limit = self._ahead

    def on_advance(self, nudge: Callable[[], None]) -> None:
        """Have `nudge` called when the frontier has advanced by a `report`; once until the next `arrive`."""
        self._nudge = nudge

    def report(self, changes: Mapping[int, int]) -> None:
        """Rows have become more or fewer.

        Args:
            changes: by place, rows that have come to life minus rows that are done. What an item has given must be
                reported no later than that the item itself is done.

        Raises:
            OrderLostError: a place had been passed.
        """
        with self._changed:
            self._apply(changes)
            nudge = self._advance() and not self._nudged
            self._nudged |= nudge
        if nudge and self._nudge is not None:
            self._nudge()

    def arrive(self, changes: Mapping[int, int]) -> int:
        """`report` of the `ordered()` itself, which has taken rows; the frontier after it."""
        with self._changed:
            self._nudged = False
            self._apply(changes)
            self._advance()
            return self.frontier

    def _apply(self, changes: Mapping[int, int]) -> None:
        alive = self._alive
        for place, change in changes.items():
            left = alive.pop(place, 1) + change
            if place < self.frontier or left < 0:
                raise OrderLostError(
                    f"a row came for place {place}, but all before {self.frontier} was complete: an operator before "
                    "ordered() keeps items beyond the end of its call"
                )
            if not left:
                self._complete.add(place)
            elif left > 1:
                alive[place] = left

    def _advance(self) -> bool:
        frontier, complete = self.frontier, self._complete
        last = max(end for end in self._ends if end is not None) * self._width if None not in self._ends else None
        while True:
            if frontier in complete:
                complete.remove(frontier)
            elif (last is not None and frontier >= last) or not self._is_beyond_end(frontier):
                break
            frontier += 1
        if frontier == self.frontier:
            return False
        self.frontier, self.limit = frontier, frontier + self._ahead
        if self._waiting:
            self._changed.notify_all()
        return True

    def _is_beyond_end(self, place: int) -> bool:
        position, source = divmod(place, self._width)
        end = self._ends[source]
        return end is not None and position >= end

    def end_source(self, source: int, position: int) -> None:
        """A source has ended; `position` is the first that it has not emitted."""
        with self._changed:
            self._ends[source] = position
        self.report({})

    def wait(self, place: int, stopping: Sequence[bool]) -> None:
        """Wait until `place` may be emitted, or until `stopping` is not empty any more and somebody called `wake`."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: place < self.limit or stopping)
            finally:
                self._waiting -= 1

    def wake(self) -> None:
        """Have those who wait look whether they have to end."""
        with self._changed:
            self._changed.notify_all()


Row = tuple[Place, Any, Hashable, int]
"""Place, value, key, origin."""


class Resequencer:
    """Rows that came before their turn. Pure: it is told the frontier.

    Attributes:
        held: rows that wait.
        peak: most that ever waited.

    Example:
        >>> rows = Resequencer()
        >>> rows.add(Packet(["b", "a"], origins=[placed(9, (1,)), placed(9, (0,))]))
        >>> [row[1] for row in rows.release(0)], [row[1] for row in rows.release(2)], rows.peak
        ([], ['a', 'b'], 2)
    """

    def __init__(self) -> None:
        self._rows: dict[int, list[Row]] = {}
        self._released = 0
        self.held = 0
        self.peak = 0

    def add(self, packet: Packet) -> None:
        """Take rows in."""
        rows = self._rows
        keys: Sequence[Hashable] = packet.keys if packet.keys is not None else (None,) * packet.size
        stamps = packet.origins
        assert not isinstance(stamps, int), "a row without a place"
        for value, key, stamp in zip(packet.values, keys, stamps, strict=True):
            place = stamp.place  # type: ignore[attr-defined]  # rows on the way to an ordered() have stamps
            row = (place, value, key, stamp)
            if place[0] in rows:
                rows[place[0]].append(row)
            else:
                rows[place[0]] = [row]
        self.held += packet.size
        self.peak = max(self.peak, self.held)

    @staticmethod
    def counted(packet: Packet) -> dict[int, int]:
        """The changes that the arrival of these rows means for a tracker."""
        stamps = packet.origins
        assert not isinstance(stamps, int), "a row without a place"
        changes: dict[int, int] = {}
        for stamp in stamps:
            place = stamp.place[0]  # type: ignore[attr-defined]
            if place != END:
                changes[place] = changes.get(place, 0) - 1
        return changes

    def release(self, frontier: int) -> list[Row]:
        """The rows of all places before the frontier, in order."""
        released: list[Row] = []
        for place in range(self._released, frontier) if self.held else ():
            found = self._rows.pop(place, None)
            if found is not None:
                if len(found) > 1:
                    found.sort(key=itemgetter(0))
                released += found
        self._released = frontier
        self.held -= len(released)
        return released

    def drain(self) -> list[Row]:
        """All rows, in order: the stream has ended."""
        rest = sorted((row for rows in self._rows.values() for row in rows), key=itemgetter(0))
        self._rows.clear()
        self.held = 0
        return rest
