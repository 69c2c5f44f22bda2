"""Runs of one operator in a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from environments import environment, finished

from sage.kernel.api import Contract, ErrorPolicy, Execution, IOSpec

__all__ = ["PROCESS", "contract", "in_process"]

PROCESS = Contract(execution=Execution.PROCESS)


def contract(**errors: Any) -> Contract:
    """A contract for a process with this error policy."""
    return Contract(execution=Execution.PROCESS, io=IOSpec(errors=ErrorPolicy(delay_s=0.001, **errors)))


def in_process(
    home: Path, items: Any, function: Any, asked: Contract = PROCESS, **config: Any
) -> tuple[Any, list[Any]]:
    """Run `function` as a map in a process; the job's result and what came out."""
    env = environment(home, **config)
    out: list[Any] = []
    env.from_collection(items).map(function, contract=asked, name="work").sink(out.append)
    return finished(env), out
