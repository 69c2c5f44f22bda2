"""What operators raise, and operators that never return: retried, set aside, or the end of the job; never lost."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import environment, letters
from executions import ExecutionKind

from sage.kernel.api import (
    Backoff,
    DeadLettersError,
    ErrorPolicy,
    JobFailedError,
    JobState,
    MapFunction,
    OnError,
    PipelineError,
    SourceFunction,
)

# -- the error contract ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 1, 3])
@pytest.mark.parametrize("position", ["first", "behind"])
def test_retries_are_counted_and_end_in_a_dead_letter(
    execution_here: ExecutionKind, tmp_path: Path, retries: int, position: str
) -> None:
    calls: list[int] = []

    def refuse(number: int) -> int:
        if number == 2:
            calls.append(number)
            raise ValueError("not 2")
        return number

    env = environment(tmp_path)
    stream = env.from_collection([1, 2, 3])
    contract = execution_here.contract(errors=ErrorPolicy(retries=retries, delay_s=0.001))
    if position == "behind":
        stream = stream.map(execution_here.operator(lambda n: n, -1), contract=execution_here.contract())
    got = stream.map(execution_here.operator(refuse, -1), contract=contract, name="refuse").collect(
        allow_dead_letters=True
    )
    assert sorted(got) == [1, 3]
    assert len(calls) == retries + 1
    (letter,) = letters(tmp_path)
    assert (letter.operator, letter.item, letter.attempts, letter.error) == ("refuse", "2", retries + 1, "not 2")
    assert letter.error_type == "ValueError"
    assert "raise ValueError" in letter.traceback
    assert letter.job == "tested"
    assert (tmp_path / "dead_letters.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("backoff", "pauses"), [(Backoff.FIXED, [0.05] * 3), (Backoff.EXPONENTIAL, [0.05, 0.1, 0.12])])
def test_backoff(execution_here: ExecutionKind, tmp_path: Path, backoff: Backoff, pauses: list[float]) -> None:
    times: list[float] = []

    def refuse(number: int) -> int:
        times.append(time.monotonic())
        raise ValueError(number)

    policy = ErrorPolicy(retries=3, backoff=backoff, delay_s=0.05, delay_s_max=0.12, jitter=0)
    env = environment(tmp_path)
    env.from_collection([1]).map(
        execution_here.operator(refuse, -1), contract=execution_here.contract(errors=policy)
    ).collect(allow_dead_letters=True)
    waited = [after - before for before, after in itertools.pairwise(times)]
    assert len(waited) == 3
    for pause, real in zip(pauses, waited, strict=True):
        assert pause - 0.002 <= real < pause + 0.5


def test_fail_ends_the_job_and_says_where(execution: ExecutionKind, tmp_path: Path) -> None:
    def refuse(number: int) -> int:
        if number == 3:
            raise LookupError("number three")
        return number

    env = environment(tmp_path)
    policy = ErrorPolicy(on_error=OnError.FAIL, retries=1, delay_s=0)
    env.from_collection(range(1000)).map(
        execution.operator(refuse, -1), contract=execution.contract(errors=policy), name="refuse"
    ).sink(lambda _: None)
    with pytest.raises(JobFailedError, match=r"operator 'refuse' raised for the item 3 after 2 attempt") as caught:
        env.submit()
    assert "LookupError: number three" in str(caught.value)
    assert re.search(r"test_errors.py:\d+, in refuse", str(caught.value))
    assert caught.value.result.state is JobState.FAILED
    assert caught.value.result.dead_letters == 0


class Unshowable:
    """Cannot be shown, and neither can its error."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class UnshowableError(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no str")


@pytest.mark.parametrize("on_error", list(OnError))
def test_what_cannot_be_shown_does_not_hide_the_error(
    execution: ExecutionKind, tmp_path: Path, on_error: OnError
) -> None:
    def refuse(item: Any) -> None:
        raise UnshowableError

    env = environment(tmp_path)
    contract = execution.contract(errors=ErrorPolicy(on_error=on_error))
    stream = env.from_collection([Unshowable()]).map(execution.operator(refuse, -1), contract=contract, name="refuse")
    if on_error is OnError.FAIL:
        with pytest.raises(JobFailedError, match=r"operator 'refuse' raised for the item <Unshowable whose repr\(\)"):
            stream.collect()
    else:
        assert stream.collect(allow_dead_letters=True) == []
        (letter,) = letters(tmp_path)
        assert letter.operator == "refuse"
        assert letter.error_type.endswith("UnshowableError")


