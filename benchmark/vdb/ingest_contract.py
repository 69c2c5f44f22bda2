"""How the durable ingest of an engine is measured: batches until all rows are acknowledged, `kill -9`, opening again.

    python benchmark/vdb/<engine>_ingest.py DATA [--variant NAME] [--mode batch] [--seconds 120]
    python benchmark/vdb/<engine>_ingest.py --list

Writer and reader are processes of their own. The writer kills itself, and every process that it started, as soon as the
last call has returned: nothing is closed. The reader opens what is left, counts it, and compares rows, numbers and
strings with what was written. The last line of stdout is one JSON object. Exit codes: 0 measured, 1 the engine
failed, 2 the arguments are bad.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import vector_data as data
from numpy.typing import NDArray

BATCH = 1_000
THREADS = 8  # of the mode `rows`
SAMPLE = 1_000
READER_SECONDS = 300.0
# Rows come back from some engines normalised and rounded.
TOLERANCE = 1e-4


class Store(Protocol):
    """One engine, on disk, set up so that what `insert` has written is as durable as the engine can make it."""

    def open(self, folder: Path, new: bool) -> None:
        """Open what is in `folder`, or make it."""

    def insert(self, ids: NDArray[np.int64], rows: data.Floats, numbers: NDArray[np.int64], strings: list[str]) -> None:
        """Write new rows (n, d) with an int and a string each: the timed call."""

    def count(self) -> int:
        """How many rows there are."""

    def get(self, ids: Sequence[int]) -> Mapping[int, tuple[Any, int, str]]:
        """By id: row, number and string."""

    def search(self, query: data.Floats) -> Sequence[int]:
        """The ids of the 10 nearest to one query (d)."""


Variants = Mapping[str, Callable[[data.Shape], Store]]
# As a name of a variant: what has returned survives the end of the process, but not every loss of power.
NOT_DURABLE = ("log", "unsynced")


def numbers_of(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The int of each row: one of 50."""
    return np.asarray(1975 + ids * 7919 % 50, dtype=np.int64)


def strings_of(ids: NDArray[np.int64]) -> list[str]:
    """The string of each row: one of 20,000."""
    return [f"source-{number}" for number in (ids * 104_729 % 20_000).tolist()]


def session_cpu_seconds() -> float:
    """CPU time, user and system, of all living processes of this session: an engine may have a server."""
    own, ticks = os.getsid(0), 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[3]) == own:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def write_batches(store: Store, rows: data.Floats, seconds: float) -> int:
    """One thread, `BATCH` rows per call. Returns how many rows were acknowledged in the time."""
    ids = np.arange(len(rows), dtype=np.int64)
    numbers, strings = numbers_of(ids), strings_of(ids)
    end = perf_counter() + seconds
    done = 0
    while done < len(rows) and perf_counter() < end:
        part = slice(done, done + BATCH)
        store.insert(ids[part], np.ascontiguousarray(rows[part]), numbers[part], strings[part])
        done = min(done + BATCH, len(rows))
    return done


def write_rows(store: Store, rows: data.Floats, seconds: float) -> int:
    """`THREADS` threads, one row per call. Returns how many rows were acknowledged in the time."""
    ids = np.arange(len(rows), dtype=np.int64)
    numbers, strings = numbers_of(ids), strings_of(ids)
    lock, end, next_row, errors = threading.Lock(), perf_counter() + seconds, 0, list[BaseException]()

    def work() -> None:
        nonlocal next_row
        try:
            while perf_counter() < end and not errors:
                with lock:
                    mine = next_row
                    if mine == len(rows):
                        return
                    next_row += 1
                part = slice(mine, mine + 1)
                store.insert(ids[part], np.ascontiguousarray(rows[part]), numbers[part], strings[part])
        except BaseException as error:  # the main thread raises it
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return next_row


def wrong_rows(store: Store, rows: data.Floats, acknowledged: int) -> int:
    """How many of up to `SAMPLE` acknowledged rows are missing or are not what was written."""
    ids = np.unique(np.linspace(0, acknowledged - 1, SAMPLE).astype(np.int64))
    numbers, strings = numbers_of(ids), strings_of(ids)
    answers = store.get(ids.tolist())
    wrong = 0
    for place, wanted in enumerate(ids.tolist()):
        row, number, string = answers.get(wanted, (None, 0, ""))
        near_enough = row is not None and np.abs(np.asarray(row, np.float32) - rows[wanted]).max() <= TOLERANCE
        wrong += not (near_enough and number == numbers[place] and string == strings[place])
    return wrong


