"""A packet that one slot of an event loop works off in one go, while its operators do not suspend.

Nothing is looked at between its rows: they are counted together, and their outputs get their origin together. A
coroutine that does suspend lets the loop go on, which comes by here in its next turn: what is through is settled then,
and the rows behind the one that waits are taken away from the slot for others to work on.

Invariants: outputs stay here until they are settled, because other slots may run between a suspension and that turn;
from that turn on at most one row is unsettled, the one that waits; rows come out, fail or are taken away once each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from operator import length_hint
from typing import Any, Protocol

from sage.kernel.telemetry import OperatorCounters

__all__ = ["BatchCode", "BatchOwner", "RunningBatch"]


_Failed = Callable[[int, Exception, Any], Awaitable[None]]
_Run = Callable[[Iterator[Any], Callable[[Any], None], _Failed], Awaitable[None]]


class BatchOwner(Protocol):
    """What a batch changes of the replica that it belongs to."""

    timing: bool
    in_flight: int
    blocked: asyncio.Task[None] | None

    def row_done(self, key: Hashable, origin: int) -> None:
        """Rows are through, and something follows from it."""

    def take_back(self, rows: Sequence[Any], origin: int) -> None:
        """Rows of a batch that others have to work on."""


class BatchCode:
    """What the batches of a replica have in common.

    Args:
        run: `await run(rows, emit, failed)` works off an iterator; `await failed(step, error, value)` deals with an
            error.
        together: counters of the steps that see each row; those behind a filter count for themselves.
        filters: the last of `together` lets only some rows pass and counts those for itself.
        outputs: values and origins that were put out.
        fail: deals with an item whose operator raised.
    """

    def __init__(
        self,
        run: _Run,
        *,
        together: Sequence[OperatorCounters],
        filters: bool,
        outputs: tuple[list[Any], list[int]],
        fail: Callable[..., Awaitable[None]],
    ) -> None:
        self.run = run
        self.together = together
        self.passing = len(together) - 1 if filters else len(together)
        self.values, self.origins = outputs
        self.fail = fail


class RunningBatch:
    """The rows of one packet, all of one origin, while one slot works them off.

    Args:
        code: of the chain.
        owner: the replica; its `in_flight` counts the rows already.
        values: the rows.
        origin: of all of them.
    """

    def __init__(self, code: BatchCode, owner: BatchOwner, values: Sequence[Any], origin: int) -> None:
        self._code = code
        self._owner = owner
        self._rows = iter(values)
        self._origin = origin
        self._outputs: list[Any] = []
        self._unsettled = len(values)

    async def run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Work off all rows that nobody takes away.

        Raises:
            StepFailed: an operator raised and its contract says that the job fails.
        """
        owner = self._owner
        elsewhere = loop.call_soon(self._give_away)
        try:
            await self._code.run(self._rows, self._outputs.append, self._failed)
            self._settle(0)
        except BaseException:
            # What came through before counts, however the job ends.
            self._settle(1)
            raise
        finally:
            elsewhere.cancel()
        owner.row_done(None, self._origin)
        if owner.blocked is not None:
            await asyncio.shield(owner.blocked)

    def _settle(self, under_way: int) -> None:
        """Count what is through.

        Args:
            under_way: 1 while a row is taken and not through.
        """
        done = self._unsettled - length_hint(self._rows) - under_way
        code = self._code
        if done > 0:
            self._unsettled -= done
            self._owner.in_flight -= done
            for index, counters in enumerate(code.together):
                counters.items_in += done
                if index < code.passing:
                    counters.items_out += done
        outputs = self._outputs
        if outputs:
            code.values.extend(outputs)
            code.origins.extend([self._origin] * len(outputs))
            outputs.clear()

    def _give_away(self) -> None:
        """The loop is here, so an operator has suspended: the rows behind its own must not wait for it."""
        self._settle(1)
        rest = list(self._rows)
        self._unsettled -= len(rest)
        self._owner.take_back(rest, self._origin)

    async def _failed(self, index: int, error: Exception, value: Any) -> None:
        """The operator of step `index` raised for `value`."""
        self._settle(1)
        code = self._code
        for step, counters in enumerate(code.together[: index + 1]):
            counters.items_in += 1
            counters.items_out += step < index and step < code.passing
        await code.fail(index, error, value, None, self._origin)
        self._unsettled -= 1
        self._owner.in_flight -= 1
