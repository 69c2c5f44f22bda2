"""Tasks that lie in a loop: like all others, but they tell the loop's tracker how many rows they have put out and are
through with. Pipelines without a loop never come here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

from sage.kernel.graph import EXHAUSTED, Execution, OperatorKind
from sage.kernel.operators import BranchItem
from sage.kernel.packet import EndOfStream, Packet
from sage.platform import Backend, Channel

from .async_list_task import AsyncListTask
from .async_task import AsyncTask
from .edges import AsyncSender, OutputEdge, Sender
from .gather import Gathered
from .gathering_task import GatheringTask
from .laps import Lap, next_lap, rounds_of
from .loops import LoopBook, LoopEnd, LoopEndedError, LoopRoundsError
from .process_list_task import ProcessListTask
from .process_rows import Batch
from .process_task import ProcessTask
from .task import Activity, BatchLimit, Task, TaskParts
from .thread_task import ThreadTask

__all__ = ["create_loop_task"]


class LoopSender(Sender):
    """The edges of a task in a loop, on a thread; nothing is sent past its book."""

    def __init__(self, edges: Sequence[OutputEdge], backend: Backend, on_wait: Any, book: LoopBook) -> None:
        super().__init__(edges, backend, on_wait)
        self._book = book
        self._has_ended = False
        self.only_edge = None

    def send(self, packet: Packet) -> int:
        """Note and send the packet."""
        self._book.sending(packet)
        return super().send(packet)

    def end(self) -> None:
        """End the stream on all edges, once."""
        if not self._has_ended:
            self._has_ended = True
            super().end()


class LoopAsyncSender(AsyncSender):
    """The edges of a task in a loop, on an event loop."""

    def __init__(self, edges: Sequence[OutputEdge], backend: Backend, book: LoopBook) -> None:
        super().__init__(edges, backend)
        self._book = book

    def try_send(self, packet: Packet) -> list[tuple[OutputEdge, Sequence[Channel[Any]]]]:
        """Note the packet and send what fits."""
        self._book.sending(packet)
        return super().try_send(packet)


class LoopThreadTask(ThreadTask):
    """A task on a thread."""

    def __init__(self, *plain: Any, book: LoopBook, **shared: Any) -> None:
        super().__init__(*plain, **shared)
        self._book = book

    def new_sender(self) -> Sender:
        """A sender that notes what it sends."""
        return LoopSender(self.parts.edges, self._backend, self._on_wait, self._book)

    def _packet_done(self, packet: Packet, start: int, sunk: int, limit: BatchLimit) -> int:
        # The packet is used again for the outputs.
        rows = packet.size
        last = super()._packet_done(packet, start, sunk, limit)
        self._book.done(rows)
        return last


class FutureTask(LoopThreadTask):
    """The task of a future: it passes on what comes back, and ends the stream when nothing can come back any more.

    Args:
        max_rounds: how often an item may come back; None for as often as it takes.
        lets_out: an item that comes back once more leaves by the branch for it; else it becomes a dead letter.
    """

    _is_over = False

    def __init__(self, *plain: Any, max_rounds: int | None, lets_out: bool, **shared: Any) -> None:
        super().__init__(*plain, **shared)
        self._max_rounds = max_rounds
        self._lets_out = lets_out

    @property
    def doing(self) -> str:
        """What it waits for, while items are inside."""
        inside = self._book.tracker.inside
        if self.activity is Activity.WAITING_INPUT and inside and not self._is_over:
            return f"waiting for items to come back, {inside} row(s) are inside the loop"
        return super().doing

    @property
    def user_counters(self) -> dict[str, dict[str, float]]:
        """With the most rows that were inside when one entered."""
        counters = super().user_counters
        counters[self.parts.node.chain[0]] = {"inside_max": self._book.tracker.peak}
        return counters

    def _run_inbox(self) -> None:
        inbox, now = self.parts.inbox, self._now
        assert inbox is not None
        limit = BatchLimit(maximum=inbox.spec.coalesce_max)
        last = now()
        while self._open_inputs:
            items_max = self._plan_batch(limit)
            self.activity = Activity.WAITING_INPUT
            message: Packet | EndOfStream | LoopEnd = inbox.get(items_max)
            self.activity = Activity.WORKING
            start = now()
            self.counters.idle_ns += start - last
            last = start
            if isinstance(message, LoopEnd):
                self._is_over = True
                self._sender.end()
            elif isinstance(message, EndOfStream):
                self._open_inputs -= 1
            elif self._is_over:
                # What was emitted at the end of the stream cannot go round again.
                self.counters.items_in += message.size
                self._set_aside(message.values, partial(_came_late, self.parts.node.chain[0]))
            else:
                self.counters.items_in += message.size
                self.counters.batches += 1
                if self._max_rounds is not None:
                    message = self._count_rounds(message, self._max_rounds)
                if message.size:
                    last = self._run_packet(message, start, self._timed, limit)

    def _count_rounds(self, packet: Packet, max_rounds: int) -> Packet:
        """The items that may go round once more; the others leave the loop."""
        name = self.parts.node.chain[0]
        origins = packet.origins
        each = [origins] * packet.size if isinstance(origins, int) else origins
        tired = [row for row, origin in enumerate(each) if rounds_of(origin, name) >= max_rounds]
        if tired:
            values = [packet.values[row] for row in tired]
            if self._lets_out:
                self._let_out(values, [int(each[row]) for row in tired])
            else:
                self._set_aside(values, partial(_went_round, name, max_rounds))
            # Told when they have gone out: what they have become must not come back to a loop that has ended.
            self._book.done(len(tired))
        rest = [row for row, origin in enumerate(each) if rounds_of(origin, name) < max_rounds]
        return Packet(
            [packet.values[row] for row in rest],
            origins=[next_lap(each[row], name) for row in rest],
            enqueued_ns=packet.enqueued_ns * len(rest) // packet.size,
        )

    def _let_out(self, values: list[Any], origins: list[int]) -> None:
        counters = self.chain.steps[0].counters
        counters.items_in += len(values)
        counters.items_out += len(values)
        self.counters.items_out += len(values)
        packet = Packet([BranchItem(EXHAUSTED, value) for value in values], origins=origins)
        self._count_blocked(self._sender.send(packet))

    def _set_aside(self, values: Sequence[Any], error: Callable[[], Exception]) -> None:
        step = self.chain.steps[0]
        step.counters.items_in += len(values)
        for value in values:
            self.chain.item_failed(step, value, None, step.io.errors.retries + 1, error())


def _came_late(future: str) -> LoopEndedError:
    return LoopEndedError(
        f"it came back to the future {future!r} after the loop had ended: what is emitted at the end of the stream "
        "(emit='final', a left join) must leave the loop"
    )


def _went_round(future: str, max_rounds: int) -> LoopRoundsError:
    return LoopRoundsError(
        f"it has come back to the future {future!r} more than max_rounds={max_rounds:,} time(s): filter what is good "
        f"enough out of the loop, fill the future with a larger max_rounds, or take such items as "
        f"{future}.side_output({EXHAUSTED!r})"
    )


class LoopGatheringTask(GatheringTask):
    """A task on a thread that gathers lists: rows in a list that is open are inside the loop."""

    def __init__(self, *plain: Any, book: LoopBook, **shared: Any) -> None:
        super().__init__(*plain, **shared)
        self._book = book
        self._taken = self._held = 0

    def new_sender(self) -> Sender:
        """A sender that notes what it sends."""
        return LoopSender(self.parts.edges, self._backend, self._on_wait, self._book)

    def _get(self, items_max: int) -> Packet | None:
        # Everything that the rows before have become has been sent.
        held = sum(step.gather.waiting for step in self.chain.steps if step.gather is not None)
        done = self._taken + self._held - held
        self._taken, self._held = 0, held
        self._book.done(done)
        packet = super()._get(items_max)
        if packet is not None:
            self._taken = packet.size
        return packet


class LoopAsyncTask(AsyncTask):
    """A task on an event loop."""

    stamps_rows = True

    def __init__(self, *plain: Any, book: LoopBook, **shared: Any) -> None:
        super().__init__(*plain, **shared)
        self._book = book
        self._rows_done = 0

    def new_sender(self) -> AsyncSender:
        """A sender that notes what it sends."""
        return LoopAsyncSender(self.parts.edges, self._backend, self._book)

    def row_done(self, key: Hashable, origin: int) -> None:
        """A row is through: it is reported when its outputs are sent."""
        self._rows_done += 1
        super().row_done(key, origin)
        if not self.flush_scheduled:
            self.flush_scheduled = True
            self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        super()._flush_soon()
        if not self._values:
            rows, self._rows_done = self._rows_done, 0
            self._book.done(rows)


class LoopAsyncListTask(AsyncListTask):
    """A task on an event loop of a batched function."""

    def __init__(self, *plain: Any, book: LoopBook, **shared: Any) -> None:
        super().__init__(*plain, **shared)
        self._book = book

    def new_sender(self) -> AsyncSender:
        """A sender that notes what it sends."""
        return LoopAsyncSender(self.parts.edges, self._backend, self._book)

    async def _run_list(self, gathered: Gathered) -> None:
        await super()._run_list(gathered)
        self._book.done(len(gathered.values))


class LoopProcessTask(ProcessTask):
    """A task in a process; the rows are counted on this side."""

    def __init__(self, *plain: Any, book: LoopBook, **shared: Any) -> None:
        super().__init__(*plain, **shared)
        self._book = book

    def new_sender(self) -> Sender:
        """A sender that notes what it sends."""
        return LoopSender(self.parts.edges, self._backend, self._on_wait, self._book)

    def _take(self, packet: Packet) -> Batch:
        if isinstance(packet.origins, Lap):
            # A process knows one time for all rows only as a plain number.
            packet.origins = [packet.origins] * packet.size
        return super()._take(packet)

    def _take_done(self, rows: int, *answer: Any) -> None:
        super()._take_done(rows, *answer)
        self._book.done(rows)

    def _give_up(self, position: int, item: Any, row: Any, attempts: int, error: Exception) -> None:
        super()._give_up(position, item, row, attempts, error)
        self._book.done(1)


class LoopProcessListTask(LoopProcessTask, ProcessListTask):
    """A task of a batched function in a process: rows in a list that is open are inside the loop."""


def create_loop_task(parts: TaskParts, kind: OperatorKind, **facts: Any) -> Task:
    """The task of a place in a loop; `kind` is that of its first operator."""
    if parts.node.execution is Execution.PROCESS:
        return (LoopProcessListTask if "batching" in facts else LoopProcessTask)(parts, **facts)
    gathers = any(step.gather is not None for step in parts.steps)
    if parts.node.execution is Execution.ASYNC:
        return (LoopAsyncListTask if gathers else LoopAsyncTask)(parts, **facts)
    if kind is OperatorKind.FUTURE:
        return FutureTask(parts, **facts)
    return (LoopGatheringTask if gathers else LoopThreadTask)(parts, **facts)
