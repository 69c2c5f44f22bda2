"""Edges that are not plain: to one side of an operator on two streams, and from one branch of an operator's outputs.

What is special is done where items are sent, so that a task that receives them is like any other, whichever vehicle
runs it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from sage.kernel.graph import OperatorKind
from sage.kernel.operators import BranchItem, OperatorContext
from sage.kernel.packet import Packet
from sage.kernel.routing import BaseRouter
from sage.platform import Channel

from .edges import OutputEdge
from .steps import bounded, check_output, explode

__all__ = ["SideEdge", "with_side_outputs"]


class SideEdge(OutputEdge):
    """An edge that takes only one branch, or adds the side, or both.

    Args:
        selects: whether some of the outputs are for other edges.
        branch: which outputs are for this one; None for those of the main stream.
        side: of the receiving operator, None where it has one stream only.
    """

    def __init__(
        self,
        producer: str,
        router: BaseRouter,
        channels: Sequence[Channel[Any]],
        input_index: int,
        now: Callable[[], int],
        *,
        selects: bool,
        branch: str | None,
        side: int | None,
    ) -> None:
        super().__init__(producer, router, channels, input_index, now)
        self._selects = selects
        self._branch = branch
        self._side = side
        # Also with one target, so that nobody takes the short way past `try_send`, not even with a lone item.
        self._only = None

    def try_send(self, packet: Packet) -> Sequence[Channel[Any]]:
        """Send what is for this edge."""
        own = select(packet, self._branch) if self._selects else packet
        if not own.size:
            return ()
        if self._side is not None:
            side = self._side
            own = Packet(
                [(side, value) for value in own.values],
                keys=own.keys,
                origins=own.origins,
                enqueued_ns=own.enqueued_ns,
                shared=own.shared,
            )
        return super().try_send(own)


def select(packet: Packet, branch: str | None) -> Packet:
    """The items of a packet that are for a branch, without its mark; those without a mark for the main stream.

    Example:
        >>> mixed = Packet([1, BranchItem("late", 2), 3], keys=["a", "b", "c"])
        >>> select(mixed, "late").values, select(mixed, "late").keys, select(mixed, None).values
        ([2], ['b'], [1, 3])
    """
    values: list[Any]
    if branch is None:
        rows = [row for row, value in enumerate(packet.values) if value.__class__ is not BranchItem]
        values = [packet.values[row] for row in rows]
    else:
        rows = [
            row for row, value in enumerate(packet.values) if value.__class__ is BranchItem and value.branch == branch
        ]
        values = [packet.values[row].item for row in rows]
    keys, origins = packet.keys, packet.origins
    return Packet(
        values,
        keys=None if keys is None else [keys[row] for row in rows],
        origins=origins if isinstance(origins, int) else [origins[row] for row in rows],
        enqueued_ns=packet.enqueued_ns * len(rows) // max(1, packet.size),
    )


def with_side_outputs(
    kind: OperatorKind,
    name: str,
    call: Callable[[Any], Any],
    context: OperatorContext,
    outputs_max: int,
    is_async: bool,
) -> Callable[[Any], Any]:
    """An operator that has side outputs as a flatmap: what it returns, and behind that what it put aside."""

    def outputs(result: Any, value: Any, side: list[BranchItem]) -> list[Any]:
        if kind is OperatorKind.FLATMAP:
            return [*explode(name, result, outputs_max), *side]
        check_output(name, result)
        if kind is OperatorKind.FILTER:
            return [value, *side] if result else [*side]
        return [result, *side]

    def sync_call(value: Any) -> list[Any]:
        side = context.open_side()
        try:
            return outputs(call(value), value, side)
        finally:
            context.close_side()

    async def async_call(value: Any) -> list[Any]:
        side = context.open_side()
        try:
            result = call(value)
            if inspect.isawaitable(result):
                result = await result
            elif inspect.isasyncgen(result):
                result = [item async for item in bounded(result, name, outputs_max)]
            return outputs(result, value, side)
        finally:
            context.close_side()

    return async_call if is_async else sync_call
