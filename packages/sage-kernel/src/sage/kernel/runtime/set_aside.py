"""What a chain tells of an item that an operator could not process, and who is told."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["DeadLetterSink", "SetAside"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """An item that an operator could not process.

    Attributes:
        operator: name of the operator that raised.
        replica_index: which replica it was.
        item: the operator's input.
        key: its key, or None.
        keyed: whether there is a key.
        attempts: calls that were made.
        error: what the last one raised.
        side: of an operator on two streams, which one the item came from; else None.
    """

    operator: str
    replica_index: int
    item: Any
    key: Hashable
    keyed: bool
    attempts: int
    error: BaseException
    side: int | None = None


class DeadLetterSink(Protocol):
    """Where items are set aside durably."""

    def add(self, letter: SetAside) -> None:
        """Store the letter; returns when it is safe, raises when it is not."""
