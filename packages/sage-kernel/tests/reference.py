"""The reference: what a pipeline means, as a page of plain Python on one thread.

It walks a `LogicalGraph` once, in the order of declaration (a loop as often as something new comes back), and holds
every stream as a list. It shares no code with the runtime: no batches, no queues, no replicas, no generated code. Only
the graph's own types are imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sage.kernel.graph import BaseTransformation, Emit, LogicalGraph, OnError, OperatorKind, Routing

__all__ = ["NOT_MADE", "Counts", "Letter", "Outcome", "ReferenceFailedError", "interpret"]

Row = tuple[Any, Hashable]

NOT_MADE = object()
"""Stands among the items of a source for one that its replica had not made when it was stopped."""

Place = tuple[Any, ...]
"""Where a row belongs in the order of its source. First comes (position, number of the source replica)."""

END = (float("inf"), 0)
"""First of the places of what is emitted at the end of the stream."""


class ReferenceFailedError(Exception):
    """An operator raised and its contract says that the job fails."""


@dataclass(frozen=True)
class Branch:
    """An output that is for a branch of an operator's outputs."""

    name: str
    value: Any


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


@dataclass
class Streams:
    """The rows of each stream, by operator and branch, and their places."""

    rows: dict[tuple[str, str | None], list[Row]] = field(default_factory=dict)
    places: dict[tuple[str, str | None], list[Place]] = field(default_factory=dict)

    def put(self, operator: str, rows: list[Row], places: list[Place]) -> None:
        for (value, key), place in zip(rows, places, strict=True):
            branch = value.name if isinstance(value, Branch) else None
            item = value.value if isinstance(value, Branch) else value
            self.rows.setdefault((operator, branch), []).append((item, key))
            self.places.setdefault((operator, branch), []).append(place)

    def forget(self, operators: set[str]) -> None:
        for columns in (self.rows, self.places):
            for stream in [stream for stream in columns if stream[0] in operators]:
                del columns[stream]


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
    outcome, streams = Outcome(), Streams()
    turn = 0
    waiting = list(graph.transformations)
    while waiting:
        names = {operator.name for operator in waiting}
        ready = [operator for operator in waiting if not names.intersection(operator.inputs)][:1]
        if not ready:
            ready = next(loop for loop in _loops(waiting) if not names.intersection(_entering(loop)))
            _go_round(ready, streams, outcome)
        elif ready[0].kind is OperatorKind.SOURCE:
            turn = _read(ready[0], streams, outcome, turn)
        else:
            _work_off(ready[0], streams, outcome)
        waiting = [operator for operator in waiting if operator not in ready]
    return outcome


def _loops(waiting: list[BaseTransformation]) -> Iterator[list[BaseTransformation]]:
    """For each future, the operators behind it that lead back to it."""
    behind = {one.name: {other.name for other in waiting if one.name in other.inputs} for one in waiting}
    before = {one.name: set(one.inputs) for one in waiting}
    for future in waiting:
        if future.kind is OperatorKind.FUTURE:
            common = _closure(future.name, behind) & _closure(future.name, before)
            yield [operator for operator in waiting if operator.name in common]


