"""`limit`: exactly so many items, and the sources stop."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import environment, finished
from executions import ExecutionKind

from sage.kernel.api import DataStream, JobState, LocalEnvironment, PipelineError, SourceFunction


class Endless(SourceFunction[int]):
    """Counts for ever, with a moment of waiting for each item."""

    def execute(self) -> Iterator[int]:
        for number in itertools.count():
            time.sleep(0.0001)
            yield number


@pytest.mark.parametrize("items", [0, 1, 3, 1000])
@pytest.mark.parametrize("fusion", [True, False])
@pytest.mark.parametrize("capacity", [None, 1])
def test_exactly_so_many_of_an_endless_source(
    execution: ExecutionKind, items: int, fusion: bool, capacity: int | None
) -> None:
    env = LocalEnvironment("endless", {"fusion": fusion, "queue_capacity": capacity, "watchdog_s": 10})
    same = execution.operator(lambda n: n)
    stream = env.from_collection(itertools.count()).map(same, contract=execution.contract(concurrency=1))
    assert stream.limit(items).map(lambda n: n).collect() == list(range(items))


@pytest.mark.parametrize("items", [10, 11, 10_000])
def test_a_stream_that_is_shorter_passes_whole(items: int) -> None:
    assert LocalEnvironment("short").from_collection(range(10)).limit(items).collect() == list(range(10))


def test_the_job_finishes_and_the_source_has_not_run_on(tmp_path: Path) -> None:
    env = environment(tmp_path)
    out: list[Any] = []
    env.from_collection(range(10**9), name="numbers").limit(5).sink(out.append)
    begun = time.monotonic()
    result = finished(env)
    assert time.monotonic() - begun < 5
    assert result.state is JobState.FINISHED
    assert out == [0, 1, 2, 3, 4]
    # The offset is behind what was worked off, and not at the end.
    assert 5 <= result.offsets["numbers"][0] <= 5000


def test_a_source_that_somebody_else_reads_goes_on(tmp_path: Path) -> None:
    env = environment(tmp_path)
    few: list[Any] = []
    more: list[Any] = []
    numbers = env.from_source(Endless)
    numbers.limit(3).sink(few.append)
    numbers.map(lambda n: n).limit(200).sink(more.append)
    assert finished(env).state is JobState.FINISHED
    assert (few, more) == ([0, 1, 2], list(range(200)))


def test_a_source_that_also_feeds_a_sink_is_read_to_its_end(tmp_path: Path) -> None:
    env = environment(tmp_path)
    few: list[Any] = []
    every: list[Any] = []
    numbers = env.from_collection(range(5000))
    numbers.limit(3).sink(few.append)
    numbers.sink(every.append)
    finished(env)
    assert (few, every) == ([0, 1, 2], list(range(5000)))


def test_all_sources_of_a_union_stop_and_folds_emit_what_has_come(tmp_path: Path) -> None:
    env = environment(tmp_path)
    sources = [env.from_source(Endless) for _ in range(3)]
    limited = sources[0].union(*sources[1:]).limit(50)
    counts = limited.key_by(lambda n: "all").count(emit="final")
    assert counts.collect() == [("all", 50)]


@pytest.mark.parametrize("parallelism", [1, 3])
def test_replicas_of_sources_stop_together(parallelism: int) -> None:
    env = LocalEnvironment("replicas")
    got = env.from_source(Endless, parallelism=parallelism).map(lambda n: n, parallelism=2).limit(20).collect()
    assert len(got) == 20


def test_one_limit_behind_the_other() -> None:
    stream = LocalEnvironment("two").from_collection(itertools.count())
    assert stream.limit(10).filter(lambda n: n % 2).limit(3).collect() == [1, 3, 5]


def test_a_limit_on_one_side_of_a_join_stops_neither_early() -> None:
    env = LocalEnvironment("join")
    left = env.from_collection(range(2000)).key_by(lambda n: n % 2)
    right = env.from_collection(range(10)).limit(2).key_by(lambda n: n % 2)
    assert len(left.join(right).collect()) == 2000


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda s: s.limit(-1), "limit must be a whole number >= 0, got -1"),
        (lambda s: s.limit(True), "limit must be a whole number >= 0, got True"),
        (lambda s: s.limit("3"), "limit must be a whole number >= 0, got '3'"),
    ],
)
def test_what_is_no_limit_is_refused(declare: Callable[[DataStream], Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message) as refused:
        declare(LocalEnvironment("refused").from_collection([1]))
    assert "test_limit.py:" in str(refused.value)


def test_more_replicas_of_a_limit_are_refused() -> None:
    env = LocalEnvironment("replicas", {"parallelism": {"limit": 2}})
    with pytest.raises(PipelineError, match="parallelism 2 is not possible: a limit counts all items"):
        env.from_collection([1]).limit(1).collect()
