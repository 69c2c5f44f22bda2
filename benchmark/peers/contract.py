"""How a peer is called and what it answers: arguments in, a JSON object as last line of stdout, exit code.

    python benchmark/peers/<peer>_peer.py WORKLOAD [--items N] [--key value ...]
    python benchmark/peers/<peer>_peer.py --list

Exit codes: 0 the result was checked and is right, 1 it is wrong (or the peer failed), 2 the arguments are.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import TracebackType

import workloads

PLAIN = "plain"
RSS_SAMPLE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Options:
    """What a workload is asked to do; `batch_size` None means the peer's own choice for the workload."""

    items: int
    variant: str = PLAIN
    batch_size: int | None = None
    in_flight: int = workloads.LLM_IN_FLIGHT
    queue_capacity: int = workloads.HOP_QUEUE_CAPACITY
    run_seconds: float = workloads.SLOW_SINK_RUN_SECONDS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a workload did: `seconds` around the run alone, `result` once checked, `details` by name."""

    items: int
    seconds: float
    result: int
    notes: str = ""
    details: Mapping[str, float] = field(default_factory=dict)


def llm_outcome(
    model: workloads.SimulatedModel, outputs: Iterable[int], seconds: float, options: Options, notes: str
) -> Outcome:
    """Return the checked outcome of an LLM-like workload, with its time over the ideal and its peak of calls.

    Raises:
        WrongResultError: Answers are missing, doubled or wrong, or too many calls ran at once.
    """
    result = model.check(outputs, options.items, options.in_flight)
    ideal = workloads.ideal_seconds(options.items, options.in_flight, model.delay_seconds)
    details = {"over_ideal": round(seconds / ideal, 4), "peak_in_flight": float(model.peak_in_flight)}
    return Outcome(options.items, seconds, result, notes, details)


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload of a peer: how to run it, on how many items unless told, and in which variants."""

    run: Callable[[Options], Outcome]
    items: int
    variants: tuple[str, ...] = (PLAIN,)


