"""Pass 4: the vehicle of each operator."""

from __future__ import annotations

from dataclasses import replace

from sage.kernel.graph import BaseTransformation, Execution, OperatorKind, PipelineError
from sage.kernel.operators import Function, FunctionFactory
from sage.kernel.operators.process_code import explain_code
from sage.kernel.operators.shaping import LimitSpec

from .costs import HAND_OVER_S, shown
from .plan import Measurement, Plan

__all__ = ["DEFAULT_CONCURRENCY", "choose_execution"]

DEFAULT_CONCURRENCY = 64
"""Items in flight at once in one `async` replica, where the contract does not say."""

_COMPUTES = 0.8
"""Share of its time from which on an operator counts as computing."""
_WAITS = 0.5
"""Share below which it counts as waiting."""
_PROCESS_PAYS_S = 20 * HAND_OVER_S[Execution.PROCESS]
"""Computing per item from which on a measured operator gets a process: well above the hand-over, whatever its items
are."""


def choose_execution(plan: Plan) -> Plan:
    """ASYNC for coroutine functions, PROCESS for plain ones that are `cpu_bound` or were measured to compute in Python,
    THREAD for the others, unless the contract says otherwise.

    Raises:
        PipelineError: a time limit on an operator that nothing can interrupt, or a process declared for one that cannot
            be sent there.
    """
    chosen: dict[str, Execution] = {}
    lines: list[tuple[str, str]] = []
    for operator in plan.operators:
        asked = operator.contract.execution
        measured = plan.options.measured.get(operator.name)
        if asked is not Execution.AUTO:
            chosen[operator.name], why = asked, "declared by the contract"
        elif operator.factory.is_async:
            chosen[operator.name], why = Execution.ASYNC, "it is a coroutine function"
        elif operator.contract.cpu_bound:
            chosen[operator.name], why = _cpu_bound(operator)
        elif measured is not None and measured.items:
            chosen[operator.name], why = _as_measured(operator, measured)
        else:
            chosen[operator.name], why = Execution.THREAD, "it is a plain function"
        if chosen[operator.name] is not Execution.ASYNC and operator.contract.io.timeout_s is not None:
            raise PipelineError(
                f"timeout_s needs an async operator: a {chosen[operator.name]} in a call cannot be "
                f"interrupted (the job's watchdog_s is the limit there) {operator.where}"
            )
        if operator.contract.cpu_bound and chosen[operator.name] is Execution.ASYNC:
            why += "; cpu_bound: pure-Python work holds up the event loop, a plain function would get a process"
        elif measured is not None and chosen[operator.name] is Execution.ASYNC and _computes(measured):
            why += f"; {_told(measured)}: that holds up the event loop, a plain function would get a process"
        if chosen[operator.name] is Execution.PROCESS and _ends_sources(operator):
            chosen[operator.name] = Execution.THREAD
            why = "it ends its source when it has got enough, which only this process can do"
        concurrency = operator.contract.resources.concurrency or 1
        if chosen[operator.name] is not Execution.ASYNC and concurrency > 1:
            why += (
                f"; resources.concurrency={concurrency} says nothing here, only async functions have several items in "
                f"work at once: parallelism={concurrency} gives as many replicas"
            )
        if chosen[operator.name] is Execution.PROCESS:
            _require_sendable(operator)
            why += _told_of_process(operator)
        lines.append((operator.name, f"{chosen[operator.name]}: {why}"))
    return replace(plan, execution=chosen).noted("execution", *lines)


def _as_measured(operator: BaseTransformation, measured: Measurement) -> tuple[Execution, str]:
    """The vehicle of a plain function of which nothing is declared."""
    told = _told(measured)
    if measured.cpu_share < _WAITS:
        return Execution.THREAD, f"{told}: it waits, so replicas on threads (parallelism=) or an async function help"
    if not _computes(measured):
        return Execution.THREAD, told
    if measured.releases_lock:
        return Execution.THREAD, f"{told}, and releases the interpreter lock: threads compute side by side there"
    return _cpu_bound(operator, told)


def _computes(measured: Measurement) -> bool:
    return measured.items > 0 and measured.cpu_share >= _COMPUTES and measured.cpu_s >= _PROCESS_PAYS_S


def _told(measured: Measurement) -> str:
    return f"measured, it takes {shown(measured.wall_s)} per item and computes {measured.cpu_share:.0%} of that"


def _cpu_bound(operator: BaseTransformation, found: str = "it is cpu_bound") -> tuple[Execution, str]:
    """A process where that is possible, else a thread, with the reason."""
    on_thread = f"{found} and runs on a thread, where pure-Python work shares one interpreter lock: "
    if operator.kind is OperatorKind.SOURCE:
        return Execution.THREAD, on_thread + "sources stay in this process"
    if operator.kind is OperatorKind.SINK:
        return Execution.THREAD, on_thread + "what a sink keeps belongs to this process (execution=PROCESS moves it)"
    reason = explain_code(operator.factory)
    if reason:
        return Execution.THREAD, on_thread + f"it cannot be sent to a process, {reason}"
    return Execution.PROCESS, f"{found}: pure-Python work shares no interpreter lock there"


def _require_sendable(operator: BaseTransformation) -> None:
    # What was chosen has been asked already; one that was declared is refused here, not when the job starts.
    reason = explain_code(operator.factory) if operator.contract.execution is Execution.PROCESS else ""
    if reason:
        raise PipelineError(f"it cannot be sent to a process: {reason} {operator.where}")


def _told_of_process(operator: BaseTransformation) -> str:
    """What is different about an operator in a process."""
    why = ""
    if _is_instance(operator):
        why += "; the instance itself stays as it is, each process has a copy"
    if operator.contract.io.batching is not None:
        why += "; its lists are gathered in this process, each goes there in one message"
    if operator.contract.services:
        why += "; the services that it calls are in this process, requests and answers are sent"
    return why


def _ends_sources(operator: BaseTransformation) -> bool:
    return isinstance(operator.factory, FunctionFactory) and isinstance(operator.factory.target, LimitSpec)


def _is_instance(operator: BaseTransformation) -> bool:
    return isinstance(operator.factory, FunctionFactory) and isinstance(operator.factory.target, Function)
