"""Keeps the garbage collector away from what was there before the job.

A full collection looks at every container of the process: 15 ms for the modules of a small program, far more beside a
loaded model or index, and no thread runs meanwhile. What was there before the first job will hardly be garbage while
jobs run, so it is set aside (`gc.freeze`) until the last one has ended; the collector looks at what came since.

It also looks less often at what is young. Items on their way are alive, some thousands at a time, and end without the
collector when they are through; at its usual pace, each 700 new containers, it looks at most of them on their way.
"""

from __future__ import annotations

import gc
import threading

__all__ = ["YOUNG_MIN", "HeldHeap"]

YOUNG_MIN = 3_000
"""New containers before the collector looks at them, while jobs run."""


class HeldHeap:
    """Counts the jobs that want the heap held; holds it for the first, gives it back after the last.

    Where the program itself has frozen objects, or has switched the collector off, nothing is done.

    Example:
        >>> heap = HeldHeap()
        >>> heap.hold(); gc.get_freeze_count() > 0
        True
        >>> heap.release(); gc.get_freeze_count()
        0
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs = 0
        self._froze = False
        self._pace: tuple[int, int, int] | None = None

    def hold(self) -> None:
        """One job more."""
        with self._lock:
            self._jobs += 1
            if self._jobs == 1 and gc.isenabled() and not gc.get_freeze_count():
                gc.freeze()
                self._froze = True
                pace = gc.get_threshold()
                if 0 < pace[0] < YOUNG_MIN:
                    self._pace = pace
                    gc.set_threshold(YOUNG_MIN, *pace[1:])

    def release(self) -> None:
        """One job less."""
        with self._lock:
            self._jobs -= 1
            if not self._jobs and self._froze:
                self._froze = False
                gc.unfreeze()
                pace, self._pace = self._pace, None
                # Unless the program has chosen another pace meanwhile.
                if pace is not None and gc.get_threshold() == (YOUNG_MIN, *pace[1:]):
                    gc.set_threshold(*pace)
