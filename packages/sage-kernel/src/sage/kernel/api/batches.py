"""`batch`: items to lists."""

from __future__ import annotations

import math
from typing import Any, Self

from sage.kernel.graph import Batching, Contract, OperatorKind, PipelineError
from sage.kernel.operators import BatchSpec

from .base_stream import BaseStream
from .declare import user_location

__all__ = ["StreamBatches", "check_batching"]


class StreamBatches(BaseStream):
    """`batch` of a stream."""

    def batch(
        self,
        size: int,
        max_wait_s: float | None = None,
        *,
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> Self:
        """Puts items together into lists of at most `size`, in the order in which they come. The rest leaves at the
        end of the stream.

        Behind `key_by` the items of a list have one key, and the list keeps it; up to `size` - 1 items of each key are
        held, with `max_wait_s` only those of keys that have come within that time.

        Args:
            size: items in a full list.
            max_wait_s: a list that is not full goes when its first item has waited here for so many seconds; None
                waits until it is full or the stream ends.
            parallelism: replicas; without keys each puts together what it gets.
            contract: what the operator needs, keeps and promises.
            name: unique in the pipeline.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> LocalEnvironment("demo").from_collection([1, 2, 3, 4, 5]).batch(2).collect()
            [[1, 2], [3, 4], [5]]
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise PipelineError(f"batch size must be a whole number >= 1, got {size!r} ({user_location()})")
        if max_wait_s is not None and (
            isinstance(max_wait_s, bool) or not isinstance(max_wait_s, (int, float)) or not 0 <= max_wait_s < math.inf
        ):
            raise PipelineError(
                f"batch max_wait_s must be a number of seconds >= 0, got {max_wait_s!r} ({user_location()})"
            )
        facts: dict[str, Any] = {"parallelism": parallelism, "contract": contract, "name": name}
        facts["options"] = {"max_wait_s": max_wait_s, "size": size}
        return self._next(self._add(OperatorKind.BATCH, BatchSpec(size, max_wait_s), default_name="batch", **facts))


def check_batching(given: object) -> Batching | None:
    """What `batch=` of an operator says.

    Raises:
        PipelineError: it is no `Batching`.
    """
    if given is None or isinstance(given, Batching):
        return given
    raise PipelineError(f"batch= takes a Batching(size=..., max_wait_s=...), got {given!r} ({user_location()})")
