"""Pass 5: which `ordered()` has anything to do. Where nothing between it and the source can change the order, it costs
nothing; elsewhere it gets a task of its own, which takes rows in any order.
"""

from __future__ import annotations

from dataclasses import replace

from sage.kernel.graph import BaseTransformation, Execution, OperatorKind, PipelineError

from .execution import DEFAULT_CONCURRENCY
from .plan import Plan

__all__ = ["plan_order"]


def plan_order(plan: Plan) -> Plan:
    """Find the `ordered()` operators that have to put rows back into order.

    Raises:
        PipelineError: an operator before one of them keeps items, whose outputs then have no place in the order.
    """
    active: set[str] = set()
    execution = dict(plan.execution)
    lines: list[tuple[str, str]] = []
    for operator in plan.operators:
        if operator.kind is not OperatorKind.ORDERED:
            continue
        disorder = _disorder(plan, operator, active)
        if disorder is None:
            upstream = execution[operator.inputs[0]]
            execution[operator.name] = Execution.THREAD if upstream is Execution.ASYNC else upstream
            lines.append((operator.name, "left out: nothing between it and its source can change the order"))
            continue
        _refuse_lists(plan, operator, active)
        active.add(operator.name)
        ahead = operator.options["max_ahead"]
        lines.append((operator.name, f"needed: {disorder}; its sources stay within {ahead:,} items of it"))
    return replace(plan, execution=execution, reordering=frozenset(active)).noted("ordering", *lines)


def _disorder(plan: Plan, operator: BaseTransformation, active: set[str]) -> str | None:
    """What can change the order on the way to an operator, None where nothing can."""
    while operator.inputs:
        if len(operator.inputs) > 1:
            return f"{operator.name!r} takes several streams"
        operator = plan.graph[operator.inputs[0]]
        if operator.name in active:
            # Behind an earlier one the order is that of the source again.
            return None
        replicas = plan.parallelism[operator.name]
        if replicas > 1:
            return f"{operator.name!r} has {replicas} replicas"
        if plan.execution[operator.name] is Execution.ASYNC and operator.kind is not OperatorKind.KEY_BY:
            in_flight = operator.contract.resources.concurrency or DEFAULT_CONCURRENCY
            if in_flight > 1:
                return f"{operator.name!r} has {in_flight} items in flight"
    return None


def _refuse_lists(plan: Plan, operator: BaseTransformation, active: set[str]) -> None:
    waiting, seen = list(operator.inputs), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        upstream = plan.graph[name]
        waiting += upstream.inputs
        why = _no_place(plan, upstream, active)
        if why is not None:
            raise PipelineError(
                f"ordered() cannot stand behind {name!r}: {why}; call ordered() before it {operator.where}"
            )
        batching = upstream.contract.io.batching
        if batching is not None and batching.max_wait_s is None:
            raise PipelineError(
                f"ordered() behind {name!r} could wait for ever: its lists wait until they are full, and the source "
                f"waits for ordered(); give its Batching a max_wait_s {operator.where}"
            )


def _no_place(plan: Plan, operator: BaseTransformation, active: set[str]) -> str | None:
    """Why the outputs of an operator that keeps items beyond the end of a call have no place in the order of the
    source; None where they have.
    """
    if operator.kind is OperatorKind.INTERLEAVE:
        return "items that wait for those of another stream keep no place in the order of the source"
    if operator.kind is not OperatorKind.BATCH:
        return None
    replicas = plan.parallelism[operator.name]
    disorder = _disorder(plan, operator, active)
    if replicas > 1:
        disorder = f"it has {replicas} replicas"
    # A list of items that come in order has the place of the one that fills it.
    return None if disorder is None else f"which items share a list depends on the run, because {disorder}"
