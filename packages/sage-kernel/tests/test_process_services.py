"""`ctx.call_service` in processes: each request has its answer, or its error, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.kernel.api import (
    Batching,
    Contract,
    DeadLettersError,
    ErrorPolicy,
    Execution,
    IOSpec,
    JobHandle,
    JobState,
    LocalEnvironment,
    MapFunction,
    ServiceFunction,
    SinkFunction,
    SourceFunction,
)
from sage.kernel.runtime.service_desk import ServedLine
from sage.kernel.runtime.task import Activity
from sage.platform.processes import default_process_pool

PROCESS = Contract(execution=Execution.PROCESS)


def contract(**errors: Any) -> Contract:
    return Contract(execution=Execution.PROCESS, io=IOSpec(errors=ErrorPolicy(delay_s=0.001, **errors)))


class Ask(MapFunction[Any, Any]):
    """Asks the service "s" for each item."""

    timeout_s: float | None = None

    def execute(self, item: Any) -> Any:
        return self.ctx.call_service("s", item, self.timeout_s)


class AskInTime(Ask):
    timeout_s = 0.5


def double(request: Any) -> Any:
    return request * 2


async def double_later(request: Any) -> Any:
    await asyncio.sleep(0.001 * (request % 3))
    return request * 2


def doubling_pipeline() -> LocalEnvironment:
    service = LocalEnvironment("doubling")
    service.from_requests().map(lambda request: request + request).respond()
    return service


class AskForYears(Ask):
    timeout_s = 1e12


def test_a_call_may_wait_longer_than_a_poll_can(tmp_path: Path) -> None:
    def slowly(request: int) -> int:
        time.sleep(0.03)
        return request * 2

    env = environment(tmp_path)
    env.register_service("s", slowly)
    assert env.from_collection(range(3)).map(AskForYears, contract=PROCESS).collect() == [0, 2, 4]
    assert env.from_collection(range(3)).map(AskForYears).collect() == [0, 2, 4]


@pytest.mark.parametrize("make", [lambda: double, lambda: double_later, doubling_pipeline])
@settings(max_examples=12, deadline=None)
@given(
    items=st.integers(0, 60),
    parallelism=st.integers(1, 2),
    fusion=st.booleans(),
    concurrency=st.sampled_from([None, 1, 2, 5]),
    stages=st.integers(1, 2),
)
def test_each_request_has_its_own_answer(
    make: Callable[[], Any], items: int, parallelism: int, fusion: bool, concurrency: int | None, stages: int
) -> None:
    env = LocalEnvironment("each", {"fusion": fusion, "watchdog_s": 10})
    env.register_service("s", make(), concurrency=concurrency)
    stream: Any = env.from_collection(range(items))
    for _ in range(stages):
        # Without fusion each passes on to the next.
        stream = stream.map(Ask, parallelism=parallelism, contract=PROCESS)
    assert Counter(stream.collect()) == Counter(2**stages * number for number in range(items))


def test_the_service_stays_here_and_who_asks_is_there(tmp_path: Path) -> None:
    def where(request: int) -> tuple[int, int]:
        return os.getpid(), request

    class AskForPlace(Ask):
        def execute(self, item: int) -> Any:
            return os.getpid(), super().execute(item)

    env = environment(tmp_path)
    env.register_service("s", where)
    out: list[Any] = []
    heavy = Contract(cpu_bound=True, services=("s",))
    env.from_collection([1]).map(AskForPlace, contract=heavy, name="heavy").sink(out.append)
    ((there, (here, item)),) = finished(env) and out
    assert (here, item) == (os.getpid(), 1)
    assert there != here
    (note,) = [
        note.text for note in env.compile().notes if note.subject == "heavy" and note.compiler_pass == "execution"
    ]
    assert "the services that it calls are in this process, requests and answers are sent" in note


def test_operators_may_call_wherever_they_are(tmp_path: Path) -> None:
    """In setup, in a batched function, in a sink, in teardown; and a service calls another one."""

    class Outer(ServiceFunction[int, int]):
        def execute(self, request: int) -> int:
            answer: int = self.ctx.call_service("inner", request)
            return answer + 1

    told: list[Any] = []

    class Lists(MapFunction[list[int], list[int]]):
        contract = Contract(execution=Execution.PROCESS, io=IOSpec(batching=Batching(size=3, max_wait_s=None)))

        def setup(self) -> None:
            self.added = self.ctx.call_service("outer", 50)

        def execute(self, item: list[int]) -> list[int]:
            return [self.ctx.call_service("outer", number) + self.added for number in item]

        def teardown(self) -> None:
            self.ctx.call_service("tell", "torn down")

    class Tell(SinkFunction[int]):
        def execute(self, item: int) -> None:
            self.ctx.call_service("tell", item)

    env = environment(tmp_path)
    env.register_service("tell", lambda request: told.append(request) or True)
    env.register_service("inner", double)
    env.register_service("outer", Outer)
    env.from_collection([1, 2, 3, 4]).map(Lists).sink(Tell, contract=PROCESS)
    finished(env)
    assert told == [104, 106, 108, 110, "torn down"]


class OutOfStockError(Exception):
    """Takes an argument that its message does not have."""

    def __init__(self, what: str, left: int) -> None:
        super().__init__(what, left)
        self.left = left


class OddError(Exception):
    """Cannot be rebuilt from a pickle."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"odd {one} {other}")


