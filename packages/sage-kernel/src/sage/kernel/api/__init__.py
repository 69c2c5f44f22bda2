"""The DSL: declare a pipeline, compile it, run it. No work is done while declaring.

- `local_environment`: `LocalEnvironment`
- `datastream`: `DataStream`, `KeyedStream`; `base_stream`: what all streams share
- `services`: `register_service`, `from_requests`, `respond`
- `shapes`, `batches`, `folds`, `connected`: split, distinct, limit, sample; batch; folds of keys; operators on two
  streams
- `future`, `feedback`: loops
- `loading`: a pipeline out of a Python file, settings applied
"""

from __future__ import annotations

from sage.kernel.graph import (
    Backoff,
    Batching,
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
    AggregateFunction,
    BadRecord,
    CoMapFunction,
    FilterFunction,
    FlatMapFunction,
    KeyByFunction,
    MapFunction,
    NoAnswerError,
    ReduceFunction,
    ServiceError,
    ServiceFunction,
    SinkFunction,
    SourceFunction,
)
from sage.kernel.runtime import JobHandle, JobResult, JobState

from .connected import ConnectedStreams
from .datastream import DataStream, KeyedStream
from .future import FutureStream
from .loading import load_pipeline
from .local_environment import EnvironmentConfig, LocalEnvironment
from .shapes import SplitStreams

__all__ = [
    "AggregateFunction",
    "Backoff",
    "BadRecord",
    "Batching",
    "CoMapFunction",
    "ConnectedStreams",
    "Contract",
    "DataStream",
    "DeadLettersError",
    "EnvironmentConfig",
    "ErrorPolicy",
    "Execution",
    "FilterFunction",
    "FlatMapFunction",
    "FutureStream",
    "IOSpec",
    "JobFailedError",
    "JobHandle",
    "JobResult",
    "JobState",
    "KeyByFunction",
    "KeyedStream",
    "LocalEnvironment",
    "MapFunction",
    "NoAnswerError",
    "OnError",
    "PipelineError",
    "Recovery",
    "ReduceFunction",
    "Resources",
    "ServiceError",
    "ServiceFunction",
    "SinkFunction",
    "SourceFunction",
    "SplitStreams",
    "StateKind",
    "StateSpec",
    "load_pipeline",
]
