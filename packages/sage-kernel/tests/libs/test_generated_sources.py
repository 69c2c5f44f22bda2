"""Sources over Python callables, and sources at a given rate."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage.common.errors import ConfigError
from sage.kernel.api import JobState, LocalEnvironment
from sage.kernel.operators import BadRecord, OperatorContext
from sage.libs.errors import RecordError, SourceError
from sage.libs.foundation.io import FileSource, GeneratorSource, RateSource


def test_generator_source_repeats_its_callable() -> None:
    source: GeneratorSource[int] = GeneratorSource({"generator": lambda: iter(range(5))})
    assert list(source.execute()) == list(source.execute()) == [0, 1, 2, 3, 4]
    assert list(source.read_from(source.offset_after(3))) == [3, 4]


def test_generator_source_without_end_is_lazy() -> None:
    assert list(itertools.islice(GeneratorSource(itertools.count).execute(), 3)) == [0, 1, 2]


def test_generator_source_replicas_share_the_items() -> None:
    shares = []
    for replica in range(2):
        source: GeneratorSource[int] = GeneratorSource(lambda: range(5))
        source.attach(OperatorContext("source", replica_index=replica, parallelism=2))
        shares.append(list(source.execute()))
    assert shares == [[0, 2, 4], [1, 3]]


def test_wrong_generators_are_refused() -> None:
    with pytest.raises(ConfigError, match="generator"):
        GeneratorSource({"generator": [1, 2]})
    with pytest.raises(SourceError, match="must return an iterable of items, got int; yield the items"):
        list(GeneratorSource(lambda: 3).execute())  # type: ignore[arg-type,return-value]


def test_constant_rate_keeps_to_the_clock() -> None:
    source = RateSource({"source": range(50), "rate_per_s": 500})
    start = time.perf_counter_ns()
    items = [(value, arrival, time.perf_counter_ns()) for value, arrival in source.execute()]
    assert [value for value, _, _ in items] == list(range(50))
    first = items[0][1]
    assert first >= start
    assert [arrival - first for _, arrival, _ in items] == [n * 2_000_000 for n in range(50)]
    assert all(seen >= arrival for _, arrival, seen in items)  # none before its time


def test_a_slow_consumer_does_not_move_the_arrivals() -> None:
    arrivals = []
    for value, arrival in RateSource({"source": range(5), "rate_per_s": 1000}).execute():
        if value == 0:
            time.sleep(0.05)
        arrivals.append(arrival)
    assert [later - earlier for earlier, later in itertools.pairwise(arrivals)] == [1_000_000] * 4


def test_poisson_arrivals_follow_the_seed_and_the_rate() -> None:
    def gaps(seed: int) -> list[int]:
        config = {"source": range(400), "rate_per_s": 20_000, "arrivals": "poisson", "seed": seed}
        arrivals = [arrival for _, arrival in RateSource(config).execute()]
        return [later - earlier for earlier, later in itertools.pairwise(arrivals)]

    first = gaps(1)
    again = gaps(1)
    assert all(abs(a - b) <= 1 for a, b in zip(first, again, strict=True))  # rounded from another start
    assert first != gaps(2)
    mean = statistics.fmean(first)
    assert 0.8 * 50_000 < mean < 1.2 * 50_000
    assert 0.8 * mean < statistics.stdev(first) < 1.2 * mean  # exponential: deviation equals mean


def test_rate_source_wraps_another_source_with_its_offsets(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n\xff\ntwo\nthree\n")
    source = RateSource({"source": FileSource({"file_path": path}), "rate_per_s": 1e6})
    source.setup()
    items: Iterator[Any] = source.execute()
    assert next(items)[0] == "one"
    bad, _ = next(items)
    assert isinstance(bad, BadRecord)
    assert isinstance(bad.error, RecordError)
    offset = source.offset_after(2)
    rest = RateSource({"source": FileSource({"file_path": path}), "rate_per_s": 1e6}).read_from(offset)
    assert [value for value, _ in rest] == ["two", "three"]
    with pytest.raises(SourceError, match="does not exist"):
        RateSource({"source": FileSource({"file_path": tmp_path / "no"}), "rate_per_s": 1}).setup()


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
def test_a_rate_must_be_a_positive_number(rate: float) -> None:
    with pytest.raises(ConfigError, match="rate_per_s"):
        RateSource({"source": range(3), "rate_per_s": rate})


def test_an_iterator_cannot_be_read_again_and_is_refused() -> None:
    with pytest.raises(SourceError, match="not an iterator"):
        RateSource({"source": iter([1]), "rate_per_s": 1})


def test_a_stop_ends_the_wait_for_the_next_arrival() -> None:
    seen: list[Any] = []
    env = LocalEnvironment("slow", config={"grace_s": 5.0})
    env.from_source(RateSource, {"source": range(9), "rate_per_s": 0.05}).sink(seen.append)
    job = env.submit(wait=False)
    end = time.monotonic() + 20
    while not seen and time.monotonic() < end:
        time.sleep(0.01)
    start = time.monotonic()
    job.stop()
    result = job.wait(10)
    assert time.monotonic() - start < 2
    assert result.state is JobState.STOPPED
    assert seen == [0]  # the runtime takes the arrival off
