"""The worker loop on an event loop for an `async` batched function: it gathers rows into lists and has several lists
under way at once.

Invariants: lists under way <= concurrency; rows taken whose outputs are not sent yet <= (concurrency + 1) x size; a row
whose key is in a list that is under way waits for the end of that list, so rows of one key stay in order.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Hashable, Sequence
from itertools import repeat
from typing import Any

from sage.kernel.graph import OperatorError
from sage.kernel.packet import EndOfStream, Packet
from sage.platform import ChannelClosedError

from .edges import AsyncSender
from .gather import Gather, Gathered, Row, alone_error, check_results
from .steps import Interrupted, Step, cancelled_call
from .task import Activity, Task

__all__ = ["AsyncListTask"]


class AsyncListTask(Task):
    """A task of one `async` batched function, on an event loop of its own."""

    async def run(self) -> None:
        """Entry of the worker: from set-up to tear-down.

        Raises:
            OperatorError: set-up or tear-down of the operator failed.
            StepFailed: it raised and its contract says that the job fails.
        """
        (self._step,) = self.parts.steps
        assert self._step.gather is not None
        assert self.parts.inbox is not None
        assert self._step.io.batching is not None
        self._gather: Gather = self._step.gather
        self._concurrency = self.parts.node.concurrency
        self._rows_max = (self._concurrency + 1) * self._step.io.batching.size
        self._loop = asyncio.get_running_loop()
        self._inbox = self.parts.inbox
        self._reader = self._backend.async_reader(self._inbox)
        self._reading: asyncio.Task[None] | None = None
        self._sender = self.new_sender()
        self._sending = asyncio.Lock()
        self._woken = self._loop.create_future()
        self._ended: asyncio.Future[BaseException | None] = self._loop.create_future()
        self._held = 0
        self._ready: deque[Gathered] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._parked: dict[Hashable, deque[Row]] = {}
        self._since = self._now()
        try:
            self.setup()
            self._on_ready(self.id)
            self.activity = Activity.WAITING_INPUT
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

    def flush(self) -> None:
        """Outputs are sent list by list."""

    async def _work(self) -> None:
        self._signals.on_abort(self._abort)
        reading = self._loop.create_task(self._read(), name=f"{self.id} reader")
        reading.add_done_callback(self._check)
        try:
            failure = await self._ended
        finally:
            tasks = [reading, *self._running, *([self._reading] if self._reading is not None else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if failure is not None:
            raise failure
        self.count_waits()
        self._sender.end()

    @property
    def coroutines(self) -> Sequence[asyncio.Task[None]]:
        """One for each list in work."""
        return tuple(self._running)

    def _abort(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._end, Interrupted())
        except RuntimeError:
            # The loop has ended between the two calls: nothing is left to abort.
            if not self._loop.is_closed():
                raise

    def _end(self, failure: BaseException | None) -> None:
        if not self._ended.done():
            self._ended.set_result(failure)

    def _check(self, task: asyncio.Task[None]) -> None:
        """One of this replica's own tasks has ended; if it failed, everything ends."""
        self._running.discard(task)
        if task.cancelled():
            self._end(OperatorError(f"operator {self._step.name!r} cancelled the task that the runtime runs it in"))
        elif (failure := task.exception()) is not None:
            self._end(failure)
        self._wake()

    # -- rows in

    async def _read(self) -> None:
        """Take rows as long as there is room, let lists go when they have to; ends with the stream."""
        while True:
            now = self._now()
            while (gathered := self._gather.take(now)) is not None:
                self._let_go(gathered)
            room = self._rows_max - self._held
            if room > 0 and self._open_inputs:
                message = self._inbox.try_get(min(room, self.OUT_LIMIT))
                if isinstance(message, EndOfStream):
                    self._open_inputs -= 1
                    continue
                if message is not None:
                    self._take(message)
                    continue
            if not self._open_inputs:
                while (gathered := self._gather.take()) is not None:
                    self._let_go(gathered)
                if not self._held:
                    self._end(None)
                    return
            await self._wait(room)

    async def _wait(self, room: int) -> None:
        self._woken = self._loop.create_future()
        if room > 0 and self._open_inputs and self._reading is None:
            self._reading = self._loop.create_task(self._reader.readable(), name=f"{self.id} inbox")
            self._reading.add_done_callback(self._has_read)
        due = self._gather.due_ns
        timer = None if due is None else self._loop.call_later(max(0, due - self._now()) / 1e9, self._wake)
        try:
            await self._woken
        finally:
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if not self._woken.done():
            self._woken.set_result(None)

    def _has_read(self, task: asyncio.Task[None]) -> None:
        self._reading = None
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._end(failure)
        self._wake()

    def _take(self, packet: Packet) -> None:
        self.counters.items_in += packet.size
        self.counters.batches += 1
        self._step.counters.items_in += packet.size
        self.count_wait(packet, self._now())
        self._held += packet.size
        origins = packet.origins
        each = repeat(origins, packet.size) if isinstance(origins, int) else origins
        keys = repeat(None, packet.size) if packet.keys is None else packet.keys
        for row in zip(packet.values, keys, each, strict=True):
            self._put(row)

    def _put(self, row: Row) -> None:
        if self.parts.keys_in and row[1] in self._parked:
            self._parked[row[1]].append(row)
            return
        gathered = self._gather.put(*row)
        if gathered is not None:
            self._let_go(gathered)

    # -- one list

    def _let_go(self, gathered: Gathered) -> None:
        """A list is closed: it starts as soon as there are fewer than `concurrency` under way."""
        if self.parts.keys_in:
            for key in gathered.keys:
                self._parked.setdefault(key, deque())
        self._ready.append(gathered)
        self._start_ready()

    def _start_ready(self) -> None:
        while self._ready and len(self._running) < self._concurrency:
            if not self._running:
                now = self._now()
                self.counters.idle_ns += now - self._since
                self._since = now
                self.activity = Activity.WORKING
            task = self._loop.create_task(self._run_list(self._ready.popleft()), name=f"{self.id} list")
            self._running.add(task)
            task.add_done_callback(self._check)

    async def _run_list(self, gathered: Gathered) -> None:
        rows = await self._work_off(gathered)
        self._step.counters.items_out += len(rows)
        outputs = self.chain.outputs
        for value, key, origin in rows:
            outputs.values.append(value)
            outputs.origins.append(origin)
            if self.parts.keys_out:
                outputs.keys.append(key)
        if self.parts.keys_in:
            waiting = [self._parked.pop(key) for key in dict.fromkeys(gathered.keys)]
            for parked in waiting:
                for row in parked:
                    self._put(row)
        await self._send()
        self._held -= len(gathered.values)
        current = asyncio.current_task()
        assert current is not None
        self._running.discard(current)
        if not self._running and not self._ready:
            now = self._now()
            self.counters.busy_ns += now - self._since
            self._since = now
            self.activity = Activity.WAITING_INPUT
        self._start_ready()

    async def _send(self) -> None:
        async with self._sending:
            while self.chain.outputs.values:
                waiting = self._sender.try_send(self.fill_packet(Packet(()), 0, self._now()))
                if waiting:
                    self.activity = Activity.BLOCKED
                    self.counters.blocked_ns += await self._sender.finish_send(waiting)
                    self.activity = Activity.WORKING

    async def _work_off(self, gathered: Gathered) -> list[Row]:
        """The outputs of a list, with retries; then item by item, so that only those are set aside that fail alone."""
        attempts = 0
        while True:
            attempts += 1
            try:
                return await self._call(self._step, gathered)
            except Exception as raised:  # the boundary to user code: it is the list's error
                error = raised
            if attempts > self._step.io.errors.retries:
                return await self._one_by_one(gathered, attempts, error)
            pause = self.chain.item_failed(self._step, gathered.values, None, attempts, error)
            assert pause is not None
            self.pausing += 1
            try:
                await asyncio.sleep(pause)
            finally:
                self.pausing -= 1

    async def _one_by_one(self, gathered: Gathered, attempts: int, error: Exception) -> list[Row]:
        if len(gathered.values) == 1:
            self.chain.item_failed(self._step, gathered.values[0], gathered.keys[0], attempts, error)
            return []
        self._step.counters.errors += 1
        rows: list[Row] = []
        for single in gathered.rows():
            try:
                rows += await self._call(self._step, single)
            except Exception as raised:  # the boundary to user code: it is the item's error
                told = alone_error(error, raised)
                self.chain.item_failed(self._step, single.values[0], single.keys[0], attempts + 1, told)
        return rows

    async def _call(self, step: Step, gathered: Gathered) -> list[Row]:
        start, timeout = self._now(), step.io.timeout_s
        try:
            async with asyncio.timeout(timeout) as limit:
                # A copy: the function may change the list, and a retry needs it as it was.
                results: Any = step.call(gathered.values[:])
                if inspect.isawaitable(results):
                    results = await results
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimeoutError(
                f"operator {step.name!r} did not answer within {timeout:g} s (contract.io.timeout_s)"
            ) from error
        except asyncio.CancelledError as cancelled:
            raise cancelled_call(step.name, cancelled) from cancelled
        items, elapsed = len(gathered.values), self._now() - start
        step.counters.timed_ns += elapsed
        step.counters.timed_items += items
        step.counters.service_ns.add(elapsed / items, items)
        outputs = check_results(step.name, results, items)
        return list(zip(outputs, gathered.keys, gathered.origins, strict=True))
