"""`python -m benchmark.vdb`: engines side by side, tables against the targets, a JSON file; exit code 1 for a miss."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from . import exact_table, ingest_table, search_table

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
TIMEOUT_S = 900.0
ENGINES = ("sage", "hnswlib", "usearch", "faiss", "svs", "zvec")
WORKLOADS = ("search", "filter", "churn", "exact", "ingest")
# The engines of a workload, and which of their variants.
TAKE_PART = {
    "filter": {"sage": ["graph-float16"], "hnswlib": ["m16"], "faiss": ["ivf", "flat"]},
    "churn": {"sage": ["graph-float16"], "hnswlib": ["m16"], "usearch": ["f32"]},
}
LEFT_OUT_OF_SEARCH = {"faiss": ["flat"]}


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _script_of(workload: str, engine: str) -> str:
    if workload == "exact":
        return "exact_peer.py"
    return f"{engine}_ingest.py" if workload == "ingest" else f"{engine}_peer.py"


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def _variants(workload: str, engine: str) -> list[str]:
    """The variants of an engine that take part, none if its package is not installed."""
    if workload in TAKE_PART and engine not in TAKE_PART[workload]:
        return []
    listed = _run(_script_of(workload, engine), "--list")
    if listed.returncode != 0:
        _say(f"{engine}: left out, {listed.stderr.strip().splitlines()[-1] if listed.stderr else 'no reason given'}")
        return []
    variants: list[str] = json.loads(listed.stdout)
    if workload in TAKE_PART:
        return [variant for variant in variants if variant in TAKE_PART[workload][engine]]
    left_out = LEFT_OUT_OF_SEARCH.get(engine, []) if workload == "search" else []
    return [variant for variant in variants if variant not in left_out]


def engines_of(workload: str) -> tuple[str, ...]:
    """Whose scripts a workload has."""
    if workload == "ingest":
        return ingest_table.ENGINES
    return ("exact",) if workload == "exact" else ENGINES


def _results_of(workload: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """What every variant of every engine gave, one after the other."""
    more = ["--workload", workload, "--threads", str(given.threads)]
    if workload == "ingest":
        more = ["--mode", given.mode, "--seconds", str(given.seconds)]
    elif workload == "exact":
        more = []
    results = []
    engines = [engine for engine in engines_of(workload) if not given.only or engine in given.only]
    variants = {engine: _variants(workload, engine) for engine in engines}
    for data in given.data or ["A", "B"]:
        for engine in engines:
            for variant in variants[engine]:
                if given.variant and engine != "sage" and variant not in given.variant:
                    continue
                _say(f"{workload} {data} {engine} {variant}")
                done = _run(_script_of(workload, engine), data, "--variant", variant, *more)
                if done.returncode != 0:
                    _say(f"{engine} {variant}: failed, {done.stderr.strip()[-500:]}")
                    continue
                results.append(json.loads(done.stdout.strip().splitlines()[-1]) | {"workload": workload})
    return results


def _report(workload: str, results: list[dict[str, Any]]) -> tuple[str, int]:
    """The table of a workload with its targets, and how many of them are missed."""
    tables = {"exact": exact_table.table, "ingest": ingest_table.table}
    judges = {"exact": exact_table.judge, "ingest": ingest_table.judge}
    text, missed = tables.get(workload, search_table.table)(results) + "\n", 0
    for data in dict.fromkeys(result["data"] for result in results):
        of_data = [result for result in results if result["data"] == data]
        for what, wanted, reached in judges.get(workload, search_table.judge)(data, of_data):
            missed += reached < wanted
            text += f"{'reached' if reached >= wanted else 'MISSED '}  {what}: {reached:.2f}, to reach {wanted:.2f}\n"
    return text, missed


def main() -> int:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.vdb", description=__doc__)
    parser.add_argument("data", nargs="*", choices=["A", "B", "a", "b", []], help="default: A and B")
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="more than once for more; default: all")
    parser.add_argument("--only", action="append", help="this engine; more than once for more")
    parser.add_argument("--variant", action="append", help="only these variants of the peers")
    parser.add_argument("--threads", type=int, default=2, help="threads of the builds (default 2)")
    parser.add_argument("--mode", choices=["batch", "rows"], default="batch", help="ingest: 1,000 rows a call, or 1")
    parser.add_argument("--seconds", type=float, default=60.0, help="ingest: a writer stops then (default 60)")
    given = parser.parse_args()
    workloads = given.workload or WORKLOADS
    known = {engine for workload in workloads for engine in engines_of(workload)}
    if not set(given.only or ()) <= known:
        parser.error(f"--only takes {', '.join(sorted(known))}")
    results, missed = [], 0
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / time.strftime("vdb-%Y%m%d-%H%M%S.json")
    for workload in workloads:
        of_it = _results_of(workload, given)
        if of_it:
            results += of_it
            text, missing = _report(workload, of_it)
            missed += missing
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        # Each time: whoever stops a long run keeps what there is.
        path.write_text(json.dumps(results, indent=2) + "\n")
    sys.stdout.write(f"raw results: {path}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
