"""Runs a compiled pipeline: the thin shell around `JobMaster` that starts workers, passes events on and
carries effects out.
"""

from __future__ import annotations

import inspect
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage.common.errors import InvalidArgumentError
from sage.common.ids import new_id
from sage.kernel.graph import Execution, ExecutionGraph, JobFailedError, LogicalGraph, PipelineError, TaskNode
from sage.kernel.telemetry import JobMetrics, ReplicaReading, snapshot_metrics
from sage.platform import Backend, Worker

from . import job_master as jm
from .async_list_task import AsyncListTask
from .async_task import AsyncTask
from .dead_letter_budget import DeadLetterBudget
from .dead_letters import DeadLetterStore
from .envelopes import AnswerLetters
from .failure import describe_failure
from .gathering_task import GatheringTask
from .heap import HeldHeap
from .job_master import JobMaster, JobState
from .loop_tasks import create_loop_task
from .placed_tasks import create_placed_task
from .process_list_task import ProcessListTask
from .process_task import PROCESS_MODULES, ProcessTask
from .result import JobResult
from .services import ServiceHost
from .task import JobSignals, Task
from .task_factory import TaskFactory, create_channels
from .thread_task import ThreadTask
from .watch import view_task

__all__ = ["JobHandle", "JobOptions", "start_job"]

logger = logging.getLogger("sage.kernel.job")
_heap = HeldHeap()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """How a job is watched and ended.

    Attributes:
        home: folder of the dead letters.
        watchdog_s: seconds without progress, while there is work, after which the job fails; None never.
        grace_s: seconds that a stopped job has to drain.
        abort_grace_s: seconds that an aborted job waits for its tasks; those in an operator that does not
            return are then given up.
        hold_heap: keep the garbage collector away from what was there before the job, see `heap`.
        max_dead_letters: dead letters that the job may have, as a number or as a share of the items that its sources
            give ("1%"); with more it fails. None is no limit.
        retry_id: the retry of dead letters that the job is; "" for an ordinary one.

    Raises:
        InvalidArgumentError: a time is not above 0, or `max_dead_letters` is neither a number nor a share.
    """

    home: Path = Path(".sage")
    watchdog_s: float | None = 300.0
    grace_s: float = 30.0
    abort_grace_s: float = 5.0
    hold_heap: bool = True
    max_dead_letters: int | str | None = None
    retry_id: str = ""

    def __post_init__(self) -> None:
        DeadLetterBudget.parse(self.max_dead_letters)
        for name in ("watchdog_s", "grace_s", "abort_grace_s"):
            value = getattr(self, name)
            if value is None and name == "watchdog_s":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise InvalidArgumentError(f"{name} must be a number of seconds > 0, got {value!r}")


