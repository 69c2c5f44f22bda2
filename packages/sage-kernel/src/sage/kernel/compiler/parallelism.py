"""Pass 3: how many replicas of each operator."""

from __future__ import annotations

from dataclasses import replace

from sage.kernel.graph import BaseTransformation, OperatorKind, PipelineError, StateKind

from .plan import Plan

__all__ = ["choose_parallelism"]


def choose_parallelism(plan: Plan) -> Plan:
    """Options beat the declaration, the declaration beats the default of 1; `key_by` runs where its input is
    made.

    Raises:
        PipelineError: several replicas of something of which there can be only one.
    """
    chosen: dict[str, int] = {}
    lines: list[tuple[str, str]] = []
    for operator in plan.operators:
        name = operator.name
        if operator.kind is OperatorKind.KEY_BY:
            if name in plan.options.parallelism:
                raise PipelineError(
                    f"key_by runs where its items are made: give the parallelism to the operator behind it "
                    f"{operator.where}"
                )
            upstream = {chosen[upstream] for upstream in operator.inputs}
            chosen[name] = upstream.pop() if len(upstream) == 1 else 1
            lines.append((name, f"{chosen[name]} replica(s): keys are computed where the items are"))
            continue
        if name in plan.options.parallelism:
            chosen[name], why = plan.options.parallelism[name], "set for this run"
        elif operator.parallelism is not None:
            chosen[name], why = operator.parallelism, "declared"
        else:
            chosen[name], why = 1, "the default"
        single = operator.factory.why_single or operator.options.get("single")
        if chosen[name] > 1 and single:
            raise PipelineError(f"parallelism {chosen[name]} is not possible: {single} {operator.where}")
        if chosen[name] > 1:
            why += _caution(operator)
        lines.append((name, f"{chosen[name]} replica(s): {why}"))
    return replace(plan, parallelism=chosen).noted("parallelism", *lines)


def _caution(operator: BaseTransformation) -> str:
    if operator.kind is OperatorKind.SOURCE:
        return "; each reads what it picks by ctx.replica_index: a source that does not look at it is read once by each"
    if operator.contract.state.kind is StateKind.STATEFUL and not operator.keyed_input:
        return "; it is stateful without keys: each replica keeps a state of its own"
    return ""
