"""The event loop of asyncio workers: asyncio's own, with timers that are not rounded up to whole milliseconds.

`epoll_wait` counts in milliseconds and asyncio rounds up, so each timer is late by 0.5 ms on average. In a pipeline
whose operators wait one after the other the delays add up.
"""

from __future__ import annotations

import asyncio
import select
import selectors
import sys

__all__ = ["new_event_loop"]


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A new event loop: of the program's own policy where it has set one (uvloop, for one), else a precise one.

    Example:
        >>> loop = new_event_loop()
        >>> loop.run_until_complete(asyncio.sleep(0, "done"))
        'done'
        >>> loop.close()
    """
    if sys.platform != "linux" or _policy_is_set():
        return asyncio.new_event_loop()
    return asyncio.SelectorEventLoop(_PreciseSelector())


def _policy_is_set() -> bool:
    if sys.version_info >= (3, 14):
        # Policies are on their way out there; asking for one warns.
        return False
    return type(asyncio.get_event_loop_policy()) is not asyncio.DefaultEventLoopPolicy


if sys.platform == "linux":

    class _PreciseSelector(selectors.EpollSelector):
        """Waits in `select()`, which counts in microseconds, until the epoll descriptor is readable."""

        _FD_SETSIZE = 1024

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """Ready descriptors; waits up to `timeout` seconds, None without limit."""
            if timeout is not None and timeout > 0:
                own = self.fileno()
                if own < self._FD_SETSIZE:
                    select.select((own,), (), (), timeout)
                    timeout = 0
            return super().select(timeout)
