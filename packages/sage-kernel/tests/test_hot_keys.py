"""The most frequent keys: the summary that finds them, and the metrics that name them."""

from __future__ import annotations

from collections import Counter

from executions import ExecutionKind
from hypothesis import given
from hypothesis import strategies as st

from sage.kernel.api import LocalEnvironment
from sage.kernel.telemetry import HeavyHitters


@given(st.lists(st.integers(0, 40), max_size=400), st.integers(1, 12))
def test_counts_are_bounds(keys: list[int], size: int) -> None:
    hitters = HeavyHitters(size)
    hitters.add_many(keys)
    exact = Counter(keys)
    assert hitters.total == len(keys)
    top = hitters.top()
    if not keys:
        assert top is None
        return
    assert top is not None
    assert top.count - top.error <= exact[top.key] <= top.count


@given(st.lists(st.integers(0, 40), min_size=1, max_size=400), st.integers(1, 12))
def test_a_key_that_makes_more_than_a_share_is_kept(keys: list[int], size: int) -> None:
    hitters = HeavyHitters(size)
    hitters.add_many(keys)
    kept = {count.key for count in hitters.all()}
    assert len(kept) <= size
    assert {key for key, count in Counter(keys).items() if count > len(keys) / size} <= kept


def _run(execution: ExecutionKind, keys: list[str], parallelism: int) -> object:
    env = LocalEnvironment("hot")
    keyed = env.from_collection(keys).key_by(lambda key: key)
    named = keyed.map(
        execution.operator(str.upper), name="work", parallelism=parallelism, contract=execution.contract()
    )
    named.sink(lambda _: None)
    job = env.submit()
    return next(each for each in job.metrics().operators if each.operator == "work").hot_key


def test_the_hot_key_is_named(execution: ExecutionKind) -> None:
    keys = [f"user-{number % 97}" if number % 2 else "ada" for number in range(20_000)]
    hot = _run(execution, keys, parallelism=4)
    assert hot is not None
    assert hot.key == "'ada'"
    assert 0.4 < hot.share < 0.6
    assert hot.share <= hot.replica_share


def test_even_keys_have_no_hot_one(execution: ExecutionKind) -> None:
    assert _run(execution, [f"user-{number % 97}" for number in range(20_000)], parallelism=4) is None


def test_one_replica_has_no_hot_key(execution: ExecutionKind) -> None:
    assert _run(execution, ["ada"] * 5_000, parallelism=1) is None


def test_too_few_items_say_nothing(execution: ExecutionKind) -> None:
    assert _run(execution, ["ada"] * 20, parallelism=4) is None