class JobHandle:
    """A submitted job.

    All methods may be called from any thread and as often as one likes.
    """

    TICK_S = 0.25
    LOOK_UP_S = 0.5

    def __init__(
        self,
        graph: ExecutionGraph,
        logical: LogicalGraph,
        backend: Backend,
        options: JobOptions,
        offsets: Mapping[str, list[Any]],
        answers: frozenset[str] | None = None,
    ) -> None:
        self.id = new_id("job")
        self.name = graph.name
        self.graph = graph
        self._logical = logical
        self._backend = backend
        self._options = options
        self._signals = JobSignals()
        self._budget = DeadLetterBudget.parse(options.max_dead_letters)
        self._dead_letters = DeadLetterStore(
            options.home,
            job_id=self.id,
            job=graph.name,
            retry_id=options.retry_id,
            budget=self._budget,
            on_over_budget=lambda reason: self._events.put(jm.FailRequested(reason)),
        )
        self._letters = self._dead_letters if answers is None else AnswerLetters(self._dead_letters, answers)
        self._events: queue.SimpleQueue[jm.Event] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._result: JobResult | None = None
        self._failure: BaseException | None = None
        self._begun_ns: int | None = None
        self._ended_ns: int | None = None
        self._tasks: dict[str, Task] = {}
        self._workers: dict[str, Worker] = {}
        self._working: set[str] = set()
        self._channels = create_channels(graph, backend)
        self._services = ServiceHost(
            logical.services, job=graph.name, on_ready=lambda ready: self._events.put(jm.TaskReady(ready))
        )
        for worker_id, entry in self._services.entries():
            self._create_worker(worker_id, entry)
        factory = TaskFactory(
            graph,
            logical,
            self._channels,
            backend,
            offsets,
            self._signals,
            services=self._services,
            fail=lambda reason: self._events.put(jm.FailRequested(reason)),
        )
        for node in graph.tasks:
            self._create(factory, node.id)
        self._master = JobMaster(
            self._workers,
            # Sources then begin while replicas that have nothing to set up are still being started.
            without_setup=self._workers.keys() - self._services.needs_setup - self._needing_setup(),
            watchdog_s=options.watchdog_s,
            abort_grace_s=options.abort_grace_s,
        )
        self._supervisor = threading.Thread(target=self._supervise, name=f"sage-job-{graph.name}", daemon=True)

    def _create(self, factory: TaskFactory, task_id: str) -> None:
        node = self.graph.task(task_id)
        task = self._tasks[task_id] = self._create_task(factory, node)
        self._working.add(task_id)
        assert isinstance(task, (AsyncTask, AsyncListTask, ThreadTask, ProcessTask))
        self._create_worker(task_id, task.run)

    def _create_worker(self, worker_id: str, entry: Callable[[], Any]) -> None:
        name = f"sage-{self.graph.name}-{worker_id}"

        def on_exit(worker: Worker) -> None:
            self._events.put(jm.TaskEnded(worker_id, worker.failure))

        on_loop = inspect.iscoroutinefunction(entry)
        make = self._backend.asyncio_worker if on_loop else self._backend.thread_worker
        self._workers[worker_id] = make(name, entry, on_exit)

    def _needing_setup(self) -> set[str]:
        return {task_id for task_id, task in self._tasks.items() if task.needs_setup}

    def _create_task(self, factory: TaskFactory, node: TaskNode) -> Task:
        shared: dict[str, Any] = {
            "backend": self._backend,
            "signals": self._signals,
            "dead_letters": self._letters,
            "on_ready": lambda ready: self._events.put(jm.TaskReady(ready)),
        }
        parts = factory.create(node)
        placed = factory.places.task_facts(node)
        looped = factory.loops.task_facts(node, parts.inbox)
        if node.execution is Execution.PROCESS:
            shared |= {
                "orders": factory.orders(node),
                "operators": [self._logical[name] for name in node.chain],
                "pool": self._backend.process_pool(PROCESS_MODULES),
                "services": self._services if self._logical.services else None,
            }
            batching = self._logical[node.chain[0]].contract.io.batching
            if batching is not None:
                shared["batching"] = batching
        if looped is not None:
            return create_loop_task(parts, self._logical[node.chain[0]].kind, **shared, **looped)
        if node.execution is Execution.PROCESS and placed is None:
            return (ProcessListTask if "batching" in shared else ProcessTask)(parts, **shared)
        if placed is not None:
            return create_placed_task(parts, **shared, **placed)
        gathers = parts.inbox is not None and any(step.gather is not None for step in parts.steps)
        if node.execution is Execution.ASYNC:
            return (AsyncListTask if gathers else AsyncTask)(parts, **shared)
        return (GatheringTask if gathers else ThreadTask)(parts, **shared)

    # -- the life of the job

    def start(self) -> None:
        """Start all workers; called once, by `start_job`."""
        self._signals.on_abort(self._close_channels)
        self._signals.on_abort(self._services.abort)
        self._supervisor.start()

    def _supervise(self) -> None:
        try:
            self._run_master()
        except BaseException as error:  # whatever it is: those who wait for the job must not wait for ever
            self._give_up(error)
        finally:
            if self._options.hold_heap:
                _heap.release()

    def _give_up(self, error: BaseException) -> None:
        """The job's own bookkeeping has failed: end everything and say so."""
        self._signals.abort()
        self._failure = error
        self._result = JobResult(
            job_id=self.id,
            name=self.name,
            state=JobState.FAILED,
            reason=describe_failure("the job's supervision failed", error),
            metrics=snapshot_metrics([], [], 0.0),
            dead_letters=self._dead_letters.added,
            dead_letters_path=str(self._dead_letters.path) if self._dead_letters.added else "",
        )
        self._ended.set()

    def _run_master(self) -> None:
        try:
            self._handle(jm.Started())
            for worker in self._workers.values():
                worker.start()
        except Exception as error:  # no more threads, for one; the job ends with this as its reason
            self._events.put(jm.TaskEnded("", error))
            for task, worker in self._workers.items():
                if worker.frame() is None:
                    self._events.put(jm.TaskEnded(task))
        ticks = self.TICK_S if self._options.watchdog_s is None else min(self.TICK_S, self._options.watchdog_s / 4)
        next_tick = time.monotonic() + ticks
        while not self._master.state.is_end:
            try:
                event = self._events.get(timeout=max(0.0, next_tick - time.monotonic()))
            except queue.Empty:
                next_tick = time.monotonic() + ticks
                event = jm.Tick(self._views())
                over = self._over_share()
                if over:
                    self._handle(jm.FailRequested(over))
            self._handle(event)

    def _views(self) -> dict[str, jm.TaskView]:
        views = {task: view_task(self._tasks[task], self._workers[task]) for task in self._tasks}
        return views | self._services.views(self._workers)

    def _handle(self, event: jm.Event) -> None:
        if isinstance(event, jm.TaskEnded):
            self._working.discard(event.task)
            if not self._working:
                # Nobody is left who could call one.
                self._services.close()
        for effect in self._master.on(event, time.monotonic()):
            self._carry_out(effect)

    def _carry_out(self, effect: jm.Effect) -> None:
        match effect:
            case jm.OpenSources():
                self._begun_ns = self._backend.clock.monotonic_ns()
                self._signals.go.set()
            case jm.StopSources():
                self._signals.stop()
            case jm.Abort():
                self._signals.abort()
            case jm.Complete():
                self._complete(effect)

    def _close_channels(self) -> None:
        for channel in self._channels.values():
            channel.close()

    def _over_share(self, *, ended: bool = False) -> str:
        """Why the job must fail when too large a share of its items are dead letters; "" while it is not."""
        if self._budget.share is None or not self._dead_letters.added:
            return ""
        letters, items = self._dead_letters.added, self.metrics().items_in
        if not self._budget.is_over_share(letters, items, ended=ended):
            return ""
        return self._budget.explain(letters, self._dead_letters.errors, items)

    def _complete(self, ending: jm.Complete) -> None:
        self._ended_ns = self._backend.clock.monotonic_ns()
        for task, worker in self._workers.items():
            if task not in ending.abandoned and worker.frame() is not None:
                worker.join()
        self._failure = ending.failure
        reason = ending.reason
        if ending.failure is not None:
            reason = describe_failure(ending.reason, ending.failure)
        if ending.abandoned:
            reason += f"; given up, because they did not end: {', '.join(ending.abandoned)}"
        state = ending.state
        if state in (JobState.FINISHED, JobState.STOPPED):
            over = self._over_share(ended=True)
            state, reason = (JobState.FAILED, over) if over else (state, reason)
        self._dead_letters.close()
        added = self._dead_letters.added
        self._result = JobResult(
            job_id=self.id,
            name=self.name,
            state=state,
            reason=reason,
            metrics=self.metrics(),
            dead_letters=added,
            dead_letters_path=str(self._dead_letters.path) if added else "",
            offsets=self._offsets(),
        )
        if added:
            logger.warning(
                "%s: %d item(s) could not be processed and were set aside in %s",
                self.name,
                added,
                self._dead_letters.path,
            )
        self._ended.set()

    def _offsets(self) -> dict[str, list[Any]]:
        offsets: dict[str, list[Any]] = {}
        for task in self._tasks.values():
            if task.parts.source is not None:
                offsets.setdefault(task.parts.node.chain[0], []).append(task.offset)
        return offsets

    # -- for users

    @property
    def state(self) -> JobState:
        """Where the job is in its life."""
        return self._master.state if self._result is None else self._result.state

    @property
    def result(self) -> JobResult | None:
        """What the job was; None while it runs."""
        return self._result

    @property
    def first_dead_letter(self) -> Any:
        """The first item that was set aside in this run, None without any."""
        return self._dead_letters.first

    def wait(self, timeout_s: float | None = None) -> JobResult:
        """Wait for the end.

        Raises:
            JobFailedError: the job failed; the message says where and why, `result` what it had done.
            TimeoutError: it has not ended after `timeout_s` seconds; it goes on.
        """
        if timeout_s is None:
            # A signal may be taken by whichever thread is in a system call that looks for signals, such as one that
            # starts a process. That wakes nobody here, and only the main thread runs handlers: it has to come by.
            while not self._ended.wait(self.LOOK_UP_S):
                pass
        elif not self._ended.wait(timeout_s):
            raise TimeoutError(f"job {self.name!r} has not ended after {timeout_s:g} s; it goes on")
        result = self._result
        assert result is not None
        if result.state is JobState.FAILED:
            raise JobFailedError(f"job {self.name!r} failed: {result.reason}", result) from self._failure
        return result

    def stop(self, grace_s: float | None = None) -> None:
        """Let the sources end and the rest be worked off; after `grace_s` seconds (default: the job's option)
        it is aborted.

        Returns at once; a second call changes nothing.
        """
        self._events.put(jm.StopRequested(self._options.grace_s if grace_s is None else grace_s))

    def abort(self, reason: str = "aborted") -> None:
        """End now; items in queues are dropped. Returns at once."""
        self._events.put(jm.AbortRequested(reason))

    def metrics(self) -> JobMetrics:
        """What the job has done so far."""
        now = self._ended_ns or self._backend.clock.monotonic_ns()
        elapsed_s = 0.0 if self._begun_ns is None else (now - self._begun_ns) / 1e9
        names = [operator.name for operator in self._logical.transformations]
        return snapshot_metrics(names, [_reading(task) for task in self._tasks.values()], elapsed_s)


