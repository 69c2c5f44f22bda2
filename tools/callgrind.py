#!/usr/bin/env python3
"""Count the instructions of every distance and code kernel and compare them with the checked-in table.

Usage::

    tools/callgrind.py PROGRAM TABLE            compare; exits with 1 when a kernel takes over 3 % more instructions
    tools/callgrind.py PROGRAM TABLE --renew    write what was counted into the table

PROGRAM is ``sage_common_kernel_counts``, built in Release. Counts do not depend on the machine's load, so the gate is
narrow where a stopwatch could not be. They do depend on the compiler: the table has one part for each. Valgrind offers
its programs no AVX-512, so what is counted is the scalar and the AVX2 level.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

GROWTH_MAX = 0.03
#: A kernel of some hundred instructions may take a few more: the call around it counts as well.
SLACK = 20
LEVELS = {"scalar", "avx2"}

Counts = dict[str, int]


class CountingError(Exception):
    """Valgrind is missing or has not counted what it was to count."""


def count(program: Path) -> tuple[str, Counts]:
    """The compiler that built ``program``, and its instructions by ``level/kernel/dimension``."""
    if shutil.which("valgrind") is None:
        raise CountingError("valgrind is not on the PATH (Debian, Ubuntu: apt-get install valgrind)")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts"
        command = [
            "valgrind",
            "--tool=callgrind",
            "--toggle-collect=sage_counted",
            "--dump-after=sage_counted",
            f"--callgrind-out-file={out}",
            str(program),
        ]
        # Bound at once: otherwise the first call of a library function counts the search for it.
        done = subprocess.run(
            command, env={**os.environ, "LD_BIND_NOW": "1"}, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise CountingError(f"{program} failed under valgrind:\n{done.stderr}")
        compiler, *names = done.stdout.splitlines()
        dumps = [Path(f"{out}.{number}") for number in range(1, len(names) + 1)]
        if not all(each.exists() for each in dumps):
            raise CountingError(f"valgrind wrote no dump for some of the {len(names)} kernels:\n{done.stderr}")
        counts = {}
        for name, dump in zip(names, dumps, strict=True):
            total = re.search(r"^summary: (\d+)$", dump.read_text(encoding="utf-8"), re.MULTILINE)
            counts[name] = int(total[1]) if total else 0
    if {name.split("/")[0] for name in counts} != LEVELS:
        raise CountingError(f"the table is of {sorted(LEVELS)}; valgrind and this machine offer other levels")
    if empty := [name for name, instructions in counts.items() if instructions == 0]:
        raise CountingError(f"nothing was counted for {', '.join(empty)}")
    return compiler, counts


def compare(expected: Counts, found: Counts) -> list[str]:
    """What is worse than expected, one line each; prints what is better."""
    worse = []
    for name in sorted(expected.keys() | found.keys()):
        if name not in expected or name not in found:
            where = "the table" if name not in expected else "the program"
            worse.append(f"{name}: not in {where}")
            continue
        before, now = expected[name], found[name]
        line = f"{name}: {before:,} -> {now:,} instructions ({(now - before) / before:+.1%})"
        if now > before * (1 + GROWTH_MAX) + SLACK:
            worse.append(line)
        elif now < before * (1 - GROWTH_MAX) - SLACK:
            print(f"fewer: {line}")
    return worse


def main(arguments: list[str]) -> int:
    """Count, then compare or renew; 0 is fine, 1 is worse, 2 is not counted."""
    if len(arguments) < 2 or arguments[2:] not in ([], ["--renew"]):
        print(__doc__, file=sys.stderr)
        return 2
    program, table = Path(arguments[0]).resolve(), Path(arguments[1])
    known: dict[str, Counts] = json.loads(table.read_text(encoding="utf-8")) if table.exists() else {}
    try:
        compiler, found = count(program)
    except CountingError as error:
        print(f"callgrind: {error}", file=sys.stderr)
        return 2
    if arguments[2:]:
        known[compiler] = found
        table.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"callgrind: {len(found)} counts of {compiler} written to {table}")
        return 0
    if compiler not in known:
        print(f"callgrind: {table} has no counts of {compiler}, only of {', '.join(known)}: nothing to compare with;")
        print("callgrind: 'make callgrind-renew' adds them, on a commit that is known to be good")
        return 2
    worse = compare(known[compiler], found)
    for line in worse:
        print(f"more: {line}")
    if worse:
        print(f"callgrind: {len(worse)} of {len(found)} kernels differ for the worse by over {GROWTH_MAX:.0%};")
        print("callgrind: if that is meant, 'make callgrind-renew' and commit the table")
        return 1
    print(f"callgrind: {len(found)} kernels within {GROWTH_MAX:.0%} of the table ({compiler})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
