"""What runs in the process of a batched function, which comes first in its chain: each message holds one list, which is
called for, run through the rest of the chain and answered as a whole (see `process_list_task` for the other half).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

from .gather import Gather, Gathered, Row
from .process_worker import ProcessWorker
from .steps import Step
from .task import Task

__all__ = ["ListWorker"]


class ListWorker(ProcessWorker):
    """A chain whose first operator takes lists."""

    # Of the list that is being worked on: which row each output of the first operator is of, and how many outputs of
    # the chain were there before that.
    _rows_of_results: Sequence[int] = ()
    _result_starts: Sequence[int] = ()

    def _make_chains(self, steps: Sequence[Step]) -> None:
        self._head = self._make_chain(steps[:1])
        super()._make_chains(steps[1:])
        self._may_be_plain = False

    def _traced(self, index: int, step: Step) -> Step:
        if step.gather is None:
            return super()._traced(index, step)
        call = step.call

        def traced(items: list[Any]) -> Any:
            self._tell_entering(index, step, items[0])
            return call(items)

        return replace(step, gather=Gather(step.name, 1, None, call=traced, now=self._now))

    def _note_full(self) -> None:
        # Its rows are called for together, so they are answered together: else some could be called for twice.
        return

    def _work(self, values: list[Any], keys: list[Hashable] | None, origins: int | list[int]) -> None:
        size = len(values)
        self._inputs, self._input_keys = values, keys
        timed = self._item_ns >= Task.TIMED_ALWAYS_NS or self._chain.checks_all
        timed = timed or not self._batches % Task.TIMED_EVERY
        self._batches += 1
        start = self._now()
        results = self._call(values, keys)
        if timed:
            self._count_time(self._now() - start, size)
        self._run_rest(results, origins, timed)
        busy = self._now() - start
        self._item_ns = busy // size
        self._answer(size, busy)

    def _call(self, values: list[Any], keys: list[Hashable] | None) -> list[Row]:
        """The outputs of the first operator; in the place of its origin each has the number of its row."""
        size = len(values)
        self._operators[0].items_in += size
        gathered = Gathered(values, [None] * size if keys is None else keys, list(range(size)), 0)
        return self._head.call_list(0, gathered)

    def _count_time(self, taken: int, size: int) -> None:
        operator = self._operators[0]
        operator.timed_ns += taken
        operator.timed_items += size
        operator.service_ns.add(taken / size, size)

    def _run_rest(self, results: list[Row], origins: int | list[int], timed: bool) -> None:
        outputs = self._chain.outputs
        values = [value for value, _, _ in results]
        keys = [key for _, key, _ in results]
        self._rows_of_results = [row for _, _, row in results]
        mine = None if isinstance(origins, int) else [origins[row] for row in self._rows_of_results]
        if not self._chain.steps:
            self._result_starts = range(len(values))
            outputs.values.extend(values)
            outputs.origins.extend(mine or ())
            if self._order.keys_out:
                outputs.keys.extend(keys)
            return
        columns: list[Sequence[Any]] = [values]
        if self._order.keys_in:
            columns.append(keys)
        if mine is not None:
            columns.append(mine)
        rows = self._noting_starts(zip(*columns, strict=True) if len(columns) > 1 else iter(values))
        self._chain.run_batch(rows, 0, self._chain.code(timed=timed, origins_in=mine is not None, counted=True))
        self._result_starts = self._starts

    def _run_single(self, value: Any, key: Hashable, origin: int | None) -> None:
        self._rows_of_results, self._result_starts = [0], [0]
        self._operators[0].items_in += 1
        for result, result_key, _ in self._single_chain.call_list(0, Gathered([value], [key], [0], 0)):
            self._single_chain.process(1, result, result_key, origin, fresh=True)

    def _row_starts(self, rows: int) -> list[int] | None:
        if not rows:
            return None
        return starts_of_rows(rows, self._rows_of_results, self._result_starts, len(self._chain.outputs.values))


def starts_of_rows(
    rows: int, rows_of_results: Sequence[int], result_starts: Sequence[int], outputs: int
) -> list[int] | None:
    """For each row how many outputs there were before it, None where each has exactly one.

    Args:
        rows: how many.
        rows_of_results: which rows have come through the first operator.
        result_starts: for each of these how many outputs there were before it.
        outputs: how many there are.

    Example:
        >>> starts_of_rows(4, [1, 3], [0, 2], 3)
        [0, 0, 2, 2]
        >>> starts_of_rows(2, [0, 1], [0, 1], 2) is None
        True
    """
    starts: list[int] = []
    following = 0
    for row in range(rows):
        while following < len(rows_of_results) and rows_of_results[following] < row:
            following += 1
        starts.append(result_starts[following] if following < len(rows_of_results) else outputs)
    return None if outputs == rows and starts == list(range(rows)) else starts
