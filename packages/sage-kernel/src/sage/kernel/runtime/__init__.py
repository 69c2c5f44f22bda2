"""Runs an ExecutionGraph: one worker per task, bounded queues between them.

- `job`: `JobHandle`, `start_job`: the shell that carries out what `job_master`, a state machine, decides
- `thread_task`, `async_task`: the worker loops; `task`: what they share; `task_factory`: makes their parts
- `chain`, `codegen`, `steps`: how a chain of operators runs; `edges`: how its outputs travel
- `places`, `place_books`, `place_origins`, `place_map`, `placed_tasks`: how an `ordered()` gets rows back into order
- `loops`, `loop_map`, `loop_tasks`, `laps`: when a loop has ended, who may enter it, how often an item has gone round
- `dead_letters`, `dead_letter_budget`, `failure`, `watch`, `result`: what went wrong, what it looks like, how it ended
- `calibration`, `lock_watch`: a short measurement of the operators before a run
"""

from __future__ import annotations

from .calibration import calibrate
from .dead_letters import DEAD_LETTERS_FILE, DeadLetter, DeadLetterStore, LetterState
from .job import JobHandle, JobOptions, start_job
from .job_master import JobState
from .result import JobResult

__all__ = [
    "DEAD_LETTERS_FILE",
    "DeadLetter",
    "DeadLetterStore",
    "JobHandle",
    "JobOptions",
    "JobResult",
    "JobState",
    "LetterState",
    "calibrate",
    "start_job",
]
