"""`batch`: items to lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .specs import BoundOperator, OperatorSpec

__all__ = ["BatchSpec"]


@dataclass(frozen=True, slots=True)
class BatchSpec(OperatorSpec):
    """`batch`: lists of at most `size` items; one that is not full goes after `max_wait_s` seconds, or at the end of
    the stream.

    The runtime gathers the items, because only it knows when nothing more comes.
    """

    size: int
    max_wait_s: float | None

    @property
    def entries(self) -> tuple[Callable[..., Any], ...]:
        """None of the user's."""
        return ()

    def bind(self) -> BoundOperator:
        """The operator of one replica."""
        return BoundOperator(list, None)