@pytest.mark.parametrize("is_async", [False, True])
def test_what_it_raises_is_raised_at_the_caller(is_async: bool, tmp_path: Path) -> None:
    def sell(request: int) -> int:
        if request == 1:
            raise OutOfStockError("tea", 7)
        if request == 2:
            raise OddError("a", "b")
        return request

    async def sell_later(request: int) -> int:
        return sell(request)

    class Careful(Ask):
        def execute(self, item: int) -> Any:
            try:
                return super().execute(item)
            except OutOfStockError as error:
                return error.left

    env = environment(tmp_path)
    env.register_service("s", sell_later if is_async else sell)
    out: list[int] = []
    env.from_collection(range(4)).map(Careful, contract=contract(retries=1), name="ask").sink(out.append)
    finished(env)
    assert out == [0, 7, 3]
    (letter,) = letters(tmp_path)
    assert (letter.item, letter.operator, letter.attempts) == ("2", "ask", 2)
    assert letter.error.endswith("OddError: odd a b")


@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_that_takes_too_long_is_given_up(is_async: bool, tmp_path: Path) -> None:
    released = threading.Event()

    def slow(request: int) -> int:
        if request == 1:
            released.wait(20)
        return request

    async def slow_later(request: int) -> int:
        if request == 1:
            await asyncio.sleep(20)
        return request

    env = environment(tmp_path)
    env.register_service("s", slow_later if is_async else slow, concurrency=2)
    out: list[int] = []
    env.from_collection(range(4)).map(AskInTime, contract=PROCESS, name="ask").sink(out.append)
    begun = time.monotonic()
    job = env.submit(wait=False)
    try:
        while len(out) < 3 and time.monotonic() - begun < 10:
            time.sleep(0.01)
    finally:
        released.set()
    assert out == [0, 2, 3]
    if is_async:
        job.abort()
    job.wait(15)
    (letter,) = letters(tmp_path)
    assert letter.error == "service 's' did not answer operator 'ask' within 0.5 s"
    assert letter.error_type.endswith("TimeoutError")


def test_time_runs_also_while_the_task_waits_for_room_behind_it(tmp_path: Path) -> None:
    """Outputs stand still, so the task's own thread does; its process is told that its call was in vain."""
    given_up = tmp_path / "given up"
    room, released = threading.Event(), threading.Event()
    jobs: list[JobHandle] = []
    hung: list[int] = []

    def hang_when_blocked(request: int) -> int:
        time.sleep(0.03)
        if not hung and jobs and jobs[0]._tasks["tells[0]"].activity is Activity.BLOCKED:
            hung.append(request)
            released.wait(20)
        return request

    class Tells(Ask):
        timeout_s = 1.0

        def execute(self, item: int) -> Any:
            try:
                return super().execute(item)
            except TimeoutError:
                given_up.touch()
                raise

    env = environment(tmp_path, queue_capacity=4)
    env.register_service("s", hang_when_blocked, concurrency=4)
    env.from_collection(range(60)).map(Tells, contract=PROCESS, name="tells").sink(lambda item: room.wait(20))
    job = env.submit(wait=False)
    jobs.append(job)
    try:
        begun = time.monotonic()
        while not given_up.exists() and time.monotonic() - begun < 15:
            time.sleep(0.01)
        assert given_up.exists()
        assert job._tasks["tells[0]"].activity is Activity.BLOCKED
    finally:
        room.set()
        released.set()
    job.wait(15)
    assert [letter.item for letter in letters(tmp_path)] == [str(number) for number in hung]


