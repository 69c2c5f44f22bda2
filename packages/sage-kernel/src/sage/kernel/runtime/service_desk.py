"""Where the calls of services by one process arrive: the parent's half of `process_calls`.

A thread of its own takes requests, sends answers and looks at the clock. It waits for no service and for no row, and no
service waits for it: so a task that waits for room behind it, or a process that does not read, holds up nobody else.

Invariant: each request is answered once, or its process has ended.
"""

from __future__ import annotations

import logging
import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from sage.common.serialization import explain_unpicklable
from sage.platform import LinkClosedError, ProcessLine, ProcessPool, WorkerProcess
from sage.platform.process_lines import add_link
from sage.platform.process_links import UnreadableMessageError

from .remote_errors import TransportError, portable_error
from .salvage import reason_unreadable, salvage
from .steps import Interrupted

__all__ = ["DeskServices", "ServedLine", "ServiceDesk"]

logger = logging.getLogger("sage.kernel.services")

_WAIT_MAX_S = 3600.0


class DeskServices(Protocol):
    """The services of the job."""

    def ask(self, who: str, name: str, request: Any) -> Future[Any]:
        """Take a request; its answer will be in the future."""


@dataclass(slots=True)
class _Request:
    who: str
    name: str
    answer: Future[Any]
    timeout_s: float | None
    late_at: float


class ServiceDesk:
    """Answers the calls of one process, from now on until it is closed.

    Args:
        process: whose calls; it takes its end of the link by `join_line`.
        services: who answers.
        name: of the task.

    Raises:
        LinkClosedError: the process has ended.
    """

    def __init__(self, process: WorkerProcess, services: DeskServices, name: str) -> None:
        self._link = add_link(process)
        self._end_fd = process.end_fd
        self._services = services
        self._requests: dict[int, _Request] = {}
        self._answered: deque[int] = deque()
        self._lock = threading.Lock()
        self._closing = False
        self._woken_fd, self._wake_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name=f"sage-calls-{name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nobody calls any more, or the process is being ended: requests without an answer are dropped."""
        with self._lock:
            self._closing = True
        self._wake()
        self._thread.join()
        with self._lock:
            os.close(self._woken_fd)
            os.close(self._wake_fd)
            self._wake_fd = -1

    # -- called by services

    def _note_answer(self, number: int, answer: Future[Any]) -> None:
        self._answered.append(number)
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            if self._wake_fd >= 0:
                try:
                    os.write(self._wake_fd, b"w")
                except BlockingIOError:
                    return  # it has not looked up since it was woken so often

    # -- its thread

    def _run(self) -> None:
        try:
            while not self._closing:
                if self._wait():
                    self._take()
                while self._answered:
                    self._send_answer(self._answered.popleft())
                self._give_up_late()
        except LinkClosedError:
            logger.debug("the process that called has ended")
        finally:
            for request in self._requests.values():
                # What nobody has begun to work on need not be done any more.
                request.answer.cancel()
            # Whatever ended this thread, nobody must wait for an answer.
            self._link.close()

    def _wait(self) -> bool:
        """Wait for anything to do; whether a request has come."""
        descriptor, has_more = self._link.reading
        if has_more:
            return True
        poll = select.poll()
        for watched in (descriptor, self._woken_fd, self._end_fd):
            poll.register(watched, select.POLLIN)
        late_at = min((request.late_at for request in self._requests.values()), default=math.inf)
        # A poll cannot wait longer than some weeks; who wakes early looks at the clock and waits again.
        wait_s = min(_WAIT_MAX_S, max(0.0, late_at - time.monotonic()))
        wait_ms = None if late_at == math.inf else math.ceil(wait_s * 1000)
        ready = {found for found, _ in poll.poll(wait_ms)}
        if self._woken_fd in ready:
            os.read(self._woken_fd, 4096)
        if self._end_fd in ready and descriptor not in ready:
            raise LinkClosedError
        return descriptor in ready

    def _take(self) -> None:
        try:
            number, who, name, asked, timeout_s = self._link.receive()
        except UnreadableMessageError as error:
            number, who, name, asked, _ = salvage(error.pickled, error.buffers)
            reason = reason_unreadable(asked) or str(error)
            told = f"the request of {who} to the service {name!r} cannot be rebuilt in the program's process: {reason}"
            self._send_error(number, TransportError(told))
            return
        try:
            answer = self._services.ask(who, name, asked)
        except Exception as error:  # there is no such service, or it has ended
            self._send_error(number, error)
            return
        except Interrupted:
            return  # the job is being aborted, which ends the process
        late_at = math.inf if timeout_s is None else time.monotonic() + timeout_s
        self._requests[number] = _Request(who, name, answer, timeout_s, late_at)
        answer.add_done_callback(partial(self._note_answer, number))

    def _send_answer(self, number: int) -> None:
        request = self._requests.pop(number, None)
        if request is None or request.answer.cancelled():
            return
        error = request.answer.exception()
        if isinstance(error, Exception):
            self._send_error(number, error)
            return
        if error is not None:
            return  # the job is being aborted, which ends the process
        answer = request.answer.result()
        try:
            self._link.send((number, True, answer), draining=True)
        except LinkClosedError:
            raise
        except Exception as raised:  # whatever pickling an answer raises
            reason = explain_unpicklable(answer) or f"{type(raised).__name__}: {raised}"
            self._send_error(
                number,
                TransportError(f"the answer of service {request.name!r} cannot be sent to the process: {reason}"),
            )

    def _send_error(self, number: int, error: Exception) -> None:
        self._link.send((number, False, portable_error(error)), draining=True)

    def _give_up_late(self) -> None:
        now = time.monotonic()
        for number, request in list(self._requests.items()):
            if request.late_at <= now and request.answer.cancel():
                del self._requests[number]
                self._send_error(
                    number,
                    TimeoutError(
                        f"service {request.name!r} did not answer {request.who} within {request.timeout_s:g} s"
                    ),
                )


class ServedLine(ProcessLine):
    """Processes whose operators call services: each with a desk of its own.

    Args:
        pool: where they come from.
        size: how many.
        services: who answers.
        name: of the task.

    Raises:
        WorkerError: a process could not be started.
    """

    def __init__(self, pool: ProcessPool, size: int, services: DeskServices, name: str) -> None:
        super().__init__(pool, size)
        self._desks: list[ServiceDesk] = []
        try:
            for process in self.processes:
                self._desks.append(ServiceDesk(process, services, name))
        except BaseException:
            self.discard()
            raise

    def release(self) -> None:
        """Give back processes whose entries have returned."""
        _close(self._desks)
        super().release()

    def discard(self) -> None:
        """Give up all: whoever lives is killed."""
        # Before: a desk may be sending to one that does not read.
        self.kill()
        _close(self._desks)
        super().discard()


def _close(desks: Sequence[ServiceDesk]) -> None:
    for desk in desks:
        desk.close()
