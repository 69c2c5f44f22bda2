"""The worker loop on a thread (paper, Algorithm 1): inbox -> operator chain -> router -> next inbox; or
source -> chain -> router.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from sage.kernel.packet import EndOfStream, Packet
from sage.platform import ChannelClosedError

from .edges import Sender
from .steps import Interrupted, StepFailed
from .task import Activity, BatchLimit, Task

__all__ = ["ThreadTask"]


class ThreadTask(Task):
    """A task that runs on a thread of its own."""

    _origin = 0
    _blocked_ns = 0
    _base = 0
    _timed = False
    _item_ns = 0
    _sender: Sender

    def run(self) -> None:
        """Entry of the worker: from set-up to tear-down.

        Raises:
            OperatorError: set-up or tear-down of an operator failed.
            StepFailed: an operator raised and its contract says that the job fails.
        """
        self._sender = Sender(self.parts.edges, self._backend, self._on_wait)
        try:
            self.setup()
            self._on_ready(self.id)
            if self.parts.source is not None:
                # Only sources wait for the others: before they begin there is nothing in any inbox.
                self.activity = Activity.WAITING_START
                self._signals.go.wait()
            self._run()
        except (ChannelClosedError, Interrupted):
            # The job is being aborted: whoever closed the channels knows why.
            if not self._signals.aborting.is_set():
                raise
        finally:
            self.activity = Activity.ENDED
            self.teardown()

    def _run(self) -> None:
        if self.parts.source is None:
            self._run_inbox()
        else:
            self._run_source()
        # What is emitted at the end of the stream answers all of it: its latency counts from here.
        self._origin = self._now()
        self.chain.finish(self.flush)
        self.count_latency(0, 0, self._now())
        self._sender.end()

    def _on_wait(self, waiting: bool) -> None:
        self.activity = Activity.BLOCKED if waiting else Activity.WORKING

    def flush(self) -> None:
        """Send on what the chain has put out."""
        if self.is_sink:
            return
        packet = self.out_packet(self._origin)
        if packet is not None:
            try:
                blocked = self._sender.send(packet)
            except ChannelClosedError as error:
                # Called from within the operators' loop, where an Exception would be taken for an operator's.
                raise Interrupted from error
            self._blocked_ns += blocked
            self.counters.blocked_ns += blocked

    def _plan_batch(self, limit: BatchLimit) -> int:
        """How many items to take next, and whether to time them: slow operators always, fast ones in a small
        sample.
        """
        if self._item_ns >= self.TIMED_ALWAYS_NS:
            self._timed = True
            return limit.items
        self._timed = self.counters.batches % self.TIMED_EVERY == 0
        return min(limit.items, self.TIMED_ITEMS) if self._timed else limit.items

    # -- with an inbox

    def _run_inbox(self) -> None:
        inbox, now, counters = self.parts.inbox, self._now, self.counters
        assert inbox is not None
        limit = BatchLimit(maximum=inbox.spec.coalesce_max)
        last = now()
        while self._open_inputs:
            self.activity = Activity.WAITING_INPUT
            packet = inbox.get(self._plan_batch(limit))
            start = now()
            counters.idle_ns += start - last
            last = start
            if isinstance(packet, EndOfStream):
                self._open_inputs -= 1
                continue
            self.activity = Activity.WORKING
            last = self._run_packet(packet, start)
            limit.update(len(packet), last - start)

    def _run_packet(self, packet: Packet, start: int) -> int:
        self.take_packet(packet, start)
        origins = packet.origins
        self._origin = origins if isinstance(origins, int) else 0
        code = self.chain.code(timed=self._timed, origins_in=not isinstance(origins, int))
        columns: list[Sequence[Any]] = [packet.values]
        if packet.keys is not None and self.parts.keys_in:
            columns.append(packet.keys)
        if not isinstance(origins, int):
            columns.append(origins)
        rows: Iterable[Any] = zip(*columns, strict=True) if len(columns) > 1 else packet.values
        sunk = self.sunk
        self._blocked_ns = 0
        self.chain.run_batch(iter(rows), code)
        end = self._now()
        busy = end - start - self._blocked_ns
        self.counters.busy_ns += busy
        self._item_ns = busy // len(packet)
        if self.is_sink:
            self.count_latency(self.sunk - sunk, self._origin, end)
            return end
        self.flush()
        return self._now()

    # -- with a source

    def _run_source(self) -> None:
        source = self.parts.source
        assert source is not None
        offset = self.parts.offset
        self._base = offset if isinstance(offset, int) else 0
        self.activity = Activity.WORKING
        try:
            items = source.execute() if offset is None else source.read_from(offset)
            if isinstance(items, (list, tuple, range)):
                self._run_sequence(items)
            else:
                self._run_iterator(iter(items))
        except (StepFailed, Interrupted, ChannelClosedError):
            raise
        except (
            Exception
        ) as error:  # the boundary to user code: a source that cannot begin, or cannot be iterated
            raise StepFailed(f"source {self.parts.node.chain[0]!r} raised", error) from error

    def _run_sequence(self, items: list[Any] | tuple[Any, ...] | range) -> None:
        limit, position = BatchLimit(maximum=self.OUT_LIMIT), 0
        while position < len(items) and not self._signals.stopping:
            rows = items[position : position + self._plan_batch(limit)]
            limit.update(len(rows), self._run_rows(iter(rows)))
            position += len(rows)

    def _run_iterator(self, items: Iterator[Any]) -> None:
        blocking = bool(self.parts.source_options.get("blocking", True))
        feed = _until(self._signals.stopping, items) if blocking else items
        limit = BatchLimit(maximum=self.OUT_LIMIT)
        try:
            while not self._signals.stopping:
                wanted = self._plan_batch(limit)
                chunk = islice(feed, wanted)
                before = self._consumed
                if blocking:
                    elapsed = self._run_rows(chunk)
                else:
                    rows = list(chunk)
                    elapsed = self._run_rows(iter(rows)) if rows else 0
                begun = self._consumed - before
                if begun < wanted:
                    return
                limit.update(begun, elapsed)
        finally:
            if isinstance(items, Generator):
                items.close()

    @property
    def _consumed(self) -> int:
        return self.counters.items_in + self.chain.bad_records

    def _run_rows(self, rows: Iterator[Any]) -> int:
        """Run rows of the source; ns that it took."""
        start = self._now()
        counters, options = self.counters, self.parts.source_options
        counters.batches += 1
        blocking = bool(options.get("blocking", True))
        timed = self._timed
        self._origin = start
        self._blocked_ns = 0
        each = blocking and not self.is_sink
        counts = self.chain.run_batch(
            rows, self.chain.code(timed=timed, origins_in=bool(options.get("timed", False)), flush_each=each)
        )
        end = self._now()
        counters.items_in += counts.rows
        elapsed = end - start - self._blocked_ns
        self._item_ns = elapsed // max(1, counts.rows)
        if timed:
            in_steps = sum(map(sum, counts.times_ns))
            self._count_source_time(elapsed - in_steps, counts.rows)
        busy = in_steps if timed and blocking else elapsed
        counters.busy_ns += busy
        counters.idle_ns += elapsed - busy
        if self.is_sink:
            if counts.row_times_ns and not self.chain.outputs.origins:
                counters.latency_ns.add_many(counts.row_times_ns)
            else:
                self.count_latency(0, 0, end)
        self.flush()
        source = self.parts.source
        assert source is not None
        self.offset = source.offset_after(self._base + self._consumed)
        return elapsed

    def _count_source_time(self, elapsed: int, rows: int) -> None:
        counters = self.counters.operators[0]
        if rows:
            counters.timed_ns += elapsed
            counters.timed_items += rows
            counters.service_ns.add(max(0, elapsed) / rows, rows)


def _until(stopping: list[bool], items: Iterator[Any]) -> Iterator[Any]:
    """The items until the job is told to stop; an item that was fetched is always passed on."""
    for item in items:
        yield item
        if stopping:
            return
