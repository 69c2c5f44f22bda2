"""What a task knows of its process's work: counts, what operators count themselves, dead letters."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Hashable, Sequence
from typing import Any

from sage.kernel.graph import BaseTransformation, OnError, TaskNode
from sage.kernel.telemetry import ReplicaCounters

from . import process_protocol as say
from .chain import DeadLetterSink, SetAside
from .process_protocol import Letter, Report, keeps_state
from .process_rows import Batch, Counts, kept_outputs, rows_of, undone
from .remote_errors import TransportError
from .salvage import reason_unreadable
from .steps import StepFailed

__all__ = ["ProcessBook", "Untransferable", "mend_letters"]


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
        self._operators = tuple(operators)
        self.keeps_state = any(map(keeps_state, operators))
        self._base: list[Counts] = [(0, 0, 0, 0, 0)] * len(operators)
        # Whoever looks at the metrics reads these, while the task's thread takes over a report.
        self._counted_lock = threading.Lock()
        self._counted: dict[int, dict[str, float]] = {}
        self._counted_before: dict[int, dict[str, float]] = {}

    @property
    def user_counters(self) -> dict[str, dict[str, float]]:
        """What the operators have counted, over all processes that this task has had; any thread may ask."""
        names = self._node.chain
        with self._counted_lock:
            return {names[position]: counters for position, counters in self._counted_so_far().items()}

    def _counted_so_far(self) -> dict[int, dict[str, float]]:
        """By position in the chain; a copy."""
        found: dict[int, dict[str, float]] = {}
        for counted in (self._counted_before, self._counted):
            for position, counters in counted.items():
                mine = found.setdefault(position, {})
                for name, amount in counters.items():
                    mine[name] = mine.get(name, 0) + amount
        return found

    def apply(self, report: Report) -> None:
        """Take over what has come together in the process. Letters first: they are safe before their rows count."""
        for letter in report.letters:
            self._store(letter)
        operators, bases = self._counters.operators[report.first :], self._base[report.first :]
        for operator, base, counts in zip(operators, bases, report.counts, strict=False):
            operator.items_in = base[0] + counts[0]
            operator.items_out = base[1] + counts[1]
            operator.errors = base[2] + counts[2]
            operator.retries = base[3] + counts[3]
            operator.dead_letters = base[4] + counts[4]
        for operator, (timed_ns, timed_items, sketch) in zip(operators, report.times, strict=False):
            operator.timed_ns += timed_ns
            operator.timed_items += timed_items
            operator.service_ns.merge(sketch)
        if report.counters:
            with self._counted_lock:
                self._counted.update(report.counters)
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

    def mend(self, answer: Any, batch: Batch | None, exploding: int) -> Any:
        """An answer of which something cannot be rebuilt here, without that. Outputs become errors of the last
        operator, and their rows are set aside as a whole.

        Args:
            answer: what could be salvaged of it.
            batch: whose rows it answers.
            exploding: position of the first operator that makes several items of one.

        Raises:
            StepFailed: the contract of the last operator says that the job fails.
        """
        if answer[0] == say.ENTERING:
            return (*answer[:2], (None, False), None)
        mend_letters(answer)
        if answer[0] not in say.ANSWERS:
            return answer
        what, rows, busy, values, keys, origins, *more = answer
        errors: dict[int, Exception] = {}
        for index, value in enumerate(values):
            reason = reason_unreadable((value, keys[index] if keys else None))
            if reason:
                errors[index] = TransportError(f"the output cannot be rebuilt in the program's process: {reason}")
        gone: set[int] = set()
        for row, (error, indexes) in rows_of(errors, more[1] if more else None, len(values)).items():
            gone.update(indexes)
            if self._operators[-1].contract.io.errors.on_error is OnError.FAIL:
                raise StepFailed(f"an output of {self._operators[-1].name!r} cannot be taken over", error)
            if batch is None or not rows:
                self.count(len(self._operators) - 1, (0, -1, 1, 0, 0))
                text = Untransferable("an output at the end of the stream")
                self.give_up(len(self._operators) - 1, text, None, 1, error)
                continue
            for position, counts in enumerate(undone(len(self._operators), exploding, len(indexes))):
                self.count(position, counts)
            self._give_up_row(batch, batch.done + row, error)
        left, left_keys, left_origins = kept_outputs(values, keys or (), origins or (), gone)
        return what, rows, busy, left, left_keys or None, left_origins or None, *more

    def give_up_broken(self, report: Report, batch: Batch) -> None:
        """Give up rows that a process in the middle of a line could not rebuild.

        Raises:
            StepFailed: the contract of the operator whose output it was says that the job fails.
        """
        before = report.first - 1
        for row, reason in report.broken:
            name = self._node.chain[report.first]
            error = TransportError(f"the output cannot be rebuilt in the process of {name!r}: {reason}")
            if self._operators[before].contract.io.errors.on_error is OnError.FAIL:
                raise StepFailed(f"an output of {self._operators[before].name!r} cannot be taken over", error)
            for position, counts in enumerate(undone(report.first, report.first, 1)):
                self.count(position, counts)
            self._give_up_row(batch, batch.done + row, error)

    def _give_up_row(self, batch: Batch, index: int, error: Exception) -> None:
        item = batch.values[index]
        side, item = item if "sides" in self._operators[0].options else (None, item)
        self.give_up(0, item, None if batch.keys is None else [batch.keys[index]], 1, error, side=side)

    def begin_anew(self) -> None:
        """A new process begins to count at 0: what the last one has told stays."""
        self._base = [
            (each.items_in, each.items_out, each.errors, each.retries, each.dead_letters)
            for each in self._counters.operators
        ]
        with self._counted_lock:
            self._counted_before, self._counted = self._counted_so_far(), {}


def mend_letters(answer: Sequence[Any]) -> None:
    """Take out of what could be salvaged of an answer what cannot be rebuilt of its dead letters."""
    reports = [part for parts in answer for part in (parts if isinstance(parts, list) else [parts])]
    for letter in [letter for report in reports if isinstance(report, Report) for letter in report.letters]:
        reason = reason_unreadable(letter.item)
        if reason:
            letter.item, letter.travels = f"an item that cannot be rebuilt here: {reason}", False
        if reason_unreadable(letter.key):
            letter.key = None


def _plus(one: Counts, other: Counts) -> Counts:
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3], one[4] + other[4])
