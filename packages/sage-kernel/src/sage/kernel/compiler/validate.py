"""Pass 1: is it a pipeline at all? Sources, no dangling streams, options that name what exists."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from sage.kernel.graph import BaseTransformation, Emit, Execution, OperatorKind, PipelineError
from sage.kernel.operators import missing_service

from .plan import Plan

__all__ = ["validate"]

_NO_ASYNC = frozenset({OperatorKind.SOURCE})


def validate(plan: Plan) -> Plan:
    """Check the graph as a whole.

    Raises:
        PipelineError: no source, a stream that nobody takes, an option for an operator that is not there, a
            vehicle that an operator cannot use.
    """
    operators = plan.operators
    if not operators:
        raise PipelineError(
            f"pipeline {plan.graph.name!r} is empty: begin with env.from_source(...) or env.from_collection(...)"
        )
    for operator in operators:
        if operator.kind is not OperatorKind.SINK and not plan.graph.consumers(operator.name):
            raise PipelineError(
                f"the stream of {operator.name!r} goes nowhere: end it with .sink(...), .print() or "
                f".collect() {operator.where}"
            )
        if operator.factory.is_async and operator.kind in _NO_ASYNC:
            raise PipelineError(
                f"{operator.kind} takes a plain function, got the coroutine function "
                f"{operator.factory.description} {operator.where}"
            )
        if operator.contract.execution is Execution.PROCESS and operator.factory.is_async:
            raise PipelineError(
                f"a coroutine function cannot run in a process: leave execution AUTO, or give a plain function "
                f"{operator.where}"
            )
        if operator.contract.execution is Execution.PROCESS and operator.kind is OperatorKind.SOURCE:
            raise PipelineError(
                f"a source runs on a thread, execution PROCESS is not possible: let it yield what is cheap to make, "
                f"and do the work in a map {operator.where}"
            )
        if operator.contract.execution is Execution.ASYNC and operator.kind in _NO_ASYNC:
            raise PipelineError(f"{operator.kind} runs on a thread, execution ASYNC is not possible {operator.where}")
        if operator.factory.is_async and operator.contract.execution is Execution.THREAD:
            raise PipelineError(
                f"a coroutine function cannot run on a thread: leave execution AUTO or set ASYNC {operator.where}"
            )
        _check_contract(operator)
        _check_services(plan, operator)
        if operator.contract.io.batching is not None and plan.graph.branches_of(operator.name):
            raise PipelineError(
                f"a batched function has no side outputs, they belong to one item: put a map behind it {operator.where}"
            )
    check_names(plan.options.parallelism, (operator.name for operator in operators), "parallelism")
    kept = sum(1 for operator in operators if operator.options.get("emit") is Emit.FINAL)
    note = f"{len(operators)} operators, {sum(1 for operator in operators if not operator.inputs)} source(s)"
    return plan.noted("validate", ("", note + (f", {kept} emit at the end of the stream" if kept else "")))


def _check_services(plan: Plan, operator: BaseTransformation) -> None:
    for name in operator.contract.services:
        if name not in plan.graph.services:
            told = missing_service(f"operator {operator.name!r}", name, plan.graph.services)
            raise PipelineError(f"{told} {operator.where}")


def _check_contract(operator: BaseTransformation) -> None:
    contract = operator.contract
    if operator.kind is OperatorKind.BATCH and contract.execution in (Execution.ASYNC, Execution.PROCESS):
        raise PipelineError(
            f"batch only puts items together, on a thread: leave execution AUTO, got {contract.execution} "
            f"{operator.where}"
        )
    if contract.io.batching is not None and operator.kind is not OperatorKind.MAP:
        raise PipelineError(
            f"only the function of a map can be batched: put batch(size) before the {operator.kind} {operator.where}"
        )
    if contract.state.keyed and not operator.keyed_input:
        raise PipelineError(
            f"its contract says that it keeps state by key: call key_by(...) before it {operator.where}"
        )
    if operator.kind is OperatorKind.SOURCE and contract.io.errors.retries:
        raise PipelineError(
            f"a source is not retried, an iterator that has raised is over: retry inside the source, or yield "
            f"BadRecord for what cannot be read {operator.where}"
        )


def check_names(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse options for operators that are not there.

    Raises:
        PipelineError: one is not; the message offers the closest name.
    """
    names = list(known)
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}"
            raise PipelineError(f"{what} names an unknown operator {name!r}; {hint}")
