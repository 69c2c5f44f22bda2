"""Tasks between a source and an `ordered()`, and the task of the `ordered()` itself: like all others, but they keep a
book of places (`place_books`). Pipelines without `ordered()` never come here.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

from sage.kernel.graph import Execution
from sage.kernel.packet import EndOfStream, Packet
from sage.platform import ChannelClosedError

from .async_list_task import AsyncListTask
from .async_task import AsyncTask
from .edges import AsyncSender, Sender
from .gather import Gathered
from .gathering_task import GatheringTask
from .place_books import Nudge, PlaceBook, PlacedAsyncSender, PlacedSender
from .place_origins import OriginGatheringTask, OriginThreadTask
from .places import Resequencer, Row, SequenceTracker, Stamp
from .process_list_task import ProcessListTask
from .process_task import ProcessTask
from .remote_errors import ProcessDiedError
from .steps import Interrupted
from .task import Activity, BatchLimit, Task, TaskParts
from .thread_task import ThreadTask

__all__ = ["PlacedAsyncTask", "PlacedProcessTask", "PlacedThreadTask", "ResequencingTask", "create_placed_task"]


class _KeepsStamps(Task):
    """Outputs are sent with the stamps that they have, whatever their times are."""

    def fill_packet(self, packet: Packet, origin: int, now: int) -> Packet:
        """Put what the chain has put out into `packet`."""
        stamps = self.chain.outputs.origins[:]
        self.chain.outputs.origins.clear()
        filled = super().fill_packet(packet, origin, now)
        if stamps:
            filled.origins = stamps
        return filled


class PlacedThreadTask(_KeepsStamps, ThreadTask):
    """A task on a thread, between a source (or with it) and an `ordered()`.

    Args:
        book: None where no `ordered()` is behind it.
        source: number of its source replica in a turn of `width`.
    """

    stamps_rows = True

    def __init__(self, *plain: Any, book: PlaceBook | None, source: int = 0, width: int = 1, **shared: Any) -> None:
        super().__init__(*plain, **shared)
        self._place_book = book
        self._turn = source
        self._width = width
        self._position = 0

    def new_sender(self) -> Sender:
        """A sender that notes what it sends."""
        if self._place_book is None:
            return super().new_sender()
        return PlacedSender(self.parts.edges, self._backend, self._on_wait, self._place_book)

    # -- with an inbox

    def _run_inbox(self) -> None:
        inbox = self.parts.inbox
        assert inbox is not None
        limit = BatchLimit(maximum=inbox.spec.coalesce_max)
        last = self._now()
        while self._open_inputs:
            items_max = self._plan_batch(limit)
            self.activity = Activity.WAITING_INPUT
            message: Packet | EndOfStream | Nudge = inbox.get(items_max)
            self.activity = Activity.WORKING
            start = self._now()
            self.counters.idle_ns += start - last
            if isinstance(message, EndOfStream):
                self._open_inputs -= 1
                if self.parts.sides:
                    self._end_side(self.parts.sides[message.input_index])
            elif isinstance(message, Packet):
                self.counters.items_in += message.size
                self.counters.batches += 1
                self.count_wait(message, start)
            for packet in self._admit(message, limit):
                self._run_placed(packet, limit)
            last = self._now()

    def _admit(self, message: Packet | EndOfStream | Nudge, limit: BatchLimit) -> Iterable[Packet]:
        """The packets that are to be run now."""
        return (message,) if isinstance(message, Packet) else ()

    def _run_placed(self, packet: Packet, limit: BatchLimit) -> None:
        start, book = self._now(), self._place_book
        self._blocked_ns = 0
        sunk = self.sunk if self.is_sink else 0
        stamps = packet.origins
        self._run_columns(packet, self._timed)
        end = self._now()
        busy = end - start - self._blocked_ns
        self.counters.busy_ns += busy
        self._item_ns = busy // packet.size
        limit.update(packet.size, busy)
        if book is not None and not isinstance(stamps, int):
            book.done(stamps)
        if self.is_sink:
            self.count_latency(self.sunk - sunk, self._origin, end)
        elif self.chain.outputs.values:
            self._count_blocked(self._sender.send(self.fill_packet(Packet(()), self._origin, end)))
        if book is not None:
            book.report()

    # -- with a source

    def _run_source(self) -> None:
        assert self._place_book is not None
        for target in self._place_book.targets:
            self._signals.on_stop(target.tracker.wake)
        super()._run_source()
        self._place_book.report()
        for target in self._place_book.targets:
            target.tracker.end_source(self._turn, self._position)

    def _run_sequence(self, items: list[Any] | tuple[Any, ...] | range) -> None:
        # Item by item: a row that is not run when the job stops must not have got a place.
        self._run_iterator(iter(items))

    def _run_rows(self, rows: Iterator[Any], size: int | None) -> int:
        return super()._run_rows(self._stamped(rows), None)

    def _stamped(self, rows: Iterator[Any]) -> Iterator[tuple[Any, Stamp]]:
        """The rows with their places. Control comes back here when a row is through, before the next is fetched."""
        book, options = self._place_book, self.parts.source_options
        assert book is not None
        timed, waits = bool(options.get("timed", False)), bool(options.get("blocking", True))
        origin, width, place = self._now(), self._width, self._position * self._width + self._turn
        limit = min(target.tracker.limit for target in book.targets)
        through: list[int] = []
        for row in rows:
            value = row
            if timed:
                value, origin = row
            elif waits:
                origin = self._now()
            if place >= limit:
                book.done(through)
                through.clear()
                limit = self._wait_for_turn(place)
            stamp = Stamp(origin)
            stamp.place = (place,)
            place += width
            self._position += 1
            yield value, stamp
            through.append(stamp)
            if waits and not self.chain.outputs.values:
                # The next item may be long in coming.
                book.done(through)
                through.clear()
                book.report()
        book.done(through)

    def _wait_for_turn(self, place: int) -> int:
        """Wait while the source is too far ahead of what `ordered()` has released; the new limit."""
        assert self._place_book is not None
        trackers = [target.tracker for target in self._place_book.targets]
        if place >= min(tracker.limit for tracker in trackers):
            self.flush()
            self._place_book.report()
            start = self._now()
            self._on_wait(True)
            # A source that has to end passes its last item on, however long the others take.
            for tracker in trackers:
                tracker.wait(place, self._stopping)
            if self._signals.aborting.is_set():
                raise Interrupted
            self._on_wait(False)
            self._count_blocked(self._now() - start)
        return min(tracker.limit for tracker in trackers)


class ResequencingTask(PlacedThreadTask):
    """The task that begins with an `ordered()`.

    Args:
        tracker: knows which places are complete.
        sources: what to call the source replicas, by their number in a turn.
        book: not None where a further `ordered()` is behind it.
    """

    def __init__(self, *plain: Any, tracker: SequenceTracker, sources: Sequence[str], **shared: Any) -> None:
        super().__init__(*plain, **shared)
        self._tracker = tracker
        self._sources = tuple(sources)
        self._rows = Resequencer()
        tracker.on_advance(self._nudge)

    @property
    def doing(self) -> str:
        """What it waits for, when rows wait in it."""
        if not self._rows.held or self.activity is not Activity.WAITING_INPUT:
            return super().doing
        position, source = divmod(self._tracker.frontier, len(self._sources))
        return (
            f"waiting for item {position} of {self._sources[source]!r}, {self._rows.held} row(s) of later items "
            "wait here"
        )

    @property
    def user_counters(self) -> dict[str, dict[str, float]]:
        """With the most rows that have waited for their turn."""
        counters = super().user_counters
        counters[self.parts.node.chain[0]] = {"waited_max": self._rows.peak}
        return counters

    def _nudge(self) -> None:
        inbox = self.parts.inbox
        assert inbox is not None
        try:
            inbox.try_put(Nudge())
        except ChannelClosedError:
            # The job is being aborted: nobody waits for this any more.
            return

    def _admit(self, message: Packet | EndOfStream | Nudge, limit: BatchLimit) -> Iterable[Packet]:
        arrived: dict[int, int] = {}
        if isinstance(message, Packet):
            self._rows.add(message)
            arrived = self._rows.counted(message)
        frontier = self._tracker.arrive(arrived)
        rows = self._rows.release(frontier) if self._open_inputs else self._rows.drain()
        return self._packets(rows, limit)

    def _packets(self, rows: Sequence[Row], limit: BatchLimit) -> Iterator[Packet]:
        keyed, onwards = self.parts.keys_in, self._place_book is not None
        begin = 0
        while begin < len(rows):
            part = rows[begin : begin + limit.items]
            begin += len(part)
            origins = [stamp for _, _, _, stamp in part] if onwards else [int(stamp) for _, _, _, stamp in part]
            alike = not onwards and origins.count(origins[0]) == len(origins)
            yield Packet(
                [value for _, value, _, _ in part],
                keys=[key for _, _, key, _ in part] if keyed else None,
                origins=origins[0] if alike else origins,
            )


class PlacedGatheringTask(_KeepsStamps, GatheringTask):
    """A task on a thread that gathers lists: rows in a list that is open are not through."""

    def __init__(self, *plain: Any, book: PlaceBook, **shared: Any) -> None:
        super().__init__(*plain, **shared)
        self._place_book = book
        self._taken: list[int] = []

    def new_sender(self) -> Sender:
        """A sender that notes what it sends."""
        return PlacedSender(self.parts.edges, self._backend, self._on_wait, self._place_book)

    def _run_inbox(self) -> None:
        super()._run_inbox()
        # Other sources may wait for the rows of the last lists.
        for index, step in enumerate(self.chain.steps):
            while step.gather is not None and (gathered := step.gather.take()) is not None:
                self.chain.work_off(index, gathered)
        self.flush()
        self._place_book.done(self._taken)
        self._place_book.report()

    def _get(self, items_max: int) -> Packet | None:
        # Everything that the rows before have become has been sent.
        held = {stamp for step in self.chain.steps if step.gather is not None for stamp in step.gather.held}
        self._place_book.done([stamp for stamp in self._taken if stamp not in held])
        self._place_book.report()
        self._taken = [stamp for stamp in self._taken if stamp in held]
        packet = super()._get(items_max)
        if packet is not None and packet.size:
            assert not isinstance(packet.origins, int)
            self._taken += packet.origins
        return packet


class PlacedAsyncListTask(_KeepsStamps, AsyncListTask):
    """A task of an `async` batched function."""

    def __init__(self, *plain: Any, book: PlaceBook, **shared: Any) -> None:
        super().__init__(*plain, **shared)
        self._place_book = book

    def new_sender(self) -> AsyncSender:
        """A sender that notes what it sends."""
        return PlacedAsyncSender(self.parts.edges, self._backend, self._place_book)

    async def _run_list(self, gathered: Gathered) -> None:
        await super()._run_list(gathered)
        self._place_book.done(gathered.origins)
        self._place_book.report()


class PlacedAsyncTask(_KeepsStamps, AsyncTask):
    """A task on an event loop, between a source and an `ordered()`."""

    stamps_rows = True

    def __init__(self, *plain: Any, book: PlaceBook, **shared: Any) -> None:
        super().__init__(*plain, **shared)
        self._place_book = book

    def new_sender(self) -> AsyncSender:
        """A sender that notes what it sends."""
        return PlacedAsyncSender(self.parts.edges, self._backend, self._place_book)

    def row_done(self, key: Hashable, origin: int) -> None:
        """A row is through: it is reported together with its outputs, or alone."""
        self._place_book.done((origin,))
        super().row_done(key, origin)
        if not self.flush_scheduled:
            self.flush_scheduled = True
            self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        super()._flush_soon()
        if not self._values:
            self._place_book.report()

    def _next_packet(self) -> Packet:
        # All of it: rows that are done are reported with it.
        return self.fill_packet(Packet(()), 0, self._now())

    async def _drain(self) -> None:
        await super()._drain()
        self._place_book.report()


class PlacedProcessTask(ProcessTask):
    """A task in a process, between a source and an `ordered()`; places stay with the rows, on this side."""

    def __init__(self, *plain: Any, book: PlaceBook, **shared: Any) -> None:
        super().__init__(*plain, **shared)
        self._place_book = book
        self._answering = False

    def new_sender(self) -> Sender:
        """A sender that notes what it sends."""
        return PlacedSender(self.parts.edges, self._backend, self._on_wait, self._place_book)

    def _take_done(self, rows: int, *answer: Any) -> None:
        if rows:
            with self._lock:
                batch = self._in_flight[0]
                stamps = batch.origins
                assert not isinstance(stamps, int)
                self._place_book.done(stamps[batch.done : batch.done + rows])
        self._answering = True
        super()._take_done(rows, *answer)
        self._answering = False
        self._place_book.report()

    def _refuse(self, row: Any, reason: Exception) -> None:
        super()._refuse(row, reason)
        self._set_down(row)

    def _blame(self, row: Any, error: ProcessDiedError) -> list[Any]:
        again = super()._blame(row, error)
        if not again:
            self._set_down(row)
        return again

    def _set_down(self, row: Any) -> None:
        """A row that the process will not answer is through."""
        self._place_book.done(row.origins)
        if not self._answering:
            # Else there are outputs that have not been noted yet.
            self._place_book.report()


class PlacedProcessListTask(PlacedProcessTask, ProcessListTask):
    """A task of a batched function in a process: rows in a list that is open are not through."""


def create_placed_task(parts: TaskParts, **facts: Any) -> Task:
    """The task of a place on a thread, on an event loop or in a process."""
    gathers = parts.inbox is not None and any(step.gather is not None for step in parts.steps)
    if "order" in facts:
        return (OriginGatheringTask if gathers else OriginThreadTask)(parts, **facts)
    if parts.node.execution is Execution.PROCESS:
        return (PlacedProcessListTask if "batching" in facts else PlacedProcessTask)(parts, **facts)
    if parts.node.execution is Execution.ASYNC:
        return (PlacedAsyncListTask if gathers else PlacedAsyncTask)(parts, **facts)
    if parts.node.reorders:
        return ResequencingTask(parts, **facts)
    return (PlacedGatheringTask if gathers else PlacedThreadTask)(parts, **facts)
