"""The worker loop on a thread (paper, Algorithm 1): inbox -> operator chain -> router -> next inbox; or
source -> chain -> router.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import islice
from typing import Any

from sage.kernel.packet import Packet
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
        self._plain_code = self.chain.code(timed=False, origins_in=False)
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
        self._origin = start = self._now()
        self._blocked_ns = 0
        sunk = self.sunk if self.is_sink else 0
        self.chain.finish(self.flush)
        end = self._now()
        self.counters.busy_ns += end - start - self._blocked_ns
        if self.is_sink:
            self.count_latency(self.sunk - sunk, self._origin, end)
        self.count_waits()
        self._sender.end()

    def _on_wait(self, waiting: bool) -> None:
        self.activity = Activity.BLOCKED if waiting else Activity.WORKING

    def flush(self) -> None:
        """Send on what the chain has put out; may be called within a batch."""
        if self.is_sink or not self.chain.outputs.values:
            return
        try:
            self._count_blocked(self._sender.send(self.fill_packet(Packet(()), self._origin, self._now())))
        except ChannelClosedError as error:
            # Called from within the operators' loop, where an Exception would be taken for an operator's.
            raise Interrupted from error

    def _count_blocked(self, blocked_ns: int) -> None:
        self._blocked_ns += blocked_ns
        self.counters.blocked_ns += blocked_ns

    def _plan_batch(self, limit: BatchLimit) -> int:
        """How many items to take next, and whether to time them: slow operators always, fast ones in a small
        sample.
        """
        if self._item_ns >= self.TIMED_ALWAYS_NS or self.chain.checks_all:
            self._timed = True
            return limit.items
        if self.counters.batches % self.TIMED_EVERY:
            self._timed = False
            return limit.items
        self._timed = True
        if len(self._waits) >= self.WAITS_TOGETHER:
            self.count_waits()
        return min(limit.items, self.TIMED_ITEMS)

    # -- with an inbox

    def _run_inbox(self) -> None:
        # Written for the item that travels alone: what is done here per packet is the latency of a hop. What
        # is counted is counted before the outputs are sent: who waits for them also waits for this thread,
        # until it waits.
        inbox, now, counters, outputs = self.parts.inbox, self._now, self.counters, self.chain.outputs
        assert inbox is not None
        get, send, run, plain = inbox.get, self._sender.send, self._plain_code.run, not self.parts.keys_in
        values, keys, origins, waits = outputs.values, outputs.keys, outputs.origins, self._waits
        waiting, working = Activity.WAITING_INPUT, Activity.WORKING
        limit = BatchLimit(maximum=inbox.spec.coalesce_max)
        last = now()
        while self._open_inputs:
            items_max = self._plan_batch(limit)
            self.activity = waiting
            packet = get(items_max)
            self.activity = working
            start = now()
            counters.idle_ns += start - last
            size = packet.size
            if not size:
                last = start
                self._open_inputs -= 1
                continue
            counters.items_in += size
            counters.batches += 1
            self._blocked_ns = 0
            sunk = self.sunk if self.is_sink else 0
            if plain and not self._timed and packet.origins.__class__ is int:
                self._origin = packet.origins
                run(iter(packet.values), size, values, keys, origins)
            else:
                self._run_columns(packet)
            last = now()
            busy = last - start - self._blocked_ns
            counters.busy_ns += busy
            self._item_ns = busy // size
            if size == 1:
                waits.append(start - packet.enqueued_ns)
            else:
                self.count_wait(packet, start)
            if size >= limit.items or busy > limit.target_ns:
                limit.update(size, busy)
            if self.is_sink:
                self.count_latency(self.sunk - sunk, self._origin, last)
            elif values:
                blocked = send(self.fill_packet(packet, self._origin, last))
                if blocked:
                    self._count_blocked(blocked)
                    last += blocked

    def _run_columns(self, packet: Packet) -> None:
        """Run a packet whose rows are more than a value (with keys, with an origin each), or one that is
        timed.
        """
        origins = packet.origins
        columns: list[Sequence[Any]] = [packet.values]
        if packet.keys is not None and self.parts.keys_in:
            columns.append(packet.keys)
        if isinstance(origins, int):
            self._origin = origins
        else:
            self._origin = 0
            columns.append(origins)
        code = self.chain.code(timed=self._timed, origins_in=not isinstance(origins, int), counted=True)
        self.chain.run_batch(iter(zip(*columns, strict=True) if len(columns) > 1 else packet.values), 0, code)

    # -- with a source

    def _run_source(self) -> None:
        source = self.parts.source
        assert source is not None
        offset = self.parts.offset
        self._base = offset if isinstance(offset, int) else 0
        # A source may take its time before its first item, as between any two: that is no standstill.
        self.activity = Activity.OPENING
        try:
            items = source.execute() if offset is None else source.read_from(offset)
            self.activity = Activity.WORKING
            if isinstance(items, (list, tuple, range)):
                self._run_sequence(items)
            else:
                self._run_iterator(iter(items))
        except (StepFailed, Interrupted, ChannelClosedError):
            raise
        except Exception as error:  # the boundary to user code: it cannot begin, or cannot be iterated
            raise StepFailed(f"source {self.parts.node.chain[0]!r} raised", error) from error

    def _run_sequence(self, items: list[Any] | tuple[Any, ...] | range) -> None:
        limit, position = BatchLimit(maximum=self.OUT_LIMIT), 0
        while position < len(items) and not self._signals.stopping:
            rows = items[position : position + self._plan_batch(limit)]
            limit.update(len(rows), self._run_rows(iter(rows), len(rows)))
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
                    elapsed = self._run_rows(chunk, None)
                else:
                    rows = list(chunk)
                    elapsed = self._run_rows(iter(rows), len(rows)) if rows else 0
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

    def _run_rows(self, rows: Iterator[Any], size: int | None) -> int:
        """Run rows of the source; ns that it took. `size` is how many there are, None where nobody knows."""
        counters, chain, options = self.counters, self.chain, self.parts.source_options
        counters.batches += 1
        blocking, timed = bool(options.get("blocking", True)), self._timed
        self._blocked_ns = 0
        code = chain.code(
            timed=timed,
            origins_in=bool(options.get("timed", False)),
            counted=size is None,
            flush_each=blocking and not self.is_sink,
        )
        self._origin = start = self._now()
        count = chain.run_batch(rows, size or 0, code)
        end = self._now()
        counters.items_in += count
        elapsed = end - start - self._blocked_ns
        self._item_ns = elapsed // max(1, count)
        busy = elapsed
        if timed:
            self._count_source_time(elapsed - chain.times_ns_sum, count)
            busy = chain.times_ns_sum if blocking else elapsed
        counters.busy_ns += busy
        counters.idle_ns += elapsed - busy
        if not self.is_sink:
            self.flush()
        elif timed and not chain.outputs.origins:
            counters.latency_ns.add_many(chain.row_times_ns)
        else:
            self.count_latency(0, 0, end)
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
