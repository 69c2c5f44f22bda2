"""What a task does about rows that cannot go on: those that cannot be sent to its process, and those of which a process
has died.
"""

from __future__ import annotations

import logging
import pickle
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Hashable, Sequence
from typing import Any

from sage.common.serialization import explain_unpicklable
from sage.kernel.graph import BaseTransformation, OnError, OperatorKind

from .chain import DeadLetterSink
from .process_book import ProcessBook, Untransferable
from .process_rows import Batch, is_instance
from .remote_errors import ProcessDiedError, TransportError
from .steps import StepFailed
from .task import Task, TaskParts

__all__ = ["LossyTask"]

logger = logging.getLogger("sage.kernel.task")

_SPARED_MAX = 3


class LossyTask(Task):
    """A task whose operators run where its rows may be lost on their way, or together with whoever works on them."""

    def __init__(
        self, parts: TaskParts, *, operators: Sequence[BaseTransformation], dead_letters: DeadLetterSink, **shared: Any
    ) -> None:
        super().__init__(parts, dead_letters=dead_letters, **shared)
        self._ledger = ProcessBook(parts.node, parts.counters, operators, dead_letters)
        self._transformations = tuple(operators)
        self._waiting: deque[Batch] = deque()
        # Of a row alone: the call that it is in, and the operator that it has come to at least.
        self._entering: tuple[int, tuple[Any, bool], Hashable] | None = None
        self._reached = 0
        self._warned = False
        self._random = random.Random(parts.node.replica_index)

    @property
    def user_counters(self) -> dict[str, dict[str, float]]:
        """What the operators have counted, over all processes that this task has had."""
        return self._ledger.user_counters

    def _divide(self, batch: Batch, error: Exception, refused: list[tuple[Batch, Exception]]) -> None:
        """Take out the rows that cannot be sent; the others wait to be sent as they were."""
        rest: list[Batch] = []
        for row in batch.rows():
            row.alone = batch.alone
            try:
                pickle.dumps((row.values[0], None if row.keys is None else row.keys[0]), 5)
            except Exception as reason:  # whatever pickling an item raises
                refused.append((row, reason))
            else:
                rest.append(row)
        if not refused:
            # Each can be sent, and all together cannot: one by one then.
            refused.extend((row, error) for row in rest if len(rest) == 1)
            rest = [] if len(rest) == 1 else rest
        self._waiting.extendleft(reversed(rest))

    def _refuse(self, row: Batch, reason: Exception) -> None:
        """A row cannot be sent to the process: an error of the first operator, which no retry can mend."""
        error = reason
        if not isinstance(error, TransportError):
            text = explain_unpicklable(row.values[0]) or f"{type(reason).__name__}: {reason}"
            error = TransportError(f"the item cannot be sent to the process: {text}")
            error.__cause__ = reason
        operator = self._transformations[0]
        self._ledger.count(0, (1, 0, 1, 0, 0))
        if operator.contract.io.errors.on_error is OnError.FAIL:
            raise StepFailed(f"operator {operator.name!r} cannot be given an item", error)
        self._give_up(0, row.values[0], row, 1, error)

    def _give_up(self, position: int, item: Any, row: Batch, attempts: int, error: Exception) -> None:
        # Only the first operator can be one on two streams, whose items come with their side.
        sided = position == 0 and "sides" in self._transformations[0].options
        side, item = item if sided else (None, item)
        self._ledger.give_up(position, item, row.keys, attempts, error, side=side)

    def _warn_of_instances(self) -> None:
        names = [repr(operator.name) for operator in self._transformations if is_instance(operator)]
        if names and not self._warned:
            self._warned = True
            logger.warning(
                "%s: the instance(s) %s begin anew in another process; if one keeps something between items, say "
                "StateSpec(kind=StateKind.STATEFUL) in its contract, so that the job fails instead",
                self.id,
                ", ".join(names),
            )

    def _is_to_blame(self, row: Batch, ended: Collection[int]) -> bool:
        """Whether a row alone was in a process that has ended, of those with these numbers in the line. One that is
        lost again and again with others has had its chances.
        """
        row.spared += 1
        return bisect_right(self.parts.node.cuts, self._reached) in ended or row.spared > _SPARED_MAX

    def _blame(self, row: Batch, error: ProcessDiedError) -> list[Batch]:
        """A process has died with one row alone: a failed attempt of the operator that it was in; the row again where
        that has a retry left.
        """
        row.attempts += 1
        row.spared = 0
        position, (item, travels), _ = self._entering or (0, (row.values[0], True), None)
        exploded = any(operator.kind is OperatorKind.FLATMAP for operator in self._transformations[:position])
        running = self._transformations[position]
        if exploded:
            # The row has become several items, of which only some may have been worked on: it fails as a whole.
            position = 0
        if position == 0 or not travels:
            item = row.values[0] if position == 0 else Untransferable("an item that cannot leave its process")
        policy = running.contract.io.errors
        self._ledger.count(position, (0, 0, 1, 0, 0))
        if row.attempts <= policy.retries:
            self._ledger.count(position, (0, 0, 0, 1, 0))
            self._pause_thread(policy.pause_before(row.attempts, self._random.random()))
            return [row]
        if policy.on_error is OnError.FAIL:
            raise StepFailed(f"operator {running.name!r} lost its process {row.attempts} time(s) with one item", error)
        for before in range(position):
            self._ledger.count(before, (1, 1, 0, 0, 0))
        self._ledger.count(position, (1, 0, 0, 0, 0))
        self._give_up(position, item, row, row.attempts, error)
        return []
