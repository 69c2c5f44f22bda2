"""How operators in a process call the services of their job: the process's half. Requests and answers go over a link of
their own, so that neither waits for rows on their way, nor rows for them; see `service_desk` for the other half.

A request is `number, who, service, request, timeout_s`, an answer `number, True, answer` or `number, False, error`.
Each request is answered once, also when its time is over: the process itself does not look at the clock.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from sage.common.serialization import explain_unpicklable
from sage.kernel.operators import ServiceError, missing_service
from sage.platform.errors import LinkClosedError
from sage.platform.process_links import Link, UnreadableMessageError

from .remote_errors import PortableError, TransportError
from .salvage import salvage

__all__ = ["NoServices", "ServiceCaller"]


class NoServices:
    """The services of a job without any."""

    def call(self, who: str, name: str, request: Any, timeout_s: float | None) -> Any:
        """Say that there is no such service.

        Raises:
            ServiceError: always.
        """
        raise ServiceError(missing_service(who, name, ()))

    async def call_async(self, who: str, name: str, request: Any, timeout_s: float | None) -> Any:
        """Likewise."""
        return self.call(who, name, request, timeout_s)


class ServiceCaller:
    """The services of the job, as operators in a process see them. Any thread of the process may call.

    Of the threads that wait, one reads for all: none of them can rely on another one that is always there.

    Args:
        link: to the service desk.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._changed = threading.Condition()
        self._asked = 0
        self._answers: dict[int, tuple[bool, Any]] = {}
        self._is_read = False

    def call(self, who: str, name: str, request: Any, timeout_s: float | None) -> Any:
        """Call a service and wait for its answer.

        Raises:
            TransportError: the request cannot be sent, or the answer cannot be rebuilt here.
            ServiceError: there is no such service, or it has ended.
            TimeoutError: no answer within `timeout_s` seconds.
            Exception: whatever the service raises.
        """
        with self._changed:
            self._asked += 1
            number = self._asked
        try:
            self._link.send((number, who, name, request, timeout_s))
        except LinkClosedError as error:
            raise _gone(name) from error
        except Exception as error:  # whatever pickling a request raises
            reason = explain_unpicklable(request) or f"{type(error).__name__}: {error}"
            raise TransportError(f"{who} cannot send its request to the service {name!r}: {reason}") from error
        good, answer = self._wait_for(number, name)
        if good:
            return answer
        raise answer.restore() if isinstance(answer, PortableError) else answer

    async def call_async(self, who: str, name: str, request: Any, timeout_s: float | None) -> Any:
        """`call` for an event loop that an operator in a process has made itself."""
        return await asyncio.to_thread(self.call, who, name, request, timeout_s)

    def _wait_for(self, number: int, name: str) -> tuple[bool, Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: number in self._answers or not self._is_read)
                if number in self._answers:
                    return self._answers.pop(number)
                self._is_read = True
            try:
                arrived, answer = self._read()
            except LinkClosedError as error:
                raise _gone(name) from error
            else:
                with self._changed:
                    self._answers[arrived] = answer
            finally:
                with self._changed:
                    self._is_read = False
                    self._changed.notify_all()

    def _read(self) -> tuple[int, tuple[bool, Any]]:
        try:
            number, good, answer = self._link.receive()
        except UnreadableMessageError as error:
            number = salvage(error.pickled, error.buffers)[0]
            return number, (False, TransportError(f"an answer of a service cannot be rebuilt in the process: {error}"))
        return number, (good, answer)


def _gone(name: str) -> ServiceError:
    return ServiceError(f"service {name!r} cannot be reached: the job of this process has ended")
