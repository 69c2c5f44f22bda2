"""The progress line of a run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sage.kernel.api import JobHandle, JobState
from sage.kernel.telemetry import JobMetrics

from .quantities import format_count, format_duration_ms, format_rate

__all__ = ["PERIOD_S", "ProgressLine"]

PERIOD_S = 0.25
_RATE_OVER = 12  # updates: a rate over three seconds follows the run without jumping
_QUEUES_SHOWN = 3


class ProgressLine:
    """Says what a job is doing: items in and out, rate, errors, the fullest queues.

    Args:
        job: the job.
        now: a monotonic clock in seconds.
    """

    def __init__(self, job: JobHandle, now: Callable[[], float]) -> None:
        self._job = job
        self._now = now
        self._seen: deque[tuple[float, int]] = deque(maxlen=_RATE_OVER)

    def text(self) -> str:
        """The line of this moment."""
        job, metrics = self._job, self._job.metrics()
        if job.state in (JobState.CREATED, JobState.STARTING):
            return f"{job.name}: setting up"
        now = self._now()
        self._seen.append((now, metrics.items_out))
        begun, items = self._seen[0]
        rate = (metrics.items_out - items) / (now - begun) if now > begun else metrics.throughput
        parts = [
            f"{job.name}: draining" if job.state is JobState.DRAINING else job.name,
            format_duration_ms(metrics.elapsed_s * 1000),
            f"{format_count(metrics.items_in)} in",
            f"{format_count(metrics.items_out)} out",
            format_rate(rate),
            f"{format_count(metrics.errors)} errors",
        ]
        queues = describe_queues(metrics)
        if queues:
            parts.append(f"queues: {queues}")
        return "  ".join(parts)


def describe_queues(metrics: JobMetrics) -> str:
    """The fullest inboxes, replicas added up: `embed 12/64, generate 3/64`; "" when all are empty."""
    filled: dict[str, tuple[int, int]] = {}
    for replica in metrics.replicas:
        name = replica.task.rpartition("[")[0]
        depth, capacity = filled.get(name, (0, 0))
        filled[name] = (depth + replica.queue_depth, capacity + replica.queue_capacity)
    waiting = [(name, depth, capacity) for name, (depth, capacity) in filled.items() if depth]
    waiting.sort(key=lambda each: each[1] / max(1, each[2]), reverse=True)
    return ", ".join(f"{name} {depth}/{capacity}" for name, depth, capacity in waiting[:_QUEUES_SHOWN])
