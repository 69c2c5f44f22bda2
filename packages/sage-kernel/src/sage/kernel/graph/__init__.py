"""Contracts and the two graphs; pure data, no threads, no user code is run.

- `contracts`: `Contract` and its parts
- `logical`: what the user declared; `loops`: what lies on a cycle
- `physical`: what runs: `ExecutionGraph`
- `errors`: the errors of the kernel
"""

from __future__ import annotations

from .contracts import (
    Backoff,
    Batching,
    Contract,
    ErrorPolicy,
    Execution,
    IOSpec,
    OnError,
    Recovery,
    Resources,
    StateKind,
    StateSpec,
)
from .errors import (
    DeadLettersError,
    JobFailedError,
    KernelError,
    OperatorError,
    PipelineError,
    TypeMismatchError,
    UnschedulableError,
)
from .logical import BaseTransformation, Emit, LogicalGraph, OperatorFactory, OperatorKind, SourceLocation
from .loops import EXHAUSTED, Loop, find_loops
from .physical import ExecutionGraph, Note, PhysicalEdge, QueueDescriptor, Routing, TaskNode, segments_of

__all__ = [
    "EXHAUSTED",
    "Backoff",
    "BaseTransformation",
    "Batching",
    "Contract",
    "DeadLettersError",
    "Emit",
    "ErrorPolicy",
    "Execution",
    "ExecutionGraph",
    "IOSpec",
    "JobFailedError",
    "KernelError",
    "LogicalGraph",
    "Loop",
    "Note",
    "OnError",
    "OperatorError",
    "OperatorFactory",
    "OperatorKind",
    "PhysicalEdge",
    "PipelineError",
    "QueueDescriptor",
    "Recovery",
    "Resources",
    "Routing",
    "SourceLocation",
    "StateKind",
    "StateSpec",
    "TaskNode",
    "segments_of",
    "TypeMismatchError",
    "UnschedulableError",
    "find_loops",
]
