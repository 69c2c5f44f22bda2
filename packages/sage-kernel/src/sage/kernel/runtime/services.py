"""The services of a running job: started before its sources, ended after its last task.

A request is admitted, worked on and answered; at most `concurrency` are worked on at once, the others wait in the order
in which they came. Invariant: each request is settled exactly once, with an answer, with an error, or with the end of
the job, whichever comes first; so no caller waits for ever.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from sage.kernel.graph import OperatorError
from sage.kernel.operators import Envelope, OperatorContext, Requests, ServiceError, ServiceSpec, missing_service
from sage.kernel.operators.services import RunningPipeline, ServiceFunction, settle
from sage.platform import Worker

from .job_master import TaskView
from .steps import Interrupted, check_output

__all__ = ["ServiceHost"]

_Request = tuple[Future[Any], Any]


class _Service(ABC):
    """One service of one job; `open` is the entry of its worker."""

    def __init__(self, spec: ServiceSpec, context: OperatorContext, on_ready: Callable[[], None]) -> None:
        self.spec = spec
        self._context = context
        self._on_ready = on_ready
        self._lock = threading.Lock()
        self._unsettled: set[Future[Any]] = set()
        self._waiting: deque[_Request] = deque()
        self._active = 0
        self._over: Callable[[], BaseException] | None = None
        self._ready = False
        self._answered = 0

    @abstractmethod
    def entries(self) -> Iterator[Callable[[], Any]]:
        """What its workers run; a coroutine function where it needs an event loop."""

    @abstractmethod
    def _begin(self, request: _Request) -> None:
        """Work on a request; `_ended` follows."""

    @abstractmethod
    def close(self) -> None:
        """Nobody calls any more: end."""

    def submit(self, request: Any) -> Future[Any]:
        """Take a request; its answer will be in the future.

        Raises:
            ServiceError: the service has ended.
            Interrupted: the job is being aborted.
        """
        answer: Future[Any] = Future()
        with self._lock:
            if self._over is not None:
                raise self._over()
            self._unsettled.add(answer)
            if self._active >= self.spec.concurrency:
                self._waiting.append((answer, request))
                return answer
            self._active += 1
        self._begin((answer, request))
        return answer

    def _ended(self, answer: Future[Any]) -> None:
        """Work on a request is over: the next one begins."""
        following: _Request | None = None
        with self._lock:
            self._answered += 1
            self._unsettled.discard(answer)
            while self._waiting and following is None:
                following = self._waiting.popleft()
                if following[0].done():
                    # Its caller has stopped waiting.
                    self._unsettled.discard(following[0])
                    following = None
            if following is None:
                self._active -= 1
        if following is not None:
            self._begin(following)

    def is_ready(self) -> None:
        """It is set up."""
        self._ready = True
        self._on_ready()

    def view(self, stack: Callable[[], str]) -> TaskView:
        """What the watchdog sees of it; `stack` tells where its first worker is."""
        if not self._ready:
            return TaskView((), in_work=True, queued=0, doing="in setup()", stack=stack)
        with self._lock:
            active, progress = self._active, (self._answered,)
            waiting = sum(1 for answer, _ in self._waiting if not answer.done())
            awaited = any(not answer.done() for answer in self._unsettled)
        if not active:
            return TaskView(progress, in_work=False, queued=0, doing="waiting for requests")
        if not awaited:
            # The job goes on without: to fail it because of that would be wrong.
            doing = f"working on {active} request(s) for which nobody waits any more"
            return TaskView(progress, in_work=False, queued=0, doing=doing, stack=stack)
        return TaskView(progress, in_work=True, queued=waiting, doing=f"working on {active} request(s)", stack=stack)

    def release(self, error: Callable[[], BaseException]) -> None:
        """Nothing is answered any more: who waits, and who calls from now on, gets an `error()` of his own."""
        with self._lock:
            if self._over is None:
                self._over = error
            unsettled, self._unsettled = self._unsettled, set()
            self._waiting.clear()
        for answer in unsettled:
            settle(answer, error=error())

    def _set_up(self) -> ServiceFunction[Any, Any]:
        name = self.spec.name
        try:
            function = self.spec.make()
            function.attach(self._context)
        except Exception as error:  # the boundary to user code
            raise OperatorError(f"service {name!r} could not be made: {type(error).__name__}: {error}") from error
        try:
            function.setup()
        except Exception as error:  # the boundary to user code
            function.detach()
            raise OperatorError(f"setup of service {name!r} failed: {type(error).__name__}: {error}") from error
        return function

    def _tear_down(self, function: ServiceFunction[Any, Any]) -> None:
        try:
            function.teardown()
        except Exception as error:  # the boundary to user code
            raise OperatorError(
                f"teardown of service {self.spec.name!r} failed: {type(error).__name__}: {error}"
            ) from error
        finally:
            function.detach()


class _ThreadService(_Service):
    """A plain function: as many threads as requests that may be worked on at once; the first one sets it up."""

    def __init__(self, spec: ServiceSpec, context: OperatorContext, on_ready: Callable[[], None]) -> None:
        super().__init__(spec, context, on_ready)
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._opened = threading.Event()
        self._function: ServiceFunction[Any, Any] | None = None
        self._others = threading.Semaphore(0)

    def entries(self) -> Iterator[Callable[[], Any]]:
        """The first one sets up and tears down."""
        yield self._lead
        for _ in range(1, self.spec.concurrency):
            yield self._follow

    def _lead(self) -> None:
        try:
            function = self._function = self._set_up()
        finally:
            self._opened.set()
        try:
            self.is_ready()
            self._serve(function)
            for _ in range(1, self.spec.concurrency):
                self._others.acquire()
        finally:
            self._tear_down(function)

    def _follow(self) -> None:
        try:
            self._opened.wait()
            if self._function is not None:
                self._serve(self._function)
        finally:
            self._others.release()

    def _serve(self, function: ServiceFunction[Any, Any]) -> None:
        while (request := self._requests.get()) is not None:
            answer, asked = request
            if not answer.done():
                try:
                    result = function.execute(asked)
                    check_output(self.spec.name, result)
                    settle(answer, result)
                except Exception as error:  # the boundary to user code: it is raised at the caller
                    settle(answer, error=error)
            self._ended(answer)

    def _begin(self, request: _Request) -> None:
        self._requests.put(request)

    def close(self) -> None:
        """Each thread ends behind the request that it is at."""
        for _ in range(self.spec.concurrency):
            self._requests.put(None)


class _AsyncService(_Service):
    """A coroutine function, on an event loop of its own."""

    def __init__(self, spec: ServiceSpec, context: OperatorContext, on_ready: Callable[[], None]) -> None:
        super().__init__(spec, context, on_ready)
        self._arrived: deque[_Request] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False

    def entries(self) -> Iterator[Callable[[], Any]]:
        """One event loop."""
        yield self._run

    async def _run(self) -> None:
        function = self._set_up()
        running: set[asyncio.Task[None]] = set()
        try:
            self.is_ready()
            loop = asyncio.get_running_loop()
            self._woken = asyncio.Event()
            with self._lock:
                self._loop = loop
            while True:
                self._woken.clear()
                while self._arrived:
                    task = loop.create_task(self._answer(function, self._arrived.popleft()))
                    running.add(task)
                    task.add_done_callback(running.discard)
                if self._closing:
                    return
                await self._woken.wait()
        finally:
            with self._lock:
                self._loop = None
            for task in tuple(running):
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            self._tear_down(function)

    async def _answer(self, function: ServiceFunction[Any, Any], request: _Request) -> None:
        answer, asked = request
        try:
            result: Any = function.execute(asked)
            if inspect.isawaitable(result):
                result = await result
            settle(answer, result)
        except asyncio.CancelledError:
            settle(answer, error=ServiceError(f"service {self.spec.name!r} cancelled the request"))
        except Exception as error:  # the boundary to user code: it is raised at the caller
            settle(answer, error=error)
        finally:
            self._ended(answer)

    def _begin(self, request: _Request) -> None:
        self._arrived.append(request)
        self._wake()

    def close(self) -> None:
        """The loop ends; what is still running is cancelled."""
        self._closing = True
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            # Before the loop is there it looks at what has arrived by itself.
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._woken.set)


class _PipelineService(_Service):
    """A pipeline: a job of its own, as long as the job that calls it."""

    def __init__(self, spec: ServiceSpec, context: OperatorContext, on_ready: Callable[[], None]) -> None:
        super().__init__(spec, context, on_ready)
        self._requests: queue.SimpleQueue[Envelope | None] = queue.SimpleQueue()
        self._job: RunningPipeline | None = None
        self._closing = False

    def entries(self) -> Iterator[Callable[[], Any]]:
        """One thread, which waits for the pipeline."""
        yield self._run

    def _run(self) -> None:
        assert self.spec.pipeline is not None
        job = self.spec.pipeline(Requests(self._next))
        with self._lock:
            self._job = job
            over = self._over
        if over is Interrupted:
            job.abort("the job that called it was aborted")
        self.is_ready()
        try:
            job.wait()
        except Exception as error:  # whatever ended the pipeline: those who wait for it must not wait for ever
            self.release(partial(ServiceError, f"service {self.spec.name!r} has failed: {error}"))
            raise
        self.release(partial(ServiceError, f"service {self.spec.name!r} has ended"))
        if not self._closing:
            raise ServiceError(f"the pipeline of service {self.spec.name!r} ended before the job that calls it")

    def _next(self, timeout_s: float) -> Envelope | None:
        """The next request that somebody still waits for.

        Raises:
            queue.Empty: none has come in time.
        """
        while True:
            envelope = self._requests.get(timeout=timeout_s)
            if envelope is None or not envelope.answer.done():
                return envelope

    def _begin(self, request: _Request) -> None:
        answer, asked = request
        answer.add_done_callback(self._ended)
        self._requests.put(Envelope(asked, answer))

    def close(self) -> None:
        """The stream of requests ends. What the pipeline still works on has its grace period: nobody waits for it."""
        self._closing = True
        self._requests.put(None)
        with self._lock:
            job = self._job
        if job is not None:
            job.stop()

    def release(self, error: Callable[[], BaseException]) -> None:
        """Also ends the pipeline when the job is aborted."""
        super().release(error)
        with self._lock:
            job = self._job
        if job is not None and error is Interrupted:
            job.abort("the job that called it was aborted")


class ServiceHost:
    """All services of one job, and how its operators call them.

    Args:
        specs: what was registered, by name.
        job: name of the job.
        on_ready: called with the id of a worker that is set up.
    """

    def __init__(self, specs: Mapping[str, ServiceSpec], *, job: str, on_ready: Callable[[str], None]) -> None:
        self._services: dict[str, _Service] = {}
        self._closed = False
        for name, spec in specs.items():
            context = OperatorContext(name, job=job, services=self)
            kind: type[_Service] = _AsyncService if spec.is_async else _ThreadService
            if spec.pipeline is not None:
                kind = _PipelineService
            self._services[name] = kind(spec, context, partial(on_ready, _worker_id(name)))

    @property
    def needs_setup(self) -> tuple[str, ...]:
        """Ids of the workers for which the sources wait."""
        return tuple(_worker_id(name) for name in self._services)

    def entries(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Id and entry of each worker."""
        for name, service in self._services.items():
            for number, entry in enumerate(service.entries()):
                yield (_worker_id(name) if not number else f"{_worker_id(name)} [{number}]"), entry

    def views(self, workers: Mapping[str, Worker]) -> dict[str, TaskView]:
        """What the watchdog sees of the services, by id of their first worker."""
        return {
            _worker_id(name): service.view(partial(_stack, workers[_worker_id(name)]))
            for name, service in self._services.items()
        }

    def close(self) -> None:
        """Nobody calls any more: end all services."""
        if not self._closed:
            self._closed = True
            for service in self._services.values():
                service.close()

    def abort(self) -> None:
        """The job is aborted: release all callers."""
        for service in self._services.values():
            service.release(Interrupted)
        self.close()

    # -- for operators

    def ask(self, who: str, name: str, request: Any) -> Future[Any]:
        """Take a request; its answer will be in the future.

        Raises:
            ServiceError: there is no such service, or it has ended.
            Interrupted: the job is being aborted.
        """
        found = self._services.get(name)
        if found is None:
            raise ServiceError(missing_service(who, name, self._services))
        return found.submit(request)

    def call(self, who: str, name: str, request: Any, timeout_s: float | None) -> Any:
        """Call a service and wait for its answer.

        Raises:
            ServiceError: there is no such service, or it has ended.
            TimeoutError: no answer within `timeout_s` seconds.
        """
        answer = self.ask(who, name, request)
        try:
            return answer.result(None if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX))
        except TimeoutError:
            if answer.cancel():
                raise _late(who, name, timeout_s) from None
            return answer.result()

    async def call_async(self, who: str, name: str, request: Any, timeout_s: float | None) -> Any:
        """`call` for a coroutine."""
        answer = self.ask(who, name, request)
        try:
            async with asyncio.timeout(timeout_s) as limit:
                return await asyncio.wrap_future(answer)
        except TimeoutError:
            if not limit.expired():
                raise
            raise _late(who, name, timeout_s) from None


def _stack(worker: Worker) -> str:
    return "".join(worker.stack()[-6:])


def _late(who: str, name: str, timeout_s: float | None) -> TimeoutError:
    return TimeoutError(f"service {name!r} did not answer {who} within {timeout_s:g} s")


def _worker_id(name: str) -> str:
    return f"service {name}"
