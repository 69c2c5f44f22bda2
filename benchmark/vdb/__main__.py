"""`python -m benchmark.vdb`: engines side by side, a table against the targets, a JSON file; exit code 1 for a miss."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
TIMEOUT_S = 900.0
ENGINES = ("sage", "hnswlib", "usearch", "faiss", "svs", "zvec")
# (data, at least so many times the best peer, so many times hnswlib M=16), at both recalls.
TARGETS = {"A": (1.3, 3.5), "B": (2.0, 4.0)}
MEMORY_SHARE_MAX = 0.7  # of hnswlib's, on B
FILTER_MIN = 1.3  # times the best peer
CHANGES_MIN = 1.5
LOSS_MAX = 0.5  # points of recall
WORKLOADS = ("search", "filter", "churn")
# The engines of a workload, and which of their variants.
TAKE_PART = {
    "filter": {"sage": ["graph-float16"], "hnswlib": ["m16"], "faiss": ["ivf", "flat"]},
    "churn": {"sage": ["graph-float16"], "hnswlib": ["m16"], "usearch": ["f32"]},
}
LEFT_OUT_OF_SEARCH = {"faiss": ["flat"]}


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _script(engine: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HERE / f"{engine}_peer.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def _variants(engine: str) -> list[str]:
    """The variants of an engine, none if its package is not installed."""
    listed = _script(engine, "--list")
    if listed.returncode != 0:
        _say(f"{engine}: left out, {listed.stderr.strip().splitlines()[-1] if listed.stderr else 'no reason given'}")
        return []
    return list(json.loads(listed.stdout))


def _takes_part(workload: str, engine: str, variant: str) -> bool:
    if workload == "search":
        return variant not in LEFT_OUT_OF_SEARCH.get(engine, [])
    return variant in TAKE_PART[workload].get(engine, [])


def _measure(workload: str, data: str, engine: str, variant: str, threads: int) -> dict[str, Any] | None:
    _say(f"{workload} {data} {engine} {variant}")
    done = _script(engine, data, "--workload", workload, "--variant", variant, "--threads", str(threads))
    if done.returncode != 0:
        _say(f"{engine} {variant}: failed, {done.stderr.strip()[-500:]}")
        return None
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _best(results: list[dict[str, Any]], key: str) -> float:
    return max((result[key] for result in results if result.get(key) is not None), default=0.0)


def judge(data: str, results: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """What of the targets can be said: (what, to reach, reached)."""
    lines = _judge_searches(data, [r for r in results if r.get("workload", "search") == "search"])
    for workload, keys, wanted in (
        ("filter", ("filter_0.01", "filter_0.1"), FILTER_MIN),
        ("churn", ("upserts_single", "upserts_batch", "changes_single", "changes_batch"), CHANGES_MIN),
    ):
        of_it = [r for r in results if r.get("workload") == workload]
        mine = [r for r in of_it if r["engine"] == "sage"]
        peers = [r for r in of_it if r["engine"] != "sage"]
        for key in keys:
            if mine and _best(peers, key):
                lines.append((f"{data} {key}: x best peer", wanted, _best(mine, key) / _best(peers, key)))
        for key in ("lost_0.95", "lost_0.99") if mine and workload == "churn" else ():
            # As "at least": what is left of the points that may be lost.
            lines.append((f"{data} {key}: points left of {LOSS_MAX}", 0.0, LOSS_MAX - mine[0][key]))
    return lines


def _judge_searches(data: str, results: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    mine = [result for result in results if result["engine"] == "sage"]
    peers = [result for result in results if result["engine"] != "sage"]
    hnswlib = [r for r in peers if r["engine"] == "hnswlib" and r["variant"] == "m16"]
    lines = []
    if data in TARGETS and mine and peers:
        over_best, over_hnswlib = TARGETS[data]
        for key, recall in (("qps_95", 0.95), ("qps_99", 0.99)):
            if _best(peers, key):
                lines.append((f"{data} at {recall}: x best peer", over_best, _best(mine, key) / _best(peers, key)))
            if _best(hnswlib, key):
                lines.append((f"{data} at {recall}: x hnswlib", over_hnswlib, _best(mine, key) / _best(hnswlib, key)))
        if hnswlib:
            # As "at least": how much longer, and larger, hnswlib is.
            ratio = hnswlib[0]["build_seconds"] / mine[0]["build_seconds"]
            lines.append((f"{data}: hnswlib's build time x", 1.0, ratio))
            if data == "B":
                share = hnswlib[0]["index_mb"] / mine[0]["index_mb"]
                lines.append((f"{data}: hnswlib's memory x", 1.0 / MEMORY_SHARE_MAX, share))
    return lines


def table(results: list[dict[str, Any]]) -> str:
    """The results as Markdown, the fastest first."""
    searches = [result for result in results if result.get("workload", "search") == "search"]
    text = _search_table(searches) if searches else ""
    for workload in ("filter", "churn"):
        of_it = [result for result in results if result.get("workload") == workload]
        keys = [key for key, value in of_it[0].items() if isinstance(value, float)] if of_it else []
        if not keys:
            continue
        text += "\n| data | engine | " + " | ".join(keys) + " |\n|---|---|" + "---|" * len(keys) + "\n"
        for result in of_it:
            values = [f"{result[key]:,.2f}" if result.get(key) is not None else "-" for key in keys]
            text += f"| {result['data']} | {result['engine']} {result['variant']} | {' | '.join(values)} |\n"
    return text


def _search_table(results: list[dict[str, Any]]) -> str:
    lines = [
        "| data | engine | 0.95 | 0.99 | build s | build CPU s | MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in sorted(results, key=lambda r: (r["data"], -(r["qps_95"] or 0.0))):
        rates = [f"{result[key]:,.0f}" if result[key] else "-" for key in ("qps_95", "qps_99")]
        lines.append(
            f"| {result['data']} | {result['engine']} {result['variant']} | {rates[0]} | {rates[1]} "
            f"| {result['build_seconds']:.1f} | {result['build_cpu_seconds']:.1f} | {result['index_mb']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.vdb", description=__doc__)
    parser.add_argument("data", nargs="*", choices=["A", "B", "a", "b", []], help="default: A and B")
    parser.add_argument("--only", action="append", choices=ENGINES, help="this engine; more than once for more")
    parser.add_argument("--variant", action="append", help="only these variants of the peers")
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="default: all of them")
    parser.add_argument("--threads", type=int, default=2, help="threads of the builds (default 2)")
    given = parser.parse_args()
    results: list[dict[str, Any]] = []
    engines = {engine: _variants(engine) for engine in given.only or ENGINES}
    runs = [
        (workload, data, engine, variant)
        for workload in given.workload or WORKLOADS
        for data in given.data or ["A", "B"]
        for engine, variants in engines.items()
        for variant in variants
        if _takes_part(workload, engine, variant)
        and (engine == "sage" or not given.variant or variant in given.variant)
    ]
    for run in runs:
        result = _measure(*run, given.threads)
        if result is not None:
            results.append(result)
    text = table(results)
    missed = 0
    for data in dict.fromkeys(result["data"] for result in results):
        for what, wanted, reached in judge(data, [r for r in results if r["data"] == data]):
            missed += reached < wanted
            text += f"{'reached' if reached >= wanted else 'MISSED '}  {what}: {reached:.2f}, to reach {wanted:.2f}\n"
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / time.strftime("vdb-%Y%m%d-%H%M%S.json")
    path.write_text(json.dumps(results, indent=2) + "\n")
    sys.stdout.write(f"{text}\nraw results: {path}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
