"""`register_service` and `ctx.call_service`: each request has its answer, or its error, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from sage.common.errors import ConfigError, InvalidArgumentError
from sage.kernel.api import (
    Contract,
    DeadLettersError,
    Execution,
    JobFailedError,
    JobHandle,
    JobState,
    LocalEnvironment,
    MapFunction,
    NoAnswerError,
    PipelineError,
    ServiceFunction,
    SourceFunction,
)
from sage.kernel.runtime import JobResult


class Ask(MapFunction[Any, Any]):
    """Asks the service "s" for each item."""

    timeout_s: float | None = None

    def execute(self, item: Any) -> Any:
        return self.ctx.call_service("s", item, self.timeout_s)


class AskAsync(Ask):
    async def execute(self, item: Any) -> Any:
        return await self.ctx.call_service_async("s", item, self.timeout_s)


BOTH = pytest.mark.parametrize("asking", [Ask, AskAsync])


def double(request: Any) -> Any:
    return request * 2


async def double_later(request: Any) -> Any:
    await asyncio.sleep(0.001 * (request % 3))
    return request * 2


class Doubling(ServiceFunction[Any, Any]):
    """Writes down its life."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.life: list[Any] = []

    def setup(self) -> None:
        self.life.append("setup")
        self.thread = threading.get_ident()

    def execute(self, request: Any) -> Any:
        self.life.append(request)
        assert threading.get_ident() == self.thread
        return request * 2

    def teardown(self) -> None:
        self.life.append("teardown")
        assert threading.get_ident() == self.thread


def doubling_pipeline() -> LocalEnvironment:
    service = LocalEnvironment("doubling")
    service.from_requests().map(lambda request: request + request).respond()
    return service


@BOTH
@pytest.mark.parametrize("make", [Doubling, lambda: Doubling, lambda: double, lambda: double_later, doubling_pipeline])
@settings(max_examples=12, deadline=None)
@given(
    items=st.integers(0, 60),
    parallelism=st.integers(1, 3),
    fusion=st.booleans(),
    concurrency=st.sampled_from([None, 1, 2, 5]),
)
def test_each_request_has_its_own_answer(
    asking: Any, make: Callable[[], Any], items: int, parallelism: int, fusion: bool, concurrency: int | None
) -> None:
    env = LocalEnvironment("each", {"fusion": fusion, "watchdog_s": 10})
    service = make()
    if isinstance(service, Doubling) or service is Doubling:
        concurrency = None
    env.register_service("s", service, concurrency=concurrency)
    pairs = env.from_collection(range(items)).map(asking, parallelism=parallelism)
    assert Counter(pairs.collect()) == Counter(2 * number for number in range(items))


def test_it_is_started_once_before_the_sources_and_ended_after_the_last_operator(tmp_path: Path) -> None:
    service = Doubling()

    class Source(SourceFunction[Any]):
        def execute(self) -> Iterator[Any]:
            service.life.append("source")
            yield from (1, 2)

    class Ending(Ask):
        def teardown(self) -> None:
            service.life.append("operator ended")

    env = environment(tmp_path)
    env.register_service("s", service)
    stream = env.from_source(Source).map(Ending)
    stream.sink(lambda item: None)
    finished(env)
    assert service.life == ["setup", "source", 1, 2, "operator ended", "teardown"]
    finished(env)
    assert service.life[6:] == ["setup", "source", 1, 2, "operator ended", "teardown"]


def test_operators_of_all_parts_may_call(tmp_path: Path) -> None:
    """In setup, in a source, in a sink, and services each other."""
    out: list[Any] = []

    class Source(SourceFunction[Any]):
        def execute(self) -> Iterator[Any]:
            yield self.ctx.call_service("s", 1)

    class Early(MapFunction[Any, Any]):
        def setup(self) -> None:
            self.found = self.ctx.call_service("s", 10)

        def execute(self, item: Any) -> Any:
            return self.found + item

    class Outer(ServiceFunction[Any, Any]):
        def execute(self, request: Any) -> Any:
            return self.ctx.call_service("inner", request) + 0.5

    env = environment(tmp_path)
    env.register_service("s", Outer)
    env.register_service("inner", double)
    env.from_source(Source).map(Early).sink(out.append)
    finished(env)
    assert out == [20.5 + 2.5]


class Limits(BaseModel):
    factor: int


class Times(ServiceFunction[int, int]):
    Config = Limits

    def execute(self, request: int) -> int:
        return request * int(self.config.factor)


def test_a_class_has_its_config_checked() -> None:
    env = LocalEnvironment("config")
    with pytest.raises(ConfigError, match="factor"):
        env.register_service("s", Times, {"faktor": 3})
    env.register_service("s", Times, {"factor": 3})
    assert env.from_collection([1, 2]).map(Ask).collect() == [3, 6]


