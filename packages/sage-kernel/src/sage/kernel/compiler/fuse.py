"""Pass 6: which neighbours share a task. Between fused operators an item is passed by a call, not through a
queue. Neighbours in processes of their own may share one too, as a line: each process passes on to the next.
"""

from __future__ import annotations

from dataclasses import replace

from sage.kernel.graph import BaseTransformation, Execution, OperatorKind, StateKind
from sage.kernel.operators import Function, FunctionFactory
from sage.kernel.operators.specs import OperatorSpec

from .plan import Chain, Plan

__all__ = ["fuse", "max_wait_of", "needs_shuffle"]

_LOOPS = frozenset({OperatorKind.FLATMAP, OperatorKind.JOIN, OperatorKind.INTERLEAVE, OperatorKind.BATCH})
_LINED = frozenset({OperatorKind.MAP, OperatorKind.FILTER, OperatorKind.KEY_BY, OperatorKind.SINK})
_FLATMAPS_MAX = 5
"""Each opens three blocks of the generated code, and CPython allows twenty inside each other."""


def fuse(plan: Plan) -> Plan:
    """Fuse an operator with the one before it when it is that one's only consumer and forward routing is
    enough.
    """
    chains: list[list[str]] = []
    chain_by_tail: dict[str, list[str]] = {}
    cuts: dict[str, list[int]] = {}
    lines: list[tuple[str, str]] = []
    for operator in plan.operators:
        lined = _passes_on(plan, operator)
        obstacle = None if lined else _obstacle(plan, operator) or _too_deep(plan, operator, chain_by_tail)
        if obstacle is None:
            chain = chain_by_tail.pop(operator.inputs[0])
            if lined:
                cuts.setdefault(chain[0], []).append(len(chain))
                lines.append((operator.name, f"begins a process: fusion is off; {chain[-1]!r} passes items on to it"))
            chain.append(operator.name)
        else:
            chain = [operator.name]
            chains.append(chain)
            if operator.inputs:
                lines.append((operator.name, f"begins a task: {obstacle}"))
        chain_by_tail[operator.name] = chain
    fused = tuple(Chain(operators=tuple(chain), cuts=tuple(cuts.get(chain[0], ()))) for chain in chains)
    lines += [(chain.name, _one_task(chain)) for chain in fused if len(chain.operators) > 1]
    return replace(plan, chains=fused).noted("fuse", *lines)


def _one_task(chain: Chain) -> str:
    segments = [" -> ".join(segment) for segment in chain.segments]
    if len(segments) == 1:
        return f"one task: {segments[0]}"
    return f"one task, a line of {len(segments)} processes: {' | '.join(segments)}"


def _passes_on(plan: Plan, operator: BaseTransformation) -> bool:
    """Whether it begins a process of the task of the operator before it: only that fusion is off keeps them apart, and
    both answer for each item at once, with one output at most, so that a row can be followed through the line.
    """
    if plan.options.fusion or not operator.inputs:
        return False
    upstream = plan.graph[operator.inputs[0]]
    if not _can_join_line(plan, upstream) or not _can_join_line(plan, operator):
        return False
    return _obstacle(plan, operator, fusion=True) is None


def _can_join_line(plan: Plan, operator: BaseTransformation) -> bool:
    if plan.execution[operator.name] is not Execution.PROCESS or operator.kind not in _LINED:
        return False
    state, factory = operator.contract.state, operator.factory
    target = factory.target if isinstance(factory, FunctionFactory) else None
    is_function = isinstance(target, Function) or (isinstance(target, type) and issubclass(target, Function))
    keeps_state = (
        state.kind is StateKind.STATEFUL
        or state.keyed
        # It may use `ctx.state` without saying so.
        or (operator.keyed_input and is_function)
        # Filters that the library itself makes (distinct, limit, sample) remember what they have let pass.
        or isinstance(target, OperatorSpec)
    )
    holds_back = operator.contract.io.batching is not None or "requests" in operator.options
    return not (keeps_state or holds_back or plan.graph.branches_of(operator.name))


def max_wait_of(operator: BaseTransformation) -> float | None:
    """How long the lists of an operator wait to be filled; None where they wait for ever, or where there are none."""
    batching = operator.contract.io.batching
    waits: float | None = operator.options.get("max_wait_s") if batching is None else batching.max_wait_s
    return waits


