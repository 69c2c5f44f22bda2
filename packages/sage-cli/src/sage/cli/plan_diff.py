"""`sage compile --diff`: what differs between two plans, by operators and streams and not by replicas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sage.kernel.graph import ExecutionGraph, PhysicalEdge, TaskNode

__all__ = ["Difference", "diff_plans"]

_Facts = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One task or stream that is not the same in both plans.

    Attributes:
        change: "added", "removed" or "changed".
        what: "plan", "task" or "stream".
        subject: name of the first operator of a task; `from -> to` of a stream.
        before: what it was, by property; of a changed one only what differs.
        after: what it is.
    """

    change: str
    what: str
    subject: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]


def diff_plans(old: ExecutionGraph, new: ExecutionGraph) -> tuple[Difference, ...]:
    """All differences, in a fixed order; none exactly when both plans would run the same.

    Example:
        >>> from dataclasses import replace
        >>> plan = ExecutionGraph(name="a", tasks=(), edges=())
        >>> diff_plans(plan, plan)
        ()
        >>> [(each.subject, each.before, each.after) for each in diff_plans(plan, replace(plan, name="b"))]
        [('name', {'name': 'a'}, {'name': 'b'})]
    """
    found = [
        *_compare("plan", {"name": {"name": old.name}}, {"name": {"name": new.name}}),
        *_compare("task", _tasks(old), _tasks(new)),
        *_compare("stream", _streams(old), _streams(new)),
    ]
    if not found:
        # Replicas that differ among themselves are not made by this compiler, but a plan may come from a file.
        found = [Difference(change="changed", what="plan", subject=line, before={}, after={}) for line in old.diff(new)]
    return tuple(found)


def _compare(what: str, old: _Facts, new: _Facts) -> Iterable[Difference]:
    for subject in sorted(old.keys() | new.keys()):
        before, after = old.get(subject), new.get(subject)
        if before is None or after is None:
            change = "added" if before is None else "removed"
            yield Difference(change=change, what=what, subject=subject, before=before or {}, after=after or {})
        elif before != after:
            differ = [name for name in {**before, **after} if before.get(name) != after.get(name)]
            yield Difference(
                change="changed",
                what=what,
                subject=subject,
                before={name: before.get(name) for name in differ},
                after={name: after.get(name) for name in differ},
            )


def _tasks(graph: ExecutionGraph) -> _Facts:
    found: dict[str, dict[str, Any]] = {}
    for task in graph.tasks:
        facts = found.setdefault(task.chain[0], _facts_of(task))
        facts["replicas"] += 1
    return found


def _facts_of(task: TaskNode) -> dict[str, Any]:
    return {
        "operators": " | ".join(map(" + ".join, task.segments)),
        "replicas": 0,
        "execution": task.execution.value,
        "in_flight": task.concurrency,
        "queue": None if task.queue is None else task.queue.capacity,
        "node": task.node,
        "reorders": task.reorders,
    }


def _streams(graph: ExecutionGraph) -> _Facts:
    found: dict[str, dict[str, Any]] = {}
    for edge in graph.edges:
        subject = f"{_chain(edge.source)} -> {_chain(edge.targets[0])}"
        if edge.input_index:
            subject += f" (input {edge.input_index + 1})"
        facts = found.setdefault(subject, _facts_of_edge(edge))
        facts["connections"] += len(edge.targets)
    return found


def _facts_of_edge(edge: PhysicalEdge) -> dict[str, Any]:
    return {"routing": edge.routing.value, "by_key": edge.keyed, "connections": 0}


def _chain(task_id: str) -> str:
    return task_id.rpartition("[")[0]
