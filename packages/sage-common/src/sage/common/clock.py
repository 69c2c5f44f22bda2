"""Time as an argument: a real clock, and a virtual one that a test or a simulation moves by hand.

Code that decides by time takes a `Clock` instead of calling `time`, so that the same code runs under a
simulated platform. Wall time (`time`) is for people and records; durations and deadlines use `monotonic_ns`.
"""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections.abc import Callable
from typing import Protocol

from sage.common.errors import InvalidArgumentError

__all__ = ["Clock", "RealClock", "Timer", "VirtualClock"]

_NS_PER_S = 1_000_000_000


class Clock(Protocol):
    """What code may know about time.

    >>> def elapsed_ns(clock: Clock) -> int:
    ...     begin = clock.monotonic_ns()
    ...     clock.sleep(0.5)
    ...     return clock.monotonic_ns() - begin
    >>> elapsed_ns(VirtualClock(auto_advance=True))
    500000000
    """

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC; may jump when the machine's clock is set."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds since an arbitrary moment; never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after `seconds`; at once when it is 0 or negative."""
        ...


class RealClock:
    """The machine's clock. All instances are alike.

    `monotonic_ns` is `time.monotonic_ns` itself (no Python frame in between), because hot loops call it per
    batch.

    >>> clock = RealClock()
    >>> clock.monotonic_ns() <= clock.monotonic_ns()
    True
    """

    __slots__ = ()

    monotonic_ns = staticmethod(time.monotonic_ns)
    time = staticmethod(time.time)

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for `seconds`; return at once when it is 0 or negative."""
        if seconds > 0:
            time.sleep(seconds)


class Timer:
    """A callback waiting for its moment; returned by `VirtualClock.call_at`.

    >>> clock = VirtualClock()
    >>> timer = clock.call_later(1.0, lambda: None)
    >>> timer.cancel()
    >>> clock.advance(2.0)
    0
    """

    __slots__ = ("_callback", "cancelled", "deadline_ns")

    def __init__(self, deadline_ns: int, callback: Callable[[], object]) -> None:
        self.deadline_ns = deadline_ns
        self.cancelled = False
        self._callback = callback

    def cancel(self) -> None:
        """Never call the callback; harmless when it has run already."""
        self.cancelled = True

    def run(self) -> None:
        """Call the callback (the clock does this)."""
        self._callback()


class _Sleeper:
    """One thread inside `VirtualClock.sleep`."""

    __slots__ = ("awake", "deadline_ns", "left")

    def __init__(self, deadline_ns: int) -> None:
        self.deadline_ns = deadline_ns
        self.awake = False
        self.left = False


class VirtualClock:
    """A clock that stands still until `advance` moves it.

    Timers run and sleeping threads wake strictly in the order of their deadlines, and in the order of their
    registration where deadlines are equal; during each the clock shows exactly its deadline. Timers run in
    the thread that advances, without any lock held, and may register more timers, which still run in the same
    advance if they fall into it. `advance` goes past a sleeper's deadline only after that thread has left
    `sleep`.

    Times are kept as whole nanoseconds, so that a thousand steps of 0.1 s make exactly 100 s.

    Args:
        start: Wall time shown at the beginning, in seconds since 1970-01-01 UTC. `monotonic_ns` begins at 0.
        auto_advance: What `sleep` does. False: it blocks the calling thread until another thread has advanced
            far enough. True: it advances the clock itself and returns, which fits programs of one thread.

    >>> clock = VirtualClock(start=1000.0)
    >>> seen = []
    >>> _ = clock.call_later(2.0, lambda: seen.append(("late", clock.time())))
    >>> _ = clock.call_later(1.0, lambda: seen.append(("early", clock.time())))
    >>> clock.advance(3.0)
    2
    >>> seen, clock.time()
    ([('early', 1001.0), ('late', 1002.0)], 1003.0)
    """

    def __init__(self, start: float = 0.0, *, auto_advance: bool = False) -> None:
        if not math.isfinite(start):
            raise InvalidArgumentError(f"start must be a finite number of seconds, got {start!r}")
        self._start = float(start)
        self._auto_advance = auto_advance
        self._now_ns = 0
        self._registered = 0
        self._agenda: list[tuple[int, int, Timer | _Sleeper]] = []
        self._sleepers = 0
        self._changed = threading.Condition(threading.Lock())
        self._advancing: int | None = None

    def time(self) -> float:
        """Wall time in seconds: `start` plus what was advanced."""
        return self._start + self._now_ns / _NS_PER_S

    def monotonic_ns(self) -> int:
        """Nanoseconds advanced so far."""
        return self._now_ns

    def sleep(self, seconds: float) -> None:
        """Wait for virtual time to pass (see `auto_advance`); return at once when `seconds` is 0 or negative.

        Raises:
            InvalidArgumentError: If `seconds` is not finite, or if a timer callback would wait for its own
                advance.
        """
        delay_ns = _to_ns(seconds, "seconds")
        if delay_ns <= 0:
            return
        if self._advancing == threading.get_ident():
            raise InvalidArgumentError("a timer callback must not sleep: it would wait for the advance it runs in")
        if self._auto_advance:
            self._advance_to(self._now_ns + delay_ns)
            return
        with self._changed:
            sleeper = _Sleeper(self._now_ns + delay_ns)
            self._push(sleeper.deadline_ns, sleeper)
            self._sleepers += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: sleeper.awake)
            self._sleepers -= 1
            sleeper.left = True
            self._changed.notify_all()

    def call_at(self, deadline_ns: int, callback: Callable[[], object]) -> Timer:
        """Run `callback` when `monotonic_ns()` reaches `deadline_ns`, at the next advance if it has already.

        >>> clock = VirtualClock()
        >>> _ = clock.call_at(5, lambda: print("at", clock.monotonic_ns()))
        >>> clock.advance(1e-8)
        at 5
        1
        """
        timer = Timer(deadline_ns, callback)
        with self._changed:
            self._push(deadline_ns, timer)
        return timer

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Run `callback` when `seconds` have passed.

        Raises:
            InvalidArgumentError: If `seconds` is not finite.
        """
        return self.call_at(self._now_ns + _to_ns(seconds, "seconds"), callback)

    def next_deadline_ns(self) -> int | None:
        """The deadline of the next timer or sleeper, or None when nothing waits.

        >>> clock = VirtualClock()
        >>> clock.next_deadline_ns() is None
        True
        """
        with self._changed:
            while self._agenda and _is_cancelled(self._agenda[0][2]):
                heapq.heappop(self._agenda)
            return self._agenda[0][0] if self._agenda else None

    def advance(self, seconds: float) -> int:
        """Move the clock by `seconds` (>= 0) and return how many timers and sleepers came due.

        Raises:
            InvalidArgumentError: If `seconds` is negative or not finite, or if another advance is under way.
        """
        step_ns = _to_ns(seconds, "seconds")
        if step_ns < 0:
            raise InvalidArgumentError(f"seconds must be >= 0, got {seconds!r}: a clock does not run backwards")
        return self._advance_to(self._now_ns + step_ns)

    def wait_for_sleepers(self, count: int, timeout_seconds: float = 10.0) -> bool:
        """Wait in real time until `count` threads are in `sleep`; False when `timeout_seconds` ran out.

        A test calls it before `advance`, to be sure that the threads have got that far.

        >>> VirtualClock().wait_for_sleepers(0)
        True
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._sleepers >= count, timeout_seconds)

    def _push(self, deadline_ns: int, entry: Timer | _Sleeper) -> None:
        self._registered += 1
        heapq.heappush(self._agenda, (deadline_ns, self._registered, entry))

    def _advance_to(self, target_ns: int) -> int:
        with self._changed:
            if self._advancing is not None:
                raise InvalidArgumentError("the clock is being advanced already (by another thread or a callback)")
            self._advancing = threading.get_ident()
        due = 0
        try:
            while (entry := self._pop_due(target_ns)) is not None:
                if isinstance(entry, Timer):
                    if entry.cancelled:
                        continue
                    entry.run()
                else:
                    self._wake(entry)
                due += 1
            self._now_ns = max(self._now_ns, target_ns)
        finally:
            with self._changed:
                self._advancing = None
        return due

    def _pop_due(self, target_ns: int) -> Timer | _Sleeper | None:
        with self._changed:
            if not self._agenda or self._agenda[0][0] > target_ns:
                return None
            deadline_ns, _, entry = heapq.heappop(self._agenda)
            if not _is_cancelled(entry):
                self._now_ns = max(self._now_ns, deadline_ns)
            return entry

    def _wake(self, sleeper: _Sleeper) -> None:
        with self._changed:
            sleeper.awake = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: sleeper.left)


def _is_cancelled(entry: Timer | _Sleeper) -> bool:
    return isinstance(entry, Timer) and entry.cancelled


def _to_ns(seconds: float, name: str) -> int:
    if not math.isfinite(seconds):
        raise InvalidArgumentError(f"{name} must be finite, got {seconds!r}")
    return round(seconds * _NS_PER_S)
