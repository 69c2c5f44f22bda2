"""The reference: what a pipeline means, as a page of plain Python on one thread.

It walks a `LogicalGraph` once, in the order of declaration, and holds every stream as a list. It shares no code
with the runtime: no batches, no queues, no replicas, no generated code. Only the graph's own types are imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from sage.kernel.graph import BaseTransformation, Emit, LogicalGraph, OnError, OperatorKind

__all__ = ["Counts", "Letter", "Outcome", "ReferenceFailedError", "interpret"]

Row = tuple[Any, Hashable]


class ReferenceFailedError(Exception):
    """An operator raised and its contract says that the job fails."""


@dataclass
class Counts:
    """What one operator has to count."""

    items_in: int = 0
    items_out: int = 0
    errors: int = 0
    retries: int = 0
    dead_letters: int = 0


@dataclass(frozen=True)
class Letter:
    """An item that was set aside, as far as it is determined."""

    operator: str
    item: str
    attempts: int
    error: str


@dataclass
class Outcome:
    """What a run of the pipeline has to come to.

    Attributes:
        sinks: by sink name, the items that it took.
        counts: by operator name.
        letters: the dead letters.
        state: by operator name (reduce, aggregate), the last accumulator of each key.
    """

    sinks: dict[str, list[Any]] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)
    state: dict[str, dict[Hashable, Any]] = field(default_factory=dict)


def _finished(result: Any) -> Any:
    """The value of a coroutine that only yields to the event loop; any other value as it is."""
    if not inspect.iscoroutine(result):
        return result
    while True:
        try:
            result.send(None)
        except StopIteration as done:
            return done.value


def interpret(graph: LogicalGraph) -> Outcome:
    """Run the graph; sinks are called as in a real run.

    Raises:
        ReferenceFailedError: an operator raised whose contract says FAIL.
    """
    outcome, streams = Outcome(), dict[str, list[Row]]()
    for operator in graph.transformations:
        target: Any = operator.factory.target  # type: ignore[attr-defined]
        counts = outcome.counts[operator.name] = Counts()
        if operator.kind is OperatorKind.SOURCE:
            streams[operator.name] = [(item, None) for item in target.iterable]
            counts.items_in = counts.items_out = len(streams[operator.name])
            continue
        rows = [row for upstream in operator.inputs for row in streams[upstream]]
        counts.items_in = len(rows)
        streams[operator.name] = _run(operator, target, rows, outcome, counts)
        counts.items_out += len(streams[operator.name])
    return outcome


def _run(operator: BaseTransformation, target: Any, rows: list[Row], outcome: Outcome, counts: Counts) -> list[Row]:
    final = operator.options.get("emit") is Emit.FINAL
    state: dict[Hashable, Any] = {}
    out: list[Row] = []

    def attempt(value: Any, key: Hashable) -> list[Row]:
        match operator.kind:
            case OperatorKind.MAP:
                return [(_finished(target(value)), key)]
            case OperatorKind.FILTER:
                return [(value, key)] if _finished(target(value)) else []
            case OperatorKind.FLATMAP:
                return [(item, key) for item in list(_finished(target(value)))]
            case OperatorKind.KEY_BY:
                return [(value, _finished(target(value)))]
            case OperatorKind.REDUCE:
                state[key] = target(state[key], value) if key in state else value
                return [] if final else [(state[key], key)]
            case OperatorKind.AGGREGATE:
                folded = target.add(state[key] if key in state else target.create(), value)
                shown = [] if final else [((key, folded if target.result is None else target.result(folded)), key)]
                state[key] = folded
                return shown
        _finished(target(value))
        outcome.sinks.setdefault(operator.name, []).append(value)
        counts.items_out += 1
        return []

    for value, key in rows:
        out += _with_retries(operator, attempt, value, key, outcome, counts)
    if operator.kind in (OperatorKind.REDUCE, OperatorKind.AGGREGATE):
        outcome.state[operator.name] = state
    if final:

        def shown(folded: Any, key: Hashable) -> list[Row]:
            if operator.kind is OperatorKind.REDUCE:
                return [(folded, key)]
            return [((key, folded if target.result is None else target.result(folded)), key)]

        for key, folded in state.items():
            out += _with_retries(operator, shown, folded, key, outcome, counts)
    return out


def _with_retries(
    operator: BaseTransformation,
    attempt: Callable[[Any, Hashable], list[Row]],
    value: Any,
    key: Hashable,
    outcome: Outcome,
    counts: Counts,
) -> list[Row]:
    policy, attempts = operator.contract.io.errors, 0
    while True:
        attempts += 1
        try:
            return attempt(value, key)
        except Exception as error:  # whatever user code raises is the item's error
            counts.errors += 1
            if attempts <= policy.retries:
                counts.retries += 1
            elif policy.on_error is OnError.FAIL:
                raise ReferenceFailedError(operator.name) from error
            else:
                counts.dead_letters += 1
                outcome.letters.append(Letter(operator.name, repr(value), attempts, str(error)))
                return []
