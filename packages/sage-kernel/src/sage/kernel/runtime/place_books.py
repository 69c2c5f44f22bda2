"""What the tasks between a source and an `ordered()` do with places: number the outputs of an item, and tell the
trackers how many rows of each place are alive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Self

from sage.kernel.operators import BranchItem
from sage.kernel.packet import Packet
from sage.platform import Backend, Channel

from .edges import AsyncSender, OutputEdge, Sender
from .places import END, Place, SequenceTracker, Stamp, merged_place, placed
from .side_edges import SideEdge

__all__ = ["Nudge", "PlaceBook", "PlacedAsyncSender", "PlacedEdge", "PlacedSender", "Target"]


class Nudge:
    """Control packet to an `ordered()`: look up, places have become complete without a row that tells."""

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


@dataclass(frozen=True, slots=True)
class Target:
    """One `ordered()` behind a task.

    Attributes:
        tracker: of it.
        copies: how many rows on the way to it an output becomes, by branch (None for main outputs).
    """

    tracker: SequenceTracker
    copies: Mapping[str | None, int]


class PlaceBook:
    """The rows of one task, between the moment at which they are done and the moment at which that is reported.

    It is used by the task's own thread alone. Outputs are noted before the rows that they come from are reported, so
    that a place never looks complete in between.

    Args:
        targets: the `ordered()` operators behind the task.
        expands: an item may have several outputs: they are numbered.
        selects: outputs may be for different branches.
        serial: tells tasks apart, for what is emitted at the end without a place of its own.
    """

    def __init__(self, targets: Sequence[Target], *, expands: bool, selects: bool, serial: int) -> None:
        self._targets = tuple(targets)
        self._expands = expands
        self._selects = selects
        self._serial = serial
        self._ending = 0
        self._children: dict[Place, int] = {}
        self._out: list[int] = []
        self._branches: list[str | None] = []
        self._done: list[int] = []
        # Then a row that gives one output changes nothing.
        self._one_to_one = not expands and not selects and all(set(each.copies.values()) == {1} for each in targets)

    @property
    def targets(self) -> tuple[Target, ...]:
        """The `ordered()` operators behind the task."""
        return self._targets

    def outgoing(self, packet: Packet) -> None:
        """Note outputs that are about to be sent; afterwards they have a place each."""
        stamps = self._stamps_of(packet)
        if self._expands:
            stamps = [self._child(stamp) for stamp in stamps]
        packet.origins = stamps
        self._out += stamps
        if self._selects:
            self._branches += [value.branch if value.__class__ is BranchItem else None for value in packet.values]

    def _stamps_of(self, packet: Packet) -> list[int]:
        origins = packet.origins
        each = [origins] * packet.size if isinstance(origins, int) else origins
        return [origin if isinstance(origin, Stamp) else self._end(origin) for origin in each]

    def _end(self, origin: int) -> Stamp:
        self._ending += 1
        return placed(origin, (END, END, self._serial, self._ending))

    def _child(self, stamp: int) -> Stamp:
        place = stamp.place  # type: ignore[attr-defined]  # `_stamps_of` has seen to it
        number = self._children.get(place, 0)
        self._children[place] = number + 1
        return placed(int(stamp), (*place, number))

    def done(self, stamps: Sequence[int]) -> None:
        """These rows are through."""
        self._done += stamps
        if self._children:
            for stamp in stamps:
                self._children.pop(stamp.place, None)  # type: ignore[attr-defined]

    def report(self) -> None:
        """Tell the trackers. All outputs of the rows that are done must have been noted.

        Raises:
            OrderLostError: a place had been passed.
        """
        out, done, branches = self._out, self._done, self._branches
        if not out and not done:
            return
        self._out, self._done, self._branches = [], [], []
        if self._one_to_one and out == done:
            return
        for target in self._targets:
            changes: dict[int, int] = {}
            for stamp, branch in zip(out, branches if self._selects else repeat(None), strict=False):
                place = stamp.place[0]  # type: ignore[attr-defined]
                changes[place] = changes.get(place, 0) + target.copies.get(branch, 0)
            for stamp in done:
                place = stamp.place[0]  # type: ignore[attr-defined]
                changes[place] = changes.get(place, 0) - 1
            # What is emitted at the end is sorted then, and counted by nobody.
            changes = {place: change for place, change in changes.items() if change and place != END}
            if changes:
                target.tracker.report(changes)


class PlacedSender(Sender):
    """The edges of a placed task on a thread; nothing is sent past its book."""

    def __init__(self, edges: Sequence[OutputEdge], backend: Backend, on_wait: Any, book: PlaceBook) -> None:
        super().__init__(edges, backend, on_wait)
        self._book = book
        self.only_edge = None

    def send(self, packet: Packet) -> int:
        """Note and send the packet."""
        self._book.outgoing(packet)
        self._book.report()
        return super().send(packet)


class PlacedAsyncSender(AsyncSender):
    """The edges of a placed task on an event loop."""

    def __init__(self, edges: Sequence[OutputEdge], backend: Backend, book: PlaceBook) -> None:
        super().__init__(edges, backend)
        self._book = book

    def try_send(self, packet: Packet) -> list[tuple[OutputEdge, Sequence[Channel[Any]]]]:
        """Note the packet and send what fits."""
        self._book.outgoing(packet)
        self._book.report()
        return super().try_send(packet)


class PlacedEdge(SideEdge):
    """An edge out of a placed task.

    Args:
        merges: it leads to an operator with several inputs.
        copies: it gives each row to each of its targets.
        leaves: no `ordered()` is behind it: the places end here.
    """

    def __init__(self, *plain: Any, merges: bool, copies: bool, leaves: bool, **facts: Any) -> None:
        super().__init__(*plain, **facts)
        self._merges = merges
        self._copies = copies
        self._leaves = leaves

    def try_send(self, packet: Packet) -> Sequence[Channel[Any]]:
        """Send what is for this edge, at its new places."""
        if self._leaves or self._merges:
            stamps = packet.origins
            assert not isinstance(stamps, int)
            packet = packet.view(packet.input_index)
            if self._leaves:
                packet.origins = [int(stamp) for stamp in stamps]
            else:
                index = self.input_index
                packet.origins = [placed(int(s), merged_place(s.place, index)) for s in stamps]  # type: ignore[attr-defined]
        return super().try_send(packet)

    def begin(self, packet: Packet) -> None:
        """Take a packet; the copy of each target gets a place of its own."""
        super().begin(packet)
        if not self._copies:
            return
        for target, part in self._parts:
            stamps = part.origins
            assert not isinstance(stamps, int)
            part.origins = [placed(int(s), (*s.place, target)) for s in stamps]  # type: ignore[attr-defined]
