"""Before the other passes: does each future close a loop that items can enter and leave, and that can end? The others
then need not know of loops: what comes back is one more stream.
"""

from __future__ import annotations

from sage.kernel.graph import EXHAUSTED, BaseTransformation, Loop, OperatorKind, PipelineError, find_loops

from .fuse import max_wait_of
from .plan import Plan

__all__ = ["check_loops"]


def check_loops(plan: Plan) -> Plan:
    """Check the loops of the graph, where it has any.

    Raises:
        PipelineError: a future that is not filled, or by what is not behind it; a loop that nothing enters or leaves;
            an operator that has no meaning in a loop or behind one.
    """
    futures = [operator for operator in plan.operators if operator.kind is OperatorKind.FUTURE]
    if not futures:
        return plan
    for future in futures:
        if not future.inputs:
            raise PipelineError(
                f"the future {future.name!r} is never filled, so its stream would have no items: say what comes back "
                f"with future.fill(stream, max_in_flight=...) {future.where}"
            )
        if EXHAUSTED in plan.graph.branches_of(future.name) and future.options["max_rounds"] is None:
            raise PipelineError(
                f"the branch {EXHAUSTED!r} of the future {future.name!r} would never have an item: say how often items "
                f"may go round, with future.fill(stream, max_rounds=...) {future.where}"
            )
        for upstream in future.inputs:
            if upstream not in plan.graph:
                raise PipelineError(f"unknown input {upstream!r} {future.where}")
        if all(taker.branch(index) is not None for taker, index in plan.graph.consumers(future.name)):
            raise PipelineError(f"nobody takes the stream of the future {future.name!r} {future.where}")
    loops = find_loops(plan.graph)
    lines: list[tuple[str, str]] = []
    for future in futures:
        loop = next((loop for loop in loops if future.name in loop.operators), None)
        if loop is None:
            names = ", ".join(repr(name) for name in future.inputs)
            raise PipelineError(
                f"the future {future.name!r} is filled by {names}, which is not behind it, so there is no loop: use "
                f"that stream itself instead of the future {future.where}"
            )
        if future.name == loop.futures[0]:
            _check_loop(plan, loop, future)
            lines.append((future.name, _explain(plan, loop)))
    _refuse_order(plan, loops)
    return plan.noted("loops", *lines)


def _explain(plan: Plan, loop: Loop) -> str:
    closing = [name for future in loop.futures for name in plan.graph[future].inputs if name in loop.operators]
    parts = [f"a loop of {len(loop.operators)} operators, closed by {' and '.join(map(repr, dict.fromkeys(closing)))}"]
    if len(loop.futures) > 1:
        parts.append(f"together with {' and '.join(map(repr, loop.futures[1:]))}, because they share operators")
    for name in loop.futures:
        rounds = plan.graph[name].options["max_rounds"]
        if rounds is not None:
            then = "is set aside"
            if EXHAUSTED in plan.graph.branches_of(name):
                then = f"leaves by the branch {EXHAUSTED!r}"
            parts.append(f"what comes back to {name!r} more than {rounds:,} time(s) {then} (max_rounds)")
    parts.append(f"at most {loop.max_in_flight:,} items come back at a time (max_in_flight)")
    entering = f"items from outside wait while {loop.entry_limit:,} are inside"
    parts.append(f"{entering}, half of it, because items may multiply in it" if loop.multiplies else entering)
    return "; ".join(parts)


def _check_loop(plan: Plan, loop: Loop, future: BaseTransformation) -> None:
    inside = [operator for operator in plan.operators if operator.name in loop.operators]
    if all(upstream in loop.operators for operator in inside for upstream in operator.inputs):
        raise PipelineError(
            f"nothing enters the loop of {future.name!r}, so it could never end: let a stream in, as in "
            f"stream.union(future).map(...) {future.where}"
        )
    if all(
        consumer.name in loop.operators for operator in inside for consumer, _ in plan.graph.consumers(operator.name)
    ):
        raise PipelineError(
            f"nothing leaves the loop of {future.name!r}: filter what is done out of it, as in "
            f"body.filter(done).sink(...) {future.where}"
        )
    for operator in inside:
        _check_inside(operator, future)


def _check_inside(operator: BaseTransformation, future: BaseTransformation) -> None:
    why = None
    if operator.kind is OperatorKind.INTERLEAVE:
        why = "it would wait for the turn of items that come back only later: use union"
    gathers = operator.kind is OperatorKind.BATCH or operator.contract.io.batching is not None
    if gathers and max_wait_of(operator) is None:
        why = "its last list would wait for ever for items that never come: give max_wait_s"
    if why is not None:
        what = "a batched function" if operator.contract.io.batching is not None else str(operator.kind)
        raise PipelineError(f"{what} cannot stand in the loop of {future.name!r}: {why} {operator.where}")


def _refuse_order(plan: Plan, loops: tuple[Loop, ...]) -> None:
    """`ordered()` waits for items in the order of their source; in a loop they overtake each other without bound."""
    tainted = {name: loop.futures[0] for loop in loops for name in loop.operators}
    for operator in plan.operators:
        found = next((tainted[name] for name in operator.inputs if name in tainted), None)
        if found is None:
            continue
        tainted.setdefault(operator.name, found)
        if operator.kind is OperatorKind.ORDERED:
            raise PipelineError(
                f"ordered() cannot stand in or behind the loop of {found!r}: an item leaves it after as many rounds as "
                f"it needs; call ordered() before the loop {operator.where}"
            )
