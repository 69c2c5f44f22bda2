"""Invariants 1 to 5 and 8 of the semantics, on random pipelines against the reference interpreter, on every execution kind."""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from executions import ExecutionKind
from hypothesis import HealthCheck, given, note, settings
from reference import Counts, Letter, Outcome, interpret
from strategies import Pipeline, build, describe, pipelines

from sage.kernel.api import JobResult, LocalEnvironment
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


def run(pipeline: Pipeline, kind: ExecutionKind) -> Run:
    taken: dict[str, list[Any]] = {}
    with tempfile.TemporaryDirectory(dir=SCRATCH) as home:
        env = LocalEnvironment(
            "random",
            {"home": home, "fusion": pipeline.fusion, "queue_capacity": pipeline.queue_capacity, "watchdog_s": 8},
        )
        build(pipeline, env, kind, taken)
        job = env.submit(wait=False)
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
def test_run_equals_reference(execution: ExecutionKind, switching: None, pipeline: Pipeline) -> None:
    note(describe(pipeline))
    expected = expect(pipeline, execution)
    got = run(pipeline, execution)
    for sink, values in got.sinks.items():
        assert items(values) == items(expected.sinks.get(sink, [])), f"items of {sink}"
    assert Counter(got.letters) == Counter(expected.letters), "dead letters"
    assert got.result.dead_letters == len(expected.letters)
    metrics = got.result.metrics
    counted = {
        found.operator: Counts(found.items_in, found.items_out, found.errors, found.retries, found.dead_letters)
        for found in metrics.operators
    }
    assert counted == expected.counts, "counters"
    assert metrics.items_in == sum(len(op.items) for op in pipeline.ops if op.kind == "source")
    assert metrics.items_out == sum(len(values) for values in got.sinks.values())
    check_queues(got)


def check_queues(got: Run) -> None:
    for replica in got.result.metrics.replicas:
        assert replica.queue_depth_max <= max(replica.queue_capacity, 0), f"occupancy of {replica.task}"
        assert replica.queue_depth == 0, f"{replica.task} ended with items in its queue"


@settings(RANDOM, max_examples=60)
@given(pipeline=pipelines(items_max=40, failing=False))
@pytest.mark.timeout(120)
def test_parallelism_does_not_change_the_result(execution: ExecutionKind, pipeline: Pipeline) -> None:
    """The same pipeline with one replica of everything and with the replicas that were drawn."""
    single = Pipeline(
        tuple(_replace_parallelism(op) for op in pipeline.ops), fusion=pipeline.fusion, queue_capacity=None
    )
    note(describe(pipeline))
    one, many = run(single, execution), run(pipeline, execution)
    assert {name: items(values) for name, values in one.sinks.items()} == {
        name: items(values) for name, values in many.sinks.items()
    }


def _replace_parallelism(op: Any) -> Any:
    from dataclasses import replace

    return replace(op, parallelism=1)


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