@BOTH
@pytest.mark.parametrize("kind", ["plain", "async", "pipeline"])
def test_what_it_raises_is_raised_at_the_caller(asking: Any, kind: str, tmp_path: Path) -> None:
    def plain(request: int) -> float:
        return 1 / request

    async def awaited(request: int) -> float:
        return 1 / request

    service: Any = {"plain": plain, "async": awaited}.get(kind)
    if service is None:
        service = LocalEnvironment("inverse", {"home": tmp_path / "service"})
        service.from_requests().map(plain).respond()
    env = environment(tmp_path)
    env.register_service("s", service)
    out: list[float] = []
    env.from_collection([0, 1, 2]).map(asking, name="ask").sink(out.append)
    assert finished(env).dead_letters == 1
    assert sorted(out) == [0.5, 1.0]
    (letter,) = letters(tmp_path)
    assert (letter.operator, letter.item, letter.error_type) == ("ask", "0", "ZeroDivisionError")
    assert not (tmp_path / "service").exists(), "the caller has the error, so it is no dead letter of the service"


@BOTH
@pytest.mark.parametrize("kind", ["plain", "async", "pipeline"])
def test_a_call_that_takes_too_long_is_given_up(asking: Any, kind: str, tmp_path: Path) -> None:
    release = threading.Event()

    def slow(request: int) -> int:
        if request == 1:
            release.wait(20)
        return request

    async def slow_async(request: int) -> int:
        if request == 1:
            await asyncio.sleep(20)
        return request

    service: Any = {"plain": slow, "async": slow_async}.get(kind)
    if service is None:
        service = LocalEnvironment("slow", {"grace_s": 0.2})
        service.from_requests().map(slow_async).respond()

    class Patient(asking):  # type: ignore[misc]
        timeout_s = 0.1

    env = environment(tmp_path)
    env.register_service("s", service, concurrency=2)
    out: list[int] = []
    env.from_collection(range(4)).map(Patient, name="ask").sink(out.append)
    job = env.submit(wait=False)
    deadline = time.monotonic() + 5
    while job.metrics().operators[1].dead_letters < 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    release.set()
    # Nobody waits for the request any more, so the job does not wait for it either.
    result = job.wait(5)
    assert sorted(out) == [0, 2, 3]
    assert result.dead_letters == 1
    (letter,) = letters(tmp_path)
    assert letter.error == "service 's' did not answer operator 'ask' within 0.1 s"


@BOTH
@pytest.mark.parametrize("kind", ["plain", "async", "pipeline"])
def test_abort_releases_who_waits(asking: Any, kind: str, tmp_path: Path) -> None:
    entered, release = threading.Event(), threading.Event()

    def stuck(request: int) -> int:
        entered.set()
        release.wait(20)
        return request

    async def stuck_async(request: int) -> int:
        entered.set()
        await asyncio.sleep(60)
        return request

    service: Any = {"plain": stuck, "async": stuck_async}.get(kind)
    if service is None:
        service = LocalEnvironment("stuck")
        service.from_requests().map(stuck_async).respond()
    env = environment(tmp_path)
    env.register_service("s", service)
    env.from_collection(range(100)).map(asking, name="ask").sink(lambda item: None)
    job = env.submit(wait=False)
    assert entered.wait(5)
    begun = time.monotonic()
    job.abort("enough")
    time.sleep(0.2)
    release.set()
    result = job.wait(10)
    assert time.monotonic() - begun < 1.5
    assert result.state is JobState.ABORTED
    assert "given up" not in result.reason
    assert result.dead_letters == 0


@BOTH
@pytest.mark.parametrize("make", [lambda: double, lambda: double_later, doubling_pipeline])
def test_stop_drains_through_the_service(asking: Any, make: Callable[[], Any], tmp_path: Path) -> None:
    class Endless(SourceFunction[int]):
        def execute(self) -> Iterator[int]:
            number = 0
            while True:
                time.sleep(0.0005)
                yield number
                number += 1

    env = environment(tmp_path)
    env.register_service("s", make())
    out: list[int] = []
    env.from_source(Endless, name="numbers").map(asking).sink(out.append)
    job = env.submit(wait=False)
    time.sleep(0.2)
    job.stop(5)
    result = job.wait(10)
    assert result.state is JobState.STOPPED
    assert sorted(out) == [2 * number for number in range(result.offsets["numbers"][0])]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("where", ["__init__", "setup", "teardown"])
