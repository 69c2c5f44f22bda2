"""The execution kinds that every semantic test runs on: how a plain function becomes an operator of that kind."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage.kernel.api import Contract, ErrorPolicy, Execution, IOSpec, Resources

__all__ = ["KINDS", "ExecutionKind"]


@dataclass(frozen=True)
class ExecutionKind:
    """One vehicle.

    Attributes:
        name: of the kind.
        execution: what plans say for its operators.
        shared: folder in which operators keep what all replicas have in common, where these are in several processes.
        lined: neighbours are not fused: each has a process of its own, and passes on to the next where it can.
    """

    name: str
    execution: Execution
    shared: Path | None = None
    lined: bool = False

    @property
    def is_async(self) -> bool:
        """Whether operators of this kind are coroutine functions."""
        return self.execution is Execution.ASYNC

    def operator(self, function: Callable[[Any], Any], sleep_s: float = 0.0) -> Callable[[Any], Any]:
        """`function` as an operator of this kind; it waits `sleep_s` before it answers."""
        if self.execution is Execution.ASYNC:

            async def waiting(item: Any) -> Any:
                if sleep_s >= 0:
                    await asyncio.sleep(sleep_s)
                return function(item)

            return functools.wraps(function)(waiting) if hasattr(function, "__name__") else waiting
        if sleep_s <= 0:
            return function

        def slow(item: Any) -> Any:
            time.sleep(sleep_s)
            return function(item)

        return slow

    def contract(
        self,
        *,
        concurrency: int | None = None,
        queue_capacity: int | None = None,
        errors: ErrorPolicy | None = None,
        timeout_s: float | None = None,
    ) -> Contract:
        """A contract for an operator of this kind; `concurrency` counts only where items overlap."""
        io = IOSpec(queue_capacity=queue_capacity, errors=errors or ErrorPolicy(), timeout_s=timeout_s)
        if self.execution is Execution.ASYNC:
            return Contract(execution=Execution.ASYNC, resources=Resources(concurrency=concurrency), io=io)
        return Contract(execution=self.execution, io=io)


KINDS = {
    "thread": ExecutionKind("thread", Execution.THREAD),
    "async": ExecutionKind("async", Execution.ASYNC),
    "process": ExecutionKind("process", Execution.PROCESS),
    "line": ExecutionKind("line", Execution.PROCESS, lined=True),
}
