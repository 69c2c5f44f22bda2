"""Counters of one replica. Only its own worker writes them; anybody may read them at any time (each is one
number).
"""

from __future__ import annotations

from sage.common.quantiles import QuantileSketch

from .heavy_hitters import HeavyHitters

__all__ = ["OperatorCounters", "ReplicaCounters"]


class OperatorCounters:
    """One operator of a replica's chain. Times are sampled; items and errors are exact.

    Attributes:
        items_in: items that reached the operator.
        items_out: items that it passed on.
        errors: calls that raised.
        retries: calls that were repeated after an error.
        dead_letters: items set aside.
        timed_ns: time of the sampled calls in ns.
        timed_items: how many calls that was.
        service_ns: sketch of the sampled calls' times in ns.
    """

    __slots__ = (
        "dead_letters",
        "errors",
        "items_in",
        "items_out",
        "name",
        "retries",
        "service_ns",
        "timed_items",
        "timed_ns",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.items_in = 0
        self.items_out = 0
        self.errors = 0
        self.retries = 0
        self.dead_letters = 0
        self.timed_ns = 0
        self.timed_items = 0
        self.service_ns = QuantileSketch()


class ReplicaCounters:
    """One replica (task). The four times add up to its life.

    Attributes:
        items_in: items taken from the inbox, or made by the source.
        items_out: items sent on.
        batches: packets worked on.
        busy_ns: time in operators.
        blocked_ns: time waiting for room downstream.
        idle_ns: time waiting for input (also inside a source that waits for its next item, where that can be
            told apart).
        queue_wait_ns_sum: time that its items spent in its inbox, summed over items.
        queue_wait_ns: sketch of that time per item, in ns.
        latency_ns: sketch of the time from origin to here per item; sinks only.
        keys: the most frequent keys of its items, sampled; empty on a stream without keys.
        operators: counters of its chain, in order.
    """

    __slots__ = (
        "batches",
        "blocked_ns",
        "busy_ns",
        "idle_ns",
        "items_in",
        "items_out",
        "keys",
        "latency_ns",
        "operators",
        "queue_wait_ns",
        "queue_wait_ns_sum",
    )

    def __init__(self, operators: tuple[str, ...]) -> None:
        self.items_in = 0
        self.items_out = 0
        self.batches = 0
        self.busy_ns = 0
        self.blocked_ns = 0
        self.idle_ns = 0
        self.queue_wait_ns_sum = 0
        self.queue_wait_ns = QuantileSketch()
        self.latency_ns = QuantileSketch()
        self.keys = HeavyHitters()
        self.operators = tuple(OperatorCounters(name) for name in operators)
