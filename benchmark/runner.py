"""Runs the benchmark: every script as a process of its own, in rounds, so that a slow minute hits all."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .targets import RUNS, TARGETS, Medians, Run

__all__ = ["BenchmarkError", "format_tables", "medians_of", "run_all", "save"]

PEERS = Path(__file__).parent / "peers"
RESULTS = Path(__file__).parent / "results"
RUN_TIMEOUT_S = 180.0
# One thread per BLAS: a peer that imports numpy must not take the other core with it.
PINNED = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class BenchmarkError(Exception):
    """A script failed or printed no result; the benchmark means nothing then."""


def run_once(run: Run, extra: Sequence[str] = ()) -> dict[str, Any]:
    """Run one script and return its JSON line.

    Raises:
        BenchmarkError: it failed, took too long or printed no result.
    """
    script = PEERS / f"{run.peer}_peer.py"
    command = [sys.executable, str(script), run.workload, "--variant", run.variant, *run.arguments, *extra]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            env=os.environ | PINNED,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise BenchmarkError(f"{run.name} {run.workload} took more than {RUN_TIMEOUT_S:g} s") from late
    if done.returncode:
        raise BenchmarkError(f"{run.name} {run.workload} failed with {done.returncode}:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def run_all(workloads: Iterable[str], rounds: int, slow_sink_s: float, say: Any) -> list[dict[str, Any]]:
    """Run everything `rounds` times, in turn; the slow sink once. Each result says its round."""
    wanted = set(workloads)
    results = []
    for number in range(rounds):
        for run in RUNS:
            if run.workload not in wanted or (run.workload == "slow_sink" and number):
                continue
            extra = ("--run-seconds", str(slow_sink_s)) if run.workload == "slow_sink" else ()
            result = run_once(run, extra)
            say(f"round {number + 1}/{rounds}  {run.workload:<12} {run.name:<16} {result['seconds']:.3f} s")
            results.append({**result, "name": run.name, "round": number})
    return results


def medians_of(results: Iterable[dict[str, Any]]) -> Medians:
    """The median of each figure by (workload, name)."""
    groups: dict[tuple[str, str], dict[str, list[float]]] = {}
    for result in results:
        figures = {key: result[key] for key in ("items_per_second", "seconds", "peak_rss_mb")} | result["details"]
        group = groups.setdefault((result["workload"], result["name"]), {})
        for key, value in figures.items():
            group.setdefault(key, []).append(float(value))
    return {key: {name: statistics.median(values) for name, values in group.items()} for key, group in groups.items()}


def format_tables(results: list[dict[str, Any]]) -> tuple[str, bool]:
    """The targets and the figures as Markdown tables, and whether all targets are reached."""
    medians = medians_of(results)
    rounds = 1 + max(result["round"] for result in results)
    lines = [
        f"Medians of {rounds} round(s); {_machine()}.",
        "",
        "| workload | measure | target | got | |",
        "|---|---|---|---|---|",
    ]
    reached = True
    ran = {workload for workload, _ in medians}
    for target in TARGETS:
        if target.workload not in ran:
            continue
        holds = target.reached(medians)
        reached &= holds
        sign = ">=" if target.at_least else "<="
        verdict = "reached" if holds else "missed"
        aim, got = f"{sign} {target.bound:g}x", f"{target.ratio(medians):.2f}x"
        lines.append(f"| {target.workload} | {target.what} | {aim} | {got} | {verdict} |")
    lines += [
        "",
        "| workload | who | items/s | seconds (min - max) | peak RSS MB | more |",
        "|---|---|---|---|---|---|",
    ]
    for (workload, name), figures in medians.items():
        times = [result["seconds"] for result in results if (result["workload"], result["name"]) == (workload, name)]
        shown = ("over_ideal", "hop_p50_us", "hop_p99_us", "rss_first_third_mb", "rss_last_third_mb")
        more = ", ".join(f"{key} {figures[key]:.3f}" for key in shown if key in figures)
        if workload == "skew":
            more = next(
                result["notes"] for result in results if (result["workload"], result["name"]) == (workload, name)
            )
        lines.append(
            f"| {workload} | {name} | {figures['items_per_second']:,.0f} | {figures['seconds']:.3f} "
            f"({min(times):.3f} - {max(times):.3f}) | {figures['peak_rss_mb']:.0f} | {more} |"
        )
    return "\n".join(lines) + "\n", reached


def _machine() -> str:
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{os.cpu_count()} cores, {model}, Python {platform.python_version()}"


def save(results: list[dict[str, Any]], table: str) -> Path:
    """Write the raw results and the table beside them; the JSON file's path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / time.strftime("bench-%Y%m%d-%H%M%S.json")
    path.write_text(json.dumps({"machine": _machine(), "results": results}, indent=2) + "\n")
    path.with_suffix(".md").write_text(table)
    return path