class Connection:
    """Has what cannot be sent."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Heavy:
    """Can be sent, and not be rebuilt."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


def test_what_cannot_be_sent_is_told_with_its_attribute(tmp_path: Path) -> None:
    class AskBadly(Ask):
        def execute(self, item: str) -> Any:
            return super().execute({"ask lock": Connection, "ask broken": Heavy}.get(item, lambda: item)())

    def answer(request: str) -> Any:
        return {"give lock": Connection, "give broken": Heavy}.get(request, lambda: request)()

    env = environment(tmp_path)
    env.register_service("s", answer)
    out: list[str] = []
    items = ["ask lock", "good", "ask broken", "give lock", "give broken", "fine"]
    env.from_collection(items).map(AskBadly, contract=PROCESS, name="ask").sink(out.append)
    finished(env)
    assert out == ["good", "fine"]
    errors = {letter.item: letter.error for letter in letters(tmp_path)}
    assert errors["'ask lock'"].startswith("operator 'ask' cannot send its request to the service 's': ")
    assert ".lock" in errors["'ask lock'"]
    assert errors["'ask broken'"].startswith(
        "the request of operator 'ask' to the service 's' cannot be rebuilt in the program's process: ValueError: inv"
    )
    assert errors["'give lock'"].startswith("the answer of service 's' cannot be sent to the process: ")
    assert ".lock" in errors["'give lock'"]
    assert errors["'give broken'"].startswith(
        "an answer of a service cannot be rebuilt in the process: ValueError: inv"
    )


@pytest.mark.parametrize("named", [False, True])
def test_a_service_that_is_not_there_is_named_with_the_closest(named: bool) -> None:
    env = LocalEnvironment("none")
    message = "operator 'ask' calls the service 's', which is not registered; none is"
    if named:
        env.register_service("S", double)
        message = "operator 'ask' calls the service 's', which is not registered; "
    with pytest.raises(DeadLettersError, match=message):
        env.from_collection([1]).map(Ask, contract=PROCESS, name="ask").collect()


@pytest.mark.parametrize("is_async", [False, True])
def test_abort_releases_who_waits(is_async: bool, tmp_path: Path) -> None:
    entered, released = threading.Event(), threading.Event()

    def hang(request: int) -> int:
        entered.set()
        released.wait(20)
        return request

    async def hang_later(request: int) -> int:
        entered.set()
        await asyncio.sleep(60)
        return request

    env = environment(tmp_path)
    env.register_service("s", hang_later if is_async else hang)
    env.from_collection(range(10)).map(Ask, contract=PROCESS).sink(lambda item: None)
    job = env.submit(wait=False)
    assert entered.wait(10)
    begun = time.monotonic()
    job.abort("enough")
    time.sleep(0.1)
    released.set()
    assert job.wait(10).state is JobState.ABORTED
    assert time.monotonic() - begun < 5


def test_stop_drains_through_the_service(tmp_path: Path) -> None:
    class Endless(SourceFunction[int]):
        def execute(self) -> Iterator[int]:
            number = 0
            while True:
                yield number
                number += 1

    env = environment(tmp_path)
    env.register_service("s", double_later)
    out: list[int] = []
    env.from_source(Endless, name="numbers").map(Ask, contract=PROCESS).sink(out.append)
    job = env.submit(wait=False)
    time.sleep(0.5)
    job.stop(20)
    result = job.wait(25)
    assert result.state is JobState.STOPPED
    assert out == [2 * number for number in range(result.offsets["numbers"][0])]


@pytest.mark.parametrize("fusion", [True, False])
def test_a_process_that_is_killed_while_it_waits_asks_again(fusion: bool, tmp_path: Path) -> None:
    """Without fusion it is the second of a line, and its neighbours go with it."""
    asked: list[int] = []

    class AskWithPid(Ask):
        def execute(self, item: int) -> Any:
            return super().execute((item, os.getpid()))

    def kill_some(request: tuple[int, int]) -> int:
        item, pid = request
        asked.append(item)
        if item in (5, 17) and asked.count(item) == 1:
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
        return item

    env = environment(tmp_path, fusion=fusion)
    env.register_service("s", kill_some)
    out: list[int] = []
    stream = env.from_collection(range(30)).map(lambda item: item, contract=PROCESS)
    stream.map(AskWithPid, contract=PROCESS, name="ask").map(lambda item: item, contract=PROCESS).sink(out.append)
    assert finished(env).dead_letters == 0
    assert out == list(range(30))
    assert asked.count(5) >= 2
    assert asked.count(17) >= 2


