"""`python -m benchmark.handover`: what it costs to hand an item to a task of its own, by the vehicle of that task.

A pipeline of dicts of 200 bytes, once with everything in one task and once with one operator in a task of its own; the
difference per item in processor time of this process, which all hand-overs share. `sage.kernel.compiler.costs` has
these figures as its constants, rounded up to one digit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from sage.kernel.api import Contract, Execution, IOSpec, LocalEnvironment

__all__ = ["hand_over_s", "main"]

ITEMS = 50_000
ROUNDS = 5
_TEXT = "x" * 150


def _same(value: Any) -> Any:
    return value


async def _same_async(value: Any) -> Any:
    return value


def _run_s(function: Callable[[Any], Any], contract: Contract) -> float:
    env = LocalEnvironment("handover")
    items = [{"id": number, "text": f"{_TEXT}{number}", "score": 0.5} for number in range(ITEMS)]
    env.from_collection(items).map(function, contract=contract).sink(_same)
    start = time.process_time()
    env.submit()
    return time.process_time() - start


def hand_over_s(execution: Execution) -> float:
    """Seconds per item that a task of its own of this kind adds; the smallest of several runs."""
    apart = Contract(execution=execution, io=IOSpec(queue_capacity=1024))
    function = _same_async if execution is Execution.ASYNC else _same
    together = min(_run_s(_same, Contract()) for _ in range(ROUNDS))
    return max(0.0, min(_run_s(function, apart) for _ in range(ROUNDS)) - together) / ITEMS


def main() -> None:
    """Print a line per vehicle."""
    for execution in (Execution.THREAD, Execution.ASYNC, Execution.PROCESS):
        sys.stdout.write(f"{execution}: {hand_over_s(execution) * 1e6:.2f} us per item\n")


if __name__ == "__main__":
    main()
