"""What every task has, whichever vehicle runs it: its parts, its life cycle, its place in the job."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sage.kernel.graph import OperatorError, TaskNode
from sage.kernel.operators import Function, OperatorContext, SourceFunction
from sage.kernel.packet import Packet
from sage.kernel.telemetry import ReplicaCounters
from sage.platform import Backend, Channel

from .chain import Chain, DeadLetterSink
from .codegen import ChainShape
from .edges import OutputEdge
from .steps import Interrupted, Step

__all__ = ["Activity", "BatchLimit", "JobSignals", "Task", "TaskParts"]


logger = logging.getLogger("sage.kernel.task")


class Activity(StrEnum):
    """What a task is doing; the watchdog and the live view read it."""

    SETUP = "setting up"
    OPENING = "waiting for its source"
    WAITING_START = "waiting for the others to be set up"
    WAITING_INPUT = "waiting for input"
    WORKING = "working"
    BLOCKED = "waiting for room downstream"
    ENDED = "ended"


class JobSignals:
    """What the job tells all of its tasks: begin, stop, abort."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.aborting = threading.Event()
        # Lists, because generated code and generators test them per item: empty is false.
        self.stopping: list[bool] = []
        self.aborted: list[bool] = []
        self._sources: dict[str, list[bool]] = {}
        self._lock = threading.Lock()
        self._on_abort: list[Callable[[], None]] = []
        self._on_stop: list[Callable[[], None]] = []

    def on_abort(self, call: Callable[[], None]) -> None:
        """Have `call` called when the job is aborted, at once if it is already."""
        with self._lock:
            if not self.aborting.is_set():
                self._on_abort.append(call)
                return
        call()

    def on_stop(self, call: Callable[[], None]) -> None:
        """Have `call` called whenever a source has to end, for whoever waits and must look up then."""
        with self._lock:
            self._on_stop.append(call)

    def source(self, name: str) -> list[bool]:
        """A list that is not empty when this source has to end, alone or with all others."""
        with self._lock:
            return self._sources.setdefault(name, [True] if self.stopping else [])

    def end_source(self, name: str) -> None:
        """Let one source end; what it has emitted is worked off."""
        stopping = self.source(name)
        if not stopping:
            stopping.append(True)
        self._tell_stop()

    def stop(self) -> None:
        """Sources end; what they have emitted is worked off."""
        with self._lock:
            if not self.stopping:
                self.stopping.append(True)
            for stopping in self._sources.values():
                if not stopping:
                    stopping.append(True)
        self._tell_stop()

    def _tell_stop(self) -> None:
        with self._lock:
            calls = tuple(self._on_stop)
        for call in calls:
            call()

    def abort(self) -> None:
        """Everybody ends now."""
        with self._lock:
            if self.aborting.is_set():
                return
            self.aborting.set()
            self.aborted.append(True)
            calls, self._on_abort = self._on_abort, []
        self.stop()
        self.go.set()
        for call in calls:
            call()

    def pause(self, seconds: float) -> None:
        """Wait before a retry.

        Raises:
            Interrupted: the job is aborted meanwhile.
        """
        if self.aborting.wait(seconds):
            raise Interrupted


@dataclass(slots=True, kw_only=True)
class TaskParts:
    """What a task is made of.

    Attributes:
        node: its place in the plan.
        source: the source function, None for a task with an inbox.
        source_options: `blocking` and `timed` of the source.
        offset: where the source begins, None for the beginning.
        steps: the operators, source excluded.
        functions: name, function object and context of what is to be set up and torn down, in order.
        inbox: its channel, None for a source.
        producers: how many replicas feed the inbox.
        sides: for each input, which stream of the first operator it is; empty where that does not ask.
        tags: for each input, which stream of the first operator its items are of, where they do not bring that along.
        side_producers: how many replicas of each of these streams have not ended.
        edges: where its outputs go.
        keys_in: items come with a key.
        keys_out: items leave with a key.
    """

    node: TaskNode
    counters: ReplicaCounters
    source: SourceFunction[Any] | None = None
    source_options: Mapping[str, Any] = field(default_factory=dict)
    offset: Any = None
    steps: Sequence[Step] = ()
    functions: Sequence[tuple[str, Function, OperatorContext]] = ()
    inbox: Channel[Any] | None = None
    producers: int = 0
    sides: Sequence[int] = ()
    tags: Sequence[int] = ()
    side_producers: dict[int, int] = field(default_factory=dict)
    edges: Sequence[OutputEdge] = ()
    keys_in: bool = False
    keys_out: bool = False


