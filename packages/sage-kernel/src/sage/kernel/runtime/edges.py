"""The sending end of a task: routes packets over its edges and waits where there is no room.

The decision (which item to which target) is the router's; here are only its effects. A packet whose part for
one target waits does not hold up its parts for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sage.kernel.packet import EndOfStream, Packet
from sage.kernel.routing import BaseRouter, TargetLoad
from sage.platform import Backend, Channel

__all__ = ["AsyncSender", "OutputEdge", "Sender"]


class OutputEdge:
    """One edge: the router and the inboxes of its targets. `begin` a packet, then `advance` until it is
    through.
    """

    def __init__(
        self,
        producer: str,
        router: BaseRouter,
        channels: Sequence[Channel[Any]],
        input_index: int,
        now: Callable[[], int],
    ) -> None:
        self._producer = producer
        self._router = router
        self._channels = tuple(channels)
        self._input_index = input_index
        self._now = now
        self._parts: list[tuple[int, Packet]] = []
        self._unplaced: Packet | None = None

    def begin(self, packet: Packet) -> None:
        """Take a packet to be sent; the one before must be through."""
        packet.input_index = self._input_index
        if self._router.adapts:
            self._unplaced = packet
        else:
            self._parts, _ = self._router.route(packet)

    def advance(self) -> Sequence[Channel[Any]]:
        """Send what fits now; the channels that must have room before more can be sent, empty when the packet
        is through.
        """
        if self._unplaced is not None:
            return self._advance_adaptive()
        waiting: list[tuple[int, Packet]] = []
        for target, part in self._parts:
            rest = self._try_put(target, part)
            if rest is not None:
                waiting.append((target, rest))
        self._parts = waiting
        return [self._channels[target] for target, _ in waiting]

    def _advance_adaptive(self) -> Sequence[Channel[Any]]:
        while self._unplaced is not None:
            loads = [
                TargetLoad(channel.load, max(0, channel.spec.capacity - channel.occupancy))
                for channel in self._channels
            ]
            parts, self._unplaced = self._router.route(self._unplaced, loads)
            if not parts:
                return self._channels
            # Another writer may have taken the room meanwhile: what does not fit goes back to be placed anew.
            for target, part in parts:
                rest = self._try_put(target, part)
                if rest is not None:
                    self._unplaced = rest if self._unplaced is None else _join(rest, self._unplaced)
        return ()

    def _try_put(self, target: int, part: Packet) -> Packet | None:
        part.enqueued_ns = self._now() * len(part)
        rest: Packet | None = self._channels[target].try_put(part)
        return rest

    def end(self) -> None:
        """Tell each target that nothing more comes from here; a control packet is never refused."""
        for channel in self._channels:
            channel.try_put(EndOfStream(self._producer, self._input_index))


def _join(first: Packet, second: Packet) -> Packet:
    joined = Packet(list(first.values), keys=first.keys, origins=first.origins, input_index=first.input_index)
    joined.absorb(second)
    return joined


class Sender:
    """All edges of a task that runs on a thread."""

    def __init__(
        self, edges: Sequence[OutputEdge], backend: Backend, on_wait: Callable[[bool], None]
    ) -> None:
        self._edges = tuple(edges)
        self._gate = backend.writable_gate()
        self._now = backend.clock.monotonic_ns
        self._on_wait = on_wait

    def send(self, packet: Packet) -> int:
        """Send the packet over all edges; ns spent waiting for room.

        Raises:
            ChannelClosedError: the job is being aborted.
        """
        blocked = 0
        shared = len(self._edges) > 1
        for edge in self._edges:
            edge.begin(packet.view(0) if shared else packet)
            full = edge.advance()
            if full:
                start = self._now()
                self._on_wait(True)
                while full:
                    self._gate.wait(full)
                    full = edge.advance()
                self._on_wait(False)
                blocked += self._now() - start
        return blocked

    def end(self) -> None:
        """End the stream on all edges."""
        for edge in self._edges:
            edge.end()


class AsyncSender:
    """All edges of a task that runs on an event loop; packets are sent one after the other."""

    def __init__(self, edges: Sequence[OutputEdge], backend: Backend) -> None:
        self._edges = tuple(edges)
        self._gate = backend.async_writable_gate()
        self._now = backend.clock.monotonic_ns

    def try_send(self, packet: Packet) -> list[tuple[OutputEdge, Sequence[Channel[Any]]]]:
        """Send what fits now on all edges; the edges that wait, each with the channels that must have
        room.
        """
        shared = len(self._edges) > 1
        waiting = []
        for edge in self._edges:
            edge.begin(packet.view(0) if shared else packet)
            full = edge.advance()
            if full:
                waiting.append((edge, full))
        return waiting

    async def finish_send(self, waiting: list[tuple[OutputEdge, Sequence[Channel[Any]]]]) -> int:
        """Wait for room and send the rest; ns spent.

        Raises:
            ChannelClosedError: the job is being aborted.
        """
        start = self._now()
        for edge, full in waiting:
            while full:
                await self._gate.wait(full)
                full = edge.advance()
        return self._now() - start

    def end(self) -> None:
        """End the stream on all edges."""
        for edge in self._edges:
            edge.end()
