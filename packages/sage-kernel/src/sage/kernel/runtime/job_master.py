"""The life of a job as a state machine: events and a time in, effects out. No threads, no clock of its own.

    CREATED -> STARTING -> RUNNING -> FINISHED
                   |          |-> DRAINING -> STOPPED
                   |          |-> FAILED / ABORTED   (from any state before an end; an error beats an abort)

Invariants: exactly one `Complete` is ever returned, and nothing after it; `OpenSources` only when all tasks are
set up; after `Abort` the job completes when all tasks have ended, or `abort_grace_s` later without those that
have not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = [
    "Abort",
    "AbortRequested",
    "Complete",
    "Effect",
    "Event",
    "FailRequested",
    "JobMaster",
    "JobState",
    "OpenSources",
    "Started",
    "StopRequested",
    "StopSources",
    "TaskEnded",
    "TaskReady",
    "TaskView",
    "Tick",
]


class JobState(StrEnum):
    """Where a job is in its life; the last four are ends."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    ABORTED = "aborted"

    @property
    def is_end(self) -> bool:
        """Whether the job has ended."""
        return self in _ENDS


_ENDS = frozenset({JobState.FINISHED, JobState.STOPPED, JobState.FAILED, JobState.ABORTED})


@dataclass(frozen=True, slots=True)
class TaskView:
    """What the watchdog sees of one task.

    Attributes:
        progress: anything that changes when the task does something.
        in_work: it is inside an operator (not waiting for input, for room, or for its source).
        queued: items in its inbox.
        doing: what it does, in words.
        pausing: items of it wait before a retry, as its contract asks: that is neither progress nor standstill.
        stack: tells where it is, as lines of a traceback; called only when that is to be shown, because looking at
            the stacks of many tasks takes longer than everything else here.
    """

    progress: Any
    in_work: bool
    queued: int
    doing: str
    stack: Callable[[], str] | None = None
    pausing: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    """The workers are being started."""


@dataclass(frozen=True, slots=True)
class TaskReady:
    """A task is set up."""

    task: str


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """A task's worker has ended, with or without an error."""

    task: str
    failure: BaseException | None = None


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Somebody wants the job to stop and drain; after `grace_s` it is aborted."""

    grace_s: float


@dataclass(frozen=True, slots=True)
class AbortRequested:
    """Somebody wants the job to end now."""

    reason: str


@dataclass(frozen=True, slots=True)
class FailRequested:
    """The job must not go on, for a reason that is no error of a task."""

    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; what the tasks look like."""

    tasks: Mapping[str, TaskView]


Event = Started | TaskReady | TaskEnded | StopRequested | AbortRequested | FailRequested | Tick


@dataclass(frozen=True, slots=True)
class OpenSources:
    """Let the sources begin."""


@dataclass(frozen=True, slots=True)
class StopSources:
    """Let the sources end; what they have emitted is worked off."""


@dataclass(frozen=True, slots=True)
class Abort:
    """Close all channels."""


@dataclass(frozen=True, slots=True)
class Complete:
    """The job has ended.

    Attributes:
        state: how.
        reason: why, when it is not FINISHED or STOPPED.
        failure: the first error, when it is FAILED.
        abandoned: tasks that had not ended when waiting for them was given up.
    """

    state: JobState
    reason: str = ""
    failure: BaseException | None = None
    abandoned: tuple[str, ...] = ()


Effect = OpenSources | StopSources | Abort | Complete


@dataclass(slots=True)
class _Stillness:
    """Since when nothing has moved."""

    since: float
    seen: dict[str, Any] = field(default_factory=dict)


