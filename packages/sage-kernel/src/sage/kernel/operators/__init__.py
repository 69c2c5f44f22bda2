"""Operator functions: what users derive from and what the runtime hands them.

- `functions`: the bases `SourceFunction`, `MapFunction`, ...
- `context`: `self.ctx`: key, keyed state, logger, metrics
- `config`: configuration checked against a pydantic model when the pipeline is built
- `connected`, `shaping`, `batching`: operators on two streams; distinct, limit, sample, split; batch
- `services`: what operators call by name
- `specs`, `branches`: what operators of the library have in common; outputs beside the main stream
- `folds`: the folds that need no code of the user: count, sum, min, max, mean
- `factory`: from the user's code to the operator of one replica
"""

from __future__ import annotations

from .batching import BatchSpec
from .branches import BranchItem
from .config import validate_config
from .connected import CoMapFunction, CoMapSpec, JoinSpec
from .context import ContextError, OperatorContext, OperatorMetrics
from .factory import AggregateSpec, CallableSource, FunctionFactory, IterableSource
from .folds import BUILTIN_FOLDS, builtin_aggregate
from .functions import (
    AggregateFunction,
    BadRecord,
    FilterFunction,
    FlatMapFunction,
    Function,
    KeyByFunction,
    MapFunction,
    ReduceFunction,
    SinkFunction,
    SourceFunction,
)
from .intervals import LATE, IntervalJoinSpec
from .services import (
    Envelope,
    NoAnswerError,
    Requests,
    RespondSink,
    ServiceError,
    ServiceFunction,
    ServiceSpec,
    missing_service,
)
from .shaping import REST, DistinctSpec, FutureSpec, InterleaveSpec, LimitSpec, OrderedSpec, SampleSpec, SplitSpec
from .specs import BoundOperator, OperatorSpec

__all__ = [
    "BUILTIN_FOLDS",
    "LATE",
    "REST",
    "AggregateFunction",
    "AggregateSpec",
    "BadRecord",
    "BatchSpec",
    "BoundOperator",
    "BranchItem",
    "CallableSource",
    "CoMapFunction",
    "CoMapSpec",
    "ContextError",
    "DistinctSpec",
    "Envelope",
    "FilterFunction",
    "FlatMapFunction",
    "Function",
    "FunctionFactory",
    "FutureSpec",
    "InterleaveSpec",
    "IntervalJoinSpec",
    "IterableSource",
    "JoinSpec",
    "KeyByFunction",
    "LimitSpec",
    "MapFunction",
    "NoAnswerError",
    "OperatorContext",
    "OperatorMetrics",
    "OperatorSpec",
    "OrderedSpec",
    "ReduceFunction",
    "Requests",
    "RespondSink",
    "SampleSpec",
    "ServiceError",
    "ServiceFunction",
    "ServiceSpec",
    "SinkFunction",
    "SourceFunction",
    "SplitSpec",
    "builtin_aggregate",
    "missing_service",
    "validate_config",
]
