"""The task of a process: its parent's half. Inbox, routing, order, back pressure, counters and dead letters stay here;
rows go to the process and outputs come back, so a process that dies takes nothing with it that is not known here. There
may be several processes in a line, each of which passes on to the next what it has made of the rows: what is said here
of the process holds for the line, which lives and dies as one.

Two threads act. The task's own thread waits for answers and sends the outputs on. Rows are sent by whoever has them
first: by the task's thread after an answer, or, while the process is idle, by the very thread that puts a packet into
the inbox, which saves waking a thread per hop. Up to two batches are on their way, so that the process need not wait.

Invariants: rows are answered in the order in which they were sent; `_in_flight` holds exactly the rows without an
answer; what a dead process had not answered is sent again before anything else; a row is given up only when a process
has died that had that row, alone in the line.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any

from sage.kernel.graph import BaseTransformation, OperatorError
from sage.kernel.operators.process_code import ProcessOrder
from sage.kernel.packet import Packet
from sage.platform import ChannelClosedError, LinkClosedError, ProcessLine, ProcessPool
from sage.platform.process_links import UnreadableMessageError
from sage.platform.window_channels import WindowChannel

from . import process_protocol as say
from .edges import Sender
from .process_losses import LossyTask
from .process_protocol import Report
from .process_rows import Batch
from .remote_errors import PortableError, ProcessDiedError, TransportError
from .salvage import salvage
from .service_desk import DeskServices, ServedLine
from .steps import Interrupted, StepFailed
from .task import Activity, BatchLimit, TaskParts

__all__ = ["PROCESS_MODULES", "ProcessTask"]

logger = logging.getLogger("sage.kernel.task")

PROCESS_MODULES = ("sage.kernel.runtime.process_entry",)
"""What the fork server imports before it forks."""

_ENTRY = "sage.kernel.runtime.process_entry:run_worker"
_DEATHS_MAX = 3
_BATCH_BYTES = 4 << 20


class ProcessTask(LossyTask):
    """A task whose operators run in a process of its own, or in a line of such."""

    BATCHES_MAX = 8
    QUEUED_BATCHES = 2

    def __init__(
        self,
        parts: TaskParts,
        *,
        orders: Sequence[ProcessOrder],
        operators: Sequence[BaseTransformation],
        pool: ProcessPool,
        services: DeskServices | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(parts, operators=operators, **shared)
        assert isinstance(parts.inbox, WindowChannel)
        self._inbox: WindowChannel[Any] = parts.inbox
        self._orders = tuple(orders)
        self._pool = pool
        self._services = services
        self._process: ProcessLine | None = None
        # One batch for each process to work on, and one on its way.
        self._window = len(self._orders) + 1
        self._lock = threading.Lock()
        self._in_flight: deque[Batch] = deque()
        self._ready = self._finishing = self._finished = False
        self._limit = BatchLimit(maximum=self.OUT_LIMIT, target_ns=say.BATCH_NS)
        self._rows_by_bytes = self.OUT_LIMIT
        self._idle_deaths = 0
        self._tears_down: list[bool] = []
        self._exploding = len(operators)
        self._since = 0
        self._blocked_ns = 0
        self._sink_counters = parts.counters.operators[-1]

    @property
    def needs_setup(self) -> bool:
        """A process takes its time to be there."""
        return True

    def stack(self) -> str:
        """Where the process is at this moment, as lines of a traceback."""
        process = self._process
        if process is None:
            return ""
        return process.stack()

    def flush(self) -> None:
        """Nothing gathers here: outputs are sent on as they arrive."""

    # -- life

    def run(self) -> None:
        """Entry of the worker: from the process's set-up to its tear-down.

        Raises:
            OperatorError: set-up or tear-down of an operator failed, or a process died that held state.
            StepFailed: an operator raised and its contract says that the job fails.
        """
        self._sender = self.new_sender()
        self._signals.on_abort(self._kill)
        try:
            self._start_process()
            self._on_ready(self.id)
            self._since = self._now()
            self._pump(own=True)
            while not self._finished:
                self._take_answer()
            self.count_waits()
            self._end_process()
            self._sender.end()
        except (ChannelClosedError, LinkClosedError, Interrupted):
            # The job is being aborted: whoever closed the channels knows why.
            if not self._signals.aborting.is_set():
                raise
        finally:
            self.activity = Activity.ENDED
            with self._lock:
                self._ready = False
                process, self._process = self._process, None
            if process is not None:
                process.discard()

    def new_sender(self) -> Sender:
        """The sending end."""
        return Sender(self.parts.edges, self._backend, self._on_wait)

    def _kill(self) -> None:
        process = self._process
        if process is not None:
            process.kill()

    def _on_wait(self, waiting: bool) -> None:
        self.activity = Activity.BLOCKED if waiting else Activity.WORKING

    def _start_process(self) -> None:
        self.activity = Activity.SETUP
        answers = self._begin(_DEATHS_MAX)
        for answer in answers:
            if answer[0] == "unreadable":
                raise OperatorError(f"setup of {self._names()} failed: its process cannot load the code: {answer[1]}")
        for answer in answers:
            if answer[0] == say.FAILED:
                self._fail(answer)
        self._tears_down = [answer[1] for answer in answers]
        # All of it, but where the only process has one that makes several items of one.
        self._exploding = answers[0][2] if len(answers) == 1 else len(self._transformations)
        self.activity = Activity.WAITING_INPUT
        with self._lock:
            self._ready = True

    def _begin(self, tries: int) -> list[Any]:
        """Have a process set up; its answer, or those of the line. One that dies over it may have been ended by chance,
        or have been dead before: then another one is asked.
        """
        process = self._process = self._new_line(tries)
        if self._signals.aborting.is_set():
            raise Interrupted
        try:
            process.begin(_ENTRY, self._orders)
            return [each.link.receive() for each in process.processes]
        except LinkClosedError as error:
            self._check_aborted()
            story = process.describe_end()
            if tries == 1:
                raise OperatorError(f"setup of {self._names()} failed: {story}") from error
        logger.warning("%s: set-up is tried in another process: %s", self.id, story)
        self._process = None
        process.discard()
        return self._begin(tries - 1)

    def _new_line(self, tries: int) -> ProcessLine:
        try:
            if self._services is None:
                return ProcessLine(self._pool, len(self._orders))
            return ServedLine(self._pool, len(self._orders), self._services, self.id)
        except LinkClosedError:
            if tries == 1:
                raise
        # One of them has ended just before it was needed.
        return self._new_line(tries - 1)

    def _end_process(self) -> None:
        """Have the operators torn down and give the process back.

        Raises:
            OperatorError: a `teardown` raised, or a process died in it.
        """
        process = self._process
        assert process is not None
        missed = ended = False
        failed: PortableError | None = None
        process.tell_all((say.END,))
        for index in range(len(process.processes)):
            try:
                answer = process.last_answer(index, say.ENDED)
            except LinkClosedError:
                self._check_aborted()
                ended = True
                missed |= any(self._tears_down[index : index + 1])
                continue
            failed = failed or answer[1]
            for report in answer[2]:
                self._ledger.apply(report)
        if ended and missed:
            raise OperatorError(f"teardown of {self._names()} failed: {process.describe_end()}")
        if ended:
            # All rows are answered and nobody had anything to do any more.
            logger.warning("%s: all work was done when %s", self.id, process.describe_end())
            return
        with self._lock:
            self._ready = False
            self._process = None
        process.release()
        if failed is not None:
            raise failed.restore()

    def _names(self) -> str:
        return ", ".join(repr(name) for name in self.parts.node.chain)

    def _check_aborted(self) -> None:
        if self._signals.aborting.is_set():
            raise Interrupted

    # -- sending

    def _pump_idle(self) -> None:
        """Called by the thread that has put something into the inbox while the process was idle: mostly one packet,
        which goes out at once. What follows is up to the task's own thread.
        """
        try:
            with self._lock:
                process = self._process
                if process is not None and self._ready and not self._in_flight and not self._waiting:
                    packet = self._inbox.try_get(min(self._limit.items, self._rows_by_bytes))
                    if packet is not None and packet.size:
                        self._try_send(process, self._take(packet), None)
                        return
                    if packet is not None:
                        self._open_inputs -= 1
            self._pump(own=False)
        except ChannelClosedError:
            # The job is being aborted, which the task's own thread learns from its process's end.
            return

    def _pump(self, *, own: bool) -> None:
        """Send what there is, as far as the window allows. A process that is gone is no error here: the task's own
        thread still has to read what it had answered, and then meets its end.

        Args:
            own: the task's own thread calls.
        """
        refused: list[tuple[Batch, Exception]] = []
        # Were another thread to wait here for room in a pipe, the task's own for the lock, and the process for that one
        # to take an answer, all would wait for ever: other threads send only while nothing is in flight.
        with self._lock:
            process = self._process
            while process is not None and self._ready and (self._has_room if own else not self._in_flight):
                if self._in_flight and (self._in_flight[-1].alone or (self._waiting and self._waiting[0].alone)):
                    break
                batch = self._waiting.popleft() if self._waiting else self._next_batch(process)
                if batch is None or not self._try_send(process, batch, refused if own else None):
                    break
        for row, reason in refused:
            self._refuse(row, reason)
        if refused:
            self._pump(own=own)

    @property
    def _has_room(self) -> bool:
        """Whether the process may get a further batch: two (a line one more than it has processes), or more of small
        ones, so that it need not wait.
        """
        batches = len(self._in_flight)
        return batches < self._window or (batches < self.BATCHES_MAX and self._inbox.under_way < self._limit.items)

    def _try_send(self, process: ProcessLine, batch: Batch, refused: list[tuple[Batch, Exception]] | None) -> bool:
        """Send a batch; False when nothing more can be sent now.

        Args:
            process: where to.
            batch: what to send.
            refused: takes rows that cannot be sent; None where another thread than the task's own calls, which
                leaves them to that one.
        """
        try:
            self._send(process, batch, draining=refused is not None)
        except LinkClosedError:
            return False
        except Exception as error:  # whatever pickling an item raises
            self._in_flight.pop()
            self._inbox.under_way -= len(batch.values) - batch.done
            if refused is None:
                # The task's own thread deals with it: what follows may end the task.
                self._waiting.appendleft(batch)
                self._tell(process, say.ECHO)
                return False
            self._divide(batch, error, refused)
        return True

    def _tell(self, process: ProcessLine, what: int) -> None:
        try:
            process.link.send((what,))
        except LinkClosedError:
            logger.debug("%s: process %s is gone", self.id, process.pids)

    def _next_batch(self, process: ProcessLine) -> Batch | None:
        """The next rows of the inbox; None when there are none, or when nothing will come any more."""
        inbox = self._inbox
        while self._open_inputs:
            packet = inbox.try_get(min(self._limit.items, self._rows_by_bytes))
            if packet is None:
                if self._in_flight or not inbox.notify_readable(self._pump_idle):
                    return None
                continue
            if not packet.size:
                self._open_inputs -= 1
                continue
            return self._take(packet)
        self._finish(process)
        return None

    def _finish(self, process: ProcessLine) -> None:
        """Nothing will come any more: say so once everything is answered."""
        if not self._in_flight and not self._finishing:
            self._finishing = True
            self._tell(process, say.FINISH)

    def _take(self, packet: Packet) -> Batch:
        now = self._now()
        size = packet.size
        self.counters.items_in += size
        self.counters.batches += 1
        if size == 1:
            self._waits.append(now - packet.enqueued_ns)
            if len(self._waits) >= self.WAITS_TOGETHER:
                self.count_waits()
        else:
            self.count_wait(packet, now)
        if self.parts.keys_in:
            self.sample_keys(packet)
        return Batch(packet.values, packet.keys if self.parts.keys_in else None, packet.origins)

    def _send(self, process: ProcessLine, batch: Batch, *, draining: bool) -> None:
        # First the book, then the pipe: a process may die at any moment.
        if not self._in_flight:
            now = self._now()
            self.counters.idle_ns += now - self._since
            self._since = now
            self.activity = Activity.WORKING
        self._in_flight.append(batch)
        self._inbox.under_way += len(batch.values) - batch.done
        values, keys, origins = batch.values, batch.keys, batch.origins
        if batch.alone:
            origin = origins if isinstance(origins, int) else origins[0]
            single = None if isinstance(origins, int) else origin
            message: tuple[Any, ...] = (say.SINGLE, values[0], None if keys is None else keys[0], single)
            self._entering, self._reached = None, 0
        else:
            message = (say.BATCH, values, keys, origins)
        sent = process.link.send(message, draining=draining)
        if sent > 65536:
            self._rows_by_bytes = max(1, min(self.OUT_LIMIT, _BATCH_BYTES * len(values) // sent))

    # -- answers

    def _take_answer(self) -> None:
        process = self._process
        assert process is not None
        try:
            in_flight = self._in_flight
            # Of a row alone each process tells by itself what it does with it.
            answer = process.receive_any() if in_flight and in_flight[0].alone else process.link.receive()
        except LinkClosedError:
            self._revive()
            return
        except UnreadableMessageError as error:
            answer = salvage(error.pickled, error.buffers)
            batch = self._in_flight[0] if self._in_flight else None
            answer = self._ledger.mend(answer, batch, self._exploding)
        what = answer[0]
        if what == say.DONE:
            self._take_done(answer[1], answer[2], answer[3], answer[4], answer[5], None)
        elif what in (say.COUNTED, say.ALONE):
            self._take_done(*answer[1:7])
        elif what == say.ECHO:
            self._pump(own=True)
        elif what == say.ENTERING:
            self._entering = answer[1:]
            self._reached = max(self._reached, answer[1])
        elif what == say.LEFT:
            self._reached = max(self._reached, answer[1])
        elif what == say.PAUSING:
            self.pausing += 1 if answer[1] else -1
        elif what == say.REFUSED:
            self._take_refusal(answer[1])
        elif what == say.FAILED:
            self._fail(answer)
        else:
            assert what == say.FINISHED, what
            for report in answer[1]:
                self._ledger.apply(report)
            self._finished = True

    def _take_done(
        self,
        rows: int,
        busy: int,
        values: list[Any],
        keys: list[Hashable] | None,
        origins: list[int] | None,
        reports: Sequence[Report] | None,
    ) -> None:
        now = self._now()
        sunk = self.sunk if self.is_sink else 0
        origin = now
        in_flight, inbox = self._in_flight, self._inbox
        for report in reports or ():
            self._ledger.apply(report)
            if report.broken:
                self._ledger.give_up_broken(report, in_flight[0])
        if rows:
            batch = in_flight[0]
            origins_in = batch.origins
            origin = origins_in if isinstance(origins_in, int) else origins_in[batch.done]
            batch.done += rows
            inbox.under_way -= rows
            if batch.done >= len(batch.values):
                in_flight.popleft()
            if inbox.occupancy or self._waiting:
                # The process gets its next rows before anything else is done.
                self._pump(own=True)
        if values:
            packet = Packet(values, keys=keys, origins=origin, enqueued_ns=len(values) * now)
            if origins:
                packet.origins = origins[0] if origins.count(origins[0]) == len(origins) else origins
            self.counters.items_out += packet.size
            blocked = self._sender.send(packet)
            if blocked:
                self._blocked_ns += blocked
                self.counters.blocked_ns += blocked
        # Those that have told nothing have let each row through.
        operators = self.counters.operators
        for operator in operators if reports is None else operators[: reports[0].first]:
            operator.items_in += rows
            operator.items_out += rows
        if self.is_sink:
            self.chain.outputs.origins.extend(origins or ())
            self.count_latency(self.sunk - sunk, origin, now)
        if rows:
            limit = self._limit
            if rows >= limit.items or busy > limit.target_ns:
                limit.update(rows, busy)
                self._limit_queue()
            self._idle_deaths = 0
            self._count_time(busy)
            if in_flight:
                if inbox.occupancy and self._has_room:
                    self._pump(own=True)
            elif self._waiting or not self._open_inputs or inbox.notify_readable(self._pump_idle):
                self._pump(own=True)

    def _limit_queue(self) -> None:
        """A queue as short as it may be without the process having to wait: slow items should wait where any replica
        can still take them, or the last ones all wait for one.
        """
        if self.parts.node.parallelism > 1 and not self.parts.keys_in:
            self._inbox.limit(max(1, self.QUEUED_BATCHES * self._limit.items))

    def _count_time(self, busy: int) -> None:
        """The time since the last answer: so much of it in operators, the rest without work."""
        counters = self.counters
        now = self._now()
        elapsed = now - self._since - self._blocked_ns
        self._blocked_ns = 0
        self._since = now
        if busy > elapsed:
            busy = elapsed if elapsed > 0 else 0
        counters.busy_ns += busy
        counters.idle_ns += elapsed - busy if elapsed > busy else 0
        if not self._in_flight:
            self.activity = Activity.WAITING_INPUT

    def _fail(self, answer: Any) -> None:
        _, message, portable, reports = answer
        for report in reports:
            self._ledger.apply(report)
        error: PortableError = portable
        raised = error.restore()
        with self._lock:
            self._in_flight.clear()
            self._waiting.clear()
        self._end_process()
        if message:
            raise StepFailed(message, raised)
        raise raised

    def _take_refusal(self, reason: str) -> None:
        """The process could not unpickle a batch: find the rows that are to blame."""
        process = self._process
        assert process is not None
        with self._lock:
            lost, self._in_flight = list(self._in_flight), deque()
            self._inbox.under_way = 0
            batch = lost[0]
            again = [] if batch.alone else batch.rows()
            # The process throws away what was sent behind it, so that the order stays, until it is told to go on.
            self._waiting.extendleft(reversed([*again, *lost[1:]]))
            self._tell(process, say.ECHO)
        if batch.alone:
            self._refuse(batch, TransportError(f"the item cannot be rebuilt in the process: {reason}"))
        self._pump(own=True)

    # -- death

    def _revive(self) -> None:
        """The process has ended: a fresh one takes over what has no answer.

        Raises:
            OperatorError: it held state, or processes die without any work.
            StepFailed: it died of an item, and the contract of the operator says that the job fails.
        """
        self._check_aborted()
        process = self._process
        assert process is not None
        story = process.describe_end()
        ended = process.ended
        with self._lock:
            self._ready = False
            self._process = None
            lost, self._in_flight = list(self._in_flight), deque()
            self._inbox.under_way = 0
        process.discard()
        if self._ledger.keeps_state:
            raise OperatorError(f"the state of {self._names()} is lost: {story}")
        if not lost:
            self._idle_deaths += 1
            if self._idle_deaths >= _DEATHS_MAX:
                raise OperatorError(f"{self._names()} cannot go on: {self._idle_deaths} processes died idle; {story}")
        self._warn_of_instances()
        self._ledger.begin_anew()
        self.pausing = 0
        self._finishing = False
        blamed = bool(lost) and lost[0].alone and self._is_to_blame(lost[0], ended)
        again = [row for batch in lost[:1] for row in batch.rows()]
        if blamed:
            again = self._blame(lost[0], ProcessDiedError(f"its {story}"))
        self._waiting.extendleft(reversed([*again, *lost[1:]]))
        self._start_process()
        self._pump(own=True)
