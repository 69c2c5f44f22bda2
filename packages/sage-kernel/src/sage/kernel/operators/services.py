"""Services: what several operators of a job share and call by name. A model, a client, a cache, or a whole pipeline."""

from __future__ import annotations

import difflib
import inspect
import queue
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from sage.common.errors import SageError

from .functions import Function, SinkFunction, SourceFunction

__all__ = [
    "Envelope",
    "NoAnswerError",
    "Requests",
    "RespondSink",
    "ServiceError",
    "ServiceFunction",
    "ServiceSpec",
    "missing_service",
    "settle",
]

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class ServiceError(SageError):
    """A service cannot be called: it is not registered, has ended, or may not be called like this."""


class NoAnswerError(ServiceError):
    """A request was dropped in a service's pipeline."""


class ServiceFunction(Function, Generic[Request, Answer]):
    """Answers requests of operators; one per job, whatever the number of operators and replicas that call it.

    A plain `execute` works on one request at a time, on the thread that has run `setup`, unless it is registered with a
    `concurrency`. An `async` one runs on an event loop of its own and has 64 requests in hand at once.

    Example:
        >>> class Lookup(ServiceFunction[str, str]):
        ...     def setup(self):
        ...         self.names = {"de": "Germany"}
        ...     def execute(self, request):
        ...         return self.names[request]
        >>> lookup = Lookup(); lookup.setup(); lookup.execute("de")
        'Germany'
    """

    @abstractmethod
    def execute(self, request: Request) -> Answer | Awaitable[Answer]:
        """Return the answer to `request`; what is raised is raised at the caller."""


class PlainService(ServiceFunction[Any, Any]):
    """A service out of a function."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self._function = function

    def execute(self, request: Any) -> Any:
        """Call the function; of a coroutine function this is the coroutine."""
        return self._function(request)


class RunningPipeline(Protocol):
    """The job of a service's pipeline."""

    def wait(self, timeout_s: float | None = None) -> Any:
        """Wait for its end; raises if it failed."""

    def stop(self, grace_s: float | None = None) -> None:
        """Let it work off what it has."""

    def abort(self, reason: str = "aborted") -> None:
        """End it now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """A service that was registered.

    Attributes:
        name: by which it is called.
        target: a `ServiceFunction` class or instance, or a function; None for a pipeline.
        config: of a class, checked.
        concurrency: most requests that it works on at once.
        pipeline: starts the job of a pipeline, which reads these requests.
        where: service and line, for messages.
    """

    name: str
    target: Any
    config: Any
    concurrency: int
    pipeline: Callable[[Requests], RunningPipeline] | None
    where: str

    def make(self) -> ServiceFunction[Any, Any]:
        """The service of one job."""
        if isinstance(self.target, ServiceFunction):
            return self.target
        if isinstance(self.target, type):
            made: ServiceFunction[Any, Any] = self.target(self.config)
            return made
        return PlainService(self.target)

    @property
    def is_async(self) -> bool:
        """Whether it runs on an event loop."""
        call = self.target
        if isinstance(call, ServiceFunction) or (isinstance(call, type) and issubclass(call, ServiceFunction)):
            call = call.execute
        return inspect.iscoroutinefunction(call)


def missing_service(who: str, name: str, known: Iterable[str]) -> str:
    """What to tell somebody who calls a service that is not there.

    Example:
        >>> missing_service("operator 'embed'", "modell", ["model", "cache"])
        "operator 'embed' calls the service 'modell', which is not registered; did you mean 'model'?"
    """
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        hint = f"did you mean {close[0]!r}?"
    else:
        hint = f"there are: {', '.join(names)}" if names else "none is: call env.register_service(name, service)"
    return f"{who} calls the service {name!r}, which is not registered; {hint}"


def settle(answer: Future[Any], result: Any = None, error: BaseException | None = None) -> bool:
    """Answer a request, once; False when it was answered before, or nobody waits any more."""
    try:
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)
    except InvalidStateError:
        return False
    return True


class Envelope:
    """A request on its way through a service's pipeline: what the operators see, and where the answer goes."""

    __slots__ = ("answer", "value")

    def __init__(self, value: Any, answer: Future[Any]) -> None:
        self.value = value
        self.answer = answer

    def holding(self, value: Any) -> Envelope:
        """The same request with what an operator has made of it."""
        return Envelope(value, self.answer)

    def __repr__(self) -> str:
        return repr(self.value)


class Requests(SourceFunction[Any]):
    """Source of a service's pipeline: the requests as they come.

    `feed(timeout_s)` gives the next one, None when there will be no more, and raises `queue.Empty`; without a feed the
    pipeline was not started as a service.
    """

    LOOK_UP_S = 0.1

    def __init__(self, feed: Callable[[float], Envelope | None] | None = None) -> None:
        super().__init__()
        self._feed = feed

    def execute(self) -> Iterable[Any]:
        """Envelopes until the service ends."""
        if self._feed is None:
            raise ServiceError(
                f"pipeline {self.ctx.job!r} answers requests and does not run by itself: "
                "register it with env.register_service(name, this_environment)"
            )
        return self._envelopes(self._feed)

    def _envelopes(self, feed: Callable[[float], Envelope | None]) -> Iterable[Envelope]:
        while not self.ctx.stopping:
            try:
                envelope = feed(self.LOOK_UP_S)
            except queue.Empty:
                # The pipeline may have failed meanwhile, which nobody tells a source that waits.
                continue
            if envelope is None:
                return
            yield envelope


class RespondSink(SinkFunction[Any]):
    """Sink of a service's pipeline: gives each answer to who asked."""

    def execute(self, item: Any) -> None:
        """Answer; a caller that has given up is no error."""
        settle(item.answer, item.value)
