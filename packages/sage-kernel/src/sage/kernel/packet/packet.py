"""The packet: a micro-batch of items as columns. One item is a batch of one; operators never see packets.

Invariants: all columns that are there have the length of `values`; a packet in a channel is no longer touched
by who put it there; the lists of a `shared` packet belong to several packets and are copied before anything is
appended.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Self, TypeVar

__all__ = ["ALONE_FROM", "EndOfStream", "Packet"]

T = TypeVar("T")

ALONE_FROM = 64
"""Packets of so many items are not joined where that would take a column for their origins."""


class Packet:
    """A micro-batch.

    Attributes:
        values: the items.
        keys: the items' keys on a keyed stream, else None.
        origins: when the items came into being, in ns of the backend's monotonic clock: one number for all,
            or one each.
        input_index: which input of the receiving operator they belong to.
        enqueued_ns: sum over the items of the time at which they were put into the channel; a sum, so that
            joined packets keep the exact mean.
        shared: whether other packets hold the same lists.
        size: how many items.

    Example:
        >>> head, rest = Packet([1, 2, 3], origins=7).split(2)
        >>> list(head.values), list(rest.values), rest.origins
        ([1, 2], [3], 7)
        >>> head.absorb(rest), head.values
        (True, [1, 2, 3])
    """

    __slots__ = ("enqueued_ns", "input_index", "keys", "origins", "shared", "size", "values")

    def __init__(
        self,
        values: Sequence[Any],
        *,
        keys: Sequence[Hashable] | None = None,
        origins: int | list[int] = 0,
        input_index: int = 0,
        enqueued_ns: int = 0,
        shared: bool = False,
    ) -> None:
        self.values = values
        self.size = len(values)
        self.keys = keys
        self.origins = origins
        self.input_index = input_index
        self.enqueued_ns = enqueued_ns
        self.shared = shared

    def __len__(self) -> int:
        return self.size

    def __bool__(self) -> bool:
        return True

    def view(self, input_index: int) -> Packet:
        """A packet of the same items for one more receiver."""
        return Packet(
            self.values,
            keys=self.keys,
            origins=self.origins,
            input_index=input_index,
            enqueued_ns=self.enqueued_ns,
            shared=True,
        )

    def split(self, count: int) -> tuple[Packet, Packet]:
        """The first `count` items, and the rest."""
        share = self.enqueued_ns * count // len(self.values)
        return self._slice(0, count, share), self._slice(count, len(self.values), self.enqueued_ns - share)

    def _slice(self, start: int, stop: int, enqueued_ns: int) -> Packet:
        origins = self.origins
        return Packet(
            self.values[start:stop],
            keys=None if self.keys is None else self.keys[start:stop],
            origins=origins if isinstance(origins, int) else origins[start:stop],
            input_index=self.input_index,
            enqueued_ns=enqueued_ns,
        )

    def absorb(self, other: Packet | EndOfStream) -> bool:
        """Append the items of `other` if both are of one input and have the same columns."""
        if (
            not isinstance(other, Packet)
            or other.input_index != self.input_index
            or (self.keys is None) != (other.keys is None)
        ):
            return False
        if self.origins != other.origins or not isinstance(self.origins, int):
            long = self.size >= ALONE_FROM or other.size >= ALONE_FROM
            if long and isinstance(self.origins, int) and isinstance(other.origins, int):
                return False
            mine = [self.origins] * len(self) if isinstance(self.origins, int) else self._owned(self.origins)
            mine.extend([other.origins] * len(other) if isinstance(other.origins, int) else other.origins)
            self.origins = mine
        if self.keys is not None and other.keys is not None:
            keys = self._owned(self.keys)
            keys.extend(other.keys)
            self.keys = keys
        values = self._owned(self.values)
        values.extend(other.values)
        self.values = values
        self.size = len(values)
        self.enqueued_ns += other.enqueued_ns
        self.shared = False
        return True

    def _owned(self, column: Sequence[T]) -> list[T]:
        return column if isinstance(column, list) and not self.shared else list(column)

    def __repr__(self) -> str:
        more = "..." if len(self.values) > 3 else ""
        return f"Packet({list(self.values[:3])!r}{more}, items={len(self.values)})"


class EndOfStream:
    """Control packet: this producer sends nothing more. It travels behind all its items, so all of them are
    delivered first.

    Attributes:
        producer: task id of the producer.
        input_index: which input of the receiver it fed.

    Example:
        >>> len(EndOfStream("source[0]", 0))
        0
    """

    __slots__ = ("input_index", "producer")
    size = 0

    def __init__(self, producer: str, input_index: int) -> None:
        self.producer = producer
        self.input_index = input_index

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

    def __repr__(self) -> str:
        return f"EndOfStream({self.producer!r}, input_index={self.input_index})"
