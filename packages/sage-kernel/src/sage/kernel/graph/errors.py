"""Errors of the kernel.

KernelError
├── PipelineError           the pipeline is wrong; found while building or compiling it, names the user's line
│   ├── TypeMismatchError   an operator's output does not fit the next one's input
│   └── UnschedulableError  a task fits nowhere
├── OperatorError           an operator raised while the job ran
├── JobFailedError          the job ended in FAILED; the message tells the whole story
└── DeadLettersError        `collect()` met items that could not be processed
"""

from __future__ import annotations

from typing import Any

from sage.common.errors import SageError

__all__ = [
    "DeadLettersError",
    "JobFailedError",
    "KernelError",
    "OperatorError",
    "PipelineError",
    "TypeMismatchError",
    "UnschedulableError",
]


class KernelError(SageError):
    """Base of the errors of `sage.kernel`."""


class PipelineError(KernelError):
    """The pipeline is wrong; the message names the operator and the line that declared it."""


class TypeMismatchError(PipelineError):
    """An operator's output type does not fit the input type of the next one."""


class UnschedulableError(PipelineError):
    """A task fits on no node; the message says what it asks for and what there is."""


class OperatorError(KernelError):
    """An operator raised (or could not be set up) while the job ran."""


class JobFailedError(KernelError):
    """The job failed. `result` is what it had done by then."""

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class DeadLettersError(KernelError):
    """Some items could not be processed and were set aside. `collected` holds the outputs of the others."""

    def __init__(self, message: str, collected: list[Any]) -> None:
        super().__init__(message)
        self.collected = collected
