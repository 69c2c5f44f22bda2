"""Calls a slow service for many items at once: an `async` operator, with retries and dead letters.

The service is simulated: it takes 100 ms, is busy now and then, and never accepts multiples of `reject`.

    sage run examples/async_calls.py --set items=256 --set in_flight=64
"""

from __future__ import annotations

import asyncio

from sage.kernel.api import Contract, ErrorPolicy, Execution, IOSpec, LocalEnvironment, MapFunction, Resources

_DELAY_S = 0.1


class ServiceBusyError(Exception):
    """The service cannot answer at the moment; a second call may succeed."""


class RejectedError(Exception):
    """The service does not accept this item, however often it is asked."""


class Lookup(MapFunction[int, str]):
    """Asks the service about one item."""

    def __init__(self, reject: int) -> None:
        super().__init__()
        self._reject = reject
        self._busy_once: set[int] = set()

    async def execute(self, item: int) -> str:
        """Wait for the answer; meanwhile other items are asked for on the same thread."""
        await asyncio.sleep(_DELAY_S)
        if self._reject and item and item % self._reject == 0:
            raise RejectedError(f"item {item} is not accepted")
        if item % 17 == 0 and item not in self._busy_once:
            self._busy_once.add(item)
            raise ServiceBusyError(f"busy, item {item}")
        return f"{item:>5}  answered by the service"


def build(items: int = 256, in_flight: int = 64, reject: int = 0) -> LocalEnvironment:
    """The pipeline.

    Args:
        items: how many to ask for.
        in_flight: how many at once.
        reject: multiples of it are set aside as dead letters after two retries; 0 rejects none.
    """
    env = LocalEnvironment("async_calls")
    contract = Contract(
        execution=Execution.ASYNC,
        resources=Resources(concurrency=in_flight),
        io=IOSpec(timeout_s=5.0, errors=ErrorPolicy(retries=2, delay_s=0.05)),
    )
    env.from_collection(range(items), name="numbers").map(Lookup(reject), contract=contract, name="lookup").print()
    return env
