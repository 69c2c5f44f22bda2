"""What goes wrong in user code or in what users hand over: each gets a clear error or a dead letter, nothing is lost, nothing hangs."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from executions import ExecutionKind

from sage.kernel.api import (
    Backoff,
    Contract,
    DeadLettersError,
    ErrorPolicy,
    JobFailedError,
    JobResult,
    JobState,
    LocalEnvironment,
    MapFunction,
    OnError,
    PipelineError,
    SinkFunction,
    SourceFunction,
)
from sage.kernel.runtime import DeadLetterStore


# Dead letters are synced to disk one by one; memory keeps that out of the time of tests with many.
SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None


def environment(tmp_path: Path, **config: Any) -> LocalEnvironment:
    return LocalEnvironment("errors", {"home": tmp_path, "watchdog_s": 10, "abort_grace_s": 2, **config})


def finished(env: LocalEnvironment) -> JobResult:
    result = env.submit().result
    assert result is not None
    return result


def letters(tmp_path: Path) -> list[Any]:
    with DeadLetterStore(tmp_path) as store:
        return list(store.read())


def operator_of(result: JobResult, name: str) -> Any:
    return next(found for found in result.metrics.operators if found.operator == name)


# -- the error contract ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 1, 3])
@pytest.mark.parametrize("position", ["first", "behind"])
def test_retries_are_counted_and_end_in_a_dead_letter(
    execution: ExecutionKind, tmp_path: Path, retries: int, position: str
) -> None:
    calls: list[int] = []

    def refuse(number: int) -> int:
        if number == 2:
            calls.append(number)
            raise ValueError("not 2")
        return number

    env = environment(tmp_path)
    stream = env.from_collection([1, 2, 3])
    contract = execution.contract(errors=ErrorPolicy(retries=retries, delay_s=0.001))
    if position == "behind":
        stream = stream.map(execution.operator(lambda n: n, -1), contract=execution.contract())
    got = stream.map(execution.operator(refuse, -1), contract=contract, name="refuse").collect(allow_dead_letters=True)
    assert sorted(got) == [1, 3]
    assert len(calls) == retries + 1
    (letter,) = letters(tmp_path)
    assert (letter.operator, letter.item, letter.attempts, letter.error) == ("refuse", "2", retries + 1, "not 2")
    assert letter.error_type == "ValueError"
    assert "raise ValueError" in letter.traceback
    assert letter.job == "errors"
    assert (tmp_path / "dead_letters.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("backoff", "pauses"), [(Backoff.FIXED, [0.05] * 3), (Backoff.EXPONENTIAL, [0.05, 0.1, 0.12])])
def test_backoff(execution: ExecutionKind, tmp_path: Path, backoff: Backoff, pauses: list[float]) -> None:
    times: list[float] = []

    def refuse(number: int) -> int:
        times.append(time.monotonic())
        raise ValueError(number)

    policy = ErrorPolicy(retries=3, backoff=backoff, delay_s=0.05, delay_s_max=0.12, jitter=0)
    env = environment(tmp_path)
    env.from_collection([1]).map(execution.operator(refuse, -1), contract=execution.contract(errors=policy)).collect(
        allow_dead_letters=True
    )
    waited = [after - before for before, after in zip(times, times[1:], strict=False)]
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
    assert re.search(r"test_errors_and_bad_input.py:\d+, in refuse", str(caught.value))
    assert caught.value.result.state is JobState.FAILED
    assert caught.value.result.dead_letters == 0


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


# -- errors that are no Exception -----------------------------------------------------------------------------


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


# -- the life cycle -------------------------------------------------------------------------------------------


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
    function = Fragile if execution.name == "thread" else AsyncFragile
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
    execution: ExecutionKind, tmp_path: Path
) -> None:
    Fragile.log = []
    function = Fragile if execution.name == "thread" else AsyncFragile
    env = environment(tmp_path)
    errors = ErrorPolicy(on_error=OnError.FAIL)
    env.from_collection([1]).map(
        function, {"raises": ["execute", "teardown"]}, contract=execution.contract(errors=errors), name="both"
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


# -- values and keys ------------------------------------------------------------------------------------------

VALUES: list[Any] = [None, 0, "", False, 0.0, (), [], {}, b"", -1]


@pytest.mark.parametrize("fusion", [True, False])
def test_empty_values_are_values(execution: ExecutionKind, tmp_path: Path, fusion: bool) -> None:
    env = environment(tmp_path, fusion=fusion)
    contract = execution.contract(concurrency=1)
    stream = env.from_collection(VALUES).map(execution.operator(lambda v: v, -1), contract=contract)
    stream = stream.filter(execution.operator(lambda v: True, -1), contract=contract)
    stream = stream.flatmap(execution.operator(lambda v: [v], -1), contract=contract)
    got = stream.collect()
    assert [repr(value) for value in got] == [repr(value) for value in VALUES]


def test_empty_keys_are_keys(execution: ExecutionKind, tmp_path: Path) -> None:
    env = environment(tmp_path)
    keys = [None, 0, "", (), b"", -1]
    counted = (
        env.from_collection(keys * 3)
        .key_by(execution.operator(lambda key: key, -1), name="key")
        .aggregate(0, lambda count, _: count + 1, emit="final", parallelism=3)
        .collect()
    )
    assert sorted(counted, key=repr) == sorted([(key, 3) for key in keys], key=repr)


@pytest.mark.parametrize("parallelism", [1, 3])
def test_equal_keys_are_one_key(tmp_path: Path, parallelism: int) -> None:
    env = environment(tmp_path)
    counted = (
        env.from_collection([1, 1.0, True, 0, 0.0, -0.0, False])
        .key_by(lambda key: key)
        .aggregate(0, lambda count, _: count + 1, emit="final", parallelism=parallelism)
        .collect()
    )
    assert sorted(count for _, count in counted) == [3, 4]


@pytest.mark.parametrize("fusion", [True, False])
@pytest.mark.parametrize(
    ("key", "message"),
    [
        ([1], "must be hashable, got list"),
        ({"a": 1}, "must be hashable, got dict"),
        ({1}, "use a frozenset"),
        (([],), "by"),
        (float("nan"), "cannot be used, got nan"),
        (("a", float("nan")), "cannot be used"),
        (object(), "cannot be used, got <object"),
    ],
)
def test_a_key_that_cannot_be_one_is_a_dead_letter(
    execution: ExecutionKind, tmp_path: Path, fusion: bool, key: Any, message: str
) -> None:
    env = environment(tmp_path, fusion=fusion)
    by = execution.operator(lambda n: key if n == 2 else n, -1)
    out = env.from_collection([1, 2, 3]).key_by(by, name="by").map(lambda n: n).collect(allow_dead_letters=True)
    assert sorted(out) == [1, 3]
    (letter,) = letters(tmp_path)
    assert letter.operator == "by"
    assert letter.item == "2"
    assert message in letter.error


def test_the_error_of_a_key_function_is_its_own(tmp_path: Path) -> None:
    """A TypeError out of a builtin, right behind a key that was refused: each gets its own message."""
    env = environment(tmp_path)
    env.from_collection([([1],), 5]).key_by(_first_of).map(lambda n: n).collect(allow_dead_letters=True)
    first, second = letters(tmp_path)
    assert "must be hashable, got list" in first.error
    assert "must be hashable" not in second.error


import operator as _operator  # noqa: E402  # next to its one use

_first_of = _operator.itemgetter(0)


async def _true(item: Any) -> bool:
    return True


@pytest.mark.parametrize("kind", ["map", "filter", "key_by", "sink", "flatmap", "reduce", "aggregate"])
@pytest.mark.parametrize("fusion", [True, False])
def test_a_coroutine_out_of_a_lambda_is_refused(tmp_path: Path, kind: str, fusion: bool) -> None:
    env = environment(Path(SCRATCH or tmp_path) / tmp_path.name, fusion=fusion)
    stream = env.from_collection(range(500), name="numbers")
    fails = lambda item: _true(item)  # noqa: E731  # a plain function that returns a coroutine
    end: Callable[[Any], None] = lambda item: None
    match kind:
        case "sink":
            stream.sink(fails, name="it")
        case "reduce":
            stream.key_by(lambda n: 0).reduce(lambda one, two: _true(two), name="it").sink(end)
        case "aggregate":
            stream.key_by(lambda n: 0).aggregate(0, lambda one, two: _true(two), name="it").sink(end)
        case _:
            arguments = {"name": "it"}
            getattr(stream, kind)(fails, **arguments).sink(end)
    try:
        result = finished(env)
        found = letters(env.config.home)
    finally:
        shutil.rmtree(env.config.home)
    assert result.dead_letters == (499 if kind == "reduce" else 500), "all of them, not only those of the first batch"
    assert all(letter.operator == "it" and "async def" in letter.error for letter in found)


def test_async_generators(tmp_path: Path) -> None:
    async def words(line: str) -> Any:
        for word in line.split():
            await asyncio.sleep(0)
            yield word

    env = environment(tmp_path)
    assert sorted(env.from_collection(["a b", "", "c"]).flatmap(words).collect()) == ["a", "b", "c"]


@pytest.mark.parametrize("use", ["source", "map"])
def test_async_generators_where_they_cannot_be_used_are_refused(tmp_path: Path, use: str) -> None:
    async def words(line: str = "") -> Any:
        yield line

    env = environment(tmp_path)
    with pytest.raises((PipelineError, JobFailedError, DeadLettersError), match=r"(?i)generator|coroutine|iterable"):
        if use == "source":
            env.from_source(words).collect()
        else:
            env.from_collection(["a"]).map(words).collect()


def _endless() -> Iterator[int]:
    while True:
        yield 1


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (None, "did you forget to return"),
        ("ab", "must return an iterable of items, got str 'ab'"),
        (b"ab", "got bytes"),
        (5, "got int 5"),
        ({"a": 1}, "got dict"),
        ("endless", "gave more than 100000 outputs"),
    ],
)
def test_what_flatmap_cannot_use(execution: ExecutionKind, tmp_path: Path, output: Any, message: str) -> None:
    def give(number: int) -> Any:
        if number != 2:
            return [number]
        return _endless() if output == "endless" else output

    env = environment(tmp_path)
    stream = env.from_collection([1, 2, 3]).flatmap(execution.operator(give, -1), contract=execution.contract())
    assert sorted(stream.collect(allow_dead_letters=True)) == [1, 3]
    (letter,) = letters(tmp_path)
    assert message in letter.error


def test_flatmap_outputs_are_passed_on_all_or_none(execution: ExecutionKind, tmp_path: Path) -> None:
    attempts: list[int] = []

    def torn(number: int) -> Iterator[int]:
        attempts.append(number)
        yield number
        yield number
        if len(attempts) == 1:
            raise ValueError("in the middle")

    env = environment(tmp_path)
    errors = ErrorPolicy(retries=1, delay_s=0)
    if execution.name == "thread":
        function: Any = torn
    else:

        async def function(number: int) -> list[int]:
            return list(torn(number))

    out = env.from_collection([7]).flatmap(function, contract=execution.contract(errors=errors)).collect()
    assert out == [7, 7]


# -- pipelines that are none ----------------------------------------------------------------------------------


def _here() -> str:
    return "test_errors_and_bad_input.py:"


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda env: env.submit(), "is empty"),
        (lambda env: (env.from_collection([1], name="numbers"), env.submit()), "stream of 'numbers' goes nowhere"),
        (
            lambda env: (env.from_collection([1]).map(len, name="dangling"), env.submit()),
            "stream of 'dangling' goes nowhere",
        ),
        (lambda env: env.from_collection([1]).map(5), "map needs a class, an instance or a function, got 5"),
        (lambda env: env.from_collection([1]).map(Sink), "map needs a MapFunction, got Sink, which is a SinkFunction"),
        (lambda env: env.from_collection([1]).map(Abstract), "Abstract does not define execute"),
        (lambda env: env.from_collection([1]).map(len, {"a": 1}), "config goes with an operator class"),
        (lambda env: env.from_collection([1]).map(len, parallelism=0), "parallelism must be a whole number >= 1, got 0"),
        (lambda env: env.from_collection([1]).map(len, parallelism=True), "got True"),
        (lambda env: env.from_collection([1]).map(len, parallelism=1.5), "got 1.5"),
        (lambda env: env.from_collection([1]).map(len, contract=3), "contract must be a Contract, got 3"),
        (lambda env: env.from_collection([1]).map(len, name=""), "an operator name is made of"),
        (lambda env: env.from_collection([1]).map(len, name="a\nb"), "an operator name is made of"),
        (lambda env: env.from_collection([1]).map(len, name="n").map(len, name="n"), "names must be unique, got 'n'"),
        (lambda env: env.from_collection(5), "from_collection takes an iterable, got 5"),
        (lambda env: env.from_batch("ab"), "from_batch takes a list"),
        (lambda env: env.from_source([1]), "from_source takes a source class"),
        (lambda env: env.from_collection([1]).union(5), "union takes streams, got 5"),
        (
            lambda env: env.from_collection([1]).union(LocalEnvironment("other").from_collection([1])),
            "union joins streams of one environment",
        ),
        (lambda env: env.from_collection([1]).key_by(len).aggregate([], max), "would share the list"),
        (lambda env: env.from_collection([1]).key_by(len).aggregate(0, 5), "aggregate takes a function as add, got 5"),
        (lambda env: env.from_collection([1]).key_by(len).reduce(max, emit="never"), "emit must be 'each' or 'final'"),
        (lambda env: env.from_collection(iter([1]), parallelism=2).sink(len).submit(), "can be read only once"),
        (
            lambda env: env.from_collection([1]).key_by(len).reduce(_true_of_two).sink(len).submit(),
            "reduce takes a plain function, got the coroutine function",
        ),
    ],
)
def test_wrong_pipelines(tmp_path: Path, declare: Callable[[LocalEnvironment], Any], message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        declare(environment(tmp_path))
    assert message in str(caught.value)
    if message != "is empty":
        assert _here() in str(caught.value), "the message names the line of the user's file"


async def _true_of_two(one: Any, two: Any) -> bool:
    return True


class Sink(SinkFunction[Any]):
    """A sink."""

    def execute(self, item: Any) -> None:
        """Takes it."""


class Abstract(MapFunction[Any, Any]):
    """Nothing in it."""


def test_an_operator_called_collect(tmp_path: Path) -> None:
    def collect(number: int) -> int:
        return number

    assert environment(tmp_path).from_collection([1]).map(collect).collect() == [1]


@pytest.mark.parametrize("name", ["", "  ", 5])
def test_environment_names(name: Any) -> None:
    with pytest.raises(PipelineError, match="needs a name that is not empty"):
        LocalEnvironment(name)


# -- operators that do not return -----------------------------------------------------------------------------


def test_watchdog_shows_where_it_hangs(execution: ExecutionKind, tmp_path: Path) -> None:
    env = environment(tmp_path, watchdog_s=0.4, abort_grace_s=0.5)
    release = threading.Event()

    def hangs_here(number: int) -> int:
        if number == 3:
            release.wait(20)
        return number

    if execution.name == "thread":
        function: Any = hangs_here
    else:

        async def function(number: int) -> int:
            while number == 3 and not release.is_set():
                await asyncio.sleep(0.05)
            return number

    env.from_collection(range(10)).map(function, contract=execution.contract(concurrency=1), name="hangs").sink(
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
    if execution.name == "thread":
        assert "release.wait(20)" in str(caught.value)
        assert "given up" in str(caught.value)
    assert all(worker.join(3) for worker in job._workers.values())


def test_watchdog_lets_slow_work_be(execution: ExecutionKind, tmp_path: Path) -> None:
    """Each item takes a third of the limit; the whole takes several times the limit."""
    env = environment(tmp_path, watchdog_s=0.3)
    out = (
        env.from_collection(range(10))
        .map(execution.operator(lambda n: n, 0.1), contract=execution.contract(concurrency=1))
        .collect()
    )
    assert out == list(range(10))


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
    out = env.from_collection([1]).map(execution.operator(once, -1), contract=execution.contract(errors=errors)).collect()
    assert out == [1]


def test_time_limit_of_an_async_call(tmp_path: Path) -> None:
    from executions import KINDS

    async def slow(number: int) -> int:
        await asyncio.sleep(5 if number == 2 else 0)
        return number

    env = environment(tmp_path)
    contract = KINDS["async"].contract(timeout_s=0.1, errors=ErrorPolicy(retries=1, delay_s=0))
    begun = time.monotonic()
    assert sorted(env.from_collection([1, 2, 3]).map(slow, contract=contract).collect(allow_dead_letters=True)) == [1, 3]
    assert time.monotonic() - begun < 3
    (letter,) = letters(tmp_path)
    assert letter.error_type == "TimeoutError"
    assert letter.attempts == 2
    assert "did not answer within 0.1 s" in letter.error


# -- several jobs, several threads ----------------------------------------------------------------------------


def test_one_environment_submitted_from_several_threads(execution: ExecutionKind, tmp_path: Path) -> None:
    env = environment(tmp_path)
    stream = env.from_collection(list(range(200))).map(
        execution.operator(lambda n: 100 // (n % 50), -1), contract=execution.contract(), parallelism=2
    )
    results: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: results.append(stream.collect(allow_dead_letters=True))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    expected = sorted(100 // (n % 50) for n in range(200) if n % 50)
    assert [sorted(result) for result in results] == [expected] * 5
    assert len(letters(tmp_path)) == 5 * 4


def test_metrics_can_be_read_while_it_runs(execution: ExecutionKind, tmp_path: Path) -> None:
    env = environment(tmp_path, queue_capacity=8)
    stream = env.from_collection(range(20_000)).map(
        execution.operator(lambda n: n, -1), contract=execution.contract(), parallelism=2
    )
    stream.sink(lambda _: None)
    job = env.submit(wait=False)
    seen = [0]
    while job.result is None:
        metrics = job.metrics()
        assert metrics.items_in >= seen[-1], "counters never go back"
        assert metrics.latency.p50_ms >= 0
        seen.append(metrics.items_in)
    assert job.wait().metrics.items_out == 20_000


def test_wait_with_a_limit(tmp_path: Path) -> None:
    release = threading.Event()
    env = environment(tmp_path)
    env.from_collection([1]).sink(lambda _: release.wait(10))
    job = env.submit(wait=False)
    with pytest.raises(TimeoutError, match=r"job 'errors' has not ended after 0.05 s; it goes on"):
        job.wait(0.05)
    release.set()
    assert job.wait(5).ok


# -- in a process of its own ----------------------------------------------------------------------------------

_PRELUDE = """
import signal, sys, threading, time, os
from sage.kernel.api import *
started = threading.Event()
def naturals():
    number = 0
    while True:
        yield number
        number += 1
