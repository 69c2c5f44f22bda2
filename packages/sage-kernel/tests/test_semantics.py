"""Invariants 1 to 5 and 8 on random pipelines, against the reference interpreter, on every execution kind."""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from executions import ExecutionKind
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from reference import NOT_MADE, Counts, Letter, Outcome, interpret
from strategies import Op, Pipeline, build, describe, pipelines

from sage.kernel.api import Execution, JobResult, JobState, LocalEnvironment
from sage.kernel.runtime import DeadLetterStore, JobHandle

RANDOM = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
# Dead letters are synced to disk one by one; memory keeps that out of the time of the test.
SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None


@dataclass(frozen=True)
class Run:
    """What one run of a pipeline came to."""

    job: JobHandle
    result: JobResult
    sinks: dict[str, list[Any]]
    letters: list[Letter]


def run(pipeline: Pipeline, kind: ExecutionKind, meddle: Callable[[JobHandle], None] = lambda job: None) -> Run:
    """Run it; `meddle` may stop or abort it on the way."""
    taken: dict[str, list[Any]] = {}
    with tempfile.TemporaryDirectory(dir=SCRATCH) as home:
        env = LocalEnvironment(
            "random",
            {
                "home": home,
                "fusion": pipeline.fusion and not kind.lined,
                "queue_capacity": pipeline.queue_capacity,
                "watchdog_s": 8,
            },
        )
        build(pipeline, env, replace(kind, shared=Path(home)) if kind.execution is Execution.PROCESS else kind, taken)
        job = env.submit(wait=False)
        meddle(job)
        result = job.wait(30)
        with DeadLetterStore(Path(home)) as store:
            letters = [Letter(found.operator, found.item, found.attempts, found.error) for found in store.read()]
    return Run(job, result, taken, letters)


def expect(pipeline: Pipeline, kind: ExecutionKind) -> Outcome:
    taken: dict[str, list[Any]] = {}
    env = LocalEnvironment("reference")
    build(pipeline, env, kind, taken, sleep=False)
    return interpret(env.graph)


def items(values: list[Any]) -> Counter[str]:
    """Multiset of items; by their text, so that 0, False and 0.0 differ."""
    return Counter(map(repr, values))


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads change every 50 microseconds, so that a test sees many more interleavings."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(before)


@RANDOM
@given(pipeline=pipelines())
@pytest.mark.timeout(240)
def test_run_equals_reference(execution_drawn: ExecutionKind, switching: None, pipeline: Pipeline) -> None:
    note(describe(pipeline))
    expected = expect(pipeline, execution_drawn)
    got = run(pipeline, execution_drawn)
    check_against(expected, got)
    check_order(pipeline, expected, got)
    metrics = got.result.metrics
    assert metrics.items_in == sum(len(op.items) for op in pipeline.ops if op.kind == "source")
    assert metrics.items_out == sum(len(values) for values in got.sinks.values())


def check_against(expected: Outcome, got: Run) -> None:
    """Items, dead letters and counters of a run are those of the reference; queues kept their bounds."""
    for sink, values in got.sinks.items():
        assert items(values) == items(expected.sinks.get(sink, [])), f"items of {sink}"
    assert Counter(map(_loose_letter, got.letters)) == Counter(map(_loose_letter, expected.letters)), "dead letters"
    assert got.result.dead_letters == len(expected.letters)
    counted = {
        found.operator: Counts(found.items_in, found.items_out, found.errors, found.retries, found.dead_letters)
        for found in got.result.metrics.operators
    }
    assert _loose(counted) == _loose(expected.counts), "counters"
    check_queues(got)


def check_order(pipeline: Pipeline, expected: Outcome, got: Run) -> None:
    """Sinks that take items in order got the reference's lists."""
    for position, op in enumerate(pipeline.ops):
        if op.in_order:
            sink = f"sink{position}"
            assert list(map(repr, got.sinks[sink])) == list(map(repr, expected.sinks.get(sink, []))), f"order of {sink}"


def _loose(counts: dict[str, Counts]) -> dict[str, Counts]:
    """Without what depends on which items share a list: how many lists there are, how often an item is tried."""
    changed = dict(counts)
    for name, found in counts.items():
        if name.endswith(" items"):
            changed[name] = replace(found, items_in=0)
        elif f"{name} items" in counts:
            changed[name] = replace(found, items_out=0)
        elif name.startswith("batched"):
            changed[name] = replace(found, errors=0, retries=0)
    return changed


def _loose_letter(letter: Letter) -> Letter:
    letter = replace(letter, item=_as_stored(letter.item), error=_as_stored(letter.error))
    return replace(letter, attempts=0) if letter.operator.startswith("batched") else letter


def _as_stored(text: str) -> str:
    """Texts are kept up to 4,096 characters; a fold's error may name everything that it has seen."""
    return text if len(text) <= 4096 else text[:4093] + "..."


def check_queues(got: Run) -> None:
    for replica in got.result.metrics.replicas:
        assert replica.queue_depth_max <= max(replica.queue_capacity, 0), f"occupancy of {replica.task}"
        assert replica.queue_depth == 0, f"{replica.task} ended with items in its queue"


