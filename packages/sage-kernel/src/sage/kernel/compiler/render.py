"""A plan for people: text, Mermaid, Graphviz. All show chains with their replicas, not each replica by
itself.
"""

from __future__ import annotations

from sage.kernel.graph import ExecutionGraph, PhysicalEdge, TaskNode

__all__ = ["render_dot", "render_mermaid", "render_text"]


_DASHED = ", style=dashed, constraint=false"
"""How Graphviz draws what closes a loop: it does not count for the layout from left to right."""


def _heads(graph: ExecutionGraph) -> list[TaskNode]:
    return [task for task in graph.tasks if task.replica_index == 0]


def _chain_name(task_id: str) -> str:
    return task_id.rpartition("[")[0]


def _links(graph: ExecutionGraph) -> list[tuple[str, str, PhysicalEdge]]:
    """One link per producing and consuming chain and input."""
    seen: dict[tuple[str, str, int], PhysicalEdge] = {}
    for edge in graph.edges:
        seen.setdefault((_chain_name(edge.source), _chain_name(edge.targets[0]), edge.input_index), edge)
    return [(source, target, edge) for (source, target, _), edge in seen.items()]


def _facts(task: TaskNode) -> str:
    facts = [f"{task.parallelism} x {task.execution}"]
    if task.cuts:
        facts[0] = f"{task.parallelism} x a line of {len(task.cuts) + 1} processes"
    if task.concurrency > 1:
        facts.append(f"{task.concurrency} in flight")
    if task.queue is not None:
        facts.append(f"queue {task.queue.capacity}")
    if task.reorders:
        facts.append("restores the order")
    return ", ".join(facts)


def render_text(graph: ExecutionGraph, *, explain: bool = False) -> str:
    """The plan as indented text; with `explain` also what each compiler pass decided and why."""
    lines = [f"{graph.name}: {len(graph.tasks)} task(s)"]
    links = _links(graph)
    for task in _heads(graph):
        lines.append(f"  {' | '.join(map(' -> '.join, task.segments))}  ({_facts(task)})")
        for source, target, edge in links:
            if source == _chain_name(task.id):
                back = ", closes the loop" if edge.feedback else ""
                lines.append(f"    => {target} by {edge.routing}{back}")
    if explain:
        lines.append("")
        lines.append("why:")
        width = max((len(note.compiler_pass) for note in graph.notes), default=0)
        for note in graph.notes:
            subject = f"{note.subject}: " if note.subject else ""
            lines.append(f"  {note.compiler_pass:<{width}}  {subject}{note.text}")
    return "\n".join(lines) + "\n"


def render_mermaid(graph: ExecutionGraph) -> str:
    """The plan as a Mermaid flowchart."""
    heads = _heads(graph)
    number = {_chain_name(task.id): index for index, task in enumerate(heads)}
    lines = ["flowchart LR"]
    for task in heads:
        chain = " ⇒ ".join(" → ".join(map(_escape, segment)) for segment in task.segments)
        lines.append(f'    t{number[_chain_name(task.id)]}["{chain}<br/>{_facts(task)}"]')
    for source, target, edge in _links(graph):
        arrow = f"-.->|{edge.routing}, closes the loop|" if edge.feedback else f"-->|{edge.routing}|"
        lines.append(f"    t{number[source]} {arrow} t{number[target]}")
    return "\n".join(lines) + "\n"


def render_dot(graph: ExecutionGraph) -> str:
    """The plan as a Graphviz digraph."""
    lines = [f'digraph "{_quote(graph.name)}" {{', "    rankdir=LR;", "    node [shape=box];"]
    for task in _heads(graph):
        label = f"{_quote(' | '.join(map(' -> '.join, task.segments)))}\\n{_facts(task)}"
        lines.append(f'    "{_quote(_chain_name(task.id))}" [label="{label}"];')
    lines += [
        f'    "{_quote(source)}" -> "{_quote(target)}" [label="{edge.routing}"{_DASHED if edge.feedback else ""}];'
        for source, target, edge in _links(graph)
    ]
    return "\n".join([*lines, "}"]) + "\n"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def _quote(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
