"""What a run records of itself: exact counters per replica and operator, sampled service times.

- `counters`: what a worker writes while it runs
- `metrics`: the frozen snapshot that users, the summary and JSON see
"""

from __future__ import annotations

from .counters import OperatorCounters, ReplicaCounters
from .metrics import (
    JobMetrics,
    LatencyMetrics,
    OperatorMetricsSnapshot,
    ReplicaMetrics,
    ReplicaReading,
    snapshot_metrics,
)

__all__ = [
    "JobMetrics",
    "LatencyMetrics",
    "OperatorCounters",
    "OperatorMetricsSnapshot",
    "ReplicaCounters",
    "ReplicaMetrics",
    "ReplicaReading",
    "snapshot_metrics",
]
