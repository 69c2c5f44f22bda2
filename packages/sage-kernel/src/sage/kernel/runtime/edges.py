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
        # With one target there is nothing to decide.
        self._only = self._channels[0] if len(self._channels) == 1 else None

    @property
    def put(self) -> Callable[[Packet], Packet | None] | None:
        """Puts a packet into its target, where there is one alone; what does not fit comes back, for `hold`."""
        return None if self._only is None else self._only.try_put

    @property
    def input_index(self) -> int:
        """Which input of its targets it feeds."""
        return self._input_index

    def hold(self, rest: Packet) -> Sequence[Channel[Any]]:
        """Keep what did not fit into the only target, for `advance`; the channel that must have room."""
        self._parts = [(0, rest)]
        return self._channels

    def begin(self, packet: Packet) -> None:
        """Take a packet to be sent; the one before must be through."""
        packet.input_index = self._input_index
        if self._router.adapts:
            self._unplaced = packet
        else:
            self._parts, _ = self._router.route(packet)

    def try_send(self, packet: Packet) -> Sequence[Channel[Any]]:
        """`begin` and `advance` at once; the packet's `enqueued_ns` says that it is sent now."""
        if self._only is None:
            self.begin(packet)
            return self.advance()
        packet.input_index = self._input_index
        rest = self._only.try_put(packet)
        return () if rest is None else self.hold(rest)

    def advance(self) -> Sequence[Channel[Any]]:
        """Send what fits now; the channels that must have room before more can be sent, empty when the packet
        is through.
        """
        waiting: list[tuple[int, Packet]] = []
        for target, part in self._parts:
            rest = self._try_put(target, part)
            if rest is not None:
                waiting.append((target, rest))
        self._parts = waiting
        if self._unplaced is not None and not waiting:
            return self._advance_adaptive()
        return [self._channels[target] for target, _ in waiting]

    def _advance_adaptive(self) -> Sequence[Channel[Any]]:
        while self._unplaced is not None:
            loads = [TargetLoad(channel.load, channel.room) for channel in self._channels]
            parts, self._unplaced = self._router.route(self._unplaced, loads)
            if not parts:
                return self._channels
            # Another writer may have taken the room meanwhile. What does not fit waits for this target:
            # placed anew it could come to another one behind items that it has to come before.
            for target, part in parts:
                rest = self._try_put(target, part)
                if rest is not None:
                    self._parts.append((target, rest))
            if self._parts:
                return [self._channels[target] for target, _ in self._parts]
        return ()

    def _try_put(self, target: int, part: Packet) -> Packet | None:
        part.enqueued_ns = self._now() * part.size
        rest: Packet | None = self._channels[target].try_put(part)
        return rest

    def end(self) -> None:
        """Tell each target that nothing more comes from here; a control packet is never refused."""
        for channel in self._channels:
            channel.try_put(EndOfStream(self._producer, self._input_index))


class Sender:
    """All edges of a task that runs on a thread."""

    def __init__(self, edges: Sequence[OutputEdge], backend: Backend, on_wait: Callable[[bool], None]) -> None:
        self._edges = tuple(edges)
        self._shared = len(self._edges) > 1
        self._gate = backend.writable_gate()
        self._now = backend.clock.monotonic_ns
        self._on_wait = on_wait
        only = self._edges[0] if len(self._edges) == 1 else None
        self.only_edge = only if only is not None and only.put is not None else None
        """The edge, where there is one with one target: who sends one item at a time may put it there itself."""

    def wait_for_rest(self, rest: Packet) -> int:
        """What the target of `only_edge` had no room for is sent when it has; ns spent waiting.

        Raises:
            ChannelClosedError: the job is being aborted.
        """
        assert self.only_edge is not None
        return self._wait(self.only_edge, self.only_edge.hold(rest))

    def send(self, packet: Packet) -> int:
        """Send the packet over all edges; ns spent waiting for room.

        Raises:
            ChannelClosedError: the job is being aborted.
        """
        if not self._shared:
            edge = self._edges[0]
            full = edge.try_send(packet)
            return self._wait(edge, full) if full else 0
        blocked = 0
        for edge in self._edges:
            full = edge.try_send(packet.view(0))
            if full:
                blocked += self._wait(edge, full)
        return blocked

    def _wait(self, edge: OutputEdge, full: Sequence[Channel[Any]]) -> int:
        """Wait for room until the edge's packet is through; ns that it took."""
        start = self._now()
        self._on_wait(True)
        while full:
            self._gate.wait(full)
            full = edge.advance()
        self._on_wait(False)
        return self._now() - start

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
            full = edge.try_send(packet.view(0) if shared else packet)
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
