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
        PipelineError: an operator before one of them keeps items, or takes items that come out of order in turn; then
            its outputs have no place in the order.
    """
    active: set[str] = set()
    execution = dict(plan.execution)
    lines: list[tuple[str, str]] = []
    for operator in plan.operators:
        if operator.kind is not OperatorKind.ORDERED:
            continue
        disorder = _disorder(plan, operator, active)
        if disorder is None:
            _require_turns_of_line(plan, operator, active)
            upstream = execution[operator.inputs[0]]
            execution[operator.name] = Execution.THREAD if upstream is Execution.ASYNC else upstream
            lines.append((operator.name, "left out: nothing between it and its source can change the order"))
            continue
        _require_places(plan, operator, active)
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
        if _gives_order(operator, active):
            return None
        why = _own_disorder(plan, operator)
        if why is not None:
            return why
    return None


def _gives_order(operator: BaseTransformation, active: set[str]) -> bool:
    """Whether items are in order behind it, whatever came before: an earlier `ordered()` restores that of the source,
    and an `interleave` makes one.
    """
    return operator.name in active or operator.kind is OperatorKind.INTERLEAVE


def _own_disorder(plan: Plan, operator: BaseTransformation) -> str | None:
    replicas = plan.parallelism[operator.name]
    if replicas > 1:
        return f"{operator.name!r} has {replicas} replicas"
    if plan.execution[operator.name] is Execution.ASYNC and operator.kind is not OperatorKind.KEY_BY:
        in_flight = operator.contract.resources.concurrency or DEFAULT_CONCURRENCY
        if in_flight > 1:
            return f"{operator.name!r} has {in_flight} items in flight"
    return None


def _require_places(plan: Plan, operator: BaseTransformation, active: set[str]) -> None:
    """Each item that reaches an `ordered()` must have a place in one order."""
    origins: dict[str, BaseTransformation] = {}
    waiting, seen = list(operator.inputs), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        upstream = plan.graph[name]
        if upstream.kind is OperatorKind.INTERLEAVE:
            origins[name] = upstream
            _require_turns(plan, upstream, operator, active)
            continue
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
    _require_one_way(plan, operator, origins, dict.fromkeys(seen, "past it"))


def _require_one_way(
    plan: Plan, operator: BaseTransformation, origins: dict[str, BaseTransformation], ways: dict[str, str]
) -> None:
    """No item may have places in two orders. `ways` has what leads to the `ordered()` through no `interleave`."""
    for name, origin in origins.items():
        before = _all_before(plan, origin)
        for upstream in before:
            if upstream in ways:
                raise PipelineError(
                    f"ordered() cannot stand behind {name!r}: items of {upstream!r} come through it and "
                    f"{ways[upstream]}, and each way would wait for the other; call ordered() before the streams meet "
                    f"{operator.where}"
                )
        ways = ways | dict.fromkeys(before, f"through {name!r}")


def _all_before(plan: Plan, operator: BaseTransformation) -> list[str]:
    """Every operator on a way to this one, nearest first."""
    found: dict[str, None] = {}
    waiting = list(operator.inputs)
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found[name] = None
            waiting += plan.graph[name].inputs
    return list(found)


def _require_turns(plan: Plan, interleave: BaseTransformation, operator: BaseTransformation, active: set[str]) -> None:
    """An `interleave` makes an order out of streams that come in order, each by itself."""
    sides = interleave.options["sides"]
    for name, side in zip(interleave.inputs, sides, strict=True):
        upstream = plan.graph[name]
        if sides.count(side) > 1:
            why: str | None = "one of its streams is a union"
        elif _gives_order(upstream, active):
            why = None
        else:
            why = _own_disorder(plan, upstream) or _disorder(plan, upstream, active)
        if why is not None:
            raise PipelineError(
                f"ordered() cannot stand behind {interleave.name!r}: it takes items in turn as they come, and in which "
                f"order they come depends on the run, because {why}; call ordered() before it, on the stream of "
                f"{name!r} {operator.where}"
            )


def _require_turns_of_line(plan: Plan, operator: BaseTransformation, active: set[str]) -> None:
    """The same for the `interleave` that an `ordered()` stands behind, with nothing between that changes the order."""
    upstream = operator
    while upstream.inputs:
        upstream = plan.graph[upstream.inputs[0]]
        if upstream.kind is OperatorKind.INTERLEAVE:
            _require_turns(plan, upstream, operator, active)
            return
        if upstream.name in active:
            return


def _no_place(plan: Plan, operator: BaseTransformation, active: set[str]) -> str | None:
    """Why the outputs of an operator that keeps items beyond the end of a call have no place in the order of the
    source; None where they have.
    """
    if operator.kind is not OperatorKind.BATCH:
        return None
    replicas = plan.parallelism[operator.name]
    disorder = _disorder(plan, operator, active)
    if replicas > 1:
        disorder = f"it has {replicas} replicas"
    # A list of items that come in order has the place of the one that fills it.
    return None if disorder is None else f"which items share a list depends on the run, because {disorder}"
