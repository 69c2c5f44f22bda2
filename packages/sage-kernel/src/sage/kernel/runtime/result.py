"""What a job was, once it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sage.kernel.telemetry import JobMetrics

from .job_master import JobState

__all__ = ["JobResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """How a job ended and what it did.

    Attributes:
        job_id: id of this run.
        name: name of the pipeline.
        state: FINISHED, STOPPED, FAILED or ABORTED.
        reason: why it failed or was aborted, in full; "" otherwise.
        metrics: what it did.
        dead_letters: items that were set aside.
        dead_letters_path: the store they are in, "" when there are none.
        offsets: by source name, the offset that each replica has reached: `submit(offsets=...)` goes on
            there.
    """

    job_id: str
    name: str
    state: JobState
    reason: str
    metrics: JobMetrics
    dead_letters: int
    dead_letters_path: str = ""
    offsets: Mapping[str, list[Any]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether it ran to its end (or was stopped and drained) and no item was set aside."""
        return self.state in (JobState.FINISHED, JobState.STOPPED) and not self.dead_letters