"""


def _script(tmp_path: Path, body: str) -> list[str]:
    file = tmp_path / "script.py"
    file.write_text(_PRELUDE + textwrap.dedent(body))
    return [sys.executable, str(file)]


def _interrupt(command: list[str], times: int, tmp_path: Path) -> tuple[int, str, str, float]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        begun = time.monotonic()
        for number in range(times):
            if number:
                time.sleep(0.4)
            process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return process.returncode, out, err, time.monotonic() - begun


@pytest.mark.parametrize("run", ["env.submit()", "stream.collect()"])
def test_one_interrupt_drains(tmp_path: Path, run: str) -> None:
    body = f"""
    made, got = [], []
    def source():
        for number in naturals():
            made.append(number)
            yield number
    def sink(number):
        got.append(number)
        if len(got) == 100:
            print("running", flush=True)
    env = LocalEnvironment("it", {{"home": ".", "queue_capacity": 4}})
    stream = env.from_source(source).map(lambda n: n, parallelism=2).map(lambda n: (sink(n), n)[1])
    if "submit" in {run!r}: stream.sink(lambda n: None)
    try:
        {run}
    except KeyboardInterrupt:
        print("interrupted", sorted(got) == made, flush=True)
        left = [thread.name for thread in threading.enumerate() if thread.name.startswith("sage")]
        print("left", left, flush=True)
        sys.exit(130)
    """
    code, out, err, _ = _interrupt(_script(tmp_path, body), 1, tmp_path)
    assert (code, out) == (130, "interrupted True\nleft []\n"), err


def test_a_second_interrupt_aborts(tmp_path: Path) -> None:
    body = """
    def stuck(number):
        print("running", flush=True)
        threading.Event().wait(60)
    env = LocalEnvironment("it", {"home": ".", "abort_grace_s": 0.5})
    env.from_source(naturals).map(lambda n: n).sink(stuck)
    try:
        env.submit()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.exit(130)
    """
    code, out, err, seconds = _interrupt(_script(tmp_path, body), 2, tmp_path)
    assert (code, out) == (130, "interrupted\n"), err
    assert seconds < 5


def test_a_full_disk_under_the_dead_letters_fails_the_job(tmp_path: Path) -> None:
    body = """
    import resource
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    env = LocalEnvironment("it", {"home": "."})
    def refuse(number):
        raise ValueError("x" * 3000)
    env.from_collection(range(500)).map(refuse, name="refuse").sink(lambda n: None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    try:
        env.submit()
    except JobFailedError as error:
        kept = error.result.dead_letters
        print("stored" if 0 < kept < 500 else kept, error)
    """
    done = subprocess.run(_script(tmp_path, body), capture_output=True, text=True, cwd=tmp_path, timeout=30, check=False)
    assert done.stdout.startswith("stored job 'it' failed"), done.stdout + done.stderr
    assert "its dead letter could not be stored" in done.stdout
    assert "'refuse'" in done.stdout


def test_dead_letters_survive_a_kill(execution: ExecutionKind, tmp_path: Path) -> None:
    wrapped = "fails" if execution.name == "thread" else "afails"
    body = f"""
    def fails(number):
        if number == 5:
            print("running", flush=True)
            time.sleep(60)
        raise ValueError(number)
    async def afails(number):
        return fails(number)
    env = LocalEnvironment("it", {{"home": "."}})
    env.from_collection(range(10)).map({wrapped}, contract=Contract(resources=Resources(concurrency=1))).sink(print)
    env.submit()
    """
    with subprocess.Popen(_script(tmp_path, body), stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        os.kill(process.pid, signal.SIGKILL)
    assert [letter.item for letter in letters(tmp_path)] == ["0", "1", "2", "3", "4"]


def test_memory_stays_flat_behind_a_slow_sink(tmp_path: Path) -> None:
    """Ten million items are offered to a sink that takes few of them."""
    env = environment(tmp_path, fusion=False)
    env.from_collection(range(10_000_000)).map(lambda n: [n] * 10).sink(lambda _: time.sleep(0.001))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    job = env.submit(wait=False)
    time.sleep(1.5)
    job.abort()
    job.wait(5)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 50_000
