"""Routers: which items of a packet go to which target. No channel, no clock, no randomness: the simulator
runs the same objects.

A router that `adapts` looks at the targets' loads, may place only a part of the packet and is asked again
when there is room; the others place the whole packet whatever the loads are. Invariant of both: the parts
that a router returns are the packet's items, each once (broadcast: once per target), in order within each
target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, NamedTuple

from sage.common.errors import InvalidArgumentError
from sage.common.hashing import key_group, replica_for_group
from sage.kernel.graph import Routing
from sage.kernel.packet import Packet

__all__ = [
    "KEY_GROUPS",
    "BaseRouter",
    "BroadcastRouter",
    "ForwardRouter",
    "KeyHashRouter",
    "LeastLoadedRouter",
    "RoundRobinRouter",
    "TargetLoad",
    "create_router",
]

KEY_GROUPS = 1 << 12
"""Keys are hashed into this many groups, and a replica owns a contiguous range of groups, so that a rescale
moves groups and not keys.
"""


class TargetLoad(NamedTuple):
    """Snapshot of one target: items queued or in work, and room left in its queue."""

    load: int
    room: int


class BaseRouter(ABC):
    """Decides on a packet; `targets` is how many targets there are."""

    adapts: ClassVar[bool] = False

    def __init__(self, targets: int) -> None:
        if targets < 1:
            raise InvalidArgumentError(f"a router needs at least 1 target, got {targets!r}")
        self.targets = targets

    @abstractmethod
    def route(self, packet: Packet, loads: Sequence[TargetLoad] = ()) -> tuple[list[tuple[int, Packet]], Packet | None]:
        """Parts as (target, packet), and what is not placed yet (only where the router `adapts`)."""


class ForwardRouter(BaseRouter):
    """Everything to one target.

    Example:
        >>> ForwardRouter(1).route(Packet([1, 2]))
        ([(0, Packet([1, 2], items=2))], None)
    """

    def route(self, packet: Packet, loads: Sequence[TargetLoad] = ()) -> tuple[list[tuple[int, Packet]], Packet | None]:
        """Everything to target 0."""
        return [(0, packet)], None


class BroadcastRouter(BaseRouter):
    """Each item to each target.

    Example:
        >>> BroadcastRouter(2).route(Packet([1]))
        ([(0, Packet([1], items=1)), (1, Packet([1], items=1))], None)
    """

    def route(self, packet: Packet, loads: Sequence[TargetLoad] = ()) -> tuple[list[tuple[int, Packet]], Packet | None]:
        """A view of the packet for each target."""
        return [(target, packet.view(packet.input_index)) for target in range(self.targets)], None


class RoundRobinRouter(BaseRouter):
    """Items in turn to the targets, in runs so that a packet is cut into at most one part per target.

    Example:
        >>> router = RoundRobinRouter(2)
        >>> router.route(Packet([1, 2, 3]))
        ([(0, Packet([1, 2], items=2)), (1, Packet([3], items=1))], None)
        >>> router.route(Packet([4]))
        ([(1, Packet([4], items=1))], None)
    """

    def __init__(self, targets: int) -> None:
        super().__init__(targets)
        self._next = 0

    def route(self, packet: Packet, loads: Sequence[TargetLoad] = ()) -> tuple[list[tuple[int, Packet]], Packet | None]:
        """Equal shares, the first starting where the last packet ended."""
        share, extra = divmod(len(packet), self.targets)
        counts = [share + (1 if offset < extra else 0) for offset in range(self.targets)]
        start = self._next
        self._next = (start + len(packet)) % self.targets
        return _cut(packet, [((start + offset) % self.targets, count) for offset, count in enumerate(counts) if count])


class LeastLoadedRouter(BaseRouter):
    """Each item to the target with the fewest items queued or in work; ties go round. Nothing is placed where
    there is no room.

    Join-the-shortest-queue over all targets. Power of two choices looks at less, but the loads are at hand
    here, and with 64 replicas of a slow operator its longest queue ends a finite stream visibly later.

    Example:
        >>> router = LeastLoadedRouter(2)
        >>> router.route(Packet([1, 2, 3]), [TargetLoad(5, 5), TargetLoad(4, 1)])
        ([(0, Packet([2, 3], items=2)), (1, Packet([1], items=1))], None)
    """

    adapts = True

    def __init__(self, targets: int) -> None:
        super().__init__(targets)
        self._next = 0

    def route(self, packet: Packet, loads: Sequence[TargetLoad] = ()) -> tuple[list[tuple[int, Packet]], Packet | None]:
        """Fill the targets up from the lowest load, as water would; the rest comes back when all are full."""
        counts = self._fill(len(packet), loads)
        placed = sum(counts)
        if placed == 0:
            return [], packet
        rest: Packet | None = None
        if placed < len(packet):
            packet, rest = packet.split(placed)
        start = self._next
        self._next = (start + placed) % self.targets
        order = sorted(range(self.targets), key=lambda target: (loads[target].load, (target - start) % self.targets))
        parts, _ = _cut(packet, [(target, counts[target]) for target in order if counts[target]])
        return sorted(parts, key=lambda part: part[0]), rest

    def _fill(self, items: int, loads: Sequence[TargetLoad]) -> list[int]:
        counts = [0] * self.targets
        room = sum(load.room for load in loads)
        items = min(items, room)
        if items <= 0:
            return counts
        # The level to which the water rises: the smallest at which the space below it holds all items.
        low, high = min(load.load for load in loads), max(load.load for load in loads) + items
        while low < high:
            level = (low + high) // 2
            if sum(min(load.room, max(0, level - load.load)) for load in loads) >= items:
                high = level
            else:
                low = level + 1
        below = low - 1
        for target, load in enumerate(loads):
            counts[target] = min(load.room, max(0, below - load.load))
        left = items - sum(counts)
        for offset in range(self.targets):
            target = (self._next + offset) % self.targets
            if left and loads[target].load <= below and counts[target] < loads[target].room:
                counts[target] += 1
                left -= 1
        return counts


class KeyHashRouter(BaseRouter):
    """All items of a key to the same target, in every process and every run.

    Raises:
        InvalidArgumentError: a key has no stable hash (see `sage.common.hashing`).

    Example:
        >>> router = KeyHashRouter(2)
        >>> parts, rest = router.route(Packet([1, 2, 3], keys=["a", "b", "a"]))
        >>> sum(len(part) for _, part in parts), rest
        (3, None)
    """

    _CACHE_MAX = 1 << 16

    def __init__(self, targets: int) -> None:
        super().__init__(targets)
        self._target_of: dict[Hashable, int] = {}

    def target_of(self, key: Hashable) -> int:
        """The target that owns `key`."""
        target = self._target_of.get(key)
        if target is None:
            target = replica_for_group(key_group(key, KEY_GROUPS), KEY_GROUPS, self.targets)
            if len(self._target_of) >= self._CACHE_MAX:
                self._target_of.clear()
            self._target_of[key] = target
        return target

    def route(self, packet: Packet, loads: Sequence[TargetLoad] = ()) -> tuple[list[tuple[int, Packet]], Packet | None]:
        """One part per target that owns a key of the packet."""
        keys = packet.keys
        if keys is None:
            raise InvalidArgumentError("a packet that is routed by key must have keys")
        targets = self._targets_of(keys)
        columns: list[list[list[Any]]] = [[[], [], []] for _ in range(self.targets)]
        appends = [(values.append, owned.append) for values, owned, _ in columns]
        for target, value, key in zip(targets, packet.values, keys, strict=True):
            append_value, append_key = appends[target]
            append_value(value)
            append_key(key)
        origins = packet.origins
        if not isinstance(origins, int):
            for target, origin in zip(targets, origins, strict=True):
                columns[target][2].append(origin)
        return [
            (
                target,
                Packet(
                    values,
                    keys=owned,
                    origins=origins if isinstance(origins, int) else own_origins,
                    input_index=packet.input_index,
                ),
            )
            for target, (values, owned, own_origins) in enumerate(columns)
            if values
        ], None

    def _targets_of(self, keys: Sequence[Hashable]) -> list[int]:
        try:
            return list(map(self._target_of.__getitem__, keys))
        except KeyError:
            return [self.target_of(key) for key in keys]


def _cut(packet: Packet, counts: Sequence[tuple[int, int]]) -> tuple[list[tuple[int, Packet]], None]:
    parts: list[tuple[int, Packet]] = []
    rest = packet
    for position, (target, count) in enumerate(counts):
        if position == len(counts) - 1:
            parts.append((target, rest))
        else:
            head, rest = rest.split(count)
            parts.append((target, head))
    return parts, None


_ROUTERS: dict[Routing, type[BaseRouter]] = {
    Routing.FORWARD: ForwardRouter,
    Routing.BROADCAST: BroadcastRouter,
    Routing.ROUND_ROBIN: RoundRobinRouter,
    Routing.LEAST_LOADED: LeastLoadedRouter,
    Routing.KEY_HASH: KeyHashRouter,
}


def create_router(routing: Routing, targets: int) -> BaseRouter:
    """The router of that kind."""
    return _ROUTERS[routing](targets)
