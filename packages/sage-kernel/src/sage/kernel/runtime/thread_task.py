"""The worker loop on a thread (paper, Algorithm 1): inbox -> operator chain -> router -> next inbox; or
source -> chain -> router.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice
from typing import Any

from sage.kernel.operators.specs import Together
from sage.kernel.packet import Packet
from sage.platform import ChannelClosedError

from .edges import Sender
from .lone import NO_OUTPUT
from .steps import Interrupted, StepFailed
from .task import Activity, BatchLimit, Task
from .together import TOGETHER_MIN

__all__ = ["ThreadTask"]


class ThreadTask(Task):
    """A task that runs on a thread of its own.

    Attributes:
        stamps_rows: rows of its source have an origin each, whatever the source says.
    """

    stamps_rows = False

    _origin = 0
    _blocked_ns = 0
    _base = 0
    _timed = False
    _timed_from_ns = Task.TIMED_ALWAYS_NS
    _item_ns = 0
    _sender: Sender
    _plain_run: Callable[..., int] | None = None
    _together: Together | None = None

    def run(self) -> None:
        """Entry of the worker: from set-up to tear-down.

        Raises:
            OperatorError: set-up or tear-down of an operator failed.
            StepFailed: an operator raised and its contract says that the job fails.
        """
        self._sender = self.new_sender()
        self._together = self.chain.together
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

    def new_sender(self) -> Sender:
        """The sending end."""
        return Sender(self.parts.edges, self._backend, self._on_wait)

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
        if self.chain.checks_all:
            self._timed_from_ns = 0
        if self._item_ns >= self._timed_from_ns:
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
        # Written for the item that travels alone: what is done here per packet is the latency of a hop, hence the
        # locals. What is counted is counted before the outputs are sent: who waits for them also waits for this
        # thread, until it waits.
        inbox, now, counters, waits = self.parts.inbox, self._now, self.counters, self._waits
        assert inbox is not None
        get, edge = inbox.get, self._sender.only_edge
        lone: Callable[[Any], Any] | None = None
        put, input_index = None, 0
        if edge is not None and not self.parts.keys_in and not self.parts.keys_out:
            put, input_index = edge.put, edge.input_index
        waiting, working = Activity.WAITING_INPUT, Activity.WORKING
        limit, timed_every = BatchLimit(maximum=inbox.spec.coalesce_max), self.TIMED_EVERY
        last = now()
        # `while True`, because the interpreter adapts the code of a loop only where its jump back is unconditional.
        while True:
            if self._item_ns < self._timed_from_ns and counters.batches % timed_every:
                timed, items_max = False, limit.items
            else:
                timed, items_max = True, self._plan_batch(limit)
            self.activity = waiting
            packet = get(items_max)
            self.activity = working
            start = now()
            counters.idle_ns += start - last
            size = packet.size
            if not size:
                last = start
                self._open_inputs -= 1
                if self.parts.sides:
                    self._end_side(self.parts.sides[packet.input_index])
                if not self._open_inputs:
                    return
                continue
            counters.items_in += size
            counters.batches += 1
            if size > 1 or put is None or timed or packet.origins.__class__ is not int:
                last = self._run_packet(packet, start, timed, limit)
                continue
            if lone is None:
                # Generated here, and not before the first item: while that is on its way there is time.
                lone = self.chain.lone_code()
                if lone is None:
                    put, last = None, self._run_packet(packet, start, timed, limit)
                    continue
            self._origin = packet.origins
            value = lone(packet.values[0])
            if value is NO_OUTPUT:
                last = self._packet_done(packet, start, 0, limit)
                continue
            last = now()
            self._item_ns = busy = last - start
            counters.busy_ns += busy
            waits.append(start - packet.enqueued_ns)
            if limit.items == 1 or busy > limit.target_ns:
                limit.update(1, busy)
            counters.items_out += 1
            packet.values = [value]
            packet.keys = None
            packet.shared = False
            packet.input_index = input_index
            packet.enqueued_ns = last
            if put(packet) is not None:
                blocked = self._sender.wait_for_rest(packet)
                counters.blocked_ns += blocked
                last += blocked

    def _run_packet(self, packet: Packet, start: int, timed: bool, limit: BatchLimit) -> int:
        """Run the chain over a packet and send what it puts out; when that was done, in ns."""
        sunk = self.sunk if self.is_sink else 0
        outputs = self.chain.outputs
        if timed or self.parts.keys_in or not isinstance(packet.origins, int):
            if timed or self._together is None or not self._run_together(packet):
                self._run_columns(packet, timed)
        else:
            self._origin = packet.origins
            if self._plain_run is None:
                self._plain_run = self.chain.code(timed=False, origins_in=False).run
            self._plain_run(iter(packet.values), packet.size, outputs.values, outputs.keys, outputs.origins)
        return self._packet_done(packet, start, sunk, limit)

    def _packet_done(self, packet: Packet, start: int, sunk: int, limit: BatchLimit) -> int:
        size, last = packet.size, self._now()
        busy = last - start - self._blocked_ns
        self.counters.busy_ns += busy
        self._item_ns = busy // size
        if size == 1:
            self._waits.append(start - packet.enqueued_ns)
        else:
            self.count_wait(packet, start)
        if size >= limit.items or busy > limit.target_ns:
            limit.update(size, busy)
        if self.is_sink:
            self.count_latency(self.sunk - sunk, self._origin, last)
        elif self.chain.outputs.values:
            blocked = self._sender.send(self.fill_packet(packet, self._origin, last))
            if blocked:
                self._count_blocked(blocked)
                last += blocked
        self._blocked_ns = 0
        return last

    def _end_side(self, side: int) -> None:
        self.parts.side_producers[side] -= 1
        if not self.parts.side_producers[side]:
            self.chain.input_ended(side)

    def _run_together(self, packet: Packet) -> bool:
        """Run a packet whose rows the first operator takes all at once; False, and nothing done, where it does not."""
        origins, keys, call = packet.origins, packet.keys, self._together
        if packet.size < TOGETHER_MIN or not isinstance(origins, int) or keys is None or call is None:
            return False
        done = call(self.parts.tags[packet.input_index], packet.values, keys)
        if done is None:
            return False
        self.sample_keys(packet)
        self._origin = origins
        outputs, counts = done
        code = self.chain.code(timed=False, origins_in=False, together=True)
        self.chain.run_batch(iter(((outputs, keys, counts),)), packet.size, code)
        outputs.clear()
        return True

    def _run_columns(self, packet: Packet, timed: bool) -> None:
        """Run a packet whose rows are more than a value (with keys, with an origin each), or one that is
        timed.
        """
        origins = packet.origins
        values = packet.values
        if self.parts.tags:
            side = self.parts.tags[packet.input_index]
            values = [(side, value) for value in values]
        columns: list[Sequence[Any]] = [values]
        if packet.keys is not None and self.parts.keys_in:
            columns.append(packet.keys)
            self.sample_keys(packet)
        if isinstance(origins, int):
            self._origin = origins
        else:
            self._origin = 0
            columns.append(origins)
        code = self.chain.code(timed=timed, origins_in=not isinstance(origins, int), counted=True)
        self.chain.run_batch(iter(zip(*columns, strict=True) if len(columns) > 1 else values), 0, code)
        if self.chain.checks_all:
            self._timed_from_ns = 0

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
        while position < len(items) and not self._stopping:
            rows = items[position : position + self._plan_batch(limit)]
            limit.update(len(rows), self._run_rows(iter(rows), len(rows)))
            position += len(rows)

    def _run_iterator(self, items: Iterator[Any]) -> None:
        # Item by item, so that none is fetched that a stopped source would not pass on: its offset would be behind it.
        feed = _until(self._stopping, items)
        limit = BatchLimit(maximum=self.OUT_LIMIT)
        try:
            while not self._stopping:
                wanted = self._plan_batch(limit)
                chunk = islice(feed, wanted)
                before = self._consumed
                elapsed = self._run_rows(chunk, None)
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
        """Run rows of the source; ns that it took. `size` is how many there are, None where nobody knows.

        The time waited for room counts: how far a source has come is known after each batch, so a batch must not last.
        """
        counters, chain, options = self.counters, self.chain, self.parts.source_options
        counters.batches += 1
        blocking, timed = bool(options.get("blocking", True)), self._timed
        self._blocked_ns = 0
        code = chain.code(
            timed=timed,
            origins_in=self.stamps_rows or bool(options.get("timed", False)),
            counted=size is None,
            flush_each=blocking and not self.is_sink,
            # What has been sliced and not worked on when the job stops is as if it had never been taken.
            stops=size is not None,
        )
        self._origin = start = self._now()
        try:
            count = chain.run_batch(rows, size or 0, code)
        except StepFailed:
            counters.items_in += chain.rows_failed
            raise
        except Interrupted as left:
            counters.items_in += chain.count_left(left, code)
            # The last one may not have been sent on: whoever begins at this offset gets it again.
            self._note_offset(behind=1)
            raise
        end = self._now()
        counters.items_in += count
        wall = end - start
        elapsed = wall - self._blocked_ns
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
        self._note_offset()
        return wall

    def _note_offset(self, behind: int = 0) -> None:
        source = self.parts.source
        assert source is not None
        self.offset = source.offset_after(max(0, self._base + self._consumed - behind))

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
