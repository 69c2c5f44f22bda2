"""How many items are inside a loop: who may enter, and when nothing can come back any more.

Nothing is timed. Each task of a loop says how many rows it puts out before it says how many it is through with, so 0
means that the loop is empty. An acknowledgement per item would say the same and cost a message each.

Invariants: the count is never lower than the rows that are inside; a row enters only while the count is below `limit`;
the loop ends once, when all its entrances have ended and the count is 0.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Self

from sage.common.errors import SageError
from sage.kernel.operators import BranchItem
from sage.kernel.packet import EndOfStream, Packet
from sage.platform import Channel, ChannelClosedError, ChannelSpec
from sage.platform.channels import WritableGate

__all__ = [
    "EntranceChannel",
    "FeedbackChannel",
    "LoopBook",
    "LoopEnd",
    "LoopEndedError",
    "LoopRoundsError",
    "LoopTracker",
]


class LoopEndedError(SageError):
    """An item came back to a loop that had ended."""


class LoopRoundsError(SageError):
    """An item has gone round as often as it may, and is not done."""


class LoopEnd:
    """Control packet to a future: all entrances have ended and nothing is inside."""

    __slots__ = ()
    size = 0

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return True

    def split(self, count: int) -> tuple[Self, Self]:
        """A control packet has no items to divide."""
        raise ValueError(f"cannot split {self!r} at {count}")

    def absorb(self, other: object) -> bool:
        """A control packet is never joined with another."""
        return False


class LoopTracker:
    """Counts the rows inside one loop. All methods may be called from any thread.

    Args:
        name: of its first future.
        limit: rows from outside wait while so many are inside.
        entrances: channels through which rows from outside come; each ends once.

    Example:
        >>> tracker = LoopTracker("again", limit=3, entrances=1)
        >>> tracker.admit(5), tracker.admit(1), tracker.inside
        (3, 0, 3)
        >>> tracker.report(-3); tracker.end_entrance(); tracker.ended
        True
    """

    def __init__(self, name: str, *, limit: int, entrances: int) -> None:
        self.name = name
        self._limit = limit
        # Writers wait until there is room for some, so that hand-overs are not of one item each.
        self._low_water = limit - max(1, limit // 16)
        self._entrances = entrances
        self._lock = threading.Lock()
        self._inside = 0
        self._peak = 0
        self._ended = self._closed = False
        self._wakes: dict[Callable[[], None], None] = {}
        self._on_end: list[Callable[[], None]] = []

    @property
    def inside(self) -> int:
        """Rows inside, those counted that are worked on and their outputs included."""
        return self._inside

    @property
    def peak(self) -> int:
        """Most rows that were ever inside when one entered."""
        return self._peak

    @property
    def ended(self) -> bool:
        """Whether nothing can come back any more."""
        return self._ended

    @property
    def closed(self) -> bool:
        """Whether the job is being aborted."""
        return self._closed

    def on_end(self, call: Callable[[], None]) -> None:
        """Have `call` called when the loop ends."""
        self._on_end.append(call)

    def admit(self, rows: int) -> int:
        """Let up to `rows` rows in; how many.

        Raises:
            ChannelClosedError: the job is being aborted.
        """
        with self._lock:
            if self._closed:
                raise ChannelClosedError(self.name)
            admitted = max(0, min(rows, self._limit - self._inside))
            self._inside += admitted
            self._peak = max(self._peak, self._inside)
            return admitted

    def report(self, change: int) -> None:
        """Rows inside have become more or fewer. What a row has become is reported no later than that it is done."""
        wakes: dict[Callable[[], None], None] = {}
        with self._lock:
            self._inside += change
            if change < 0 and self._wakes and self._inside <= self._low_water:
                wakes, self._wakes = self._wakes, wakes
            ends = self._ends_now()
        self._tell(wakes, ends)

    def end_entrance(self) -> None:
        """Through one of the entrances nothing comes any more."""
        with self._lock:
            self._entrances -= 1
            ends = self._ends_now()
        self._tell({}, ends)

    def _ends_now(self) -> bool:
        if self._ended or self._entrances or self._inside:
            return False
        self._ended = True
        return True

    def _tell(self, wakes: Mapping[Callable[[], None], None], ends: bool) -> None:
        for wake in wakes:
            wake()
        for call in self._on_end if ends else ():
            call()

    def notify_room(self, wake: Callable[[], None]) -> bool:
        """Call `wake` once when rows may enter; True, and no call, when they may already.

        Raises:
            ChannelClosedError: the job is being aborted.
        """
        with self._lock:
            if self._closed:
                raise ChannelClosedError(self.name)
            if self._inside < self._limit:
                return True
            self._wakes[wake] = None
            return False

    def close(self) -> None:
        """The job is being aborted: release everybody who waits."""
        with self._lock:
            self._closed = True
            wakes, self._wakes = self._wakes, {}
        self._tell(wakes, ends=False)


class _ChannelView:
    """A channel as some of its writers see it."""

    def __init__(self, channel: Channel[Any]) -> None:
        self._channel = channel

    @property
    def spec(self) -> ChannelSpec:
        """Name and capacity."""
        return self._channel.spec

    @property
    def occupancy(self) -> int:
        """Items that wait in the channel."""
        return self._channel.occupancy

    @property
    def peak_occupancy(self) -> int:
        """Most items that ever waited in it."""
        return self._channel.peak_occupancy

    @property
    def load(self) -> int:
        """Items that wait, plus those that the reader took and has not come back from."""
        return self._channel.load

    @property
    def room(self) -> int:
        """Items that could be put now."""
        return self._channel.room

    @property
    def closed(self) -> bool:
        """Whether nothing can be put any more."""
        return self._channel.closed

    def try_put(self, message: Any) -> Any:
        """Put as many items as fit now; the rest comes back, None when all went in."""
        return self._channel.try_put(message)

    def put(self, message: Any) -> None:
        """Put the whole message; waits while there is no room."""
        gate = WritableGate()
        while (message := self.try_put(message)) is not None:
            gate.wait([self])

    def try_get(self, items_max: int) -> Any:
        """The next message, at most `items_max` items of it; None when the channel is empty."""
        return self._channel.try_get(items_max)

    def get(self, items_max: int) -> Any:
        """The next message, at most `items_max` items of it; waits while the channel is empty."""
        return self._channel.get(items_max)

    def notify_readable(self, wake: Callable[[], None]) -> bool:
        """Call `wake` once when there is something to read; True, and no call, when there is already."""
        return self._channel.notify_readable(wake)

    def notify_writable(self, wake: Callable[[], None]) -> bool:
        """Call `wake` once when there is room; True, and no call, when there is already."""
        return self._channel.notify_writable(wake)

    def close(self) -> None:
        """End the channel."""
        self._channel.close()


class EntranceChannel(_ChannelView):
    """The inbox of a task in a loop as producers outside see it: it has room only where the loop has.

    Args:
        channel: the inbox.
        tracker: of the loop.

    Example:
        >>> from sage.platform import LocalChannel
        >>> tracker = LoopTracker("again", limit=2, entrances=1)
        >>> entrance = EntranceChannel(LocalChannel(ChannelSpec("inbox", capacity=10)), tracker)
        >>> entrance.try_put(Packet([1, 2, 3])), entrance.occupancy, tracker.inside
        (Packet([3], items=1), 2, 2)
    """

    def __init__(self, channel: Channel[Any], tracker: LoopTracker) -> None:
        super().__init__(channel)
        self._tracker = tracker

    @property
    def closed(self) -> bool:
        """Whether nothing can be put any more."""
        return self._channel.closed or self._tracker.closed

    def try_put(self, message: Any) -> Any:
        """Put as many items as the channel and the loop have room for; the rest comes back, None without any."""
        if not message.size:
            rest = self._channel.try_put(message)
            if isinstance(message, EndOfStream):
                self._tracker.end_entrance()
            return rest
        size = message.size
        admitted = self._tracker.admit(size)
        if not admitted:
            return message
        head = message if admitted == size else message.split(admitted)[0]
        rest = self._channel.try_put(head)
        if rest is None:
            return None if admitted == size else message.split(admitted)[1]
        self._tracker.report(-rest.size)
        if admitted == size:
            return rest
        accepted = admitted - rest.size
        return message.split(accepted)[1] if accepted else message

    def notify_writable(self, wake: Callable[[], None]) -> bool:
        """Call `wake` once when there may be room; True, and no call, when there is already."""
        return self._tracker.notify_room(wake) and self._channel.notify_writable(wake)


class FeedbackChannel(_ChannelView):
    """The inbox of a future as its loop sees it: who comes back never waits for room.

    Args:
        channel: the inbox.
        on_overflow: called when there is no room; the job has to fail.
    """

    def __init__(self, channel: Channel[Any], on_overflow: Callable[[], None]) -> None:
        super().__init__(channel)
        self._on_overflow = on_overflow

    def try_put(self, message: Any) -> Any:
        """Put the message; what does not fit comes back, to wait for the end of the job."""
        rest = self._channel.try_put(message)
        if rest is not None:
            self._on_overflow()
        return rest


class LoopBook:
    """What one task of a loop tells the tracker.

    Args:
        tracker: of the loop.
        copies: how many rows inside the loop an output becomes, by branch (None for main outputs).
        selects: outputs may be for different branches.
    """

    def __init__(self, tracker: LoopTracker, copies: Mapping[str | None, int], *, selects: bool) -> None:
        self.tracker = tracker
        self._copies = copies
        self._main = copies.get(None, 0)
        self._selects = selects

    def sending(self, packet: Packet) -> None:
        """These outputs are about to be sent; the rows that they come from are not done yet."""
        if not self._selects:
            self.tracker.report(packet.size * self._main)
            return
        copies = self._copies
        self.tracker.report(
            sum(copies.get(value.branch if value.__class__ is BranchItem else None, 0) for value in packet.values)
        )

    def done(self, rows: int) -> None:
        """So many rows are through, and what they have become is noted."""
        if rows:
            self.tracker.report(-rows)
