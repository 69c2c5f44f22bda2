"""Which tasks lead to an `ordered()`, and what each of them has to know for that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sage.kernel.graph import (
    BaseTransformation,
    Emit,
    ExecutionGraph,
    LogicalGraph,
    OperatorKind,
    PhysicalEdge,
    Routing,
    TaskNode,
)

from .place_books import PlaceBook, Target
from .places import SequenceTracker

__all__ = ["PlaceMap"]

_EXPANDING = frozenset({OperatorKind.FLATMAP, OperatorKind.JOIN})


class PlaceMap:
    """The `ordered()` operators of a plan that have something to do, and the tasks that lead to each of them.

    Attributes:
        sources: ids of the tasks that give places and lead to one, in the order of a turn: those of sources, and those
            of `interleave`, whose order begins with what it puts out.
    """

    def __init__(self, graph: ExecutionGraph, logical: LogicalGraph) -> None:
        self._graph = graph
        self._logical = logical
        begins = (task for task in graph.tasks if logical[task.chain[0]].kind is OperatorKind.INTERLEAVE)
        self._origins = frozenset(task.id for task in begins)
        self._leading = {task.id: self._before(task.id) for task in graph.tasks if task.reorders}
        covered = frozenset[str]().union(*self._leading.values())
        self._serials = {task.id: number for number, task in enumerate(graph.tasks) if task.id in covered}
        dated = covered - self._origins
        self._operators = {name for task in graph.tasks if task.id in dated for name in task.chain}
        self.sources = tuple(
            task.id for task in graph.tasks if task.id in covered and (task.queue is None or task.id in self._origins)
        )
        self._trackers = {head: self._tracker(head, before) for head, before in self._leading.items()}

    def _before(self, head: str) -> frozenset[str]:
        before: set[str] = set()
        waiting = [head]
        while waiting:
            for edge in self._graph.incoming(waiting.pop()):
                if edge.source not in before:
                    before.add(edge.source)
                    if edge.source not in self._origins:
                        waiting.append(edge.source)
        return frozenset(before)

    def _tracker(self, head: str, before: frozenset[str]) -> SequenceTracker:
        operator = self._logical[self._graph.task(head).chain[0]]
        own = [number for number, task in enumerate(self.sources) if task in before]
        return SequenceTracker(own, len(self.sources), operator.options["max_ahead"])

    def covers(self, task: str) -> bool:
        """Whether an `ordered()` is behind a task."""
        return task in self._serials

    def dates(self, operator: BaseTransformation) -> bool:
        """Whether an operator has to note where its keys first came."""
        return operator.name in self._operators and operator.options.get("emit") is Emit.FINAL

    def task_facts(self, node: TaskNode) -> Mapping[str, Any] | None:
        """What a task has to be made with; None for one that has nothing to do with places."""
        if not self.covers(node.id) and not node.reorders:
            return None
        if node.id in self._origins:
            turn = self.sources.index(node.id)
            return {"order": {"targets": self._targets(node), "turn": turn, "width": len(self.sources)}}
        facts: dict[str, Any] = {"book": self._book(node) if self.covers(node.id) else None}
        if node.id in self.sources:
            facts |= {"source": self.sources.index(node.id), "width": len(self.sources)}
        if node.reorders:
            facts |= {"tracker": self._trackers[node.id], "sources": self.sources}
        return facts

    def edge_facts(self, edge: PhysicalEdge) -> dict[str, Any] | None:
        """What an edge has to be made with; None for a plain one."""
        if not self.covers(edge.source):
            return None
        leads = any(self._leads(edge, head) for head in self._leading)
        receiver = self._logical[edge.targets[0].rpartition("[")[0]]
        return {
            "merges": leads and len(receiver.inputs) > 1,
            "copies": leads and edge.routing is Routing.BROADCAST and len(edge.targets) > 1,
            "leaves": not leads,
        }

    def _leads(self, edge: PhysicalEdge, head: str) -> bool:
        before = self._leading[head]
        # The replicas of an operator lead to the same.
        return edge.source in before and (edge.targets[0] == head or edge.targets[0] in before)

    def _book(self, node: TaskNode) -> PlaceBook:
        selects = any(edge.branch is not None for edge in self._graph.outgoing(node.id))
        expands = any(self._logical[name].kind in _EXPANDING or self._puts_aside(name) for name in node.chain)
        return PlaceBook(self._targets(node), expands=expands, selects=selects, serial=self._serials[node.id])

    def _targets(self, node: TaskNode) -> list[Target]:
        """The `ordered()` operators behind a task."""
        targets = []
        for head, before in self._leading.items():
            if node.id not in before:
                continue
            copies: dict[str | None, int] = {}
            for edge in self._graph.outgoing(node.id):
                if self._leads(edge, head):
                    each = len(edge.targets) if edge.routing is Routing.BROADCAST else 1
                    copies[edge.branch] = copies.get(edge.branch, 0) + each
            targets.append(Target(self._trackers[head], copies))
        return targets

    def _puts_aside(self, name: str) -> bool:
        return self._logical[name].kind is not OperatorKind.SPLIT and bool(self._logical.branches_of(name))
