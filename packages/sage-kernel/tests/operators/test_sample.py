"""`sample`: some of the items."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.kernel.api import DataStream, LocalEnvironment, PipelineError


@given(items=st.lists(st.none() | st.integers(), max_size=50), every=st.integers(1, 12))
def test_each_nth_item(items: list[Any], every: int) -> None:
    assert LocalEnvironment("nth").from_collection(items).sample(every=every).collect() == items[::every]


@pytest.mark.parametrize("fraction", [0, 0.1, 0.5, 1])
def test_a_share_of_the_items(fraction: float) -> None:
    numbers = LocalEnvironment("share").from_collection(range(10_000))
    got = numbers.sample(fraction, seed=3).collect()
    assert got == sorted(set(got))
    # Six standard deviations of a binomial draw.
    assert abs(len(got) - 10_000 * fraction) <= 6 * (10_000 * fraction * (1 - fraction)) ** 0.5


def test_the_seed_decides() -> None:
    numbers = LocalEnvironment("seed").from_collection(range(200))
    one, again, other = (numbers.sample(0.3, seed=seed).collect() for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_replicas_draw_independently_of_each_other() -> None:
    stream = LocalEnvironment("replicas").from_collection(list(range(4000)), parallelism=2)
    got = set(stream.sample(0.5, parallelism=2).collect())
    # Replica 0 has the even numbers; with the same draws both would take the same positions.
    assert {n // 2 for n in got if not n % 2} != {n // 2 for n in got if n % 2}
    assert abs(len(got) - 2000) < 200


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda s: s.sample(), "takes a fraction or every=, one of the two"),
        (lambda s: s.sample(0.5, every=2), "one of the two"),
        (lambda s: s.sample(1.5), "a fraction from 0 to 1, got 1.5"),
        (lambda s: s.sample(-0.1), "a fraction from 0 to 1"),
        (lambda s: s.sample(float("nan")), "a fraction from 0 to 1, got nan"),
        (lambda s: s.sample(True), "a fraction from 0 to 1, got True"),
        (lambda s: s.sample(every=0), "every must be a whole number >= 1, got 0"),
        (lambda s: s.sample(0.5, seed="x"), "seed must be a whole number, got 'x'"),
    ],
)
def test_what_cannot_be_sampled_is_refused(declare: Callable[[DataStream], Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message) as refused:
        declare(LocalEnvironment("refused").from_collection([1]))
    assert "test_sample.py:" in str(refused.value)
