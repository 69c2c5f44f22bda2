"""Whether code that computes lets other Python threads go on meanwhile."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Final, Self

__all__ = ["LockWatch"]

_TICK_S: Final = 0.001


class LockWatch:
    """Ticks beside the code in its `with` block. A thread that computes in Python gives up the interpreter lock only at
    the switch interval (5 ms), so the ticks come as seldom; native code that releases the lock lets all of them come.

    Example:
        >>> with LockWatch() as watch:
        ...     total = sum(range(10))
        >>> watch.released(cpu_s=0.0)
        False
    """

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._ticks = 0
        self._thread = threading.Thread(target=self._tick, name="sage-lock-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _tick(self) -> None:
        while not self._ended.wait(_TICK_S):
            self._ticks += 1

    def released(self, cpu_s: float) -> bool:
        """Whether the lock was free for most of the `cpu_s` seconds that were computed. Too short a time to see it
        counts as not.
        """
        interval = sys.getswitchinterval()
        return cpu_s >= 3 * interval and self._ticks > 0.5 * cpu_s / _TICK_S
