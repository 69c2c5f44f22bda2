#!/usr/bin/env python3
"""Run libFuzzer on every parser of the native libraries, each for a while, and say what it found.

Usage::

    tools/fuzz.py BUILD SECONDS [NAME ...]

BUILD is a build folder made with ``cmake --preset fuzz``; SECONDS is the time for each target; NAME narrows to the
targets whose name contains one of them. The corpus stays in ``BUILD/corpus/TARGET`` and is used again. A finding is
an input that crashes, hangs (10 s), takes more than 2 GB, or that the target itself calls wrong: it is kept in
``BUILD/findings`` and the output says how to run it again. Exits with 1 for any finding.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

INPUT_SECONDS_MAX = 10
MEMORY_MB_MAX = 2048
#: Larger inputs only repeat what smaller ones do, more slowly.
INPUT_BYTES_MAX = 65536


@dataclass(frozen=True)
class Outcome:
    """What a run of one target came to."""

    runs: int
    branches: int
    inputs: int
    failed: bool
    log: str


def fuzz(program: Path, build: Path, seconds: int) -> Outcome:
    """Run one target for ``seconds`` from its seeds and from what earlier runs have kept."""
    seeds = build / "seeds" / program.name
    corpus = build / "corpus" / program.name
    findings = build / "findings"
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([program, "--seeds", seeds], check=True)
    command = [
        f"{program}_libfuzzer",
        f"-max_total_time={seconds}",
        f"-timeout={INPUT_SECONDS_MAX}",
        f"-rss_limit_mb={MEMORY_MB_MAX}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-artifact_prefix={findings}/{program.name}-",
        "-print_final_stats=1",
        "-reload=0",
        str(corpus),
        str(seeds),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    log = done.stdout.decode(errors="replace")
    runs = re.search(r"number_of_executed_units:\s*(\d+)", log)
    branches = re.findall(r"cov: (\d+)", log)
    return Outcome(
        runs=int(runs[1]) if runs else 0,
        branches=int(branches[-1]) if branches else 0,
        inputs=sum(1 for _ in corpus.iterdir()),
        failed=done.returncode != 0,
        log=log,
    )


def main(arguments: list[str]) -> int:
    """Run the targets that the arguments ask for; the number of findings decides the exit code."""
    if len(arguments) < 2 or not arguments[1].isdigit():
        print(__doc__, file=sys.stderr)
        return 2
    build, seconds, names = Path(arguments[0]).resolve(), int(arguments[1]), arguments[2:]
    listed = [Path(line) for line in (build / "fuzz_targets.txt").read_text(encoding="utf-8").splitlines()]
    programs = [each for each in listed if not names or any(name in each.name for name in names)]
    if not programs:
        print(
            f"no target has a name with {names}; there are {', '.join(each.name for each in listed)}", file=sys.stderr
        )
        return 2
    found = 0
    print(f"{'target':32} {'runs':>10} {'runs/s':>8} {'branches':>8} {'corpus':>7}", flush=True)
    for program in programs:
        outcome = fuzz(program, build, seconds)
        print(
            f"{program.name:32} {outcome.runs:>10,} {outcome.runs // max(seconds, 1):>8,} {outcome.branches:>8,} "
            f"{outcome.inputs:>7,}",
            flush=True,
        )
        if outcome.failed:
            found += 1
            print("\n".join(outcome.log.splitlines()[-40:]))
            print(f"again: {program}_libfuzzer FILE, with the file that the lines above name")
    print(f"{found} findings in {len(programs)} targets of {seconds} s each")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
