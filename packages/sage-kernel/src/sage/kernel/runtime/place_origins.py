"""Tasks that begin an order of their own: those of `interleave`. An `ordered()` behind one restores the order in which
it has put items out, so each output gets its place when it is sent, as an item of a source does.

What comes in has no places: nothing before such a task waits for the `ordered()`, except for room in its queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sage.kernel.operators import BranchItem
from sage.kernel.packet import Packet
from sage.platform import Backend

from .edges import OutputEdge, Sender
from .gathering_task import GatheringTask
from .place_books import Target
from .places import placed
from .steps import Interrupted
from .task import JobSignals
from .thread_task import ThreadTask

__all__ = ["OriginGatheringTask", "OriginSender", "OriginThreadTask"]


class OriginSender(Sender):
    """The edges of such a task; what it sends stays within `max_ahead` of the `ordered()` operators behind it.

    Args:
        targets: the `ordered()` operators.
        turn: its number among the sources of places.
        width: how many these are.
        signals: of the job; who waits here ends with an abort.
    """

    def __init__(
        self,
        edges: Sequence[OutputEdge],
        backend: Backend,
        on_wait: Any,
        *,
        targets: Sequence[Target],
        turn: int,
        width: int,
        signals: JobSignals,
    ) -> None:
        super().__init__(edges, backend, on_wait)
        self.only_edge = None
        self._targets = tuple(targets)
        self._turn = turn
        self._width = width
        self._signals = signals
        self._position = 0
        for target in self._targets:
            signals.on_stop(target.tracker.wake)

    def send(self, packet: Packet) -> int:
        """Send the packet, so much of it at a time as may be ahead.

        Raises:
            ChannelClosedError: the job is being aborted.
            Interrupted: so it is, while the packet waited for its turn.
        """
        blocked = 0
        while True:
            place = self._position * self._width + self._turn
            limit = min(target.tracker.limit for target in self._targets)
            room = (limit - place + self._width - 1) // self._width
            if room <= 0:
                blocked += self._wait_for_turn(place)
            elif room < packet.size:
                head, packet = packet.split(room)
                blocked += super().send(self._placed(head))
            else:
                return blocked + super().send(self._placed(packet))

    def _placed(self, packet: Packet) -> Packet:
        """The packet with a place for each row; the trackers know what becomes of it."""
        width, first = self._width, self._position * self._width + self._turn
        places = range(first, first + packet.size * width, width)
        self._position += packet.size
        origins = packet.origins
        each = [origins] * packet.size if isinstance(origins, int) else origins
        packet.origins = [placed(int(origin), (place,)) for origin, place in zip(each, places, strict=True)]
        branches = [value.branch if value.__class__ is BranchItem else None for value in packet.values]
        for target in self._targets:
            # Each place is alive once anyway.
            copies = (target.copies.get(branch, 0) - 1 for branch in branches)
            changes = {place: change for place, change in zip(places, copies, strict=True) if change}
            if changes:
                target.tracker.report(changes)
        return packet

    def _wait_for_turn(self, place: int) -> int:
        start = self._now()
        self._on_wait(True)
        for target in self._targets:
            target.tracker.wait(place, self._signals.aborted)
        if self._signals.aborting.is_set():
            raise Interrupted
        self._on_wait(False)
        return self._now() - start

    def end(self) -> None:
        """End the stream on all edges; no place will be given any more."""
        for target in self._targets:
            target.tracker.end_source(self._turn, self._position)
        super().end()


class _BeginsOrder(ThreadTask):
    """Args:
    order: what its sender has to know of places.
    """

    def __init__(self, *plain: Any, order: dict[str, Any], **shared: Any) -> None:
        super().__init__(*plain, **shared)
        self._order = order

    def new_sender(self) -> Sender:
        """A sender that gives places."""
        return OriginSender(self.parts.edges, self._backend, self._on_wait, signals=self._signals, **self._order)


class OriginThreadTask(_BeginsOrder, ThreadTask):
    """A task of an `interleave` with an `ordered()` behind it."""


class OriginGatheringTask(_BeginsOrder, GatheringTask):
    """The same where an operator that gathers lists shares its task."""
