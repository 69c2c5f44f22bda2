"""Operator functions: what users derive from and what the runtime hands them.

- `functions`: the bases `SourceFunction`, `MapFunction`, ...
- `context`: `self.ctx`: key, keyed state, logger, metrics
- `config`: configuration checked against a pydantic model when the pipeline is built
- `factory`: from the user's code to the operator of one replica
"""

from __future__ import annotations

from .config import validate_config
from .context import ContextError, OperatorContext, OperatorMetrics
from .factory import AggregateSpec, BoundOperator, CallableSource, FunctionFactory, IterableSource
from .functions import (
    BadRecord,
    FilterFunction,
    FlatMapFunction,
    Function,
    KeyByFunction,
    MapFunction,
    SinkFunction,
    SourceFunction,
)

__all__ = [
    "AggregateSpec",
    "BadRecord",
    "BoundOperator",
    "CallableSource",
    "ContextError",
    "FilterFunction",
    "FlatMapFunction",
    "Function",
    "FunctionFactory",
    "IterableSource",
    "KeyByFunction",
    "MapFunction",
    "OperatorContext",
    "OperatorMetrics",
    "SinkFunction",
    "SourceFunction",
    "validate_config",
]
