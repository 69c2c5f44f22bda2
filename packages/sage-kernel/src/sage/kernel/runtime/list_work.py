"""What a chain does with operators that gather lists: rows wait, lists are worked off, retried, and divided where
a call fails.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from .gather import Gathered, ListCallError, Row, alone_error
from .steps import Interrupted, Step

__all__ = ["ListWork"]


class ListWork(ABC):
    """The part of a chain that works on lists."""

    steps: Sequence[Step]
    _aborting: list[bool]
    _pause: Callable[[float], None]

    @abstractmethod
    def process(self, index: int, value: Any, key: Hashable, origin: int | None, *, fresh: bool = False) -> None:
        """Run one item from step `index` on."""

    @abstractmethod
    def _next_pause(self, step: Step, value: Any, key: Hashable, attempts: int, error: Exception) -> float | None:
        """Count the error; seconds to the next attempt, or None when the item has been set aside."""

    def gather(self, index: int, value: Any, key: Hashable, origin: int) -> None:
        """One more item for an operator that gathers lists, out of `process`."""
        step = self.steps[index]
        assert step.gather is not None
        step.counters.items_in += 1
        gathered = step.gather.put(value, key, origin)
        if gathered is not None:
            self.work_off(index, gathered)

    def work_off(self, index: int, gathered: Gathered, error: Exception | None = None) -> None:
        """Run a list of step `index` and what follows from it; see `call_list`."""
        for value, key, origin in self.call_list(index, gathered, error):
            self.process(index + 1, value, key, origin, fresh=True)

    def call_list(self, index: int, gathered: Gathered, error: Exception | None = None) -> list[Row]:
        """The outputs of a list of step `index`, with retries; then item by item, so that only those are set aside that
        fail alone as well.

        Args:
            index: of the step that gathered them.
            gathered: the list.
            error: what the first call raised, None to begin with it.
        """
        step = self.steps[index]
        assert step.gather is not None
        attempts = 0 if error is None else 1
        while True:
            if error is None:
                attempts += 1
                try:
                    rows = step.gather.outputs(gathered)
                    break
                except ListCallError as raised:
                    error = raised.error
            if attempts > step.io.errors.retries:
                rows = self._one_by_one(step, gathered, attempts, error)
                break
            pause = self._next_pause(step, gathered.values, None, attempts, error)
            assert pause is not None
            self._pause(pause)
            error = None
        step.counters.items_out += len(rows)
        return rows

    def _one_by_one(self, step: Step, gathered: Gathered, attempts: int, error: Exception) -> list[Row]:
        """The outputs of the items of a list whose calls have failed; those that fail again are set aside."""
        assert step.gather is not None
        if len(gathered.values) == 1:
            self._next_pause(step, gathered.values[0], gathered.keys[0], attempts, error)
            return []
        step.counters.errors += 1
        rows: list[Row] = []
        for single in gathered.rows():
            if self._aborting:
                raise Interrupted
            try:
                rows += step.gather.outputs(single)
            except ListCallError as raised:
                told = alone_error(error, raised.error)
                self._next_pause(step, single.values[0], single.keys[0], attempts + 1, told)
        return rows

    @property
    def due_ns(self) -> int | None:
        """When the next list has to go, None where none has to."""
        due = [step.gather.due_ns for step in self.steps if step.gather is not None]
        return min((at for at in due if at is not None), default=None)

    def expire(self, now: int) -> None:
        """Let the lists go whose first item has waited long enough at `now`."""
        for index, step in enumerate(self.steps):
            while step.gather is not None and (gathered := step.gather.take(now)) is not None:
                self.work_off(index, gathered)
