"""What the benchmark compares and what is to be reached: one row per claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["RUNS", "TARGETS", "Medians", "Run", "Target"]


@dataclass(frozen=True, slots=True)
class Run:
    """One script in one variant on one workload; `arguments` go to the script."""

    peer: str
    workload: str
    variant: str = "plain"
    arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Peer and variant, as tables show it."""
        return self.peer if self.variant == "plain" else f"{self.peer}-{self.variant}"


# What each workload is run on. Peers that manage few items a second get fewer of them; a rate is a rate.
RUNS: tuple[Run, ...] = (
    Run("sage", "noop"),
    Run("bare", "noop"),
    Run("bytewax", "noop"),
    Run("bytewax", "noop", "batched"),
    Run("streamz", "noop", arguments=("--items", "100000")),
    Run("sage", "keyed"),
    Run("sage", "keyed", "aggregate"),
    Run("bare", "keyed"),
    Run("bytewax", "keyed"),
    Run("bytewax", "keyed", "batched"),
    Run("sage", "keyed", "ordered"),
    Run("sage", "keyed", "replicas"),
    Run("sage", "keyed", "replicas-ordered"),
    Run("sage", "llm_async"),
    Run("sage", "llm_async", "ordered"),
    Run("bare", "llm_async"),
    Run("bytewax", "llm_async", "batched"),
    Run("haystack", "llm_async"),
    Run("langchain", "llm_async"),
    Run("sage", "llm_threads"),
    Run("sage", "llm_threads", "ordered"),
    Run("bare", "llm_threads"),
    Run("bytewax", "llm_threads", "batched"),
    Run("haystack", "llm_threads"),
    Run("langchain", "llm_threads"),
    Run("sage", "async_zero"),
    Run("bytewax", "async_zero"),
    Run("bytewax", "async_zero", "batched"),
    Run("streamz", "async_zero"),
    Run("streamz", "async_zero", "batched"),
    Run("haystack", "async_zero"),
    Run("sage", "hop"),
    Run("bare", "hop"),
    Run("sage", "slow_sink"),
    Run("bytewax", "slow_sink"),
    Run("sage", "join"),
    Run("bytewax", "join"),
    Run("sage", "skew"),
    Run("sage", "skew", "uniform"),
    Run("sage", "compute"),
    Run("sage", "compute", "two"),
    Run("bare", "compute"),
    Run("futures", "compute"),
    Run("futures", "compute", "two"),
    Run("sage", "process_dicts"),
    Run("queues", "process_dicts"),
    Run("futures", "process_dicts"),
    Run("sage", "process_hop"),
    Run("sage", "process_hop", "fused"),
    Run("queues", "process_hop"),
    Run("sage", "process_arrays"),
    Run("queues", "process_arrays"),
    Run("futures", "process_arrays"),
)

Medians = Mapping[tuple[str, str], Mapping[str, float]]
"""By (workload, name): the median of each figure (rate, seconds, peak RSS, and the script's details)."""


@dataclass(frozen=True, slots=True)
class Target:
    """One claim.

    Attributes:
        workload: the workload it is about.
        what: the ratio in words.
        ratio: computes it from the medians.
        bound: what it is held against.
        at_least: whether it must be at least `bound`, or at most.
    """

    workload: str
    what: str
    ratio: Callable[[Medians], float]
    bound: float
    at_least: bool = True

    def reached(self, medians: Medians) -> bool:
        """Whether the claim holds in this run."""
        ratio = self.ratio(medians)
        return ratio >= self.bound if self.at_least else ratio <= self.bound


def _rate(peer: str, workload: str, who: str = "sage") -> Callable[[Medians], float]:
    return lambda medians: medians[workload, who]["items_per_second"] / medians[workload, peer]["items_per_second"]


def _best_rate(workload: str, *peers: str) -> Callable[[Medians], float]:
    return lambda medians: (
        medians[workload, "sage"]["items_per_second"]
        / max(medians[workload, peer]["items_per_second"] for peer in peers)
    )


def _figure(workload: str, figure: str, peer: str | None = None) -> Callable[[Medians], float]:
    if peer is None:
        return lambda medians: medians[workload, "sage"][figure]
    return lambda medians: medians[workload, "sage"][figure] / medians[workload, peer][figure]


TARGETS: tuple[Target, ...] = (
    Target("noop", "rate / bare Python loop", _rate("bare", "noop"), 0.6),
    Target("noop", "rate / bytewax", _rate("bytewax", "noop"), 1.5),
    Target("keyed", "rate / bytewax, ready-made count", _rate("bytewax", "keyed"), 4.0),
    Target("keyed", "rate / bytewax, the same function called", _rate("bytewax", "keyed", "sage-aggregate"), 4.0),
    Target("llm_async", "time / ideal 0.80 s", _figure("llm_async", "over_ideal"), 1.02, at_least=False),
    Target("llm_threads", "time / ideal 0.80 s", _figure("llm_threads", "over_ideal"), 1.04, at_least=False),
    Target(
        "async_zero",
        "rate / best of streamz, bytewax, Haystack",
        _best_rate("async_zero", "streamz", "streamz-batched", "bytewax", "bytewax-batched", "haystack"),
        3.0,
    ),
    Target("hop", "P50 per hop / queue.Queue", _figure("hop", "hop_p50_us", "bare"), 1.3, at_least=False),
    Target("noop", "peak RSS / bytewax", _figure("noop", "peak_rss_mb", "bytewax"), 2.0, at_least=False),
    Target(
        "slow_sink",
        "RSS in the last third of a minute / first third",
        _figure("slow_sink", "rss_last_over_first"),
        1.02,
        at_least=False,
    ),
    Target("join", "rate / bytewax", _rate("bytewax", "join"), 2.0),
    Target("keyed", "rate with ordered() / without", _rate("sage", "keyed", "sage-ordered"), 0.9),
    Target("llm_async", "rate with ordered() / without", _rate("sage", "llm_async", "sage-ordered"), 0.9),
    Target("llm_threads", "rate with ordered() / without", _rate("sage", "llm_threads", "sage-ordered"), 0.9),
    Target("compute", "rate of 1 process / bare loop", _rate("bare", "compute"), 0.98),
    Target("compute", "rate of 2 processes / bare loop", _rate("bare", "compute", "sage-two"), 1.9),
    Target("process_dicts", "rate / multiprocessing.Queue", _rate("queues", "process_dicts"), 5.0),
    Target("process_dicts", "rate / futures with chunks", _rate("futures", "process_dicts"), 1.0),
    Target(
        "process_hop",
        "P50 per hop / multiprocessing.Queue",
        _figure("process_hop", "hop_p50_us", "queues"),
        0.8,
        at_least=False,
    ),
    Target("process_arrays", "rate / multiprocessing.Queue", _rate("queues", "process_arrays"), 2.0),
)