def needs_shuffle(plan: Plan, upstream: BaseTransformation, operator: BaseTransformation) -> bool:
    """Whether items must be routed by key between these two."""
    if not operator.keyed_input or plan.parallelism[operator.name] == 1:
        return False
    # Behind the first keyed operator a key is already where it belongs, as long as the number of replicas
    # stays.
    return upstream.kind is OperatorKind.KEY_BY or plan.parallelism[upstream.name] != plan.parallelism[operator.name]


def _obstacle(plan: Plan, operator: BaseTransformation, *, fusion: bool | None = None) -> str | None:
    if not operator.inputs:
        return "it is a source"
    if not (plan.options.fusion if fusion is None else fusion):
        return "fusion is off"
    if operator.kind is OperatorKind.FUTURE:
        return "items come back to it"
    if operator.name in plan.reordering:
        return "it takes rows in any order"
    if len(operator.inputs) > 1:
        return "it has several inputs"
    if "sides" in operator.options:
        return "its items come with the stream that they are of"
    upstream = plan.graph[operator.inputs[0]]
    if upstream.kind is OperatorKind.FUTURE:
        return f"it takes what comes back to {upstream.name!r}"
    branch = operator.branch(0)
    if branch is not None:
        return f"it takes the branch {branch!r} of {upstream.name!r}"
    if len(plan.graph.consumers(upstream.name)) > 1:
        return f"{upstream.name!r} has several consumers"
    if plan.parallelism[upstream.name] != plan.parallelism[operator.name]:
        before, after = plan.parallelism[upstream.name], plan.parallelism[operator.name]
        return f"{before} replica(s) of {upstream.name!r} feed {after}"
    if plan.execution[upstream.name] is not plan.execution[operator.name]:
        one, other = plan.execution[upstream.name], plan.execution[operator.name]
        return f"{upstream.name!r} runs on {one}, this on {other}"
    if needs_shuffle(plan, upstream, operator):
        return "items are routed by key"
    if operator.routing(0) is not None and plan.parallelism[operator.name] > 1:
        return f"its items are dealt out by {operator.routing(0)}"
    if (
        plan.execution[operator.name] is Execution.ASYNC
        and operator.keyed_input
        and upstream.kind is OperatorKind.KEY_BY
    ):
        return "items of one key must not overtake each other: they queue by key in front of it"
    if plan.execution[operator.name] is Execution.ASYNC and OperatorKind.KEY_BY in (operator.kind, upstream.kind):
        return "keys are given one at a time, so that items of a key stay in order"
    lists = _lists_obstacle(plan, upstream, operator)
    if lists is not None:
        return lists
    if operator.contract.io.queue_capacity is not None:
        return f"its contract asks for a queue of {operator.contract.io.queue_capacity} in front of it"
    if _concurrency(upstream) != _concurrency(operator):
        return "its concurrency cap differs"
    return None


def _lists_obstacle(plan: Plan, upstream: BaseTransformation, operator: BaseTransformation) -> str | None:
    """Why an operator that gathers lists, or one behind it, begins a task."""
    if plan.execution[operator.name] is Execution.PROCESS and operator.contract.io.batching is not None:
        return "its lists are gathered in front of its process"
    if plan.execution[operator.name] is Execution.ASYNC:
        if operator.contract.io.batching is not None:
            return "it gathers its items into lists, several of which are under way at once"
        if upstream.contract.io.batching is not None:
            return f"{upstream.name!r} answers for whole lists"
    max_wait_s = max_wait_of(operator)
    if max_wait_s is not None:
        return f"its lists go after {max_wait_s:g} s, however long the operator before it takes for an item"
    return None


def _too_deep(plan: Plan, operator: BaseTransformation, chain_by_tail: dict[str, list[str]]) -> str | None:
    if not _opens_loop(plan, operator):
        return None
    chain = chain_by_tail[operator.inputs[0]]
    loops = sum(1 for name in chain if _opens_loop(plan, plan.graph[name]))
    if loops == _FLATMAPS_MAX:
        return f"a chain holds at most {_FLATMAPS_MAX} operators with many outputs, whose loops are nested"
    return None


def _opens_loop(plan: Plan, operator: BaseTransformation) -> bool:
    if operator.kind is OperatorKind.SPLIT:
        return False
    if operator.kind in _LOOPS:
        return True
    return operator.contract.io.batching is not None or bool(plan.graph.branches_of(operator.name))


def _concurrency(operator: BaseTransformation) -> int | None:
    return operator.contract.resources.concurrency