@settings(RANDOM, max_examples=25)
@given(pipeline=pipelines(items_max=30), times=st.integers(20, 80))
@pytest.mark.timeout(180)
def test_run_of_many_items_equals_reference(execution_drawn: ExecutionKind, pipeline: Pipeline, times: int) -> None:
    """Enough items that batches grow, messages are joined and outputs are sent on within a batch."""
    many = replace(
        pipeline,
        ops=tuple(replace(op, items=op.items * times, sleeps=False, retries=min(op.retries, 1)) for op in pipeline.ops),
    )
    note(f"{times} times\n{describe(pipeline)}")
    expected, got = expect(many, execution_drawn), run(many, execution_drawn)
    check_against(expected, got)
    check_order(many, expected, got)


@settings(RANDOM, max_examples=60)
@given(pipeline=pipelines(items_max=40, failing=False))
@pytest.mark.timeout(120)
def test_parallelism_does_not_change_the_result(execution_drawn: ExecutionKind, pipeline: Pipeline) -> None:
    """The same pipeline with one replica of everything and with the replicas that were drawn; those that take a
    broadcast stay as many, because each works every item off.
    """
    single = Pipeline(
        tuple(op if op.routing == "broadcast" else replace(op, parallelism=1) for op in pipeline.ops),
        fusion=pipeline.fusion,
        queue_capacity=None,
    )
    note(describe(pipeline))
    one, many = run(single, execution_drawn), run(pipeline, execution_drawn)
    assert {name: items(values) for name, values in one.sinks.items()} == {
        name: items(values) for name, values in many.sinks.items()
    }


@settings(RANDOM, max_examples=80)
@given(pipeline=pipelines(), delay_ms=st.floats(0, 8))
@pytest.mark.timeout(120)
def test_a_stopped_run_is_the_whole_run_of_what_its_sources_had_made(
    execution_drawn: ExecutionKind, pipeline: Pipeline, delay_ms: float
) -> None:
    note(f"stopped after {delay_ms} ms\n{describe(pipeline)}")

    def stop(job: JobHandle) -> None:
        time.sleep(delay_ms / 1000)
        job.stop(20)

    got = run(pipeline, execution_drawn, stop)
    assert got.result.state in (JobState.STOPPED, JobState.FINISHED)
    offsets = got.result.offsets
    note(f"offsets {offsets}")
    made = Pipeline(
        tuple(
            replace(op, items=_prefix(op, offsets[f"source{position}"])) if op.kind == "source" else op
            for position, op in enumerate(pipeline.ops)
        )
    )
    check_against(expect(made, execution_drawn), got)


def _prefix(op: Op, offsets: list[Any]) -> tuple[Any, ...]:
    """What the replicas of a source had made when they were at these offsets, each item in its place."""
    own = op.parallelism
    return tuple(
        item if position // own < (offsets[position % own] or 0) else NOT_MADE for position, item in enumerate(op.items)
    )


@settings(RANDOM, max_examples=60)
@given(pipeline=pipelines(), delay_ms=st.floats(0, 8))
@pytest.mark.timeout(120)
def test_an_aborted_run_ends_at_once_and_gives_nothing_that_is_not_in_the_whole_run(
    execution_drawn: ExecutionKind, pipeline: Pipeline, delay_ms: float
) -> None:
    note(f"aborted after {delay_ms} ms\n{describe(pipeline)}")

    def abort(job: JobHandle) -> None:
        time.sleep(delay_ms / 1000)
        job.abort("enough")

    begun = time.monotonic()
    got = run(pipeline, execution_drawn, abort)
    assert time.monotonic() - begun < 4
    assert got.result.state in (JobState.ABORTED, JobState.FINISHED)
    assert "given up" not in got.result.reason
    if any(op.kind in ("reduce", "aggregate") for op in pipeline.ops):
        return  # what a fold had taken by then is not determined
    expected = expect(pipeline, execution_drawn)
    for sink, values in got.sinks.items():
        assert not items(values) - items(expected.sinks.get(sink, [])), f"items of {sink}"


def test_reference_knows_what_it_does() -> None:
    """The reference itself, on a pipeline small enough to work out by hand."""
    env = LocalEnvironment("hand")
    sunk: list[Any] = []
    words = env.from_collection(["b", "a b", "", "a"]).flatmap(str.split)
    words.key_by(lambda word: word).aggregate(0, lambda count, word: count + 1, emit="final", name="count").sink(
        sunk.append, name="end"
    )
    words.map(lambda word: 1 // (word != "a"), name="risky").sink(lambda item: None, name="other")
    outcome = interpret(env.graph)
    assert outcome.sinks == {"end": [("b", 2), ("a", 2)], "other": [1, 1]}
    assert outcome.state == {"count": {"b": 2, "a": 2}}
    assert outcome.counts["risky"] == Counts(items_in=4, items_out=2, errors=2, dead_letters=2)
    assert [letter.item for letter in outcome.letters] == ["'a'", "'a'"]
    assert list(itertools.chain(sunk)) == [("b", 2), ("a", 2)]
