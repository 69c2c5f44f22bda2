"""The ExecutionGraph: what runs. Tasks (replicas of fused chains), edges with routing, one bounded queue per
task, a placement.

It is pure data: frozen, equal by value, to JSON and back without loss. User code is not in it; a plan names
operators, and the logical graph holds their factories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import TypeVar

import msgspec

from .contracts import Execution
from .errors import PipelineError

__all__ = ["ExecutionGraph", "Note", "PhysicalEdge", "QueueDescriptor", "Routing", "TaskNode", "segments_of"]

_T = TypeVar("_T")


class Routing(StrEnum):
    """How items find their replica among the targets of an edge."""

    FORWARD = "forward"
    ROUND_ROBIN = "round_robin"
    LEAST_LOADED = "least_loaded"
    KEY_HASH = "key_hash"
    BROADCAST = "broadcast"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDescriptor:
    """The one inbox of a task, shared by all its producers.

    Attributes:
        capacity: items that may wait in it.
        reason: why it is as large as it is.
    """

    capacity: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskNode:
    """One replica of a fused chain of operators; it runs in one worker.

    Attributes:
        id: `<chain name>[<replica index>]`.
        chain: names of the operators it runs, in order.
        replica_index: 0-based.
        parallelism: replicas of the chain.
        execution: THREAD or ASYNC.
        concurrency: items in flight at once (1 on a thread).
        queue: its inbox, None for a source.
        node: name of the node it is placed on.
        reorders: its first operator takes rows in any order and passes them on in that of their source.
        cuts: positions in the chain of the operators with which a further process begins, where the task is a line of
            processes that pass items on from one to the next.
    """

    id: str
    chain: tuple[str, ...]
    replica_index: int
    parallelism: int
    execution: Execution
    concurrency: int = 1
    queue: QueueDescriptor | None = None
    node: str = ""
    reorders: bool = False
    cuts: tuple[int, ...] = ()

    @property
    def segments(self) -> list[tuple[str, ...]]:
        """The operators that share a process, or a thread: the chain, cut."""
        return segments_of(self.chain, self.cuts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalEdge:
    """All connections of one replica to the replicas of one downstream operator.

    Attributes:
        source: task id of the producer.
        targets: task ids of the consumers, by replica index.
        routing: how an item finds its target.
        input_index: which input of the consumer it feeds.
        keyed: whether items carry their key.
        branch: which branch of the producer's outputs goes this way, None for its main outputs.
        feedback: it closes a loop: its items come back to a future.
    """

    source: str
    targets: tuple[str, ...]
    routing: Routing
    input_index: int = 0
    keyed: bool = False
    branch: str | None = None
    feedback: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One decision of a compiler pass, in words.

    Attributes:
        compiler_pass: which pass decided.
        subject: operator or task it is about, "" for the whole plan.
        text: what was decided and why.
    """

    compiler_pass: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionGraph:
    """The compiled pipeline.

    Example:
        >>> graph = ExecutionGraph(name="demo", tasks=(), edges=())
        >>> ExecutionGraph.from_json(graph.to_json()) == graph
        True
    """

    name: str
    tasks: tuple[TaskNode, ...]
    edges: tuple[PhysicalEdge, ...]
    notes: tuple[Note, ...] = field(default=())
    format_version: int = 1

    def task(self, task_id: str) -> TaskNode:
        """The task with this id.

        Raises:
            KeyError: there is none.
        """
        for task in self.tasks:
            if task.id == task_id:
                return task
        raise KeyError(task_id)

    def outgoing(self, task_id: str) -> tuple[PhysicalEdge, ...]:
        """Edges that leave a task."""
        return tuple(edge for edge in self.edges if edge.source == task_id)

    def incoming(self, task_id: str) -> tuple[PhysicalEdge, ...]:
        """Edges that may reach a task."""
        return tuple(edge for edge in self.edges if task_id in edge.targets)

    def to_json(self) -> str:
        """The plan as indented JSON, keys in a fixed order."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> ExecutionGraph:
        """The plan that `to_json` wrote.

        Raises:
            PipelineError: it is no plan, or of a version that this release does not know.
        """
        try:
            graph = msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as error:
            raise PipelineError(f"not an execution graph: {error}") from error
        if graph.format_version != 1:
            raise PipelineError(f"execution graph has format version {graph.format_version}, this release reads 1")
        return graph

    def diff(self, other: ExecutionGraph) -> tuple[str, ...]:
        """What differs in `other`, a line each in a fixed order; empty when both would run the same.

        Notes do not count: they explain a plan and are not part of what runs.

        Example:
            >>> from dataclasses import replace
            >>> empty = ExecutionGraph(name="x", tasks=(), edges=())
            >>> thread = Execution.THREAD
            >>> task = TaskNode(id="a[0]", chain=("a",), replica_index=0, parallelism=1, execution=thread)
            >>> empty.diff(replace(empty, tasks=(task,)))
            ('+ task a[0]: a, thread',)
        """
        lines = [] if self.name == other.name else [f"~ name: {self.name} -> {other.name}"]
        lines += _diff(
            "task",
            {task.id: task for task in self.tasks},
            {task.id: task for task in other.tasks},
            _task_line,
        )
        lines += _diff("edge", _edges_by_name(self.edges), _edges_by_name(other.edges), _edge_line)
        return tuple(lines)


def segments_of(chain: Sequence[str], cuts: Sequence[int]) -> list[tuple[str, ...]]:
    """A chain in pieces that begin at the `cuts`.

    Example:
        >>> segments_of(("a", "b", "c"), (1,))
        [('a',), ('b', 'c')]
    """
    return [tuple(chain[start:stop]) for start, stop in pairwise((0, *cuts, len(chain)))]


def _task_line(task: TaskNode) -> str:
    parts = [" | ".join(map(" -> ".join, task.segments)), str(task.execution)]
    if task.cuts:
        parts.append(f"a line of {len(task.cuts) + 1}")
    if task.concurrency > 1:
        parts.append(f"{task.concurrency} in flight")
    if task.queue is not None:
        parts.append(f"queue {task.queue.capacity}")
    if task.reorders:
        parts.append("restores the order")
    if task.node:
        parts.append(f"on {task.node}")
    return ", ".join(parts)


def _edge_line(edge: PhysicalEdge) -> str:
    branch = "" if edge.branch is None else f", branch {edge.branch!r}"
    back = ", feedback" if edge.feedback else ""
    return f"{edge.routing} to {', '.join(edge.targets)}{' by key' if edge.keyed else ''}{branch}{back}"


def _edges_by_name(edges: Iterable[PhysicalEdge]) -> dict[str, PhysicalEdge]:
    named: dict[str, PhysicalEdge] = {}
    for edge in edges:
        base = f"{edge.source} => {edge.targets[0].rpartition('[')[0]}:{edge.input_index}"
        name, count = base, 1
        while name in named:
            count += 1
            name = f"{base}#{count}"
        named[name] = edge
    return named


def _diff(what: str, old: dict[str, _T], new: dict[str, _T], line: Callable[[_T], str]) -> list[str]:
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            lines.append(f"- {what} {name}: {line(old[name])}")
        elif name not in old:
            lines.append(f"+ {what} {name}: {line(new[name])}")
        elif line(old[name]) != line(new[name]):
            lines.append(f"~ {what} {name}: {line(old[name])} => {line(new[name])}")
    return lines