def test_dead_letters_keep_the_key(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out = (
        env.from_collection([(None, 1), (0, 0), ("", 2)])
        .key_by(lambda pair: pair[0])
        .map(lambda pair: 1 / pair[1], parallelism=2)
        .collect(allow_dead_letters=True)
    )
    assert sorted(out) == [0.5, 1.0]
    (letter,) = letters(tmp_path)
    assert (letter.item, letter.key) == ("(0, 0)", "0")


def test_collect_refuses_to_hide_dead_letters(execution: ExecutionKind, tmp_path: Path) -> None:
    env = environment(tmp_path)
    stream = env.from_collection([1, 0, 2]).map(
        execution.operator(lambda n: 2 / n, -1), contract=execution.contract(), name="ratio"
    )
    with pytest.raises(DeadLettersError, match=r"1 item.*operator 'ratio', item 0: ZeroDivisionError") as caught:
        stream.collect()
    assert sorted(caught.value.collected) == [1.0, 2.0]


@pytest.mark.parametrize("fusion", [True, False])
def test_a_result_that_cannot_be_computed_at_the_end_is_a_dead_letter(tmp_path: Path, fusion: bool) -> None:
    env = environment(tmp_path, fusion=fusion)
    stream = env.from_collection([("a", 1), ("b", 0), ("c", 4)]).key_by(lambda pair: pair[0])
    totals = stream.aggregate(
        0, lambda total, pair: total + pair[1], lambda total: 4 / total, emit="final", name="total"
    )
    assert totals.collect(allow_dead_letters=True) == [("a", 4.0), ("c", 1.0)]
    (letter,) = letters(tmp_path)
    assert letter.operator == "total"
    assert letter.error_type == "ZeroDivisionError"
    assert letter.key == "'b'"


# -- errors that are no Exception --------------------------------------------------------------------------------------


class Unknown(BaseException):
    """Neither an error nor an exit."""


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), Unknown("odd"), GeneratorExit()])
def test_what_is_no_exception_fails_the_job(execution: ExecutionKind, tmp_path: Path, error: BaseException) -> None:
    def leave(number: int) -> int:
        if number == 5:
            raise error
        return number

    env = environment(tmp_path)
    env.from_collection(range(20)).map(execution.operator(leave, -1), contract=execution.contract(), name="leave").sink(
        lambda _: None
    )
    with pytest.raises(JobFailedError, match=type(error).__name__):
        env.submit()


def test_an_operator_whose_own_task_was_cancelled(tmp_path: Path) -> None:
    """A CancelledError that does not come from the runtime is the item's error; the item must not vanish."""

    async def cancels_itself(number: int) -> int:
        if number % 4 == 1:
            task = asyncio.get_running_loop().create_task(asyncio.sleep(10))
            task.cancel()
            await task
        return number

    from executions import KINDS

    env = environment(tmp_path, watchdog_s=2)
    contract = KINDS["async"].contract(concurrency=2)
    got = env.from_collection(range(20)).map(cancels_itself, contract=contract).collect(allow_dead_letters=True)
    assert sorted(got) == [number for number in range(20) if number % 4 != 1]
    assert len(letters(tmp_path)) == 5


def test_an_operator_whose_own_task_was_cancelled_step_by_step(tmp_path: Path) -> None:
    from executions import KINDS

    async def cancels_itself(number: int) -> list[int]:
        if number % 4 == 1:
            raise asyncio.CancelledError
        return [number]

    env = environment(tmp_path, watchdog_s=2)
    contract = KINDS["async"].contract(concurrency=2)
    got = env.from_collection(range(20)).flatmap(cancels_itself, contract=contract).collect(allow_dead_letters=True)
    assert sorted(got) == [number for number in range(20) if number % 4 != 1]
    assert len(letters(tmp_path)) == 5


