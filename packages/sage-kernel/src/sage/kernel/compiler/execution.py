"""Pass 4: the vehicle of each operator."""

from __future__ import annotations

from dataclasses import replace

from sage.kernel.graph import Execution, PipelineError

from .plan import Plan

__all__ = ["DEFAULT_CONCURRENCY", "choose_execution"]

DEFAULT_CONCURRENCY = 64
"""Items in flight at once in one `async` replica, where the contract does not say."""


def choose_execution(plan: Plan) -> Plan:
    """ASYNC for coroutine functions, THREAD for plain ones, unless the contract says otherwise.

    Raises:
        PipelineError: a time limit on an operator that nothing can interrupt.
    """
    chosen: dict[str, Execution] = {}
    lines: list[tuple[str, str]] = []
    for operator in plan.operators:
        asked = operator.contract.execution
        if asked is not Execution.AUTO:
            chosen[operator.name], why = asked, "declared by the contract"
        elif operator.factory.is_async:
            chosen[operator.name], why = Execution.ASYNC, "it is a coroutine function"
        else:
            chosen[operator.name], why = Execution.THREAD, "it is a plain function"
        if chosen[operator.name] is Execution.THREAD and operator.contract.io.timeout_s is not None:
            raise PipelineError(
                f"timeout_s needs an async operator: a thread in a call cannot be interrupted (the job's watchdog_s "
                f"is the limit there) {operator.where}"
            )
        if operator.contract.cpu_bound and chosen[operator.name] is Execution.THREAD:
            why += "; cpu_bound: pure-Python work on threads shares one interpreter lock"
        lines.append((operator.name, f"{chosen[operator.name]}: {why}"))
    return replace(plan, execution=chosen).noted("execution", *lines)
