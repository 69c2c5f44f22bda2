"""The inbox of a worker that has several messages under way at once."""

from __future__ import annotations

from typing import TypeVar

from .channels import LocalChannel, Message

__all__ = ["WindowChannel"]

M = TypeVar("M", bound=Message)


class WindowChannel(LocalChannel[M]):
    """A local channel whose reader says itself how much it has taken and not finished.

    Attributes:
        under_way: items that the reader has taken and not finished; the reader keeps it up to date.

    Example:
        >>> from sage.platform import ChannelSpec
        >>> channel = WindowChannel(ChannelSpec("demo", capacity=3))
        >>> channel.under_way = 2
        >>> channel.load
        2
    """

    under_way = 0

    @property
    def load(self) -> int:
        """Items that wait, plus those under way."""
        return self._occupancy + self.under_way

    def limit(self, items: int) -> None:
        """Have room for fewer items than the capacity for now; what waits already stays."""
        self._capacity = min(self._spec.capacity, items)
        self._low_water = self._capacity // 2