def _writer(store: Store, dataset: data.DataSet, folder: Path, mode: str, seconds: float) -> None:
    store.open(folder, True)
    rows = np.asarray(dataset.rows) if mode == "batch" else np.asarray(dataset.rows[:50_000])
    rows = rows.copy()  # from memory, not from the file of the data set
    start, started = perf_counter(), session_cpu_seconds()
    acknowledged = (write_batches if mode == "batch" else write_rows)(store, rows, seconds)
    wall, cpu = perf_counter() - start, session_cpu_seconds() - started
    print(json.dumps({"rows": acknowledged, "ingest_seconds": wall, "ingest_cpu_seconds": cpu}), flush=True)
    os.killpg(0, signal.SIGKILL)


def _reader(store: Store, dataset: data.DataSet, folder: Path, acknowledged: int) -> None:
    query = dataset.queries[0]
    start, started = perf_counter(), session_cpu_seconds()
    store.open(folder, False)
    found = store.count()
    opened = perf_counter() - start
    near = store.search(query)
    searched, cpu = perf_counter() - start, session_cpu_seconds() - started
    line = {
        "found": found,
        "wrong_of_sample": wrong_rows(store, dataset.rows, acknowledged),
        "open_seconds": round(opened, 3),
        "open_and_search_seconds": round(searched, 3),
        "open_and_search_cpu_seconds": round(cpu, 2),
        "answers": len(near),
    }
    print(json.dumps(line), flush=True)
    os.killpg(0, signal.SIGKILL)


def _child(role: str, given: argparse.Namespace, folder: Path, seconds: float, *more: str) -> dict[str, Any]:
    """Run this script as writer or reader in a session of its own; the object that it printed before it was killed."""
    command = [sys.executable, sys.argv[0], given.data, "--variant", given.variant, "--mode", given.mode]
    command += ["--seconds", str(given.seconds), "--role", role, "--folder", str(folder), *more]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, stdout=out, stderr=errors, start_new_session=True)
        try:
            child.wait(seconds)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        out.seek(0)
        errors.seek(0)
        lines = [line for line in out.read().splitlines() if line.startswith("{")]
        if not lines:
            raise RuntimeError(f"the {role} ended with {child.returncode}: {errors.read().strip()[-800:]}")
        return dict(json.loads(lines[-1]))


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Write, kill, read again; what the JSON line says."""
    # Beside the results, not in the system's temporary folder: that may be memory.
    above = Path(os.environ.get("SAGE_BENCH_DISK") or Path(__file__).parent.parent / "results")
    above.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="ingest-", dir=above))
    try:
        written = _child("writer", given, folder / "store", given.seconds + READER_SECONDS)
        used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        read = _child("reader", given, folder / "store", READER_SECONDS, "--acknowledged", str(written["rows"]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "rows": written["rows"],
        "rows_per_second": round(written["rows"] / written["ingest_seconds"], 1),
        "ingest_seconds": round(written["ingest_seconds"], 3),
        "ingest_cpu_seconds": round(written["ingest_cpu_seconds"], 2),
        "disk_mb": round(used / 2**20, 1),
        "lost": written["rows"] - read["found"],
        **read,
    }


def run_store(name: str, distribution: str | None, variants: Variants) -> int:
    """Measure what the command line names, print its JSON line, and return the exit code."""
    parser = argparse.ArgumentParser(description=f"the ingest benchmark on {name}")
    parser.add_argument("data", nargs="?", choices=sorted(data.SHAPES))
    parser.add_argument("--list", action="store_true", help="print the variants as JSON")
    parser.add_argument("--variant", choices=list(variants), default=next(iter(variants)))
    parser.add_argument(
        "--mode", choices=["batch", "rows"], default="batch", help="1,000 rows per call, or one row by 8 threads"
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="the writer stops then, wherever it is")
    parser.add_argument("--role", choices=["writer", "reader"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--acknowledged", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.list:
        print(json.dumps(list(variants)))
        return 0
    if given.data is None or given.seconds <= 0:
        parser.error("a data set must be named, and --seconds must be > 0")
    dataset = data.load(given.data)
    if given.role is None:
        result = measure(given)
        line = {
            "engine": name,
            "variant": given.variant,
            "version": None if distribution is None else metadata.version(distribution),
            "data": given.data,
            "mode": given.mode,
            "durable": given.variant not in NOT_DURABLE,
            **result,
        }
        print(json.dumps(line), flush=True)
        return 0
    store = variants[given.variant](dataset.shape)
    if given.role == "writer":
        _writer(store, dataset, given.folder, given.mode, given.seconds)
    else:
        _reader(store, dataset, given.folder, given.acknowledged)
    return 0
