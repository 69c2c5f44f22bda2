"""What a run records of itself: exact counters per replica and operator, sampled service times.

- `counters`: what a worker writes while it runs
- `heavy_hitters`: the most frequent keys
- `metrics`: the frozen snapshot that users, the summary and JSON see
"""

from __future__ import annotations

from .counters import OperatorCounters, ReplicaCounters
from .heavy_hitters import HeavyHitters
from .metrics import (
    HotKey,
    JobMetrics,
    LatencyMetrics,
    OperatorMetricsSnapshot,
    ReplicaMetrics,
    ReplicaReading,
    snapshot_metrics,
)

__all__ = [
    "HeavyHitters",
    "HotKey",
    "JobMetrics",
    "LatencyMetrics",
    "OperatorCounters",
    "OperatorMetricsSnapshot",
    "ReplicaCounters",
    "ReplicaMetrics",
    "ReplicaReading",
    "snapshot_metrics",
]