# -- the life cycle ----------------------------------------------------------------------------------------------------


class Fragile(MapFunction[int, int]):
    """Raises where its config says."""

    log: list[str]

    def setup(self) -> None:
        Fragile.log.append(f"setup {self.config.get('name')}")
        if "setup" in self.config.get("raises", ()):
            raise RuntimeError("no setup")

    def execute(self, item: int) -> int:
        if "execute" in self.config.get("raises", ()):
            raise RuntimeError("no execute")
        return item

    def teardown(self) -> None:
        Fragile.log.append(f"teardown {self.config.get('name')}")
        if "teardown" in self.config.get("raises", ()):
            raise RuntimeError("no teardown")


class AsyncFragile(Fragile):
    """The same on an event loop."""

    async def execute(self, item: int) -> int:  # type: ignore[override]
        return super().execute(item)


@pytest.mark.parametrize("where", ["setup", "teardown"])
def test_setup_and_teardown_that_raise_fail_the_job(execution: ExecutionKind, tmp_path: Path, where: str) -> None:
    Fragile.log = []
    function = Fragile if not execution.is_async else AsyncFragile
    env = environment(tmp_path)
    env.from_collection([1]).map(function, {"name": "one"}).map(
        function, {"name": "two", "raises": [where]}, name="two"
    ).map(function, {"name": "three"}).sink(lambda _: None)
    with pytest.raises(JobFailedError, match=rf"{where} of operator 'two' failed: RuntimeError: no {where}"):
        env.submit()
    set_up = {line.split()[1] for line in Fragile.log if line.startswith("setup")}
    torn_down = {line.split()[1] for line in Fragile.log if line.startswith("teardown")}
    assert torn_down == (set_up - {"two"} if where == "setup" else set_up)


def test_the_first_error_is_the_reason_also_when_teardown_raises_as_well(
    execution_here: ExecutionKind, tmp_path: Path
) -> None:
    Fragile.log = []
    function = Fragile if not execution_here.is_async else AsyncFragile
    env = environment(tmp_path)
    errors = ErrorPolicy(on_error=OnError.FAIL)
    env.from_collection([1]).map(
        function, {"raises": ["execute", "teardown"]}, contract=execution_here.contract(errors=errors), name="both"
    ).sink(lambda _: None)
    with pytest.raises(JobFailedError, match="no execute"):
        env.submit()


@pytest.mark.parametrize("on", ["sequence", "generator", "class"])
@pytest.mark.parametrize("fusion", [True, False])
def test_a_source_that_raises_in_the_middle(tmp_path: Path, on: str, fusion: bool) -> None:
    def torn() -> Iterator[int]:
        yield from range(10)
        raise OSError("cable pulled")

    class Torn(SourceFunction[int]):
        def execute(self) -> Iterator[int]:
            return torn()

    class Indexed(list):  # type: ignore[type-arg]
        def __getitem__(self, where: Any) -> Any:
            raise OSError("cable pulled")

    env = environment(tmp_path, fusion=fusion)
    got: list[int] = []
    if on == "sequence":
        stream = env.from_collection(Indexed([1, 2]), name="torn")
    else:
        stream = env.from_source(torn if on == "generator" else Torn, name="torn")
    stream.sink(got.append)
    with pytest.raises(JobFailedError, match=r"source.*cable pulled") as caught:
        env.submit()
    assert "torn[0]" in str(caught.value)
    assert got == list(range(len(got)))


def test_an_instance_that_cannot_be_copied_for_its_replicas(tmp_path: Path) -> None:
    class Locked(MapFunction[int, int]):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

        def execute(self, item: int) -> int:
            return item

    env = environment(tmp_path)
    env.from_collection([1, 2]).map(Locked(), parallelism=3).sink(lambda _: None)
    with pytest.raises(PipelineError, match=r"parallelism 3 needs a copy of the Locked instance.*\(operator 'Locked'"):
        env.submit()