def _reading(task: Task) -> ReplicaReading:
    inbox, parts = task.parts.inbox, task.parts
    return ReplicaReading(
        task=task.id,
        counters=task.counters,
        is_source=parts.source is not None,
        is_sink=task.is_sink,
        queue_depth=0 if inbox is None else inbox.occupancy,
        queue_depth_max=0 if inbox is None else inbox.peak_occupancy,
        queue_capacity=0 if inbox is None else inbox.spec.capacity,
        user_counters=task.user_counters,
    )


def start_job(
    graph: ExecutionGraph,
    logical: LogicalGraph,
    backend: Backend,
    options: JobOptions | None = None,
    offsets: Mapping[str, list[Any]] | None = None,
    answers: frozenset[str] | None = None,
) -> JobHandle:
    """Start a compiled pipeline and return at once. `answers` names the operators that lead to the answer, where it
    answers requests.

    Raises:
        PipelineError: an operator cannot be made, or `offsets` do not fit the sources.
    """
    for name, given in (offsets or {}).items():
        replicas = [task for task in graph.tasks if task.chain[0] == name and task.queue is None]
        if not replicas:
            sources = ", ".join(sorted({task.chain[0] for task in graph.tasks if task.queue is None}))
            raise PipelineError(f"offsets name an unknown source {name!r}; there are: {sources}")
        if len(replicas) != len(given):
            raise PipelineError(
                f"offsets of {name!r} must be a list with one entry for each of its {len(replicas)} "
                f"replica(s), got {given!r}"
            )
    options = options or JobOptions()
    if options.hold_heap:
        # Before anything is made for the job: what is made here would be what calls for a collection.
        _heap.hold()
    try:
        job = JobHandle(graph, logical, backend, options, offsets or {}, answers)
        job.start()
    except BaseException:  # nobody else will give the heap back
        if options.hold_heap:
            _heap.release()
        raise
    return job
