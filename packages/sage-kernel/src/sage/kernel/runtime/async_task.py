"""The worker loop on an event loop: many items of one replica in flight at once, up to its concurrency cap.

Items are worked on by slots, tasks that live as long as the replica. A slot takes a row, awaits the operators and looks for the next row itself, so an
operator that does not suspend costs no trip through the event loop. Of the slots without work one waits at the inbox (the leader), the
others wait to be woken (leader/followers). A slot that takes a row wakes at most one other; so slots come to life only as fast as
operators suspend.

Invariants: rows taken and not finished <= concurrency; rows of one key are worked on one after the other, in order of arrival.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from sage.kernel.packet import EndOfStream, Packet
from sage.platform import ChannelClosedError

from .edges import AsyncSender
from .steps import Interrupted, Step
from .task import Activity, Task

__all__ = ["AsyncTask"]


class _Row(NamedTuple):
    value: Any
    key: Hashable
    origin: int


class AsyncTask(Task):
    """A task that runs on an event loop of its own."""

    YIELD_AFTER_NS = 5_000_000

    async def run(self) -> None:
        """Entry of the worker: from set-up to tear-down.

        Raises:
            OperatorError: set-up or tear-down of an operator failed.
            StepFailed: an operator raised and its contract says that the job fails.
        """
        self._concurrency = self.parts.node.concurrency
        self._loop = asyncio.get_running_loop()
        self._pending: deque[_Row] = deque()
        self._parked: dict[Hashable, deque[_Row]] = {}
        self._in_flight = 0
        self._followers: deque[asyncio.Future[None]] = deque()
        self._waking = 0
        self._leading = False
        self._slots: list[asyncio.Task[None]] = []
        self._flush_scheduled = False
        self._blocked: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._yielded_at = self._since = self._now()
        self._sender = AsyncSender(self.parts.edges, self._backend)
        assert self.parts.inbox is not None
        self._inbox = self.parts.inbox
        self._reader = self._backend.async_reader(self._inbox)
        try:
            self.setup()
            self._on_ready(self.id)
            self.activity = Activity.WAITING_START
            await self._wait_go()
            await self._work()
        except (ChannelClosedError, Interrupted):
            if not self._signals.aborting.is_set():
                raise
        finally:
            self.activity = Activity.ENDED
            self.teardown()

    async def _wait_go(self) -> None:
        """Wait for the start of the sources, without a thread of its own: they are the only ones who feed the inbox."""
        while not self._signals.go.is_set() and not self._inbox.closed:
            await self._reader.readable()

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
        if self._failure is not None:
            if self._blocked is not None:
                self._blocked.cancel()
                await asyncio.gather(self._blocked, return_exceptions=True)
            raise self._failure
        await self._drain()
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

    # -- slots --------------------------------------------------------------------------------------------------------------

    def _add_slot(self) -> None:
        slot = self._loop.create_task(self._slot(), name=f"{self.id} slot {len(self._slots)}")
        self._waking += 1
        self._slots.append(slot)

    async def _slot(self) -> None:
        try:
            self._waking -= 1
            while await self._next_rows():
                row = self._pending.popleft()
                self._wake_one()
                await self._run_row(row)
        except asyncio.CancelledError:
            raise
        except BaseException as failure:  # handed to run(), which raises it in the worker
            self._end(failure)

    async def _next_rows(self) -> bool:
        """Wait until a row is pending; False when the stream has ended and nothing is left to do."""
        while True:
            if self._blocked is not None:
                await asyncio.shield(self._blocked)
                continue
            if self._pending or self._fetch():
                return True
            if not self._open_inputs:
                if self._in_flight == 0:
                    self._end(None)
                    return False
                await self._follow()
            elif self._leading or self._in_flight >= self._concurrency:
                await self._follow()
            else:
                await self._lead()

    def _fetch(self) -> bool:
        """Take rows from the inbox, as many as may be in flight; whether there is one now."""
        self._flush_now()
        if self._blocked is not None:
            return False
        room = self._concurrency - self._in_flight
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
            if self._pending:
                return True
            room = self._concurrency - self._in_flight
        return False

    def _take(self, packet: Packet) -> None:
        now = self._now()
        self.take_packet(packet, now)
        if self._in_flight == 0:
            self.counters.idle_ns += now - self._since
            self._since = now
            self.activity = Activity.WORKING
        self._in_flight += len(packet)
        origins = packet.origins
        each = [origins] * len(packet) if isinstance(origins, int) else origins
        if not self.parts.keys_in or packet.keys is None:
            self._pending.extend(_Row(value, None, origin) for value, origin in zip(packet.values, each, strict=True))
            return
        for value, key, origin in zip(packet.values, packet.keys, each, strict=True):
            row = _Row(value, key, origin)
            if key in self._parked:
                self._parked[key].append(row)
            else:
                self._parked[key] = deque()
                self._pending.append(row)

    async def _lead(self) -> None:
        self._leading = True
        try:
            await self._reader.readable()
        finally:
            self._leading = False

    async def _follow(self) -> None:
        woken = self._loop.create_future()
        self._followers.append(woken)
        try:
            await woken
            self._waking -= 1
        except asyncio.CancelledError:
            if not woken.done():
                self._followers.remove(woken)
            raise

    def _wake_one(self) -> None:
        """Somebody has to look at the inbox while this slot works."""
        if self._waking or self._leading:
            return
        if not self._pending and (not self._open_inputs or self._in_flight >= self._concurrency):
            return
        if self._followers:
            self._waking += 1
            self._followers.popleft().set_result(None)
        elif len(self._slots) < self._concurrency:
            self._add_slot()

    def _wake_all(self) -> None:
        while self._followers:
            self._waking += 1
            self._followers.popleft().set_result(None)

    # -- one row ------------------------------------------------------------------------------------------------------------

    async def _run_row(self, row: _Row) -> None:
        while True:
            await self.chain.process_async(row.value, row.key, row.origin, pause=self._pause, call=self._call)
            now = self._now()
            self._in_flight -= 1
            if self._in_flight == 0:
                self.counters.busy_ns += now - self._since
                self._since = now
                self.activity = Activity.WAITING_INPUT
                if not self._open_inputs:
                    self._wake_all()
            if self.is_sink:
                self.count_latency(0, row.origin, now)
            elif not self._flush_scheduled and self.chain.outputs.values:
                # Behind whatever else finishes in this turn of the loop, so that it travels in one packet.
                self._flush_scheduled = True
                self._loop.call_soon(self._flush_soon)
            if now - self._yielded_at > self.YIELD_AFTER_NS:
                await asyncio.sleep(0)
                self._yielded_at = self._now()
            if self._blocked is not None:
                await asyncio.shield(self._blocked)
            if not self.parts.keys_in:
                return
            waiting = self._parked[row.key]
            if not waiting:
                del self._parked[row.key]
                return
            row = waiting.popleft()
            self._wake_one()

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
        await asyncio.sleep(seconds)

    # -- outputs ------------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send on what the chain has put out."""
        self._flush_now()

    def _flush_soon(self) -> None:
        self._flush_scheduled = False
        try:
            self._flush_now()
        except ChannelClosedError as closed:
            self._end(closed)

    def _flush_now(self) -> None:
        """Send what fits; where it does not, `_blocked` waits for room and everybody waits for it."""
        if self._blocked is not None or self.is_sink:
            return
        packet = self.out_packet(0)
        if packet is not None:
            waiting = self._sender.try_send(packet)
            if waiting:
                self.activity = Activity.BLOCKED
                self._blocked = self._loop.create_task(self._finish_send(waiting), name=f"{self.id} sender")

    async def _finish_send(self, waiting: list[tuple[Any, Sequence[Any]]]) -> None:
        try:
            self.counters.blocked_ns += await self._sender.finish_send(waiting)
        except ChannelClosedError as closed:
            self._end(closed)
            return
        self.activity = Activity.WORKING if self._in_flight else Activity.WAITING_INPUT
        self._blocked = None
        # What was put out meanwhile goes next; nobody else may be awake to do it.
        self._flush_soon()

    async def _drain(self) -> None:
        self._flush_now()
        while self._blocked is not None:
            await self._blocked
            self._flush_now()