def peak_rss_mb() -> float:
    """Return the largest resident set of this process so far, in MiB.

    Not `getrusage(RUSAGE_SELF)` where Linux has better: its `ru_maxrss` is inherited through fork and exec,
    so a large runner would be charged to every small peer. `VmHWM` starts anew with the program.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024.0
    return _max_rss_mb(resource.RUSAGE_SELF)


def _max_rss_mb(who: int) -> float:
    # Linux counts in KiB, macOS in bytes.
    unit = 1024.0 * 1024.0 if platform.system() == "Darwin" else 1024.0
    return resource.getrusage(who).ru_maxrss / unit


class RssSampler:
    """Samples the resident set of this process from its own thread, every `RSS_SAMPLE_SECONDS`, until left.

    >>> with RssSampler() as sampler:
    ...     threading.Event().wait(0.5)
    False
    >>> sampler.thirds()["rss_samples"] >= 3
    True
    """

    def __init__(self) -> None:
        self._samples_mb: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="rss-sampler")

    def __enter__(self) -> RssSampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        page_mb = resource.getpagesize() / (1024.0 * 1024.0)
        statm = Path("/proc/self/statm")
        while True:
            self._samples_mb.append(int(statm.read_text(encoding="ascii").split()[1]) * page_mb)
            if self._stop.wait(RSS_SAMPLE_SECONDS):
                return

    def thirds(self) -> dict[str, float]:
        """Return the median MiB of the first and last third of the run, their ratio, and the largest sample.

        Raises:
            WrongResultError: There are fewer than three samples.
        """
        third = len(self._samples_mb) // 3
        if third == 0:
            raise workloads.WrongResultError(f"a run must last 3 samples of its RSS, got {len(self._samples_mb)}")
        first = statistics.median(self._samples_mb[:third])
        last = statistics.median(self._samples_mb[-third:])
        return {
            "rss_first_third_mb": round(first, 2),
            "rss_last_third_mb": round(last, 2),
            "rss_last_over_first": round(last / first, 4),
            "rss_max_mb": round(max(self._samples_mb), 2),
            "rss_samples": len(self._samples_mb),
        }


def run_peer(
    peer: str,
    distribution: str | None,
    offered: Mapping[str, Workload],
    arguments: Sequence[str] | None = None,
) -> int:
    """Run the workload that the command line names, print its JSON line, and return the exit code.

    Args:
        peer: Its name in the tables; a variant other than the plain one is appended: `bytewax-batched`.
        distribution: The installed distribution that `version` is of; None for Python itself.
        offered: The workloads that it can run, by name.
        arguments: The command line, that of the process unless given.
    """
    parser = argparse.ArgumentParser(description=f"one benchmark workload on {peer}")
    options, name = _parse(parser, offered, arguments)
    if name is None:
        print(json.dumps({workload: list(entry.variants) for workload, entry in offered.items()}))
        return 0
    imported_mb = peak_rss_mb()
    try:
        outcome = offered[name].run(options)
    except workloads.WrongResultError as error:
        print(f"{peer} {name}: {error}", file=sys.stderr)
        return 1
    line = {
        "peer": peer if options.variant == PLAIN else f"{peer}-{options.variant}",
        "version": platform.python_version() if distribution is None else metadata.version(distribution),
        "workload": name,
        "items": outcome.items,
        "seconds": round(outcome.seconds, 6),
        "items_per_second": round(outcome.items / outcome.seconds, 1),
        "result": outcome.result,
        "peak_rss_mb": round(peak_rss_mb(), 2),
        "notes": outcome.notes,
        "details": {
            **outcome.details,
            "rss_before_run_mb": round(imported_mb, 2),
            # The largest single child that was waited for; 0 for all peers of today, which start none.
            "children_peak_rss_mb": round(_max_rss_mb(resource.RUSAGE_CHILDREN), 2),
        },
    }
    print(json.dumps(line), flush=True)
    return 0


def _parse(
    parser: argparse.ArgumentParser, offered: Mapping[str, Workload], arguments: Sequence[str] | None
) -> tuple[Options, str | None]:
    variants = sorted({variant for entry in offered.values() for variant in entry.variants})
    parser.add_argument("workload", nargs="?", choices=sorted(offered))
    parser.add_argument("--list", action="store_true", help="print the workloads and their variants as JSON")
    parser.add_argument("--items", type=_positive_int, help="default: the workload's own, bounded for slow peers")
    parser.add_argument("--variant", choices=variants, default=PLAIN)
    parser.add_argument("--batch-size", type=_positive_int, help="items per batch, where the peer has batches")
    parser.add_argument("--in-flight", type=_positive_int, default=workloads.LLM_IN_FLIGHT, help="calls at once")
    parser.add_argument("--queue-capacity", type=_positive_int, default=workloads.HOP_QUEUE_CAPACITY)
    parser.add_argument("--run-seconds", type=_positive_float, default=workloads.SLOW_SINK_RUN_SECONDS)
    given = parser.parse_args(arguments)
    if given.list:
        return Options(items=0), None
    if given.workload is None:
        parser.error(f"a workload must be named: {', '.join(sorted(offered))}")
    entry = offered[given.workload]
    if given.variant not in entry.variants:
        parser.error(f"{given.workload} runs as {' or '.join(entry.variants)}, got --variant {given.variant}")
    options = Options(
        items=entry.items if given.items is None else given.items,
        variant=given.variant,
        batch_size=given.batch_size,
        in_flight=given.in_flight,
        queue_capacity=given.queue_capacity,
        run_seconds=given.run_seconds,
    )
    return options, given.workload


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {value}")
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 86_400.0:
        raise argparse.ArgumentTypeError(f"must be above 0 and below a day in seconds, got {value}")
    return value
