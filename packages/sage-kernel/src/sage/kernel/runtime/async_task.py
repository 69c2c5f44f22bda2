"""The worker loop on an event loop: many items of one replica in flight at once, up to its concurrency cap.

Items are worked on by slots, tasks that live as long as the replica. A slot takes a row, awaits the operators
and looks for the next row itself, so an operator that does not suspend costs no trip through the event loop.
Of the slots without work one waits at the inbox (the leader), the others wait to be woken (leader/followers).
A slot that takes a row wakes at most one other; so slots come to life only as fast as operators suspend.

Invariants: slots <= concurrency; rows taken and not finished <= concurrency, or what is worked off within 5 ms
    where operators answer at once; rows of one key are worked on one after the other, in
    order of arrival.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Sequence
from functools import partial
from itertools import repeat
from typing import Any

from sage.kernel.graph import OperatorError
from sage.kernel.packet import ALONE_FROM, EndOfStream, Packet
from sage.platform import ChannelClosedError

from .async_batches import RunningBatch
from .async_codegen import generate_async_chain
from .edges import AsyncSender
from .steps import Interrupted, Step
from .task import Activity, Task

__all__ = ["AsyncTask"]


_Row = tuple[Any, Hashable, int]
"""Value, key, origin."""


class AsyncTask(Task):
    """A task that runs on an event loop of its own.

    Attributes:
        stamps_rows: `row_done` is called for each row.
    """

    stamps_rows = False
    YIELD_AFTER_NS = 5_000_000
    TIMES_TOGETHER = 64

    async def run(self) -> None:
        """Entry of the worker: from set-up to tear-down.

        Raises:
            OperatorError: set-up or tear-down of an operator failed.
            StepFailed: an operator raised and its contract says that the job fails.
        """
        self._concurrency = self.parts.node.concurrency
        self._loop = asyncio.get_running_loop()
        self._pending: deque[_Row] = deque()
        self._batch: RunningBatch | None = None
        self._parked: dict[Hashable, deque[_Row]] = {}
        self.in_flight = 0
        self._followers: deque[asyncio.Future[None]] = deque()
        self._waking = 0
        self._leading = False
        self.covered = False
        self.timing = True
        self._slow = True
        self._rows_max = self._concurrency
        self._slots: list[asyncio.Task[None]] = []
        self.flush_scheduled = False
        self._finishing = False
        self.blocked: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._yielded_at = self._since = self._now()
        self._sender = self.new_sender()
        # One item at a time needs no such care, and then keeps the order of all its input.
        self._keyed = self.parts.keys_in and self._concurrency > 1
        outputs = self.chain.outputs
        self._values = outputs.values
        self._code = generate_async_chain(
            self.parts.steps,
            each_row=self._keyed or self.stamps_rows,
            keys_in=self.parts.keys_in,
            keys_out=self.parts.keys_out,
            outputs=(outputs.values, outputs.keys, outputs.origins),
            fail=self._fail,
            now=self._now,
        )
        assert self.parts.inbox is not None
        self._inbox = self.parts.inbox
        self._reader = self._backend.async_reader(self._inbox)
        try:
            self.setup()
            self._on_ready(self.id)
            await self._work()
        except (ChannelClosedError, Interrupted):
            if not self._signals.aborting.is_set():
                raise
        finally:
            self.activity = Activity.ENDED
            self.teardown()

    def new_sender(self) -> AsyncSender:
        """The sending end."""
        return AsyncSender(self.parts.edges, self._backend)

    async def _work(self) -> None:
        self._since = self._now()
        self._done = self._loop.create_future()
        self._signals.on_abort(self._abort)
        self.activity = Activity.WAITING_INPUT
        self._add_slot()
        try:
            await self._done
        finally:
            for slot in self._slots:
                slot.cancel()
            await asyncio.gather(*self._slots, return_exceptions=True)
        self._count_times()
        if self._failure is not None:
            if self.blocked is not None:
                self.blocked.cancel()
                await asyncio.gather(self.blocked, return_exceptions=True)
            raise self._failure
        await self._drain()
        self.count_waits()
        self._sender.end()

    def _abort(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._end, Interrupted())
        except RuntimeError:
            # The loop has ended between the two calls: nothing is left to abort.
            if not self._loop.is_closed():
                raise

    def _end(self, failure: BaseException | None) -> None:
        if not self._done.done():
            self._failure = failure
            self._done.set_result(None)

    # -- slots

    @property
    def coroutines(self) -> Sequence[asyncio.Task[None]]:
        """The slots."""
        return tuple(self._slots)

    def _add_slot(self) -> None:
        slot = self._loop.create_task(self._slot(), name=f"{self.id} slot {len(self._slots)}")
        self._count_waking(1)
        self._slots.append(slot)

    async def _slot(self) -> None:
        try:
            self._count_waking(-1)
            run_pending = self._run_pending if self._code is None else partial(self._code.run_pending, self)
            while await self._next_rows():
                batch, self._batch = self._batch, None
                if batch is not None:
                    await batch.run(self._loop)
                await run_pending(self._pending)
                if self._now() - self._yielded_at > self.YIELD_AFTER_NS:
                    # Operators that never suspend must not keep timers and other tasks of the loop waiting.
                    await asyncio.sleep(0)
                    self._yielded_at = self._now()
        except asyncio.CancelledError as cancelled:
            if self._done.done():
                raise
            # An operator has cancelled the task that it runs in: its item is lost, so the job must not go on.
            names = ", ".join(self.parts.node.chain)
            failure = OperatorError(f"an operator of {names} cancelled the task that the runtime runs it in")
            failure.__cause__ = cancelled
            self._end(failure)
        except BaseException as failure:  # handed to run(), which raises it in the worker
            self._end(failure)

    async def _next_rows(self) -> bool:
        """Wait until a row is pending; False when the stream has ended and nothing is left to do."""
        while True:
            if self.blocked is not None:
                await asyncio.shield(self.blocked)
            elif self._pending or self._fetch():
                return True
            elif self._is_blocked():
                # _fetch has sent what there was, and it did not fit.
                continue
            elif not self._open_inputs:
                if self.in_flight:
                    await self._follow()
                    continue
                if not self._finishing:
                    await self._finish()
                return False
            elif self._leading or self.in_flight >= self._concurrency:
                await self._follow()
            else:
                await self._lead()

    def _is_blocked(self) -> bool:
        return self.blocked is not None

    async def _finish(self) -> None:
        """The stream has ended and nothing is in flight: emit what folds have kept, then end."""
        self._finishing = True
        self.activity = Activity.WORKING
        await self.chain.finish_async(pause=self._pause, call=self._call, flush=self._flush_all, now=self._now)
        if self.is_sink:
            self.count_latency(0, 0, self._now())
        self._end(None)

    async def _flush_all(self) -> None:
        self._flush_now()
        while self.blocked is not None:
            await asyncio.shield(self.blocked)
            self._flush_now()

    def _fetch(self) -> bool:
        """Take rows from the inbox, as many as may be in flight; whether there is one now."""
        if len(self._values) >= self.OUT_LIMIT:
            # Fewer are sent in the loop's next turn; operators that do not suspend have none meanwhile.
            self._flush_now()
        self._count_times(self.TIMES_TOGETHER)
        if self.blocked is not None:
            return False
        room = self._rows_max - self.in_flight
        while room > 0 and self._open_inputs:
            message = self._inbox.try_get(room)
            if message is None:
                return False
            if isinstance(message, EndOfStream):
                self._open_inputs -= 1
                if not self._open_inputs:
                    self._wake_all()
                continue
            self._take(message)
            if self._pending or self._batch is not None:
                return True
            room = self._rows_max - self.in_flight
        return False

    def _take(self, packet: Packet) -> None:
        now = self._now()
        self.timing = self._slow or not self.counters.batches % self.TIMED_EVERY
        self.counters.items_in += packet.size
        self.counters.batches += 1
        self.count_wait(packet, now)
        if self.parts.keys_in:
            self.sample_keys(packet)
        if self.in_flight == 0:
            self.counters.idle_ns += now - self._since
            self._since = now
            self.activity = Activity.WORKING
        self.in_flight += len(packet)
        origins = packet.origins
        code = self._code
        if code is not None and code.batch is not None and isinstance(origins, int) and not self.timing:
            # The slot that has fetched works it off before the loop goes on.
            self._batch = RunningBatch(code.batch, self, packet.values, origins)
            return
        each = [origins] * len(packet) if isinstance(origins, int) else origins
        if not self._keyed or packet.keys is None:
            keys = packet.keys if self.parts.keys_in and packet.keys is not None else repeat(None)
            self._pending.extend(zip(packet.values, keys, each, strict=False))
            return
        for row in zip(packet.values, packet.keys, each, strict=True):
            key = row[1]
            if key in self._parked:
                self._parked[key].append(row)
            else:
                self._parked[key] = deque()
                self._pending.append(row)

    def take_back(self, rows: Sequence[Any], origin: int) -> None:
        """Rows of a batch whose slot is waiting in an operator, for other slots."""
        self.timing = True
        self._pending.extend(zip(rows, repeat(None), repeat(origin)))
        if self._values and not self.flush_scheduled:
            self.flush_scheduled = True
            self._loop.call_soon(self._flush_soon)
        self.wake_one()

    async def _lead(self) -> None:
        if not self.in_flight:
            self._count_times()
            self.count_waits()
        self._set_leading(True)
        try:
            await self._reader.readable()
        finally:
            self._set_leading(False)

    async def _follow(self) -> None:
        woken = self._loop.create_future()
        self._followers.append(woken)
        try:
            await woken
            self._count_waking(-1)
        except asyncio.CancelledError:
            if not woken.done():
                self._followers.remove(woken)
            raise

    def _count_waking(self, change: int) -> None:
        self._waking += change
        self.covered = self._leading or self._waking > 0

    def _set_leading(self, leading: bool) -> None:
        self._leading = leading
        self.covered = leading or self._waking > 0

    def wake_one(self) -> None:
        """Somebody has to look at the inbox while this slot works."""
        if self.covered:
            return
        if not self._pending and (not self._open_inputs or self.in_flight >= self._concurrency):
            return
        # One is enough while operators do not suspend: it will find nothing left. When others are in the
        # middle of theirs, operators do, and each pending row needs a slot of its own.
        others = self.in_flight - len(self._pending) - 1
        for _ in range(max(1, len(self._pending)) if others > 0 else 1):
            if self._followers:
                self._count_waking(1)
                self._followers.popleft().set_result(None)
            elif len(self._slots) < self._concurrency:
                self._add_slot()

    def _wake_all(self) -> None:
        while self._followers:
            self._count_waking(1)
            self._followers.popleft().set_result(None)

    # -- one row

    async def _run_pending(self, pending: deque[_Row]) -> None:
        """Work rows off step by step, where no code was generated for the chain."""
        while pending:
            value, key, origin = pending.popleft()
            if not self.covered:
                self.wake_one()
            try:
                await self.chain.process_async(value, key, origin, pause=self._pause, call=self._call)
            finally:
                self.in_flight -= 1
                self.row_done(key, origin)
            if self.blocked is not None:
                await asyncio.shield(self.blocked)

    def row_done(self, key: Hashable, origin: int) -> None:
        """A row is through: let the next one of its key go on, see that its outputs are sent, notice the end."""
        if self._keyed:
            self._release_key(key)
        if self.is_sink:
            self.count_latency(0, origin, self._now())
        elif not self.flush_scheduled and self._values:
            # Behind whatever else finishes in this turn of the loop, so that it travels in one packet.
            self.flush_scheduled = True
            self._loop.call_soon(self._flush_soon)
        if self.in_flight == 0:
            now = self._now()
            if self.blocked is None:
                self.counters.busy_ns += now - self._since
                self.activity = Activity.WAITING_INPUT
            self._since = now
            if not self._open_inputs:
                self._wake_all()

    def _release_key(self, key: Hashable) -> None:
        """The next row of this key may be worked on; it goes first, having waited longest."""
        waiting = self._parked[key]
        if waiting:
            self._pending.appendleft(waiting.popleft())
        else:
            del self._parked[key]

    async def _fail(self, index: int, error: Exception, value: Any, key: Hashable, origin: int) -> None:
        """Called from generated code: the operator of step `index` raised for `value`."""
        await self.chain.process_async(value, key, origin, pause=self._pause, call=self._call, index=index, error=error)

    def _count_times(self, at_least: int = 1) -> None:
        """Move the times that generated code has gathered into the counters; few at a time cost more each."""
        if self._code is None or len(self._code.times_ns[0]) < at_least:
            return
        mean_ns = 0
        for step, times in zip(self.parts.steps, self._code.times_ns, strict=True):
            if times:
                taken = sum(times)
                mean_ns += taken // len(times)
                step.counters.timed_ns += taken
                step.counters.timed_items += len(times)
                step.counters.service_ns.add_many(times)
                times.clear()
        self._slow = mean_ns >= self.TIMED_ALWAYS_NS
        # Rows of operators that answer at once never wait for a slot: many are taken together, as on a thread.
        quick = 0 if self._slow else min(self.OUT_LIMIT, self.YIELD_AFTER_NS // max(1, mean_ns))
        self._rows_max = max(self._concurrency, quick)

    async def _call(self, step: Step, value: Any, key: Hashable) -> list[tuple[Any, Hashable]]:
        start = self._now()
        timeout = step.io.timeout_s
        if timeout is None:
            outputs = await step.apply_async(value, key)
        else:
            try:
                async with asyncio.timeout(timeout) as limit:
                    outputs = await step.apply_async(value, key)
            except TimeoutError as error:
                if not limit.expired():
                    raise
                raise TimeoutError(
                    f"operator {step.name!r} did not answer within {timeout:g} s (contract.io.timeout_s)"
                ) from error
        elapsed = self._now() - start
        counters = step.counters
        counters.timed_ns += elapsed
        counters.timed_items += 1
        counters.service_ns.add(elapsed)
        return outputs

    async def _pause(self, seconds: float) -> None:
        self.pausing += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.pausing -= 1

    # -- outputs

    def flush(self) -> None:
        """Send on what the chain has put out."""
        self._flush_now()

    def _flush_soon(self) -> None:
        self.flush_scheduled = False
        try:
            self._flush_now()
        except ChannelClosedError as closed:
            self._end(closed)

    def _flush_now(self) -> None:
        """Send what fits; where it does not, `blocked` waits for room and everybody waits for it."""
        if self.blocked is not None or self.is_sink:
            return
        while self._values and self.blocked is None:
            waiting = self._sender.try_send(self._next_packet())
            if waiting:
                now = self._now()
                if self.in_flight:
                    self.counters.busy_ns += now - self._since
                else:
                    self.counters.idle_ns += now - self._since
                self._since = now
                self.activity = Activity.BLOCKED
                self.blocked = self._loop.create_task(self._finish_send(waiting), name=f"{self.id} sender")

    def _next_packet(self) -> Packet:
        """What has been put out; where that is long runs of one origin, the first of them, which then needs no column
        for it.
        """
        outputs, now = self.chain.outputs, self._now()
        values, keys, origins = outputs.values, outputs.keys, outputs.origins
        if len(origins) < ALONE_FROM * len(set(origins)):
            return self.fill_packet(Packet(()), 0, now)
        run = origins.count(origins[0])
        if run == len(origins) or origins[:run].count(origins[0]) < run:
            return self.fill_packet(Packet(()), 0, now)
        packet = Packet(values[:run], keys=keys[:run] if keys else None, origins=origins[0], enqueued_ns=run * now)
        del values[:run], keys[:run], origins[:run]
        self.counters.items_out += run
        return packet

    async def _finish_send(self, waiting: list[tuple[Any, Sequence[Any]]]) -> None:
        try:
            self.counters.blocked_ns += await self._sender.finish_send(waiting)
        except ChannelClosedError as closed:
            self._end(closed)
            # Whoever waits for room, `_drain` among them, must not take this for room.
            raise
        self.activity = Activity.WORKING if self.in_flight else Activity.WAITING_INPUT
        self.blocked = None
        # The time was blocked, so it was neither idle nor busy.
        self._since = self._now()
        # What was put out meanwhile goes next; nobody else may be awake to do it.
        self._flush_soon()

    async def _drain(self) -> None:
        self._flush_now()
        while self.blocked is not None:
            await self.blocked
            self._flush_now()
