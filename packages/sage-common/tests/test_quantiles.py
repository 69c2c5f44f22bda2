"""The quantile sketch against exact quantiles: error bound, merge, order, collapsing, bad input."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import InvalidArgumentError
from sage.common.quantiles import QuantileSketch

_numbers = st.floats(-1e150, 1e150, allow_subnormal=False)
_many = st.lists(_numbers, min_size=1, max_size=60)
_qs = st.floats(0, 1)


def _sketch(values: list[float], accuracy: float = 0.01, max_bins: int = 100_000) -> QuantileSketch:
    sketch = QuantileSketch(accuracy, max_bins)
    for value in values:
        sketch.add(value)
    return sketch


def _bins(sketch: QuantileSketch) -> object:
    state = sketch.to_dict()
    del state["sum"]  # differs in the last digits with the order of adding
    return state


@given(_many, _qs, st.sampled_from([0.001, 0.01, 0.2, 0.9]))
def test_quantiles_are_within_the_relative_error(values: list[float], q: float, accuracy: float) -> None:
    exact = sorted(values)[math.floor(q * (len(values) - 1))]
    vectorised = QuantileSketch(accuracy, 100_000)
    vectorised.add_many(values)
    for sketch in (_sketch(values, accuracy), vectorised):
        assert abs(sketch.quantile(q) - exact) <= accuracy * abs(exact) * (1 + 1e-9)
        assert (sketch.count, sketch.min, sketch.max) == (len(values), min(values), max(values))
        assert sketch.sum == pytest.approx(math.fsum(values), rel=1e-9, abs=1e-9 * max(map(abs, values)))


@pytest.mark.parametrize("name", ["lognormal", "exponential", "pareto", "normal"])
def test_large_samples_agree_with_numpy(name: str) -> None:
    random = np.random.default_rng(7)
    sample = getattr(random, name)(*((1.5,) if name == "pareto" else ()), size=20_000)
    sketch = QuantileSketch()
    sketch.add_many(sample)
    qs = [0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1]
    exact = np.quantile(sample, qs, method="lower")
    assert np.all(np.abs(np.array(sketch.quantiles(qs)) - exact) <= 0.0100001 * np.abs(exact))
    assert len(sketch) < 2 * 2048


@given(_many, _many)
def test_merging_is_adding_everything(left: list[float], right: list[float]) -> None:
    merged, other = _sketch(left), _sketch(right)
    before = other.to_dict()
    merged.merge(other)
    assert _bins(merged) == _bins(_sketch(left + right))
    assert other.to_dict() == before


@given(_many, st.randoms(use_true_random=False), st.integers(2, 8))
def test_neither_order_nor_collapsing_order_matters(values: list[float], random: object, max_bins: int) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    whole = _sketch(values, 0.1, max_bins)
    assert _bins(_sketch(shuffled, 0.1, max_bins)) == _bins(whole)
    half = len(values) // 2
    parts = _sketch(shuffled[:half], 0.1, max_bins)
    parts.merge(_sketch(shuffled[half:], 0.1, max_bins))
    assert _bins(parts) == _bins(whole)
    assert len(whole) <= 2 * max_bins + 1
    assert whole.count == len(values)


def test_collapsing_keeps_the_high_quantiles() -> None:
    values = [1.5**i for i in range(200)]
    sketch = QuantileSketch(0.01, max_bins=50)
    sketch.add_many(values)
    assert len(sketch) == 50
    for q in (0.8, 0.9, 0.99, 1.0):
        exact = values[math.floor(q * 199)]
        assert abs(sketch.quantile(q) - exact) <= 0.0100001 * exact
    # A low quantile lies in the shared bin: too high, but never above the lowest one that is kept apart.
    assert values[0] < sketch.quantile(0.1) <= values[151]
    assert sketch.min == 1.0


@given(_many, st.integers(1, 5))
def test_a_count_is_as_good_as_repeating(values: list[float], times: int) -> None:
    counted = QuantileSketch()
    for value in values:
        counted.add(value, times)
    assert _bins(counted) == _bins(_sketch(values * times, max_bins=2048))


@given(st.lists(_numbers, max_size=40))
def test_descriptions_survive_json(values: list[float]) -> None:
    sketch = _sketch(values)
    again = QuantileSketch.from_dict(json.loads(json.dumps(sketch.to_dict(), allow_nan=False)))
    assert again.to_dict() == sketch.to_dict()
    assert again.quantiles([0, 0.5, 1]) == pytest.approx(sketch.quantiles([0, 0.5, 1]), nan_ok=True)


def test_extreme_numbers() -> None:
    sketch = _sketch([5e-324, 1.7976931348623157e308, -1.7976931348623157e308, 1, True, np.float32(2.0)])
    assert sketch.quantiles([0, 1]) == [sketch.min, sketch.max]
    assert sketch.quantile(0.2) == 5e-324
    sketch.add_many(np.array([[1e308, 1e308]]))
    assert sketch.count == 8


def test_numpy_scalars_do_not_lower_the_precision_of_the_sum() -> None:
    sketch = _sketch([np.float32(16_777_216), np.float32(1.0), 1, 2])
    assert sketch.sum == 16_777_220.0
    assert type(sketch.min) is type(sketch.max) is type(sketch.sum) is float


def test_an_empty_sketch_answers_nan() -> None:
    sketch = QuantileSketch()
    sketch.add_many([])
    assert not sketch
    assert all(math.isnan(x) for x in (sketch.quantile(0.5), sketch.min, sketch.max, sketch.mean))
    assert (sketch.count, sketch.sum) == (0, 0.0)
    assert "count=0" in repr(sketch)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused_and_nothing_is_added(value: float) -> None:
    sketch = _sketch([1.0])
    before = sketch.to_dict()
    with pytest.raises(InvalidArgumentError, match="finite"):
        sketch.add(value)
    with pytest.raises(InvalidArgumentError, match="finite"):
        sketch.add_many([2.0, value])
    for bad in (["a"], [1 + 1j], [None], [[1], [1, 2]], ["1"]):
        with pytest.raises(InvalidArgumentError, match="finite"):
            sketch.add_many(bad)  # type: ignore[arg-type]
    for bad_value in ("1", None, 10**400, 1j):
        with pytest.raises(InvalidArgumentError, match="finite"):
            sketch.add(bad_value)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="count must be >= 1"):
        sketch.add(1.0, 0)
    assert sketch.to_dict() == before


def test_bad_settings_are_refused() -> None:
    for accuracy in (0, 1, -0.1, float("nan"), 1e-9):
        with pytest.raises(InvalidArgumentError, match="relative_accuracy"):
            QuantileSketch(accuracy)
    with pytest.raises(InvalidArgumentError, match="max_bins"):
        QuantileSketch(max_bins=1)
    for q in (-0.1, 99, float("nan")):
        with pytest.raises(InvalidArgumentError, match="percentage"):
            _sketch([1.0]).quantile(q)
    with pytest.raises(InvalidArgumentError, match="merge only with the same"):
        QuantileSketch(0.01).merge(QuantileSketch(0.02))


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"count": 3},
        {"count": True},
        {"zeros": -1},
        {"positive": [[1, 0]]},
        {"positive": [[1, 1], [1, 0]]},
        {"positive": [["1", 1]]},
        {"positive": "x"},
        {"positive": [[1]]},
        {"max_bins": 0},
        {"relative_accuracy": "x"},
        {"min": None},
        {"min": 5.0, "max": 1.0},
        {"max": float("inf")},
        {"sum": "x"},
    ],
    ids=str,
)
def test_damaged_descriptions_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError):
        QuantileSketch.from_dict({**_sketch([1.0, 2.0]).to_dict(), **change})


def test_incomplete_descriptions_are_refused() -> None:
    whole = _sketch([1.0]).to_dict()
    for name in whole:
        with pytest.raises(InvalidArgumentError, match=f"'{name}' is missing"):
            QuantileSketch.from_dict({key: value for key, value in whole.items() if key != name})
