"""The task of a process whose first operator is a batched function. Rows wait for each other here, in the parent: a
list that is full, or whose time has come, is one message; so a process that dies takes no rows with it that only wait.

Invariants: rows are sent in the order in which they came; at most one list is open, and none while rows are there with
which a process has died: those go first, each in a list of its own.
"""

from __future__ import annotations

import threading
from typing import Any

from sage.kernel.graph import Batching
from sage.platform import ChannelClosedError, ProcessLine

from . import process_protocol as say
from .process_rows import Batch, joined
from .process_task import ProcessTask
from .task import TaskParts

__all__ = ["ProcessListTask"]


class ProcessListTask(ProcessTask):
    """A task that gathers lists for its process.

    Args:
        batching: how they come together.
    """

    def __init__(self, parts: TaskParts, *, batching: Batching, **shared: Any) -> None:
        super().__init__(parts, **shared)
        self._size = batching.size
        self._max_wait_ns = None if batching.max_wait_s is None else int(batching.max_wait_s * 1e9)
        self._gathered: list[Batch] = []
        self._room = self._size
        self._begun_ns = 0
        self._own_thread = 0

    def run(self) -> None:
        """Entry of the worker; see `ProcessTask.run`."""
        self._own_thread = threading.get_ident()
        super().run()

    # -- gathering

    def _pump_idle(self) -> None:
        try:
            self._pump(own=False)
        except ChannelClosedError:
            # The job is being aborted, which the task's own thread learns from its process's end.
            return

    def _next_batch(self, process: ProcessLine) -> Batch | None:
        """The list that is full, or has to go; None when there is none, or when nothing will come any more."""
        inbox, begun = self._inbox, not self._gathered
        while self._open_inputs and self._room:
            packet = inbox.try_get(self._room)
            if packet is None:
                if self._in_flight or not inbox.notify_readable(self._pump_idle):
                    break
                continue
            if not packet.size:
                self._open_inputs -= 1
                continue
            if not self._gathered:
                self._begun_ns = self._now()
            self._gathered.append(self._take(packet))
            self._room -= packet.size
        if self._gathered and (not self._room or not self._open_inputs or self._is_due()):
            gathered, self._gathered, self._room = self._gathered, [], self._size
            return joined(gathered)
        if not self._open_inputs:
            self._finish(process)
        elif begun and self._due_ns is not None and threading.get_ident() != self._own_thread:
            # The task's own thread looks at the clock; it waits for an answer and does not know of this list yet.
            self._tell(process, say.ECHO)
        return None

    @property
    def _due_ns(self) -> int | None:
        """When the open list has to go, None where it never has to."""
        if not self._gathered or self._max_wait_ns is None:
            return None
        return self._begun_ns + self._max_wait_ns

    def _is_due(self) -> bool:
        return self._due_ns is not None and self._now() >= self._due_ns

    def _take_answer(self) -> None:
        process, due_s = self._process, self._due_s()
        assert process is not None
        if due_s is None or process.has_news(due_s):
            super()._take_answer()
        else:
            self._pump(own=True)

    def _due_s(self) -> float | None:
        """Seconds until the open list has to go; None without one, and where something else goes first."""
        with self._lock:
            due_ns, in_flight = self._due_ns, self._in_flight
            if due_ns is None or self._waiting or not self._has_room:
                return None
            if in_flight and in_flight[-1].alone:
                return None
            return max(0.0, (due_ns - self._now()) / 1e9)

    def _limit_queue(self) -> None:
        # What waits for a list to be full is not what makes the process wait.
        if self.parts.node.parallelism > 1 and not self.parts.keys_in:
            self._inbox.limit(self.QUEUED_BATCHES * self._size)

    # -- rows that cannot be sent

    def _divide(self, batch: Batch, error: Exception, refused: list[tuple[Batch, Exception]]) -> None:
        """Take out the rows that cannot be sent; the others stay one list."""
        before, waiting = len(refused), len(self._waiting)
        super()._divide(batch, error, refused)
        rest = [self._waiting.popleft() for _ in range(len(self._waiting) - waiting)]
        if rest and len(refused) > before:
            rest = [joined(rest)]
        self._waiting.extendleft(reversed(rest))