def test_a_life_that_fails_fails_the_job(where: str, is_async: bool, tmp_path: Path) -> None:
    class Broken(ServiceFunction[Any, Any]):
        def __init__(self, config: Any = None) -> None:
            super().__init__(config)
            if where == "__init__":
                raise OSError("no model")

        def setup(self) -> None:
            if where == "setup":
                raise OSError("no model")

        def execute(self, request: Any) -> Any:
            return request

        def teardown(self) -> None:
            if where == "teardown":
                raise OSError("no model")

    class BrokenAsync(Broken):
        async def execute(self, request: Any) -> Any:
            return request

    class Waiting(Ask):
        def setup(self) -> None:
            self.ctx.call_service("s", 1)

    env = environment(tmp_path)
    env.register_service("s", BrokenAsync if is_async else Broken)
    env.from_collection([1]).map(Waiting).sink(lambda item: None)
    what = "service 's' could not be made" if where == "__init__" else f"{where} of service 's' failed"
    with pytest.raises(JobFailedError, match=f"{what}: OSError: no model"):
        env.submit()


@pytest.mark.parametrize("where", ["setup", "execute"])
def test_the_watchdog_names_a_service_that_hangs(where: str, tmp_path: Path) -> None:
    release = threading.Event()

    class Hanging(ServiceFunction[Any, Any]):
        def setup(self) -> None:
            if where == "setup":
                release.wait(20)

        def execute(self, request: Any) -> Any:
            release.wait(20)

    env = environment(tmp_path, watchdog_s=0.4, abort_grace_s=0.5)
    env.register_service("s", Hanging)
    env.from_collection([1]).map(Ask).sink(lambda item: None)
    job = env.submit(wait=False)
    doing = "in setup()" if where == "setup" else "working on 1 request(s)"
    with pytest.raises(JobFailedError, match="no progress for") as caught:
        job.wait(10)
    release.set()
    assert f"service s: {doing}" in str(caught.value)
    assert "release.wait(20)" in str(caught.value)
    deadline = time.monotonic() + 5
    while any("service s" in thread.name for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_request_that_nobody_waits_for_is_no_standstill(is_async: bool, tmp_path: Path) -> None:
    """Its caller has gone on; what the service still does is no reason to fail the job."""
    release = threading.Event()

    class Hanging(ServiceFunction[int, int]):
        def execute(self, request: int) -> int:
            if request == 0:
                release.wait(20)
            return request

    class HangingAsync(ServiceFunction[int, int]):
        async def execute(self, request: int) -> int:
            while request == 0 and not release.is_set():
                await asyncio.sleep(0.01)
            return request

    class AskFirst(MapFunction[int, int]):
        def execute(self, item: int) -> int:
            if item == 0:
                self.ctx.call_service("s", item, timeout_s=0.05)
            return item

    def items() -> Iterator[int]:
        yield 0
        # Quiet for longer than the watchdog allows for work that stands still.
        time.sleep(1.2)
        yield 1

    env = environment(tmp_path, watchdog_s=0.4)
    env.register_service("s", HangingAsync if is_async else Hanging)
    out: list[int] = []
    env.from_source(items).map(AskFirst).sink(lambda item: (out.append(item), release.set())[0])
    assert finished(env).state is JobState.FINISHED
    assert out == [1]
    assert "did not answer" in letters(tmp_path)[0].error


def test_at_most_so_many_requests_are_worked_on_at_once(tmp_path: Path) -> None:
    now = most = 0
    lock = threading.Lock()

    def count(request: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.002)
        with lock:
            now -= 1
        return request

    env = environment(tmp_path)
    env.register_service("s", count, concurrency=3)
    env.from_collection(range(60)).map(Ask, parallelism=8).sink(lambda item: None)
    assert finished(env).dead_letters == 0
    assert most == 3


# -- bad input


@BOTH
def test_a_service_that_is_not_there_is_named_with_the_closest(asking: Any) -> None:
    env = LocalEnvironment("missing")
    env.register_service("ss", double)
    with pytest.raises(DeadLettersError, match=r"operator 'ask' calls the service 's', which is not .* mean 'ss'\?"):
        env.from_collection([1]).map(asking, name="ask").collect()
    with pytest.raises(DeadLettersError, match=r"which is not registered; none is: call env.register_service\("):
        LocalEnvironment("none").from_collection([1]).map(asking, name="ask").collect()


def test_a_contract_that_names_it_is_checked_when_the_pipeline_is_compiled() -> None:
    env = LocalEnvironment("declared")
    contract = Contract(services=("modell",))
    env.from_collection([1]).map(Ask, contract=contract).sink(print)
    env.register_service("model", double)
    with pytest.raises(PipelineError, match=r"the service 'modell', .* did you mean 'model'\? .*test_services.py"):
        env.compile()
    env.register_service("modell", double)
    env.compile()
    with pytest.raises(InvalidArgumentError, match="contract.services must be a tuple of names, got 'model'"):
        Contract(services="model")  # type: ignore[arg-type]


def test_a_call_that_waits_is_refused_in_an_async_operator() -> None:
    class Wrong(MapFunction[Any, Any]):
        async def execute(self, item: Any) -> Any:
            return self.ctx.call_service("s", item)

    env = LocalEnvironment("wrong")
    env.register_service("s", double)
    with pytest.raises(DeadLettersError, match=r"use `await self.ctx.call_service_async\('s', ...\)`"):
        env.from_collection([1]).map(Wrong).collect()


class NoExecute(ServiceFunction[Any, Any]):
    """Lacks what it needs."""


class AsyncSetup(ServiceFunction[Any, Any]):
    async def setup(self) -> None:  # type: ignore[override]
        """Never awaited."""

    def execute(self, request: Any) -> Any:
        return request


def pipeline(declare: Callable[[Any], Any]) -> LocalEnvironment:
    env = LocalEnvironment("bad")
    declare(env.from_requests())
    return env


@pytest.mark.parametrize(
    ("service", "facts", "message"),
    [
        (3, {}, "a service is a ServiceFunction class or instance, a function, or an environment"),
        (dict, {}, "a service is a ServiceFunction class"),
        (NoExecute, {}, r"NoExecute does not define execute\(\)"),
        (AsyncSetup, {}, r"setup\(\) must be a plain method"),
        (double, {"config": {"a": 1}}, "config goes with a service class"),
        (double, {"concurrency": 0}, "concurrency must be a whole number >= 1, got 0"),
        (LocalEnvironment("empty"), {}, r"has one from_requests\(\) and one respond\(\), 'empty' has 0 and 0"),
        (pipeline(lambda s: s.sink(print)), {}, "'bad' has 1 and 0"),
        (
            pipeline(lambda s: s.batch(2).respond()),
            {},
            "so batch cannot stand .* of a service: a list of",
        ),
        (pipeline(lambda s: s.limit(2).respond()), {}, "so limit cannot stand in .*: it would end the service"),
        (
            pipeline(lambda s: s.key_by(len).count().respond()),
            {},
            "so aggregate cannot stand .*: a fold knows",
        ),
        (pipeline(lambda s: s.key_by(len).reduce(max).respond()), {}, "so reduce cannot stand .* those of all callers"),
        (pipeline(lambda s: s.interleave(s).respond()), {}, "so interleave cannot stand .* wait for its turn"),
        (pipeline(lambda s: s.ordered().respond()), {}, "so ordered cannot stand .* needs no place"),
        (pipeline(lambda s: s.connect(s).comap(len, len).respond()), {}, "so comap cannot stand .* a union behind"),
        (pipeline(lambda s: s.key_by(len).join(s.key_by(len)).respond()), {}, "so join cannot stand .* a second item"),
        (pipeline(lambda s: s.map(len).union(s.map(str)).respond()), {}, "two streams of 'requests' lead to respond"),
        (
            pipeline(lambda s: s.map(len, contract=Contract(execution=Execution.PROCESS)).respond()),
            {},
            "execution PROCESS is not possible",
        ),
    ],
)
def test_what_cannot_be_a_service_is_refused(service: Any, facts: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        LocalEnvironment("bad").register_service("s", service, **facts)


def test_names_are_unique_and_a_pipeline_is_no_service_of_itself() -> None:
    env = LocalEnvironment("names")
    env.register_service("s", double)
    with pytest.raises(PipelineError, match="service names must be unique, got 's' twice"):
        env.register_service("s", double)
    with pytest.raises(PipelineError, match="a service needs a name that is not empty, got ''"):
        env.register_service("", double)
    with pytest.raises(PipelineError, match="cannot be a service of itself"):
        env.register_service("me", env)


def test_a_pipeline_of_a_service_does_not_run_by_itself(tmp_path: Path) -> None:
    service = doubling_pipeline()
    service.configure(home=tmp_path)
    with pytest.raises(JobFailedError, match=r"answers requests and does not run by itself: register it"):
        service.submit()


def test_results_are_those_of_the_calling_job(tmp_path: Path) -> None:
    env = environment(tmp_path)
    env.register_service("s", doubling_pipeline())
    env.from_collection([1, 2]).map(Ask, name="ask").sink(lambda item: None)
    job: JobHandle = env.submit()
    result: JobResult | None = job.result
    assert result is not None
    assert [found.operator for found in result.metrics.operators] == ["collection", "ask", "sink"]
    assert issubclass(NoAnswerError, Exception)
