"""The worker loop on a thread for operators that gather lists: it waits at its inbox, but no longer than until the next
list has to go.
"""

from __future__ import annotations

from sage.kernel.packet import Packet

from .task import Activity, BatchLimit
from .thread_task import ThreadTask

__all__ = ["GatheringTask"]


class GatheringTask(ThreadTask):
    """A task with an inbox and an operator that gathers lists (`batch`, batched `map`)."""

    def _run_inbox(self) -> None:
        inbox, now, counters = self.parts.inbox, self._now, self.counters
        assert inbox is not None
        self._readable = self._backend.readable_gate(inbox)
        limit = BatchLimit(maximum=inbox.spec.coalesce_max)
        last = now()
        while self._open_inputs:
            items_max = self._plan_batch(limit)
            self.activity = Activity.WAITING_INPUT
            packet = self._get(items_max)
            self.activity = Activity.WORKING
            start = now()
            counters.idle_ns += start - last
            last = start
            if packet is not None and not packet.size:
                self._open_inputs -= 1
                if self.parts.sides:
                    self._end_side(self.parts.sides[packet.input_index])
                continue
            self._blocked_ns = 0
            if packet is not None:
                counters.items_in += packet.size
                counters.batches += 1
                self.count_wait(packet, start)
                self._run_rows_of(packet)
            # Not only when nothing came: items of other keys must not hold up a list that is due.
            self.chain.expire(now())
            last = now()
            busy = last - start - self._blocked_ns
            counters.busy_ns += busy
            if packet is not None:
                self._item_ns = busy // packet.size
                limit.update(packet.size, busy)
            if self.is_sink:
                self.count_latency(0, 0, last)
            else:
                self.flush()
                last = now()

    def _run_rows_of(self, packet: Packet) -> None:
        if isinstance(packet.origins, int):
            # Rows part here, each with what it knows of its beginning.
            packet.origins = [packet.origins] * packet.size
        self._run_columns(packet, self._timed)

    def _get(self, items_max: int) -> Packet | None:
        """The next packet; None when a list has to go before there is one."""
        inbox = self.parts.inbox
        assert inbox is not None
        while True:
            due = self.chain.due_ns
            if due is None:
                packet: Packet = inbox.get(items_max)
                return packet
            found: Packet | None = inbox.try_get(items_max)
            if found is not None:
                return found
            left_ns = due - self._now()
            if left_ns <= 0:
                return None
            self._readable.wait(left_ns / 1e9)