class BatchLimit:
    """How many items to take at once: more while a batch is quick, one at a time for slow operators.

    A batch is the unit in which a task looks up: for stop, for its counters, for the load that routers see.
    So it is held near `target_ns`, while it grows enough that hand-over costs do not show.

    Example:
        >>> limit = BatchLimit(maximum=4)
        >>> [limit.update(limit.items, 1000) for _ in range(3)]
        [2, 4, 4]
        >>> limit.update(4, 80_000_000)
        1
    """

    __slots__ = ("items", "maximum", "target_ns")

    def __init__(self, maximum: int = 1024, target_ns: int = 5_000_000) -> None:
        self.items = 1
        self.maximum = maximum
        self.target_ns = target_ns

    def update(self, items: int, elapsed_ns: int) -> int:
        """A batch of `items` took `elapsed_ns`; the limit for the next one."""
        if elapsed_ns > self.target_ns:
            per_item = elapsed_ns / max(1, items)
            self.items = max(1, min(self.items, int(self.target_ns / per_item)))
        elif items >= self.items and elapsed_ns * 2 < self.target_ns:
            self.items = min(self.maximum, self.items * 2)
        return self.items


class Task(ABC):
    """A running TaskNode. `run` (or its `async` form) is the entry of a worker.

    Attributes:
        is_sink: whether items end here.
        activity: what it is doing at this moment.
        offset: how far its source has come, None for a task without a source.
        pausing: how many of its items wait before a retry.
    """

    # Times below this per item are not worth two clock readings per operator; there one batch in
    # `TIMED_EVERY` is a small timed one.
    TIMED_ALWAYS_NS = 20_000
    TIMED_EVERY = 16
    TIMED_ITEMS = 16
    OUT_LIMIT = 1024
    WAITS_TOGETHER = 512
    # Of so many packets the first keys of one are looked at.
    KEYS_EVERY = 4
    KEYS_TOGETHER = 16

    def __init__(
        self,
        parts: TaskParts,
        *,
        backend: Backend,
        signals: JobSignals,
        dead_letters: DeadLetterSink,
        on_ready: Callable[[str], None],
    ) -> None:
        self.parts = parts
        self.counters = parts.counters
        self.is_sink = not parts.edges
        self.activity = Activity.SETUP
        self.offset: Any = parts.offset
        self.pausing = 0
        self._signals = signals
        self._backend = backend
        self._now = backend.clock.monotonic_ns
        self._on_ready = on_ready
        self._attached: list[Function] = []
        self._set_up: list[tuple[str, Function]] = []
        self._open_inputs = parts.producers
        self._waits: list[int] = []
        self._stopping = signals.stopping if parts.source is None else signals.source(parts.node.chain[0])
        self.chain = Chain(
            parts.steps,
            source=parts.counters.operators[0] if parts.source is not None else None,
            shape=ChainShape(
                keys_in=parts.keys_in,
                keys_out=parts.keys_out,
                records=bool(parts.source_options.get("records", False)),
                stamped=any(step.gather is not None for step in parts.steps),
            ),
            dead_letters=dead_letters,
            flush=self.flush,
            pause=self._pause_thread,
            now=self._now,
            replica_index=parts.node.replica_index,
            out_limit=self.OUT_LIMIT,
            aborting=signals.aborted,
            stopping=self._stopping,
            seed=parts.node.replica_index,
        )

    @property
    def id(self) -> str:
        """Task id."""
        return self.parts.node.id

    @property
    def user_counters(self) -> dict[str, dict[str, float]]:
        """What its operators have counted themselves, by name."""
        return {name: context.metrics.snapshot() for name, _, context in self.parts.functions}

    @property
    def needs_setup(self) -> bool:
        """Whether one of its functions has a `setup` of its own."""
        return any(type(function).setup is not Function.setup for _, function, _ in self.parts.functions)

    @property
    def doing(self) -> str:
        """What it is doing, in words."""
        return str(self.activity)

    @property
    def coroutines(self) -> Sequence[asyncio.Task[None]]:
        """Those in which it calls its operators; none of a task that calls them on its thread."""
        return ()

    def _pause_thread(self, seconds: float) -> None:
        self.pausing += 1
        try:
            self._signals.pause(seconds)
        finally:
            self.pausing -= 1

    @abstractmethod
    def flush(self) -> None:
        """Send on what the chain has put out."""

    def setup(self) -> None:
        """Set all functions up, in order.

        Raises:
            OperatorError: one of them raised; the message names it.
        """
        for name, function, context in self.parts.functions:
            try:
                function.attach(context)
                self._attached.append(function)
                function.setup()
            except Exception as error:  # the boundary to user code
                raise OperatorError(f"setup of operator {name!r} failed: {type(error).__name__}: {error}") from error
            self._set_up.append((name, function))

    def teardown(self) -> None:
        """Tear down what was set up, last first; each one is called even if one before it raised.

        Raises:
            OperatorError: one of them raised, and the task does not end with another error already.
        """
        failed: OperatorError | None = None
        while self._set_up:
            name, function = self._set_up.pop()
            try:
                function.teardown()
            except BaseException as error:  # also a SystemExit must not keep the others from being torn down
                failed = OperatorError(f"teardown of operator {name!r} failed: {type(error).__name__}: {error}")
                failed.__cause__ = error
        while self._attached:
            self._attached.pop().detach()
        if failed is None:
            return
        if sys.exc_info()[1] is None:
            raise failed
        # The task ends with an error already: that one is the reason, this one must not stand in its place.
        logger.warning("%s", failed, exc_info=failed)

    def sample_keys(self, packet: Packet) -> None:
        """Look which keys come, so that a hot one can be named."""
        if packet.keys is not None and not self.counters.batches % self.KEYS_EVERY:
            self.counters.keys.add_many(packet.keys[: self.KEYS_TOGETHER])

    def count_wait(self, packet: Packet, start: int) -> None:
        """Count how long the items of a packet have waited in the inbox."""
        wait = max(0, packet.size * start - packet.enqueued_ns)
        self.counters.queue_wait_ns_sum += wait
        self.counters.queue_wait_ns.add(wait / packet.size, packet.size)

    def count_waits(self) -> None:
        """Count the waits of items that have travelled alone; they are gathered, because one at a time they
        cost more.
        """
        if self._waits:
            waits = [max(0, wait) for wait in self._waits]
            self._waits.clear()
            self.counters.queue_wait_ns_sum += sum(waits)
            self.counters.queue_wait_ns.add_many(waits)

    def fill_packet(self, packet: Packet, origin: int, now: int) -> Packet:
        """Put what the chain has put out into `packet`, whatever it held; the output lists are emptied."""
        outputs = self.chain.outputs
        values = outputs.values
        packet.values = values[:]
        packet.size = size = len(values)
        values.clear()
        packet.shared = False
        packet.origins = origin
        packet.enqueued_ns = size * now
        if outputs.origins:
            origins = outputs.origins
            # One number for all where it is the same: whoever takes the packet then needs no column for it.
            packet.origins = origins[0] if origins.count(origins[0]) == size else origins[:]
            origins.clear()
        if outputs.keys:
            packet.keys = outputs.keys[:]
            outputs.keys.clear()
        else:
            packet.keys = None
        self.counters.items_out += size
        return packet

    def count_latency(self, sunk: int, origin: int, end: int) -> None:
        """`sunk` items of one origin (or those whose origins the chain has put out) have reached their
        sink.
        """
        origins = self.chain.outputs.origins
        if origins:
            self.counters.latency_ns.add_many([max(0, end - begun) for begun in origins])
            origins.clear()
        elif sunk:
            self.counters.latency_ns.add(max(0, end - origin), sunk)

    @property
    def sunk(self) -> int:
        """Items that its last operator has taken so far, where that is a sink."""
        return self.counters.operators[-1].items_out
