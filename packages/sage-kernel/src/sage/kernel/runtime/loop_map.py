"""Which tasks lie in a loop, and what each of them has to know for that."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sage.kernel.graph import (
    ExecutionGraph,
    LogicalGraph,
    Loop,
    OperatorKind,
    PhysicalEdge,
    Routing,
    TaskNode,
    find_loops,
)
from sage.platform import Channel, ChannelClosedError

from .loops import EntranceChannel, FeedbackChannel, LoopBook, LoopEnd, LoopTracker
from .task import JobSignals

__all__ = ["LoopMap"]


class LoopMap:
    """The loops of a plan; a pipeline without a future has none, and nothing here does anything then.

    Args:
        graph: the plan.
        logical: the pipeline.
        signals: of the job; an abort releases who waits at an entrance.
        fail: has the job fail, for the reason given.
    """

    def __init__(
        self, graph: ExecutionGraph, logical: LogicalGraph, signals: JobSignals, fail: Callable[[str], None]
    ) -> None:
        self._graph = graph
        self._logical = logical
        self._fail = fail
        self._loop_of: dict[str, Loop] = {}
        self._trackers: dict[Loop, LoopTracker] = {}
        for loop in find_loops(logical):
            inside = [task.id for task in graph.tasks if task.chain[0] in loop.operators]
            self._loop_of.update(dict.fromkeys(inside, loop))
            entrances = sum(
                len(edge.targets) for edge in graph.edges if edge.targets[0] in inside and edge.source not in inside
            )
            tracker = LoopTracker(loop.futures[0], limit=loop.entry_limit, entrances=entrances)
            signals.on_abort(tracker.close)
            self._trackers[loop] = tracker

    def channel(self, edge: PhysicalEdge, channel: Channel[Any]) -> Channel[Any]:
        """The inbox of a target of an edge, as the producer of that edge has to see it."""
        loop = self._loop_of.get(edge.targets[0])
        if loop is None:
            return channel
        if self._loop_of.get(edge.source) is not loop:
            return EntranceChannel(channel, self._trackers[loop])
        if edge.feedback:
            return FeedbackChannel(channel, partial(self._overflow, edge.targets[0]))
        return channel

    def task_facts(self, node: TaskNode, inbox: Channel[Any] | None) -> dict[str, Any] | None:
        """What a task has to be made with; None for one that lies in no loop."""
        loop = self._loop_of.get(node.id)
        if loop is None:
            return None
        tracker = self._trackers[loop]
        if self._logical[node.chain[0]].kind is OperatorKind.FUTURE:
            assert inbox is not None
            tracker.on_end(partial(_tell_end, inbox))
        edges = self._graph.outgoing(node.id)
        copies: dict[str | None, int] = {}
        for edge in edges:
            if self._loop_of.get(edge.targets[0]) is loop:
                each = len(edge.targets) if edge.routing is Routing.BROADCAST else 1
                copies[edge.branch] = copies.get(edge.branch, 0) + each
        selects = any(edge.branch is not None for edge in edges)
        facts: dict[str, Any] = {"book": LoopBook(tracker, copies, selects=selects)}
        if self._logical[node.chain[0]].kind is OperatorKind.FUTURE:
            facts["max_rounds"] = self._logical[node.chain[0]].options["max_rounds"]
            facts["lets_out"] = selects
        return facts

    def _overflow(self, task: str) -> None:
        future = self._logical[self._graph.task(task).chain[0]]
        self._fail(
            f"more than max_in_flight={future.options['max_in_flight']:,} items have come back to the future "
            f"{future.name!r} and wait to go round again: the loop gives back more items than go into it (a flatmap "
            f"that is not filtered enough, or a stream that comes back twice?); let more of them leave the loop, or "
            f"fill the future with a larger max_in_flight {future.where}"
        )


def _tell_end(inbox: Channel[Any]) -> None:
    try:
        inbox.try_put(LoopEnd())
    except ChannelClosedError:
        # The job is being aborted: nobody waits for this any more.
        return
