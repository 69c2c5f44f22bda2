"""Pass 5: no task for work that is smaller than handing it over (paper, 5.10: overhead-dominated plans are rejected
when they are compiled).

It acts only on costs that are known (`io.item_cost_s` of the contract, or measured): other operators are left as they
are. What was asked for is kept here, and refused by `costs.refuse` when it is known with whom it shares a task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sage.kernel.graph import BaseTransformation, Execution, OperatorKind, StateKind

from .costs import HAND_OVER_S, KnownCost, known_cost, shown
from .plan import Plan

__all__ = ["coarsen"]

_DIVISIBLE = frozenset({OperatorKind.MAP, OperatorKind.FILTER, OperatorKind.FLATMAP})
"""Kinds whose replicas do what one of them does, where they keep no state."""


def coarsen(plan: Plan) -> Plan:
    """Take back processes and replicas of operators that cost less than their hand-over, where nobody can tell the
    difference; say with the arithmetic where they are kept and do not pay.

    Example:
        >>> from sage.kernel.api import Contract, IOSpec, LocalEnvironment
        >>> env = LocalEnvironment("demo")
        >>> cheap = Contract(cpu_bound=True, io=IOSpec(item_cost_s=2e-7))
        >>> _ = env.from_collection([1, 2]).map(abs, contract=cheap).print()
        >>> [note.text for note in env.compile().notes if note.compiler_pass == "coarsen"]
        ['thread instead of process: an item takes 0.2 us (io.item_cost_s), handing it to a task of its own (process)
        1 us']
    """
    if plan.options.coarsen is False:
        return plan
    execution, parallelism = dict(plan.execution), dict(plan.parallelism)
    lines: list[tuple[str, str]] = []
    for operator in plan.operators:
        name, cost = operator.name, known_cost(plan, operator)
        if operator.kind is OperatorKind.KEY_BY:
            # Keys are computed where the items are, so that those of a key stay in order.
            before = {parallelism[upstream] for upstream in operator.inputs}
            parallelism[name] = before.pop() if len(before) == 1 else 1
        if operator.kind in (OperatorKind.SOURCE, OperatorKind.KEY_BY):
            continue
        if cost is not None and execution[name] is Execution.PROCESS and cost.below(HAND_OVER_S[Execution.PROCESS]):
            why = _cheaper(cost, Execution.PROCESS)
            if operator.contract.execution is Execution.AUTO:
                execution[name] = Execution.THREAD
                lines.append((name, f"thread instead of process: {why}"))
            else:
                lines.append((name, f"a process does not pay, it is kept because the contract asks for it: {why}"))
        if cost is not None and execution[name] is Execution.ASYNC and cost.below(HAND_OVER_S[Execution.ASYNC]):
            lines.append(
                (name, f"async does not pay, a plain function would be fused: {_cheaper(cost, Execution.ASYNC)}")
            )
        if parallelism[name] > 1:
            lines += _replicas(plan, operator, cost, execution, parallelism)
    return replace(plan, execution=execution, parallelism=parallelism).noted("coarsen", *lines)


def _replicas(
    plan: Plan,
    operator: BaseTransformation,
    cost: KnownCost | None,
    execution: Mapping[str, Execution],
    parallelism: dict[str, int],
) -> list[tuple[str, str]]:
    """Take replicas back in `parallelism`, or say why they do not pay."""
    name, replicas, vehicle = operator.name, parallelism[operator.name], execution[operator.name]
    hand_over = HAND_OVER_S[vehicle]
    if cost is not None and cost.below(hand_over):
        kept = _why_kept(plan, operator)
        why = _cheaper(cost, vehicle)
        if kept:
            return [(name, f"{replicas} replicas do not pay, they are kept because {kept}: {why}")]
        (upstream,) = operator.inputs
        if parallelism[upstream] < replicas:
            parallelism[name] = parallelism[upstream]
            return [(name, f"{parallelism[name]} replica(s) instead of {replicas}, as {upstream!r} has: {why}")]
        return []
    if cost is not None and vehicle is Execution.PROCESS and replicas > cost.seconds / hand_over:
        fed = max(1, int(cost.seconds / hand_over))
        text = (
            f"{replicas} processes cannot be kept busy: an item takes {shown(cost.seconds)} there and "
            f"{shown(hand_over)} here to hand it over, so {fed} can be"
        )
        return [(name, text)]
    if vehicle is Execution.THREAD and operator.contract.cpu_bound:
        return [
            (name, f"{replicas} replicas do the work of one: on threads pure-Python work shares one interpreter lock")
        ]
    return []


def _why_kept(plan: Plan, operator: BaseTransformation) -> str:
    """Why its replicas cannot be taken back without anybody noticing, "" where they can."""
    if operator.name in plan.options.parallelism:
        return "they were set for this run"
    if operator.keyed_input or operator.kind not in _DIVISIBLE or operator.options.get("shape"):
        return "its replicas are more than copies"
    if operator.contract.state.kind is StateKind.STATEFUL:
        return "each has a state of its own"
    if len(operator.inputs) != 1 or operator.routing(0) is not None:
        return "of how its items come to them"
    return ""


def _cheaper(cost: KnownCost, vehicle: Execution) -> str:
    return f"an item takes {cost}, handing it to a task of its own ({vehicle}) {shown(HAND_OVER_S[vehicle])}"