def test_threads_of_an_operator_may_call_at_once(tmp_path: Path) -> None:
    """Also while another of them, or the process itself, is not waiting."""

    class AskMany(MapFunction[int, Any]):
        def setup(self) -> None:
            self.pool = ThreadPoolExecutor(8)

        def execute(self, item: int) -> Any:
            asked = [self.pool.submit(self.ctx.call_service, "s", item * 10 + n, 5) for n in range(10)]
            return [future.result() for future in asked]

        def teardown(self) -> None:
            self.pool.shutdown()

    env = environment(tmp_path)
    env.register_service("s", double_later)
    out: list[Any] = []
    env.from_collection(range(20)).map(AskMany, contract=PROCESS).sink(out.append)
    finished(env)
    assert out == [[2 * (item * 10 + n) for n in range(10)] for item in range(20)]


def test_a_coroutine_of_the_operators_own_loop_may_call(tmp_path: Path) -> None:
    class AskInLoop(MapFunction[int, Any]):
        def execute(self, item: int) -> Any:
            async def both() -> list[Any]:
                return await asyncio.gather(
                    self.ctx.call_service_async("s", item), self.ctx.call_service_async("s", item + 1)
                )

            return asyncio.run(both())

    env = environment(tmp_path)
    env.register_service("s", double)
    out: list[Any] = []
    env.from_collection(range(5)).map(AskInLoop, contract=PROCESS).sink(out.append)
    finished(env)
    assert out == [[2 * n, 2 * n + 2] for n in range(5)]


def test_large_requests_and_answers(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    env = environment(tmp_path)
    env.register_service("s", lambda array: array + 1)
    out: list[Any] = []
    arrays = [numpy.full(size, 1.0) for size in (10, 100_000, 3_000_000)]
    env.from_collection(arrays).map(Ask, contract=PROCESS).sink(lambda array: out.append((len(array), array[-1])))
    finished(env)
    assert out == [(10, 2.0), (100_000, 2.0), (3_000_000, 2.0)]
    env = environment(tmp_path)
    env.register_service("s", double)
    texts: list[str] = []
    env.from_collection(["x" * 3_000_000, "y" * 10]).map(Ask, contract=PROCESS).sink(texts.append)
    finished(env)
    assert texts == ["x" * 6_000_000, "y" * 20]


def test_processes_are_used_again_and_nothing_stays_open(tmp_path: Path) -> None:
    pool = default_process_pool()
    for number in range(3):
        env = environment(tmp_path)
        if number != 1:
            env.register_service("s", double)
        out: list[int] = []
        env.from_collection([1, 2]).map(Ask if number != 1 else abs, contract=PROCESS).sink(out.append)
        finished(env)
        assert out == ([2, 4] if number != 1 else [1, 2])
        if not number:
            before = pool.processes, len(os.listdir("/proc/self/fd")), threading.active_count()
    assert (pool.processes, len(os.listdir("/proc/self/fd")), threading.active_count()) == before


class _Never:
    """Services that answer nothing."""

    def __init__(self) -> None:
        self.asked: list[Future[Any]] = []

    def ask(self, who: str, name: str, request: Any) -> Future[Any]:
        self.asked.append(Future())
        return self.asked[-1]


def test_a_desk_ends_with_its_process_and_drops_what_it_asked() -> None:
    services, pool = _Never(), default_process_pool()
    line = ServedLine(pool, 1, services, "tested")
    # This module's folder is on the path of the process, see conftest.
    line.begin("test_process_services:ask_once", [None])
    begun = time.monotonic()
    while not services.asked and time.monotonic() - begun < 10:
        time.sleep(0.01)
    line.discard()
    assert [answer.cancelled() for answer in services.asked] == [True]


def ask_once(link: Any, arguments: object) -> None:
    """Entry of a process that asks and waits."""
    from sage.kernel.runtime.process_calls import ServiceCaller
    from sage.platform.process_lines import join_line

    ServiceCaller(join_line()).call("somebody", "s", 1, None)
