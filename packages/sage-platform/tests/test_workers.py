"""Conformance of workers: every vehicle passes this suite (`FORMS`)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sage.common.clock import VirtualClock
from sage.platform import AsyncioWorker, LocalBackend, ThreadWorker, Worker, WorkerError


def thread_form(name: str, entry: Callable[[], Any], on_exit: Any = None) -> Worker:
    return ThreadWorker(name, entry, on_exit)


def asyncio_form(name: str, entry: Callable[[], Any], on_exit: Any = None) -> Worker:
    async def entry_async() -> None:
        await asyncio.sleep(0)
        entry()

    return AsyncioWorker(name, entry_async, on_exit)


def backend_thread_form(name: str, entry: Callable[[], Any], on_exit: Any = None) -> Worker:
    return LocalBackend().thread_worker(name, entry, on_exit or (lambda worker: None))


def backend_asyncio_form(name: str, entry: Callable[[], Any], on_exit: Any = None) -> Worker:
    async def entry_async() -> None:
        entry()

    return LocalBackend().asyncio_worker(name, entry_async, on_exit or (lambda worker: None))


FORMS = {
    "thread": thread_form,
    "asyncio": asyncio_form,
    "backend thread": backend_thread_form,
    "backend asyncio": backend_asyncio_form,
}


@pytest.fixture(params=list(FORMS))
def make(request: pytest.FixtureRequest) -> Callable[..., Worker]:
    return FORMS[request.param]


Make = Callable[..., Worker]


def test_runs_beside_its_maker(make: Make) -> None:
    ran: list[str] = []
    worker = make("sage-test", lambda: ran.append(threading.current_thread().name))
    assert (worker.name, worker.failure, worker.frame(), worker.stack()) == ("sage-test", None, None, [])
    worker.start()
    assert worker.join(5)
    assert ran == ["sage-test"]
    assert worker.failure is None
    assert worker.frame() is None
    assert worker.stack() == []
    assert worker.join(0), "a second join changes nothing"


class Odd(BaseException):
    """Neither an error nor an exit."""


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), Odd(), GeneratorExit()])
def test_keeps_whatever_the_entry_raises(make: Make, error: BaseException) -> None:
    seen: list[tuple[Worker, BaseException | None, str]] = []

    def entry() -> None:
        raise error

    worker = make(
        "sage-test", entry, lambda ended: seen.append((ended, ended.failure, threading.current_thread().name))
    )
    worker.start()
    assert worker.join(5)
    assert worker.failure is error
    assert seen == [(worker, error, "sage-test")], "told once, in the worker, with the failure there to read"


def test_tells_once_that_it_has_ended(make: Make) -> None:
    ends: list[Worker] = []
    workers = [make(f"sage-{number}", lambda: None, ends.append) for number in range(5)]
    for worker in workers:
        worker.start()
    assert all(worker.join(5) for worker in workers)
    assert sorted(worker.name for worker in ends) == [f"sage-{number}" for number in range(5)]


def test_starts_once_only(make: Make) -> None:
    worker = make("sage-test", lambda: None)
    worker.start()
    with pytest.raises(WorkerError, match="'sage-test' could not be started"):
        worker.start()
    assert worker.join(5)


def test_join_gives_up_after_its_time_and_shows_where_it_is(make: Make) -> None:
    release = threading.Event()

    def stands_here() -> None:
        release.wait(10)

    worker = make("sage-test", stands_here)
    worker.start()
    begun = time.monotonic()
    assert not worker.join(0.1)
    assert 0.09 < time.monotonic() - begun < 2
    text = "".join(worker.stack())
    assert "stands_here" in text
    assert "release.wait(10)" in text
    assert worker.frame() is not None
    release.set()
    assert worker.join(5)


def test_an_event_loop_leaves_nothing_behind() -> None:
    ended: list[str] = []

    async def background() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ended.append("cancelled")

    async def generator() -> Any:
        try:
            yield 1
            yield 2
        finally:
            ended.append("generator closed")

    async def entry() -> None:
        entry.task = asyncio.get_running_loop().create_task(background())  # type: ignore[attr-defined]
        entry.generator = generator()  # type: ignore[attr-defined]
        await anext(entry.generator)  # type: ignore[attr-defined]
        await asyncio.to_thread(ended.append, "to_thread")

    worker = AsyncioWorker("sage-loop", entry)
    worker.start()
    assert worker.join(5)
    assert worker.failure is None
    assert sorted(ended) == ["cancelled", "generator closed", "to_thread"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("asyncio_")]


def test_an_entry_may_return_any_awaitable() -> None:
    class Later:
        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()

    made: Callable[[], Awaitable[None]] = Later
    worker = AsyncioWorker("sage-loop", made)
    worker.start()
    assert worker.join(5)
    assert worker.failure is None


def test_a_backend_says_which_time_it_is() -> None:
    clock = VirtualClock()
    assert LocalBackend(clock).clock is clock
    assert LocalBackend().clock.monotonic_ns() <= LocalBackend().clock.monotonic_ns()
