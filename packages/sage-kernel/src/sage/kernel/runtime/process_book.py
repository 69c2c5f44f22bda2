"""What a task knows of its process's work: counts, what operators count themselves, dead letters."""

from __future__ import annotations

import pickle
from collections.abc import Hashable, Sequence
from typing import Any

from sage.kernel.graph import BaseTransformation, TaskNode
from sage.kernel.telemetry import ReplicaCounters

from .chain import DeadLetterSink, SetAside
from .process_protocol import Letter, Report, keeps_state
from .steps import StepFailed

__all__ = ["ProcessBook", "Untransferable"]

Counts = tuple[int, int, int, int, int]
"""Items in, items out, errors, retries, dead letters."""


class Untransferable:
    """Stands for an item that stayed in its process; only its text has come."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def __reduce__(self) -> str:
        raise pickle.PicklingError("only the text of this item has left its process")


class ProcessBook:
    """Adds up what the processes of one task report, one process after the other, and what happens on this side.

    Args:
        node: the task's place in the plan.
        counters: what is kept up to date.
        operators: of the chain, in order.
        dead_letters: where items are set aside.

    Attributes:
        keeps_state: whether state would go with the process.
    """

    def __init__(
        self,
        node: TaskNode,
        counters: ReplicaCounters,
        operators: Sequence[BaseTransformation],
        dead_letters: DeadLetterSink,
    ) -> None:
        self._node = node
        self._counters = counters
        self._dead_letters = dead_letters
        self.keeps_state = any(map(keeps_state, operators))
        self._base: list[Counts] = [(0, 0, 0, 0, 0)] * len(operators)
        self._counted: dict[int, dict[str, float]] = {}
        self._counted_before: dict[int, dict[str, float]] = {}

    @property
    def user_counters(self) -> dict[str, dict[str, float]]:
        """What the operators have counted, over all processes that this task has had."""
        names = self._node.chain
        found: dict[str, dict[str, float]] = {}
        for counted in (self._counted_before, self._counted):
            for position, counters in counted.items():
                mine = found.setdefault(names[position], {})
                for name, amount in counters.items():
                    mine[name] = mine.get(name, 0) + amount
        return found

    def apply(self, report: Report) -> None:
        """Take over what has come together in the process. Letters first: they are safe before their rows count."""
        for letter in report.letters:
            self._store(letter)
        for operator, base, counts in zip(self._counters.operators, self._base, report.counts, strict=True):
            operator.items_in = base[0] + counts[0]
            operator.items_out = base[1] + counts[1]
            operator.errors = base[2] + counts[2]
            operator.retries = base[3] + counts[3]
            operator.dead_letters = base[4] + counts[4]
        for operator, (timed_ns, timed_items, sketch) in zip(self._counters.operators, report.times, strict=False):
            operator.timed_ns += timed_ns
            operator.timed_items += timed_items
            operator.service_ns.merge(sketch)
        if report.counters:
            self._counted = report.counters
        self.keeps_state |= report.keeps_state

    def _store(self, letter: Letter) -> None:
        self._set_aside(
            SetAside(
                operator=self._node.chain[letter.step],
                replica_index=self._node.replica_index,
                item=letter.item if letter.travels else Untransferable(letter.item),
                key=letter.key,
                keyed=letter.keyed,
                attempts=letter.attempts,
                error=letter.error.restore(),
                side=letter.side,
            )
        )

    def _set_aside(self, letter: SetAside) -> None:
        try:
            self._dead_letters.add(letter)
        except Exception as error:  # a store may fail in many ways; an item that cannot be kept must stop the job
            raise StepFailed(
                f"an item of operator {letter.operator!r} could not be processed ({letter.error}) and its dead letter "
                "could not be stored: the job stops so that nothing is lost silently",
                error,
            ) from letter.error

    def count(self, position: int, counted: Counts) -> None:
        """Count what happened on this side: it adds to whatever the process counts."""
        self._base[position] = _plus(self._base[position], counted)
        operator = self._counters.operators[position]
        operator.items_in += counted[0]
        operator.items_out += counted[1]
        operator.errors += counted[2]
        operator.retries += counted[3]
        operator.dead_letters += counted[4]

    def give_up(
        self,
        position: int,
        item: Any,
        keys: Sequence[Hashable] | None,
        attempts: int,
        error: Exception,
        *,
        side: int | None = None,
    ) -> None:
        """Set aside an item of the operator at `position`; `keys` holds its key, None without one."""
        self._set_aside(
            SetAside(
                operator=self._node.chain[position],
                replica_index=self._node.replica_index,
                item=item,
                key=None if keys is None else keys[0],
                keyed=keys is not None,
                attempts=attempts,
                error=error,
                side=side,
            )
        )
        self.count(position, (0, 0, 0, 0, 1))

    def begin_anew(self) -> None:
        """A new process begins to count at 0: what the last one has told stays."""
        self._base = [
            (each.items_in, each.items_out, each.errors, each.retries, each.dead_letters)
            for each in self._counters.operators
        ]
        for position, counters in self._counted.items():
            mine = self._counted_before.setdefault(position, {})
            for name, amount in counters.items():
                mine[name] = mine.get(name, 0) + amount
        self._counted = {}


def _plus(one: Counts, other: Counts) -> Counts:
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3], one[4] + other[4])