def test_a_constructor_that_raises(tmp_path: Path) -> None:
    class Never(MapFunction[int, int]):
        def __init__(self, config: Any) -> None:
            raise RuntimeError("never")

        def execute(self, item: int) -> int:
            return item

    env = environment(tmp_path)
    env.from_collection([1]).map(Never).sink(lambda _: None)
    with pytest.raises(PipelineError, match=r"Never could not be made: RuntimeError\('never'\) \(operator 'Never'"):
        env.submit()


# -- operators that do not return --------------------------------------------------------------------------------------


def test_watchdog_shows_where_it_hangs(execution_here: ExecutionKind, tmp_path: Path) -> None:
    env = environment(tmp_path, watchdog_s=0.4, abort_grace_s=0.5)
    release = threading.Event()

    def hangs_here(number: int) -> int:
        if number == 3:
            release.wait(20)
        return number

    if not execution_here.is_async:
        function: Any = hangs_here
    else:

        async def function(number: int) -> int:
            while number == 3 and not release.is_set():
                await asyncio.sleep(0.05)
            return number

    env.from_collection(range(10)).map(function, contract=execution_here.contract(concurrency=1), name="hangs").sink(
        lambda _: None
    )
    job = env.submit(wait=False)
    begun = time.monotonic()
    try:
        with pytest.raises(JobFailedError, match=r"no progress for .* although there is work") as caught:
            job.wait(10)
    finally:
        release.set()
    assert time.monotonic() - begun < 4
    assert "hangs" in str(caught.value)
    if execution_here.is_async:
        assert "await asyncio.sleep(0.05)" in str(caught.value)
    else:
        assert "release.wait(20)" in str(caught.value)
        assert "given up" in str(caught.value)
    assert all(worker.join(3) for worker in job._workers.values())


def test_watchdog_lets_slow_work_be(execution: ExecutionKind, tmp_path: Path) -> None:
    """Each item takes a fifth of the limit; the whole takes several times the limit."""
    slow = execution.operator(lambda n: n, 0.1)
    # The first process of a program takes long to start, and the next job uses it again.
    environment(tmp_path).from_collection([0]).map(slow, contract=execution.contract(concurrency=1)).collect()
    env = environment(tmp_path, watchdog_s=0.5)
    out = (
        env.from_collection(range(15))
        .map(execution.operator(lambda n: n, 0.1), contract=execution.contract(concurrency=1))
        .collect()
    )
    assert out == list(range(15))


def test_watchdog_lets_a_quiet_source_be(tmp_path: Path) -> None:
    def quiet() -> Iterator[int]:
        yield 1
        time.sleep(1.2)
        yield 2

    env = environment(tmp_path, watchdog_s=0.3)
    assert env.from_source(quiet).map(lambda n: n).collect() == [1, 2]


def test_watchdog_lets_a_pause_before_a_retry_be(execution: ExecutionKind, tmp_path: Path) -> None:
    env = environment(tmp_path, watchdog_s=0.3)
    failed: list[int] = []

    def once(number: int) -> int:
        if not failed:
            failed.append(number)
            raise ValueError(number)
        return number

    errors = ErrorPolicy(retries=1, delay_s=1.2, jitter=0)
    out = (
        env.from_collection([1]).map(execution.operator(once, -1), contract=execution.contract(errors=errors)).collect()
    )
    assert out == [1]


def test_time_limit_of_an_async_call(tmp_path: Path) -> None:
    from executions import KINDS

    async def slow(number: int) -> int:
        await asyncio.sleep(5 if number == 2 else 0)
        return number

    env = environment(tmp_path)
    contract = KINDS["async"].contract(timeout_s=0.1, errors=ErrorPolicy(retries=1, delay_s=0))
    begun = time.monotonic()
    assert sorted(env.from_collection([1, 2, 3]).map(slow, contract=contract).collect(allow_dead_letters=True)) == [
        1,
        3,
    ]
    assert time.monotonic() - begun < 3
    (letter,) = letters(tmp_path)
    assert letter.error_type == "TimeoutError"
    assert letter.attempts == 2
    assert "did not answer within 0.1 s" in letter.error
