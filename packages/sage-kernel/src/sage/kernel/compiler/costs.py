"""What an item costs an operator: as its contract says, or as it was measured (`CompileOptions.measured`). The pass
`tell_measured` puts what was measured into the plan's notes; `refuse` fails where what was asked for cannot pay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sage.kernel.graph import BaseTransformation, Execution, OperatorKind, PipelineError, Routing, StateKind

from .plan import Plan

__all__ = ["HAND_OVER_S", "KnownCost", "known_cost", "refuse", "shown", "tell_measured"]

HAND_OVER_S: Final[Mapping[Execution, float]] = MappingProxyType(
    {Execution.THREAD: 0.1e-6, Execution.ASYNC: 0.5e-6, Execution.PROCESS: 1e-6}
)
"""Processor time per item that a task of its own costs this process, in packets under load; as `python -m
benchmark.handover` prints it, rounded up to one digit."""

_MARGIN = 2.0
"""A measured cost counts as smaller than something when it is half of it: a second measurement must not turn the
decision round."""

_MANY_OUTPUTS = frozenset({OperatorKind.FLATMAP, OperatorKind.JOIN, OperatorKind.BATCH, OperatorKind.INTERLEAVE})
"""Behind these an item of the chain is not an item of the operator any more."""


@dataclass(frozen=True, slots=True)
class KnownCost:
    """Seconds per item, and where they are known from."""

    seconds: float
    origin: str
    margin: float = 1.0

    def below(self, limit_s: float) -> bool:
        """Whether it is smaller than `limit_s`, beyond what a measurement may be wrong by."""
        return self.seconds * self.margin < limit_s

    def __str__(self) -> str:
        return f"{shown(self.seconds)} ({self.origin})"


def known_cost(plan: Plan, operator: BaseTransformation) -> KnownCost | None:
    """What the contract says, else what was measured (the time that a replica is busy with an item), else None."""
    declared = operator.contract.io.item_cost_s
    if declared is not None:
        return KnownCost(declared, "io.item_cost_s")
    measured = plan.options.measured.get(operator.name)
    if measured is None or not measured.items:
        return None
    return KnownCost(measured.wall_s, "measured", _MARGIN)


def shown(seconds: float) -> str:
    """A time per item for people."""
    return f"{seconds * 1e6:.3g} us"


def tell_measured(plan: Plan) -> Plan:
    """Say for each operator what was measured, or why nothing was."""
    lines: list[tuple[str, str]] = []
    for operator in plan.operators:
        measured = plan.options.measured.get(operator.name)
        if measured is None:
            continue
        if not measured.items:
            lines.append((operator.name, f"left as declared: {measured.reason}"))
            continue
        text = f"{shown(measured.wall_s)} per item, {measured.cpu_share:.0%} of it computing ({measured.items} items)"
        if measured.releases_lock:
            text += ", in code that releases the interpreter lock"
        lines.append((operator.name, text))
    return plan.noted("calibrate", *lines)


def refuse(plan: Plan) -> Plan:
    """Fail where a process or replicas were asked for in the pipeline, and everything that would run there is known to
    cost less than handing the items over.

    Raises:
        PipelineError: with the arithmetic, and what to do.
    """
    if plan.options.coarsen is not True:
        return plan
    for segment in [segment for chain in plan.chains for segment in chain.segments]:
        operators = [plan.graph[name] for name in segment]
        head, vehicle = operators[0], plan.execution[segment[0]]
        asked, total = _asked(plan, operators, vehicle), _total(plan, operators)
        if asked is None or total is None or not head.inputs or not total.below(HAND_OVER_S[vehicle]):
            continue
        what, instead = asked
        raise PipelineError(
            f"{what} cost more than they bring: {_work(segment)} takes {total} of work per item, handing the item over "
            f"(in packets, {vehicle}) takes {shown(HAND_OVER_S[vehicle])}, so an item costs "
            f"{shown(total.seconds + HAND_OVER_S[vehicle])} instead of {shown(total.seconds)}; {instead}, or set "
            f'coarsen="warn" in the environment to have it all the same {head.where}'
        )
    return plan


def _asked(plan: Plan, operators: list[BaseTransformation], vehicle: Execution) -> tuple[str, str] | None:
    """What of a task was asked for in the pipeline and is only of use when it pays, and what to do instead."""
    head = operators[0]
    if any(operator.name in plan.options.parallelism for operator in operators):
        return None  # who sets it for one run wants to see just that
    if vehicle is Execution.PROCESS:
        if any(operator.contract.execution is Execution.PROCESS for operator in operators):
            return "processes of its own", "leave out execution=PROCESS (AUTO chooses)"
        return None
    replicas = plan.parallelism[head.name]
    if vehicle is not Execution.THREAD or replicas == 1 or head.parallelism is None:
        return None
    if any(head.routing(index) is Routing.BROADCAST for index in range(len(head.inputs))):
        return None  # each item is meant to come to each of them
    if any(operator.contract.state.kind is StateKind.STATEFUL and not operator.keyed_input for operator in operators):
        return None  # each has a state of its own: one replica would give other results
    return f"{replicas} replicas", "leave out parallelism"


def _total(plan: Plan, operators: list[BaseTransformation]) -> KnownCost | None:
    """What an item of the first operator costs them all, at most; None where that is not known."""
    costs = [known_cost(plan, operator) for operator in operators]
    if any(operator.kind in _MANY_OUTPUTS for operator in operators[:-1]):
        return None
    known = [cost for cost in costs if cost is not None]
    if len(known) < len(costs):
        return None
    origins = dict.fromkeys(cost.origin for cost in known)
    return KnownCost(sum(cost.seconds for cost in known), " and ".join(origins), max(cost.margin for cost in known))


def _work(segment: Sequence[str]) -> str:
    return " -> ".join(map(repr, segment))
