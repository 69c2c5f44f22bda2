"""The frozen picture of a run: what users, the summary and JSON see. All times are in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sage.common.quantiles import QuantileSketch

from .counters import ReplicaCounters

__all__ = [
    "HotKey",
    "JobMetrics",
    "LatencyMetrics",
    "OperatorMetricsSnapshot",
    "ReplicaMetrics",
    "ReplicaReading",
    "snapshot_metrics",
]

# Fewer sampled keys say little of how often each comes.
_KEYS_MIN = 100
_KEY_TEXT_MAX = 60
NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyMetrics:
    """Distribution of a time in ms; `count` says how many samples it rests on, and without any the times are
    0.
    """

    count: int = 0
    mean_ms: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaMetrics:
    """One replica (task).

    Attributes:
        task: task id.
        items_in: items taken from its inbox, or made by its source.
        items_out: items sent on.
        busy_ms: time in operators; for an `async` replica time with at least one item in flight.
        blocked_ms: time waiting for room downstream.
        idle_ms: time waiting for input.
        queue_depth: items in its inbox now.
        queue_depth_max: most items that were ever in it.
        queue_capacity: its bound, 0 for a source.
    """

    task: str
    items_in: int
    items_out: int
    busy_ms: float
    blocked_ms: float
    idle_ms: float
    queue_depth: int
    queue_depth_max: int
    queue_capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HotKey:
    """A key that comes so often that the replica that owns it has more to do than the others.

    Attributes:
        key: its representation, shortened.
        share: of the operator's items, 0 to 1; from a sample.
        replica: index of the replica that owns it.
        replica_share: of the operator's items that this replica takes, 0 to 1.
    """

    key: str
    share: float
    replica: int
    replica_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorMetricsSnapshot:
    """One operator over all its replicas.

    Attributes:
        operator: its name.
        replicas: how many.
        items_in: items that reached it (of a source: that it made).
        items_out: items that it passed on.
        errors: calls that raised.
        retries: repeated calls.
        dead_letters: items set aside.
        service: time of one call; sampled for fast operators.
        queue_wait: time in the inbox before it; empty for an operator that is fused behind another.
        blocked_ms: time that its replicas waited for room downstream; 0 for an operator that is not the last
            of its chain.
        counters: what the operator counted itself (`ctx.metrics`).
        hot_key: of an operator with replicas on a keyed stream, the key that alone makes more than half of a replica's
            fair share; None without one.
    """

    operator: str
    replicas: int
    items_in: int
    items_out: int
    errors: int
    retries: int
    dead_letters: int
    service: LatencyMetrics
    queue_wait: LatencyMetrics
    blocked_ms: float
    counters: Mapping[str, float] = field(default_factory=dict)
    hot_key: HotKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMetrics:
    """The whole job.

    Attributes:
        elapsed_s: seconds since the sources were opened.
        items_in: items that the sources made.
        items_out: items that reached a sink.
        errors: operator calls that raised.
        dead_letters: items set aside.
        latency: time from an item's origin (intended arrival where the source says it) to the end of its
            sink.
        operators: one entry per operator, in the order of declaration.
        replicas: one entry per task.
    """

    elapsed_s: float
    items_in: int
    items_out: int
    errors: int
    dead_letters: int
    latency: LatencyMetrics
    operators: tuple[OperatorMetricsSnapshot, ...]
    replicas: tuple[ReplicaMetrics, ...]

    @property
    def throughput(self) -> float:
        """Items per second that the sources made."""
        return self.items_in / self.elapsed_s if self.elapsed_s > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReading:
    """What is read off one replica to make a snapshot."""

    task: str
    counters: ReplicaCounters
    is_source: bool
    is_sink: bool
    queue_depth: int = 0
    queue_depth_max: int = 0
    queue_capacity: int = 0
    user_counters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def _latency(sketches: Iterable[QuantileSketch]) -> LatencyMetrics:
    total = QuantileSketch()
    for sketch in sketches:
        total.merge(sketch.snapshot())
    if not total.count:
        return LatencyMetrics()
    return LatencyMetrics(
        count=total.count,
        mean_ms=total.mean / NS_PER_MS,
        p50_ms=total.quantile(0.5) / NS_PER_MS,
        # Among fewer than 100 samples the nearest rank of P99 is the largest one.
        p99_ms=(total.quantile(0.99) if total.count >= 100 else total.max) / NS_PER_MS,
        max_ms=total.max / NS_PER_MS,
    )


def snapshot_metrics(operators: Iterable[str], readings: Iterable[ReplicaReading], elapsed_s: float) -> JobMetrics:
    """The picture of a job from what its replicas have counted.

    Example:
        >>> counters = ReplicaCounters(("numbers", "double"))
        >>> counters.items_in = counters.operators[0].items_out = counters.operators[1].items_in = 3
        >>> reading = ReplicaReading(task="numbers[0]", counters=counters, is_source=True, is_sink=False)
        >>> metrics = snapshot_metrics(["numbers", "double"], [reading], elapsed_s=1.5)
        >>> metrics.items_in, metrics.throughput, metrics.operators[1].items_in
        (3, 2.0, 3)
    """
    readings = list(readings)
    by_operator = tuple(_operator(name, readings) for name in operators)
    return JobMetrics(
        elapsed_s=elapsed_s,
        items_in=sum(reading.counters.operators[0].items_out for reading in readings if reading.is_source),
        items_out=sum(reading.counters.operators[-1].items_out for reading in readings if reading.is_sink),
        errors=sum(operator.errors for operator in by_operator),
        dead_letters=sum(operator.dead_letters for operator in by_operator),
        latency=_latency(reading.counters.latency_ns for reading in readings if reading.is_sink),
        operators=by_operator,
        replicas=tuple(
            ReplicaMetrics(
                task=reading.task,
                items_in=reading.counters.items_in,
                items_out=reading.counters.items_out,
                busy_ms=reading.counters.busy_ns / NS_PER_MS,
                blocked_ms=reading.counters.blocked_ns / NS_PER_MS,
                idle_ms=reading.counters.idle_ns / NS_PER_MS,
                queue_depth=reading.queue_depth,
                queue_depth_max=reading.queue_depth_max,
                queue_capacity=reading.queue_capacity,
            )
            for reading in readings
        ),
    )


def _operator(name: str, readings: list[ReplicaReading]) -> OperatorMetricsSnapshot:
    mine = [
        (reading, position, operator)
        for reading in readings
        for position, operator in enumerate(reading.counters.operators)
        if operator.name == name
    ]
    user: dict[str, float] = {}
    for reading, _, _ in mine:
        for counter, amount in reading.user_counters.get(name, {}).items():
            user[counter] = user.get(counter, 0) + amount
    operators = [operator for _, _, operator in mine]
    return OperatorMetricsSnapshot(
        operator=name,
        replicas=len(mine),
        items_in=sum(operator.items_in for operator in operators),
        items_out=sum(operator.items_out for operator in operators),
        errors=sum(operator.errors for operator in operators),
        retries=sum(operator.retries for operator in operators),
        dead_letters=sum(operator.dead_letters for operator in operators),
        service=_latency(operator.service_ns for operator in operators),
        queue_wait=_latency(reading.counters.queue_wait_ns for reading, position, _ in mine if position == 0),
        blocked_ms=sum(
            reading.counters.blocked_ns
            for reading, position, _ in mine
            if position == len(reading.counters.operators) - 1
        )
        / NS_PER_MS,
        counters=user,
        hot_key=_hot_key([reading.counters for reading, position, _ in mine if position == 0]),
    )


def _hot_key(replicas: list[ReplicaCounters]) -> HotKey | None:
    total = sum(counters.items_in for counters in replicas)
    if len(replicas) < 2 or sum(counters.keys.total for counters in replicas) < _KEYS_MIN:
        return None
    hottest: HotKey | None = None
    for index, counters in enumerate(replicas):
        top = counters.keys.top()
        if top is None:
            continue
        replica_share = counters.items_in / total
        share = replica_share * (top.count - top.error) / counters.keys.total
        if hottest is None or share > hottest.share:
            text = repr(top.key)
            text = text if len(text) <= _KEY_TEXT_MAX else text[: _KEY_TEXT_MAX - 3] + "..."
            hottest = HotKey(key=text, share=share, replica=index, replica_share=replica_share)
    return hottest if hottest is not None and hottest.share > 0.5 / len(replicas) else None
