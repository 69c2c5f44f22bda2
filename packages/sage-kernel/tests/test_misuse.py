"""What users do that looks right and is not, and limits that must hold on the rare paths as well."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished, letters

from sage.common.errors import ConfigError, InvalidArgumentError
from sage.kernel.api import (
    Contract,
    ErrorPolicy,
    IOSpec,
    JobFailedError,
    LocalEnvironment,
    MapFunction,
    OnError,
    PipelineError,
    Resources,
    SinkFunction,
    StateSpec,
    load_pipeline,
)
from sage.kernel.runtime import DeadLetterStore
from sage.kernel.runtime.chain import SetAside


class Tally(MapFunction[Any, Any]):
    """Counts what it has seen."""

    def setup(self) -> None:
        self.seen = 0

    def execute(self, item: Any) -> Any:
        self.seen += 1
        return item


class FailsOnce:
    """Raises for each item the first time it comes."""

    def __init__(self) -> None:
        self.seen: set[Any] = set()

    def __call__(self, item: Any) -> Any:
        if item not in self.seen:
            self.seen.add(item)
            raise ValueError("the first time")
        return item


RETRY = Contract(io=IOSpec(errors=ErrorPolicy(retries=1, delay_s=0)))


# -- the job's own bookkeeping ---------------------------------------------------------------------------------------


def test_a_failure_of_the_supervision_ends_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = environment(tmp_path)
    env.from_collection([1]).sink(len)

    def broken(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("broken bookkeeping")

    monkeypatch.setattr("sage.kernel.runtime.job.JobHandle._complete", broken)
    job = env.submit(wait=False)
    with pytest.raises(JobFailedError, match="supervision failed: RuntimeError: broken bookkeeping"):
        job.wait(10)
    assert job.state.value == "failed"


def test_operators_count_numbers(tmp_path: Path) -> None:
    class Counts(MapFunction[int, int]):
        def execute(self, item: int) -> int:
            self.ctx.metrics.count("model", "gpt")  # type: ignore[arg-type]  # what the test is about
            return item

    env = environment(tmp_path)
    env.from_collection([1]).map(Counts).sink(len)
    finished(env)
    assert [letter.error for letter in letters(tmp_path)] == ["counter 'model' counts numbers, got 'gpt'"]


def test_an_error_that_cannot_be_printed_is_reported(tmp_path: Path) -> None:
    class MuteError(InvalidArgumentError):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    def fail(item: int) -> int:
        raise MuteError

    env = environment(tmp_path)
    policy = Contract(io=IOSpec(errors=ErrorPolicy(on_error=OnError.FAIL)))
    env.from_collection([1]).map(fail, contract=policy).sink(len)
    with pytest.raises(JobFailedError, match="MuteError whose __str__ raised RuntimeError"):
        env.submit(wait=False).wait(10)


def test_a_teardown_that_exits_does_not_keep_others_from_theirs(tmp_path: Path) -> None:
    torn: list[str] = []

    class First(Tally):
        def teardown(self) -> None:
            torn.append("first")

    class Second(Tally):
        def teardown(self) -> None:
            raise SystemExit(3)

    env = environment(tmp_path)
    env.from_collection([1]).map(First).map(Second).sink(len)
    with pytest.raises(JobFailedError, match="teardown of operator 'Second' failed: SystemExit: 3"):
        env.submit()
    assert torn == ["first"]


# -- rare paths keep to the rules of the common one ------------------------------------------------------------------


@pytest.mark.parametrize("fusion", [True, False])
def test_an_item_that_was_retried_is_passed_on_at_once(tmp_path: Path, fusion: bool) -> None:
    feed: queue.SimpleQueue[Any] = queue.SimpleQueue()
    arrived = threading.Event()
    fails_once = FailsOnce()

    def source() -> Iterator[Any]:
        while (item := feed.get()) is not None:
            yield item

    def work(item: Any) -> Any:
        return fails_once(item) if item == "x" else item

    env = environment(tmp_path)
    stream = env.from_source(source).map(work, contract=RETRY)
    stream.map(lambda item: item, parallelism=2).sink(lambda item: arrived.set() if item == "x" else None)
    job = env.submit(wait=False)
    for number in range(3000):
        feed.put(number)
    feed.put("x")
    assert arrived.wait(5), "it waits for the source's next item"
    feed.put(None)
    assert job.wait(10).state.value == "finished"


def test_outputs_of_retried_items_keep_to_the_packet_limit(tmp_path: Path) -> None:
    fails_once = FailsOnce()
    env = environment(tmp_path, fusion=True)
    stream = env.from_collection([0]).flatmap(lambda item: [fails_once(item)] * 3000, contract=RETRY)
    stream = stream.flatmap(lambda item: [item] * 10)
    sizes: list[int] = []

    class Watch(SinkFunction[Any]):
        def execute(self, item: Any) -> None:
            sizes.append(1)

    stream.sink(Watch(), contract=Contract(io=IOSpec(queue_capacity=500)))
    job = env.submit()
    assert job.result is not None
    assert len(sizes) == 30_000
    sink = next(replica for replica in job.result.metrics.replicas if replica.task.startswith("Watch"))
    assert sink.queue_depth_max <= 500


def test_a_retry_at_the_head_of_a_long_chain(tmp_path: Path) -> None:
    env = environment(tmp_path)
    stream = env.from_collection([1, 2]).map(FailsOnce(), contract=RETRY)
    for _ in range(1100):
        stream = stream.map(lambda item: item + 1)
    assert stream.collect() == [1101, 1102]


def test_many_flatmaps_in_a_row(tmp_path: Path) -> None:
    env = environment(tmp_path)
    stream = env.from_collection([1])
    for _ in range(12):
        stream = stream.flatmap(lambda item: [item, item])
    assert len(stream.collect()) == 2**12


def test_async_keys_keep_the_order_of_the_input(tmp_path: Path) -> None:
    async def key(item: int) -> str:
        await asyncio.sleep(0.003 if item == 0 else 0)
        return "one key"

    async def jitter(item: int) -> int:
        return item

    env = environment(tmp_path)
    stream = env.from_collection(range(30)).key_by(key).map(jitter)
    assert stream.collect() == list(range(30))


def test_a_pause_before_a_retry_hides_no_standstill(tmp_path: Path) -> None:
    env = environment(tmp_path, watchdog_s=1, abort_grace_s=0.5)
    patient = Contract(io=IOSpec(errors=ErrorPolicy(retries=1, delay_s=30, jitter=0)))
    env.from_collection([1]).map(FailsOnce(), contract=patient, name="patient").sink(len)
    stuck = threading.Event()
    env.from_collection([1]).map(lambda item: stuck.wait(20), name="stuck").sink(id)
    started = time.monotonic()
    with pytest.raises(JobFailedError, match=r"no progress.*\n(.*\n)*.*in operator 'stuck'"):
        env.submit()
    assert time.monotonic() - started < 10
    stuck.set()


def test_a_source_may_take_its_time_before_its_first_item(tmp_path: Path) -> None:
    def source() -> list[int]:
        time.sleep(1.5)
        return [1, 2]

    env = environment(tmp_path, watchdog_s=0.5)
    assert env.from_source(source).collect() == [1, 2]


def test_a_letter_knows_its_number(tmp_path: Path) -> None:
    with DeadLetterStore(tmp_path) as store:
        for item in (1, 2):
            store.add(
                SetAside(
                    operator="o", replica_index=0, item=item, key=None, keyed=False, attempts=1, error=ValueError("no")
                )
            )
        assert store.first is not None
        assert store.first.number == 1


# -- one object in two places ----------------------------------------------------------------------------------------


def test_one_instance_cannot_be_two_operators(tmp_path: Path) -> None:
    tally = Tally()
    env = environment(tmp_path)
    stream = env.from_collection([1, 2]).map(tally, name="one")
    with pytest.raises(
        PipelineError, match=r"cannot be two operators.*\(operator 'two', .*the first use is \(operator 'one'"
    ):
        stream.map(tally, name="two")


def test_one_instance_cannot_serve_two_jobs_at_once(tmp_path: Path) -> None:
    inside, leave = threading.Event(), threading.Event()

    class Waits(MapFunction[Any, Any]):
        def execute(self, item: Any) -> Any:
            inside.set()
            leave.wait(10)
            return item

    waits = Waits()
    env = environment(tmp_path)
    env.from_collection([1]).map(waits).sink(len)
    first = env.submit(wait=False)
    assert inside.wait(10)
    with pytest.raises(JobFailedError, match="works in a running job already: pass the class"):
        env.submit(wait=False).wait(10)
    leave.set()
    assert first.wait(10).state.value == "finished"
    assert env.submit().result is not None


def test_an_iterator_is_used_up(tmp_path: Path) -> None:
    stream = environment(tmp_path).from_collection(iter([1, 2]))
    assert stream.collect() == [1, 2]
    with pytest.raises(JobFailedError, match="was used up by an earlier run"):
        stream.collect()


def test_a_mutable_first_accumulator_is_refused(tmp_path: Path) -> None:
    stream = environment(tmp_path).from_collection([1, 2, 3]).key_by(lambda n: n % 2)
    for shared in (deque(), [], ([],)):
        with pytest.raises(PipelineError, match="would share the"):
            stream.aggregate(shared, lambda kept, item: kept)
    assert stream.aggregate((), lambda kept, item: (*kept, item), emit="final").collect() == [(1, (1, 3)), (0, (2,))]


# -- what nothing would ever act on ----------------------------------------------------------------------------------


def test_life_cycle_methods_are_plain(tmp_path: Path) -> None:
    class Opens(Tally):
        async def setup(self) -> None:  # type: ignore[override]  # what the test is about
            raise AssertionError

    with pytest.raises(PipelineError, match=r"setup\(\) must be a plain method"):
        environment(tmp_path).from_collection([1]).map(Opens)


def test_a_class_with_execute_must_be_an_operator(tmp_path: Path) -> None:
    class Up:
        def execute(self, item: str) -> str:
            return item.upper()

    with pytest.raises(PipelineError, match="derive it from MapFunction"):
        environment(tmp_path).from_collection(["a"]).map(Up)


def test_contracts_that_cannot_be_kept_are_refused(tmp_path: Path) -> None:
    env = environment(tmp_path)
    env.from_collection([1]).map(len, contract=Contract(state=StateSpec(keyed=True))).sink(len)
    with pytest.raises(PipelineError, match="keeps state by key: call key_by"):
        env.compile()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resources(concurrency=1.5), "concurrency must be a whole number, got 1.5"),  # type: ignore[arg-type]
        (lambda: ErrorPolicy(retries=1.5), "retries must be a whole number"),  # type: ignore[arg-type]
        (lambda: ErrorPolicy(delay_s=float("inf")), "delay_s must be finite"),
        (lambda: IOSpec(timeout_s=0), "timeout_s must be > 0"),
        (lambda: IOSpec(queue_capacity=1.5), "queue_capacity must be a whole number"),  # type: ignore[arg-type]
        (lambda: IOSpec(outputs_max=10.5), "outputs_max must be a whole number"),  # type: ignore[arg-type]
    ],
)
def test_numbers_of_a_contract(make: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        make()


def test_parallelism_behind_key_by(tmp_path: Path) -> None:
    env = environment(tmp_path)
    env.from_collection(range(9)).key_by(lambda n: n % 3, parallelism=3, name="k").reduce(max, name="r").sink(len)
    replicas = {task.chain[0]: task.parallelism for task in env.compile().tasks}
    assert replicas == {"collection": 1, "r": 3, "len": 1}


def test_names_in_settings_and_offsets_must_exist(tmp_path: Path) -> None:
    env = environment(tmp_path, parallelism={"tpyo": 3})
    with pytest.raises(PipelineError, match="unknown operator 'tpyo'"):
        env.from_collection([1], name="typo").collect()
    env = environment(tmp_path)
    env.from_collection([1]).sink(len)
    with pytest.raises(PipelineError, match="unknown source 'nobody'; there are: collection"):
        env.submit(offsets={"nobody": []})


# -- pipeline files --------------------------------------------------------------------------------------------------


def test_a_file_with_two_submits_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    file.write_text(
        "from sage.kernel.api import LocalEnvironment\n"
        "a = LocalEnvironment('a'); a.from_collection([1]).print()\na.submit()\n"
        "b = LocalEnvironment('b'); b.from_collection([2]).print()\nb.submit()\n"
    )
    with pytest.raises(PipelineError, match=r"calls submit\(\) more than once \(lines 3, 5\)"):
        load_pipeline(file)


def test_a_file_does_not_run_while_it_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "collects.py"
    file.write_text(
        "from sage.kernel.api import LocalEnvironment\n"
        "env = LocalEnvironment('a')\nenv.from_collection([1]).collect()\n"
    )
    with pytest.raises(PipelineError, match="does not run it"):
        load_pipeline(file)


def test_settings_reach_a_build_that_submits(tmp_path: Path) -> None:
    file = tmp_path / "builds.py"
    file.write_text(
        "from sage.kernel.api import LocalEnvironment\n"
        "def build(n=1):\n    env = LocalEnvironment(f'n{n}')\n    env.from_collection([n]).print()\n    env.submit()\n"
    )
    assert load_pipeline(file, {"n": 2}).name == "n2"


def test_a_validator_of_a_config_has_the_last_word() -> None:
    """Its own words, without those of pydantic before it and without the value a second time."""
    rule = "max_dead_letters must be a whole number >= 0 or a share such as '1%', got '200%'"
    with pytest.raises(ConfigError) as caught:
        LocalEnvironment("budget", {"max_dead_letters": "200%"})
    assert str(caught.value) == f"LocalEnvironment: config key 'max_dead_letters': {rule}"


def test_environments_have_names() -> None:
    with pytest.raises(PipelineError, match="needs a name"):
        LocalEnvironment(" ")