class JobMaster:
    """Decides what happens to a job.

    Args:
        tasks: ids of its tasks.
        without_setup: those of them that have nothing to set up: nobody waits for them.
        watchdog_s: seconds without any progress, while there is work, after which it fails; None never.
        abort_grace_s: seconds that tasks have to end after an abort.

    Example:
        >>> master = JobMaster(["a[0]"], watchdog_s=None)
        >>> master.on(Started(), 0.0), master.on(TaskReady("a[0]"), 0.1)
        ([], [OpenSources()])
        >>> master.on(TaskEnded("a[0]"), 0.2)[0].state.value
        'finished'
    """

    def __init__(
        self,
        tasks: Iterable[str],
        *,
        without_setup: Iterable[str] = (),
        watchdog_s: float | None = 300.0,
        abort_grace_s: float = 5.0,
    ) -> None:
        self.state = JobState.CREATED
        self._running = set(tasks)
        self._setting_up = self._running.difference(without_setup)
        self._opened = False
        self._watchdog_s = watchdog_s
        self._abort_grace_s = abort_grace_s
        self._ending: JobState | None = None
        self._reason = ""
        self._failure: BaseException | None = None
        self._deadline: float | None = None
        self._aborted_at: float | None = None
        self._stopping = False
        self._still: _Stillness | None = None

    def on(self, event: Event, now: float) -> list[Effect]:
        """What is to be done about `event`, which happened at `now` (seconds of a monotonic clock)."""
        if self.state.is_end:
            return []
        match event:
            case Started():
                self.state = JobState.DRAINING if self._stopping else JobState.STARTING
                return self._maybe_open()
            case TaskReady(task):
                self._setting_up.discard(task)
                return self._maybe_open()
            case TaskEnded(task, failure):
                return self._task_ended(task, failure, now)
            case StopRequested(grace_s):
                if self._stopping or self._aborted_at is not None:
                    return []
                self._stopping = True
                self._deadline = now + grace_s
                if self.state is not JobState.CREATED:
                    self.state = JobState.DRAINING
                return [StopSources()]
            case AbortRequested(reason):
                return self._abort(JobState.ABORTED, reason, None, now)
            case FailRequested(reason):
                return self._abort(JobState.FAILED, reason, None, now)
            case Tick(tasks):
                return self._tick(tasks, now)

    def _maybe_open(self) -> list[Effect]:
        if self.state is JobState.CREATED or self._setting_up or self._aborted_at is not None or self._opened:
            return []
        self._opened = True
        if self.state is JobState.STARTING:
            self.state = JobState.RUNNING
        return [OpenSources()]

    def _task_ended(self, task: str, failure: BaseException | None, now: float) -> list[Effect]:
        self._running.discard(task)
        effects: list[Effect] = []
        if failure is not None:
            effects += self._abort(JobState.FAILED, f"task {task!r} failed", failure, now)
        if not self._running:
            effects.append(self._complete(()))
        return effects

    def _abort(self, ending: JobState, reason: str, failure: BaseException | None, now: float) -> list[Effect]:
        if failure is not None and self._failure is None:
            # An error beats an abort that somebody asked for: it is what they need to know.
            self._ending, self._reason, self._failure = ending, reason, failure
        elif self._ending is None:
            self._ending, self._reason = ending, reason
        if self._aborted_at is not None:
            return []
        self._aborted_at = now
        return [Abort()]

    def _complete(self, abandoned: tuple[str, ...]) -> Complete:
        self.state = self._ending or (JobState.STOPPED if self._stopping else JobState.FINISHED)
        return Complete(self.state, self._reason, self._failure, abandoned)

    def _tick(self, tasks: Mapping[str, TaskView], now: float) -> list[Effect]:
        if self._aborted_at is not None:
            if now - self._aborted_at >= self._abort_grace_s:
                return [self._complete(tuple(sorted(self._running)))]
            return []
        if self._deadline is not None and now >= self._deadline:
            return self._abort(JobState.ABORTED, "the grace period for draining is over" + _wait_for(tasks), None, now)
        if self._watchdog_s is not None and self.state in (
            JobState.RUNNING,
            JobState.DRAINING,
            JobState.STARTING,
        ):
            return self._watch(tasks, now, self._watchdog_s)
        return []

    def _watch(self, tasks: Mapping[str, TaskView], now: float, limit_s: float) -> list[Effect]:
        seen = {task: view.progress for task, view in tasks.items() if not view.pausing}
        alive = [view for task, view in tasks.items() if task in self._running]
        # Behind a pause queues fill up and wait rightly; then only who is inside an operator can hang.
        pausing = any(view.pausing for view in alive)
        work = any(not view.pausing and (view.in_work or (view.queued and not pausing)) for view in alive)
        if not work:
            # Stillness counts from when there is work: a source may be quiet as long as it likes.
            self._still = None
            return []
        if self._still is None or self._still.seen != seen:
            self._still = _Stillness(now, seen)
            return []
        still_s = now - self._still.since
        if still_s < limit_s:
            return []
        return self._abort(
            JobState.FAILED,
            f"no progress for {still_s:.3g} s although there is work (limit: watchdog_s={limit_s:g})"
            + _wait_for(tasks),
            None,
            now,
        )


def _wait_for(tasks: Mapping[str, TaskView]) -> str:
    """The wait-for picture: what each task does, the ones in an operator with their stack."""
    lines = []
    for task, view in tasks.items():
        if view.doing == "ended":
            continue
        lines.append(f"\n  {task}: {view.doing}, {view.queued} queued")
        if view.stack is not None:
            lines.append("".join(f"\n      {line}" for line in view.stack().rstrip().splitlines()))
    return ":" + "".join(lines) if lines else ""
