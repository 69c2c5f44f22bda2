"""Services that are pipelines: `from_requests` ... `respond`, one answer for each request."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters

from sage.kernel.api import (
    Batching,
    Contract,
    DeadLettersError,
    ErrorPolicy,
    IOSpec,
    JobFailedError,
    LocalEnvironment,
    MapFunction,
    OnError,
)


class Ask(MapFunction[Any, Any]):
    """Asks the service "s" for each item."""

    timeout_s: float | None = None

    def execute(self, item: Any) -> Any:
        return self.ctx.call_service("s", item, self.timeout_s)


class AskAsync(Ask):
    async def execute(self, item: Any) -> Any:
        return await self.ctx.call_service_async("s", item, self.timeout_s)


def doubling_pipeline() -> LocalEnvironment:
    service = LocalEnvironment("doubling")
    service.from_requests().map(lambda request: request + request).respond()
    return service


def test_a_pipeline_bounds_what_is_under_way(tmp_path: Path) -> None:
    now = most = 0

    async def count(request: int) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1
        return request

    service = LocalEnvironment("count")
    service.from_requests().map(count).respond()
    env = environment(tmp_path)
    env.register_service("s", service, concurrency=4)
    out: list[int] = []
    env.from_collection(range(60)).map(AskAsync).sink(out.append)
    finished(env)
    assert sorted(out) == list(range(60))
    assert most == 4


def asked(service: LocalEnvironment, items: Any, **facts: Any) -> list[Any]:
    """The answers of a pipeline."""
    env = LocalEnvironment("asks", {"watchdog_s": 10})
    env.register_service("s", service)
    return sorted(env.from_collection(items).map(AskAsync, **facts).collect(), key=repr)


def test_a_pipeline_of_all_that_keeps_one_answer() -> None:
    class Visits(MapFunction[str, tuple[str, int]]):
        def execute(self, item: str) -> tuple[str, int]:
            self.ctx.state["n"] = self.ctx.state.get("n", 0) + 1
            return item, self.ctx.state["n"]

    async def later(pair: tuple[str, int]) -> tuple[str, int]:
        await asyncio.sleep(0)
        return pair

    service = LocalEnvironment("all")
    stream = service.from_requests().filter(lambda word: word).flatmap(lambda word: [word.lower()])
    visits = stream.key_by(lambda word: word).map(Visits, parallelism=2).map(later)
    listed = visits.map(lambda pairs: [(*pair, len(pairs) > 0) for pair in pairs], batch=Batching(size=3))
    parts = listed.split({"long": lambda found: len(found[0]) > 1, "short": lambda found: len(found[0]) == 1})
    parts["long"].map(lambda found: ("long", found[1])).union(parts["short"].map(lambda f: ("short", f[1]))).respond()
    assert asked(service, ["a", "A", "bb", "a"]) == [("long", 1), ("short", 1), ("short", 2), ("short", 3)]


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda s: s.filter(lambda n: n != 1, name="odd").respond(), "the request was dropped by filter 'odd'"),
        (
            lambda s: s.flatmap(lambda n: [n] * n, name="copies").respond(),
            "flatmap 'copies' made 0 items of one request",
        ),
        (
            lambda s: s.split({"zero": lambda n: n == 0}, name="cut")["zero"].respond(),
            "nobody takes the branch 'rest' of split 'cut'",
        ),
    ],
)
def test_a_request_without_an_answer_is_an_error_at_the_caller(declare: Callable[[Any], Any], message: str) -> None:
    service = LocalEnvironment("drops")
    declare(service.from_requests())
    with pytest.raises(DeadLettersError) as caught:
        asked(service, [1] if "copies" not in message else [0])
    assert message in str(caught.value)


def test_what_happens_beside_the_answer_is_no_matter_of_the_caller(tmp_path: Path) -> None:
    seen: list[int] = []
    service = LocalEnvironment("logs", {"home": tmp_path})
    stream = service.from_requests()
    stream.filter(lambda n: n != 2).flatmap(lambda n: [n, n]).map(lambda n: 6 // n, name="risky").sink(seen.append)
    stream.map(lambda n: n + 1).respond()
    assert asked(service, [0, 1, 2, 3]) == [1, 2, 3, 4]
    assert seen == [6, 6, 2, 2]
    assert [(letter.operator, letter.item) for letter in letters(tmp_path)] == [("risky", "0"), ("risky", "0")]


def test_retries_of_a_pipeline_are_its_own(tmp_path: Path) -> None:
    tries: Counter[int] = Counter()

    def shaky(number: int) -> int:
        tries[number] += 1
        if tries[number] < 3:
            raise ValueError(number)
        return number

    service = LocalEnvironment("shaky")
    patient = Contract(io=IOSpec(errors=ErrorPolicy(retries=2, delay_s=0.001)))
    service.from_requests().map(shaky, contract=patient).respond()
    assert asked(service, [1, 2]) == [1, 2]


def test_a_pipeline_that_fails_fails_the_job_that_calls_it(tmp_path: Path) -> None:
    service = LocalEnvironment("fails", {"home": tmp_path})
    strict = Contract(io=IOSpec(errors=ErrorPolicy(on_error=OnError.FAIL)))
    service.from_requests().map(lambda n: 1 // n, contract=strict).respond()
    env = environment(tmp_path)
    env.register_service("s", service)
    env.from_collection([1, 0, 1]).map(Ask).sink(lambda item: None)
    begun = time.monotonic()
    with pytest.raises(JobFailedError, match=r"task 'service s' failed: .*job 'fails' failed"):
        env.submit()
    assert time.monotonic() - begun < 4


def test_one_pipeline_serves_two_jobs_and_a_pipeline_calls_another() -> None:
    inner = doubling_pipeline()
    outer = LocalEnvironment("outer")
    outer.register_service("s", inner)
    outer.from_requests().map(AskAsync).map(lambda n: n + 1).respond()
    results: list[list[Any]] = []
    threads = [threading.Thread(target=lambda: results.append(asked(outer, range(20)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == [sorted((2 * n + 1 for n in range(20)), key=repr)] * 2


def test_callers_that_gave_up_do_not_fill_a_pipeline(tmp_path: Path) -> None:
    """A pipeline that stands still: requests whose callers are gone are not worked on."""
    release, begun = threading.Event(), list[int]()

    def stuck(number: int) -> int:
        begun.append(number)
        release.wait(20)
        return number

    class Hasty(Ask):
        timeout_s = 0.02

    service = LocalEnvironment("stuck", {"queue_capacity": 1, "fusion": False})
    service.from_requests().map(stuck).respond()
    env = environment(tmp_path)
    env.register_service("s", service, concurrency=2)
    env.from_collection(range(20)).map(Hasty).sink(lambda item: None)
    job = env.submit(wait=False)
    deadline = time.monotonic() + 10
    while job.metrics().operators[1].dead_letters < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    release.set()
    assert job.wait(10).dead_letters == 20
    assert len(begun) < 10
