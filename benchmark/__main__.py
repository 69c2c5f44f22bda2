"""`python -m benchmark`: SAGE beside its peers, a table, a JSON file; exit code 1 for a missed target."""

from __future__ import annotations

import argparse
import sys

from .runner import BenchmarkError, format_tables, run_all, save
from .targets import RUNS


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def main() -> int:
    """Run the benchmark as the command line says."""
    workloads = list(dict.fromkeys(run.workload for run in RUNS))
    parser = argparse.ArgumentParser(prog="python -m benchmark", description=__doc__)
    parser.add_argument("workloads", nargs="*", help=f"of: {', '.join(workloads)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each script runs, in turn (default 5)")
    parser.add_argument("--slow-sink-seconds", type=float, default=60.0, help="length of slow_sink (default 60)")
    options = parser.parse_args()
    unknown = set(options.workloads) - set(workloads)
    if unknown or options.rounds < 1:
        parser.error(
            f"unknown workload {unknown.pop()!r}" if unknown else f"--rounds must be >= 1, got {options.rounds}"
        )
    try:
        results = run_all(options.workloads or workloads, options.rounds, options.slow_sink_seconds, _say)
    except BenchmarkError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    table, reached = format_tables(results)
    path = save(results, table)
    sys.stdout.write(f"{table}\nraw results: {path}\n")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
