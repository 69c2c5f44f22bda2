"""`python -m benchmark.vdb`: engines side by side, a table against the targets, a JSON file; exit code 1 for a miss.

`--what search` (the default) measures the graph index, `--what ingest` durable writing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmark.vdb import ingest_table

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
TIMEOUT_S = 900.0
ENGINES = ("sage", "hnswlib", "usearch", "faiss", "svs", "zvec")
# (data, at least so many times the best peer, so many times hnswlib M=16), at both recalls.
TARGETS = {"A": (1.3, 3.5), "B": (2.0, 4.0)}
MEMORY_SHARE_MAX = 0.7  # of hnswlib's, on B


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _script(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HERE / f"{script}.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def _variants(engine: str, kind: str) -> list[str]:
    """The variants of an engine, none if its package is not installed."""
    listed = _script(f"{engine}_{kind}", "--list")
    if listed.returncode != 0:
        _say(f"{engine}: left out, {listed.stderr.strip().splitlines()[-1] if listed.stderr else 'no reason given'}")
        return []
    return list(json.loads(listed.stdout))


def _measure(kind: str, data: str, engine: str, variant: str, *more: str) -> dict[str, Any] | None:
    _say(f"{data} {engine} {variant}")
    done = _script(f"{engine}_{kind}", data, "--variant", variant, *more)
    if done.returncode != 0:
        _say(f"{engine} {variant}: failed, {done.stderr.strip()[-500:]}")
        return None
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _best(results: list[dict[str, Any]], key: str) -> float:
    return max((result[key] for result in results if result[key] is not None), default=0.0)


def judge(data: str, results: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """What of the targets can be said: (what, to reach, reached)."""
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


def _all_results(given: argparse.Namespace) -> list[dict[str, Any]]:
    """What every variant of every engine gave, one after the other."""
    results: list[dict[str, Any]] = []
    search = given.what == "search"
    kind = "peer" if search else "ingest"
    engines = {
        engine: _variants(engine, kind) for engine in given.only or (ENGINES if search else ingest_table.ENGINES)
    }
    more = ["--threads", str(given.threads)] if search else ["--mode", given.mode, "--seconds", str(given.seconds)]
    for data in given.data or ["A", "B"]:
        for engine, variants in engines.items():
            for variant in variants:
                if given.variant and engine != "sage" and variant not in given.variant:
                    continue
                result = _measure(kind, data, engine, variant, *more)
                if result is not None:
                    results.append(result)
    return results


def main() -> int:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.vdb", description=__doc__)
    parser.add_argument("data", nargs="*", choices=["A", "B", "a", "b", []], help="default: A and B")
    parser.add_argument("--what", choices=["search", "ingest"], default="search")
    parser.add_argument("--only", action="append", help="this engine; more than once for more")
    parser.add_argument("--variant", action="append", help="only these variants of the peers")
    parser.add_argument("--threads", type=int, default=2, help="search: threads of the builds (default 2)")
    parser.add_argument("--mode", choices=["batch", "rows"], default="batch", help="ingest: 1,000 rows a call, or 1")
    parser.add_argument("--seconds", type=float, default=60.0, help="ingest: a writer stops then (default 60)")
    given = parser.parse_args()
    known = ENGINES if given.what == "search" else ingest_table.ENGINES
    if not set(given.only or ()) <= set(known):
        parser.error(f"--only takes {', '.join(known)}")
    results = _all_results(given)
    text = table(results) if given.what == "search" else ingest_table.table(results)
    judged = judge if given.what == "search" else ingest_table.judge
    missed = 0
    for data in dict.fromkeys(result["data"] for result in results):
        for what, wanted, reached in judged(data, [r for r in results if r["data"] == data]):
            missed += reached < wanted
            text += f"{'reached' if reached >= wanted else 'MISSED '}  {what}: {reached:.2f}, to reach {wanted:.2f}\n"
    RESULTS.mkdir(parents=True, exist_ok=True)
    prefix = "vdb" if given.what == "search" else "vdb-ingest"
    path = RESULTS / time.strftime(f"{prefix}-%Y%m%d-%H%M%S.json")
    path.write_text(json.dumps(results, indent=2) + "\n")
    sys.stdout.write(f"{text}\nraw results: {path}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
