"""Which keys come most often, in bounded memory (Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and
Top-k Elements in Data Streams, ICDT 2005).
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

__all__ = ["HeavyHitters", "KeyCount"]


@dataclass(frozen=True, slots=True)
class KeyCount:
    """A key, how often it has come at most, and by how much that may be too high."""

    key: Hashable
    count: int
    error: int


class HeavyHitters:
    """The most frequent keys of a stream: each that makes more than `1 / size` of it is among them.

    One thread adds; others may look, and see a state of a moment ago.

    Attributes:
        total: keys added.

    Example:
        >>> hitters = HeavyHitters(size=2)
        >>> hitters.add_many("abacabad")
        >>> hitters.total, hitters.top()
        (8, KeyCount(key='a', count=4, error=0))
    """

    __slots__ = ("_counts", "_errors", "_lock", "_size", "total")

    def __init__(self, size: int = 64) -> None:
        self._size = size
        # Keys are the user's: comparing two of them may run any code, and let other threads go on meanwhile.
        self._lock = threading.Lock()
        self._counts: dict[Hashable, int] = {}
        self._errors: dict[Hashable, int] = {}
        self.total = 0

    def add_many(self, keys: Iterable[Hashable]) -> None:
        """Count `keys`."""
        counts = self._counts
        with self._lock:
            for key in keys:
                self.total += 1
                if key in counts:
                    counts[key] += 1
                elif len(counts) < self._size:
                    counts[key] = 1
                else:
                    rarest = min(counts, key=counts.__getitem__)
                    least = counts.pop(rarest)
                    self._errors.pop(rarest, None)
                    counts[key] = least + 1
                    self._errors[key] = least

    def all(self) -> list[KeyCount]:
        """The keys that are kept, at most `size`."""
        with self._lock:
            return [KeyCount(key, count, self._errors.get(key, 0)) for key, count in self._counts.items()]

    def top(self) -> KeyCount | None:
        """The key that has surely come most often (`count - error`); None before the first."""
        return max(self.all(), key=lambda each: each.count - each.error, default=None)
