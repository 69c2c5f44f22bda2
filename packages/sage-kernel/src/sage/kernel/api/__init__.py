"""The DSL: declare a pipeline, compile it, run it. No work is done while declaring.

- `local_environment`: `LocalEnvironment`
- `datastream`: `DataStream`, `KeyedStream`
- `loading`: a pipeline out of a Python file, settings applied
"""

from __future__ import annotations

from sage.kernel.graph import (
    Backoff,
    Contract,
    DeadLettersError,
    ErrorPolicy,
    Execution,
    IOSpec,
    JobFailedError,
    OnError,
    PipelineError,
    Recovery,
    Resources,
    StateKind,
    StateSpec,
)
from sage.kernel.operators import (
    BadRecord,
    FilterFunction,
    FlatMapFunction,
    KeyByFunction,
    MapFunction,
    SinkFunction,
    SourceFunction,
)
from sage.kernel.runtime import JobHandle, JobResult, JobState

from .datastream import DataStream, KeyedStream
from .loading import load_pipeline
from .local_environment import EnvironmentConfig, LocalEnvironment

__all__ = [
    "Backoff",
    "BadRecord",
    "Contract",
    "DataStream",
    "DeadLettersError",
    "EnvironmentConfig",
    "ErrorPolicy",
    "Execution",
    "FilterFunction",
    "FlatMapFunction",
    "IOSpec",
    "JobFailedError",
    "JobHandle",
    "JobResult",
    "JobState",
    "KeyByFunction",
    "KeyedStream",
    "LocalEnvironment",
    "MapFunction",
    "OnError",
    "PipelineError",
    "Recovery",
    "Resources",
    "SinkFunction",
    "SourceFunction",
    "StateKind",
    "StateSpec",
    "load_pipeline",
]