def _closure(start: str, steps: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    ahead = [start]
    while ahead:
        new = steps.get(ahead.pop(), set()) - found
        found |= new
        ahead += new
    return found


def _entering(loop: list[BaseTransformation]) -> set[str]:
    return {name for operator in loop for name in operator.inputs} - {operator.name for operator in loop}


def _go_round(loop: list[BaseTransformation], streams: Streams, outcome: Outcome) -> None:
    """What comes back is found by beginning again with what came back the time before, until that stays the same."""
    futures = [operator for operator in loop if operator.kind is OperatorKind.FUTURE]
    back: dict[str, list[Row]] = {future.name: [] for future in futures}
    while True:
        scratch = Outcome()
        streams.forget({operator.name for operator in loop})
        for future in futures:
            rows = back[future.name]
            streams.put(future.name, rows, [(END,)] * len(rows))
            scratch.counts[future.name] = Counts(items_in=len(rows), items_out=len(rows))
        for operator in loop:
            if operator not in futures:
                _work_off(operator, streams, scratch)
        before, back = (
            back,
            {
                future.name: [
                    (value, None)
                    for index, upstream in enumerate(future.inputs)
                    for value, _ in streams.rows.get((upstream, future.branch(index)), [])
                ]
                for future in futures
            },
        )
        if repr(back) == repr(before):
            break
    outcome.counts |= scratch.counts
    outcome.letters += scratch.letters
    outcome.state |= scratch.state


def _read(operator: BaseTransformation, streams: Streams, outcome: Outcome, turn: int) -> int:
    """The items of a source; `turn` counts the replicas of the sources before it."""
    items: Any = operator.factory.target.iterable  # type: ignore[attr-defined]
    # Its replicas share the items in turn.
    own = operator.parallelism or 1
    made = [
        (item, (position // own, turn + position % own)) for position, item in enumerate(items) if item is not NOT_MADE
    ]
    outcome.counts[operator.name] = Counts(items_in=len(made), items_out=len(made))
    streams.put(operator.name, [(item, None) for item, _ in made], [(place,) for _, place in made])
    return turn + own


def _work_off(operator: BaseTransformation, streams: Streams, outcome: Outcome) -> None:
    """Everything that an operator gets."""
    target: Any = operator.factory.target  # type: ignore[attr-defined]
    counts = outcome.counts[operator.name] = Counts()
    rows: list[Row] = []
    sides: list[int] = []
    where: list[Place] = []
    for index, upstream in enumerate(operator.inputs):
        # A broadcast item is worked on by each replica.
        copies = (operator.parallelism or 1) if operator.routing(index) is Routing.BROADCAST else 1
        incoming = streams.rows.get((upstream, operator.branch(index)), []) * copies
        rows += incoming
        for copy in range(copies):
            # Of streams that meet, the first comes first.
            ahead = (index,) if len(operator.inputs) > 1 else ()
            behind = (copy,) if copies > 1 else ()
            found = streams.places.get((upstream, operator.branch(index)), [])
            where += [(place[0], *ahead, *place[1:], *behind) for place in found]
        sides += [operator.options.get("sides", (0,) * (index + 1))[index]] * len(incoming)
    counts.items_in = len(rows)
    came: list[Place] = []
    if operator.kind is OperatorKind.JOIN:
        out = _join(target, rows, sides)
        came = [(END,)] * len(out)  # where a pair belongs depends on which of its items came last
    elif operator.kind is OperatorKind.BATCH:
        out = _batch(target.size, rows, operator.keyed_input)
        came = [(END,)] * len(out)  # lists have no place
    elif operator.kind is OperatorKind.ORDERED:
        order = sorted(range(len(rows)), key=where.__getitem__)
        out, came = [rows[number] for number in order], [where[number] for number in order]
    else:
        out = _run(operator, target, rows, sides, outcome, counts, where, came)
    streams.put(operator.name, out, came)
    counts.items_out += len(out)


def _join(target: Any, rows: list[Row], sides: list[int]) -> list[Row]:
    left = [row for row, side in zip(rows, sides, strict=True) if side == 0]
    right = [row for row, side in zip(rows, sides, strict=True) if side == 1]
    make = target.function or (lambda one, other: (one, other))
    out = [(make(one, other), key) for one, key in left for other, same in right if key == same]
    if target.keeps_left:
        out += [(make(one, None), key) for one, key in left if all(key != same for _, same in right)]
    return out


def _batch(size: int, rows: list[Row], keyed: bool) -> list[Row]:
    groups: dict[Hashable, list[Any]] = {}
    out: list[Row] = []
    for value, key in rows:
        group = groups.setdefault(key if keyed else None, [])
        group.append(value)
        if len(group) == size:
            out.append((groups.pop(key if keyed else None), key))
    return out + [(group, key) for key, group in groups.items()]


def _branch(target: Any, value: Any) -> Branch:
    """Where a split sends an item."""
    if target.chooser is not None:
        name = _finished(target.chooser(value))
        return Branch(name if name in target.names else "rest", value)
    for name, predicate in zip(target.names, target.predicates, strict=True):
        if predicate(value):
            return Branch(name, value)
    return Branch("rest", value)


def _stateless(operator: BaseTransformation, target: Any, value: Any, key: Hashable, side_of_row: int) -> list[Row]:
    """The outputs for an item, of operators that remember nothing."""
    match operator.kind:
        case OperatorKind.MAP if operator.contract.io.batching is not None:
            (result,) = _finished(target([value]))
            return [(result, key)]
        case OperatorKind.MAP if isinstance(target, type):
            result, side = target.meaning(value)
            return [(result, key), *((Branch(name, item), key) for name, item in side)]
        case OperatorKind.COMAP:
            return [(_finished((target.first, target.second)[side_of_row](value)), key)]
        case OperatorKind.INTERLEAVE:
            return [(value, None)]
        case OperatorKind.SPLIT:
            return [(_branch(target, value), key)]
        case OperatorKind.MAP:
            return [(_finished(target(value)), key)]
        case OperatorKind.FILTER:
            return [(value, key)] if _finished(target(value)) else []
        case OperatorKind.FLATMAP:
            return [(item, key) for item in list(_finished(target(value)))]
        case OperatorKind.KEY_BY:
            return [(value, _finished(target(value)))]
    raise AssertionError(f"the reference does not know {operator.kind}")


def _run(
    operator: BaseTransformation,
    target: Any,
    rows: list[Row],
    sides: list[int],
    outcome: Outcome,
    counts: Counts,
    where: list[Place],
    came: list[Place],
) -> list[Row]:
    """The outputs for all rows; `came` gets the place of each, made of those of the rows (`where`)."""
    first: dict[Hashable, Place] = {}
    final = operator.options.get("emit") is Emit.FINAL
    state: dict[Hashable, Any] = {}
    out: list[Row] = []

    folded_rows: set[int] = set()
    seen: set[Hashable] = set()

    def attempt(value: Any, key: Hashable) -> list[Row]:
        match operator.kind:
            case OperatorKind.FILTER if operator.options.get("shape") == "distinct":
                kind = (key if target.keyed else None, target.key(value))
                new = kind not in seen
                seen.add(kind)
                return [(value, key)] if new else []
            case OperatorKind.REDUCE:
                state[key] = target(state[key], value) if key in state else value
                return [] if final else [(state[key], key)]
            case OperatorKind.AGGREGATE:
                # A row is folded once, however often its result has to be asked for.
                if number not in folded_rows:
                    state[key] = target.add(state[key] if key in state else target.create(), value)
                    folded_rows.add(number)
                return [] if final else shown(state[key], key)
            case OperatorKind.SINK:
                pass
            case _:
                return _stateless(operator, target, value, key, sides[number])
        _finished(target(value))
        outcome.sinks.setdefault(operator.name, []).append(value)
        counts.items_out += 1
        return []

    def shown(folded: Any, key: Hashable) -> list[Row]:
        if operator.kind is OperatorKind.REDUCE:
            return [(folded, key)]
        return [((key, folded if target.result is None else target.result(folded)), key)]

    for number, (value, key) in enumerate(rows):  # `attempt` looks at the number
        letters = counts.dead_letters
        made = _with_retries(operator, attempt, value, key, outcome, counts)
        out += made
        came += [(*where[number], output) for output in range(len(made))]
        if counts.dead_letters == letters:
            first[key] = min(first.get(key, where[number]), where[number])
    if operator.kind in (OperatorKind.REDUCE, OperatorKind.AGGREGATE):
        outcome.state[operator.name] = state
    if final:
        for key, folded in state.items():
            made = _with_retries(operator, shown, folded, key, outcome, counts)
            out += made
            came += [(END, *first[key])] * len(made)
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
