"""Workers: an entry callable that runs beside others, on a thread or on an event loop of its own."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Protocol

from .errors import WorkerError
from .event_loops import new_event_loop

__all__ = ["AsyncioWorker", "ThreadWorker", "Worker"]

OnExit = Callable[["Worker"], None]


class Worker(Protocol):
    """A running entry callable.

    Whatever the entry raises, `SystemExit` included, is kept in `failure`; `on_exit` is called exactly once,
    in the worker, after the entry has ended.
    """

    @property
    def name(self) -> str:
        """Name for messages; also the name of the thread."""

    @property
    def failure(self) -> BaseException | None:
        """What the entry raised, None while it runs or when it returned."""

    def start(self) -> None:
        """Begin; once only."""

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; False when `timeout_s` has passed first."""

    def frame(self) -> FrameType | None:
        """The innermost Python frame that it is in at this moment, None when it does not run."""

    def stack(self) -> list[str]:
        """Where it is at this moment, outermost first, as lines of a traceback."""


class ThreadWorker:
    """Runs `entry()` on a thread of its own.

    The thread is a daemon: an operator that never returns can be given up without holding the process.

    Example:
        >>> done = []
        >>> worker = ThreadWorker("demo", lambda: done.append(1))
        >>> worker.start(); worker.join(), done, worker.failure
        (True, [1], None)
    """

    def __init__(self, name: str, entry: Callable[[], None], on_exit: OnExit | None = None) -> None:
        self._entry = entry
        self._on_exit = on_exit
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # kept, not swallowed: a worker that dies of SystemExit must be noticed as well
            self._failure = error
        finally:
            if self._on_exit is not None:
                self._on_exit(self)

    def _call(self) -> None:
        self._entry()

    @property
    def name(self) -> str:
        """Name of the thread."""
        return self._thread.name

    @property
    def failure(self) -> BaseException | None:
        """What the entry raised, None while it runs or when it returned."""
        return self._failure

    def start(self) -> None:
        """Begin; once only.

        Raises:
            WorkerError: it was started before, or the system has no more threads.
        """
        try:
            self._thread.start()
        except RuntimeError as error:
            raise WorkerError(f"worker {self.name!r} could not be started: {error}") from error

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; False when `timeout_s` has passed first."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def frame(self) -> FrameType | None:
        """The innermost Python frame that it is in at this moment, None when it does not run."""
        identity = self._thread.ident
        return None if identity is None else sys._current_frames().get(identity)

    def stack(self) -> list[str]:
        """Where it is at this moment, outermost first, as lines of a traceback."""
        frame = self.frame()
        return [] if frame is None else traceback.format_stack(frame)


class AsyncioWorker(ThreadWorker):
    """Runs `entry()` as a coroutine on an event loop of its own, on a thread of its own.

    Example:
        >>> async def entry(): await asyncio.sleep(0)
        >>> worker = AsyncioWorker("demo", entry)
        >>> worker.start(); worker.join()
        True
    """

    def __init__(self, name: str, entry: Callable[[], Awaitable[None]], on_exit: OnExit | None = None) -> None:
        super().__init__(name, self._never, on_exit)
        self._entry_async = entry

    def _never(self) -> None:
        raise WorkerError("an asyncio worker has no plain entry")

    def _call(self) -> None:
        async def main() -> None:
            await self._entry_async()

        # Runner.close cancels what is left and shuts async generators and the loop's own executor down.
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(main())
