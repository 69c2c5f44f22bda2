"""Quantiles of a stream with a bounded relative error, in little memory, mergeable.

`QuantileSketch` is DDSketch: C. Masson, J. E. Rim, H. K. Lee, "DDSketch: A Fast and Fully-Mergeable Quantile
Sketch with Relative-Error Guarantees", PVLDB 12(12), 2019. Values fall into bins whose bounds grow by the
constant factor gamma = (1 + a) / (1 - a), so that the middle of a bin is within the relative accuracy `a` of
everything in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sage.common.errors import InvalidArgumentError

__all__ = ["QuantileSketch"]

_FORMAT = 1
_FEW = 128
_Floats = npt.NDArray[np.float64]
_ceil, _log = math.ceil, math.log


class QuantileSketch:
    """A summary of numbers that answers quantiles within a relative error.

    Every quantile is within ``relative_accuracy * abs(exact)`` of the exact one (nearest rank, lower: the
    item at index ``floor(q * (count - 1))`` of the sorted input), as long as the bins suffice: 2048 bins at
    0.01 span 17 orders of magnitude. Beyond that the lowest values share one bin, and only low quantiles lose
    accuracy. Positive and negative values have `max_bins` each; zeros are counted exactly. The result does
    not depend on the order of the input, nor on how it was split over merged sketches.

    Not safe for use by several threads at once: let each have its own and merge them.

    Args:
        relative_accuracy: Bound of the relative error, between 0 and 1 (both excluded; at least 1e-6).
        max_bins: Most bins kept for each sign, >= 2.

    Raises:
        InvalidArgumentError: If an argument is out of its range.

    >>> sketch = QuantileSketch(relative_accuracy=0.01)
    >>> sketch.add_many(range(1, 1001))
    >>> sketch.count, sketch.min, sketch.max, sketch.mean
    (1000, 1.0, 1000.0, 500.5)
    >>> abs(sketch.quantile(0.99) - 990) <= 0.01 * 990
    True
    """

    __slots__ = (
        "_count",
        "_gamma_log",
        "_max",
        "_max_bins",
        "_middle_log",
        "_min",
        "_negative",
        "_positive",
        "_relative_accuracy",
        "_scale",
        "_sum",
        "_zeros",
    )

    def __init__(self, relative_accuracy: float = 0.01, max_bins: int = 2048) -> None:
        if not 1e-6 <= relative_accuracy < 1:
            raise InvalidArgumentError(f"relative_accuracy must be in 1e-6 to 1, got {relative_accuracy!r}")
        if max_bins < 2:
            raise InvalidArgumentError(f"max_bins must be >= 2, got {max_bins!r}")
        self._relative_accuracy = relative_accuracy
        self._max_bins = max_bins
        gamma = (1 + relative_accuracy) / (1 - relative_accuracy)
        self._gamma_log = math.log1p(2 * relative_accuracy / (1 - relative_accuracy))
        self._scale = 1 / self._gamma_log
        self._middle_log = math.log(2 / (gamma + 1))
        self._positive: dict[int, int] = {}
        self._negative: dict[int, int] = {}
        self._zeros = 0
        self._count = 0
        self._sum = 0.0
        self._min = math.inf
        self._max = -math.inf

    @property
    def relative_accuracy(self) -> float:
        """Bound of the relative error of `quantile`."""
        return self._relative_accuracy

    @property
    def max_bins(self) -> int:
        """Most bins kept for each sign."""
        return self._max_bins

    @property
    def count(self) -> int:
        """How many values were added."""
        return self._count

    @property
    def sum(self) -> float:
        """Sum of the values, exact but for rounding."""
        return self._sum

    @property
    def min(self) -> float:
        """The smallest value, exact; NaN when empty."""
        return self._min if self._count else math.nan

    @property
    def max(self) -> float:
        """The largest value, exact; NaN when empty."""
        return self._max if self._count else math.nan

    @property
    def mean(self) -> float:
        """The mean, exact but for rounding; NaN when empty."""
        return self._sum / self._count if self._count else math.nan

    def __len__(self) -> int:
        """Number of bins in use (not of values: that is `count`)."""
        return len(self._positive) + len(self._negative) + (1 if self._zeros else 0)

    def __bool__(self) -> bool:
        return self._count > 0

    def __repr__(self) -> str:
        median, tail = self.quantiles([0.5, 0.99])
        return f"QuantileSketch(count={self._count}, p50={median:.6g}, p99={tail:.6g})"

    def add(self, value: float, count: int = 1) -> None:
        """Add `value`, `count` times.

        Raises:
            InvalidArgumentError: If `value` is NaN or infinite, or `count` below 1; nothing is added then.
        """
        if count < 1:
            raise InvalidArgumentError(f"count must be >= 1, got {count!r}")
        if type(value) is not float:
            # A numpy scalar of 32 bits would pull the sum down to its own precision.
            value = _as_float(value)
        if value > 0:
            try:
                key = _ceil(_log(value) * self._scale)
            except OverflowError:
                raise _not_finite(value) from None
            bins = self._positive
            if key in bins:
                bins[key] += count
            else:
                bins[key] = count
                if len(bins) > self._max_bins:
                    _collapse(bins, self._max_bins, lowest_first=True)
        elif value < 0:
            self._add_negative(value, count)
        elif value == 0:
            self._zeros += count
        else:
            raise _not_finite(value)
        self._count += count
        self._sum += value * count
        if value < self._min:
            self._min = value
        if value > self._max:
            self._max = value

    def _add_negative(self, value: float, count: int) -> None:
        try:
            key = _ceil(_log(-value) * self._scale)
        except OverflowError:
            raise _not_finite(value) from None
        self._negative[key] = self._negative.get(key, 0) + count
        if len(self._negative) > self._max_bins:
            _collapse(self._negative, self._max_bins, lowest_first=False)

    def add_many(self, values: Sequence[float] | range | npt.NDArray[Any]) -> None:
        """Add every number of a sequence or numpy array (any shape); much faster than `add` in a loop.

        Raises:
            InvalidArgumentError: If a value is not a finite real number; nothing is added then.

        >>> sketch = QuantileSketch()
        >>> sketch.add_many([0.5, 0.0, -2.0])
        >>> sketch.count, sketch.min
        (3, -2.0)
        """
        if isinstance(values, list) and len(values) <= _FEW and all(map(_is_plain_number, values)):
            # Below this many the fixed cost of the vectorised form is larger than all of them one by one.
            for value in values:
                self.add(value)
            return
        array = _as_floats(values)
        if array.size == 0:
            return
        self._add_bins(self._positive, array[array > 0], lowest_first=True)
        self._add_bins(self._negative, -array[array < 0], lowest_first=False)
        self._zeros += int(np.count_nonzero(array == 0))
        self._count += array.size
        with np.errstate(over="ignore"):
            self._sum += float(array.sum())
        self._min = min(self._min, float(array.min()))
        self._max = max(self._max, float(array.max()))

    def _add_bins(self, bins: dict[int, int], magnitudes: _Floats, *, lowest_first: bool) -> None:
        if magnitudes.size == 0:
            return
        indices = np.ceil(np.log(magnitudes) * self._scale).astype(np.int64)
        keys, counts = np.unique(indices, return_counts=True)
        _add_counts(bins, zip(keys.tolist(), counts.tolist(), strict=True))
        _collapse(bins, self._max_bins, lowest_first=lowest_first)

    def merge(self, other: QuantileSketch) -> None:
        """Add everything that `other` has seen; the same as if its values had been added here.

        Raises:
            InvalidArgumentError: If the two differ in `relative_accuracy` or `max_bins`.

        >>> left, right = QuantileSketch(), QuantileSketch()
        >>> left.add(1.0); right.add(3.0); left.merge(right)
        >>> left.count, left.sum
        (2, 4.0)
        """
        mine, theirs = (self._relative_accuracy, self._max_bins), (other._relative_accuracy, other._max_bins)
        if mine != theirs:
            raise InvalidArgumentError(
                f"sketches merge only with the same (relative_accuracy, max_bins), got {mine} and {theirs}"
            )
        _add_counts(self._positive, list(other._positive.items()))
        _add_counts(self._negative, list(other._negative.items()))
        _collapse(self._positive, self._max_bins, lowest_first=True)
        _collapse(self._negative, self._max_bins, lowest_first=False)
        self._zeros += other._zeros
        self._count += other._count
        self._sum += other._sum
        self._min = min(self._min, other._min)
        self._max = max(self._max, other._max)

    def snapshot(self) -> QuantileSketch:
        """Return a copy that is consistent in itself, also while another thread adds to this sketch.

        What is being added at that moment is in the copy or not; its sum may then be off by as much.

        >>> sketch = QuantileSketch()
        >>> sketch.add(42.0)
        >>> copy = sketch.snapshot()
        >>> sketch.add(7.0)
        >>> copy.count, sketch.count
        (1, 2)
        """
        copy = QuantileSketch(self._relative_accuracy, self._max_bins)
        # Copying a dict with integer keys is one step of the interpreter; the count follows from the copies.
        copy._positive, copy._negative, copy._zeros = (
            self._positive.copy(),
            self._negative.copy(),
            self._zeros,
        )
        copy._count = sum(copy._positive.values()) + sum(copy._negative.values()) + copy._zeros
        copy._sum, copy._min, copy._max = self._sum, self._min, self._max
        if copy._count and copy._min > copy._max:
            # The first value's bin has been counted, its extremes have not.
            copy._min, copy._max = -math.inf, math.inf
            values, _ = copy._bins_in_order()
            copy._min, copy._max = values[0], values[-1]
        return copy

    def quantile(self, q: float) -> float:
        """Return the `q`-quantile (0 <= q <= 1) within the relative accuracy; NaN when empty.

        Raises:
            InvalidArgumentError: If `q` is not in 0 to 1.

        >>> sketch = QuantileSketch()
        >>> sketch.add(42.0)
        >>> sketch.quantile(0.5)
        42.0
        """
        return self.quantiles([q])[0]

    def quantiles(self, qs: Sequence[float]) -> list[float]:
        """Return several quantiles at once, in the order of `qs`; as `quantile`.

        >>> QuantileSketch().quantiles([])
        []
        """
        for q in qs:
            if not 0 <= q <= 1:
                raise InvalidArgumentError(f"q must be in 0 to 1, got {q!r} (a percentage? divide by 100)")
        if not self._count:
            return [math.nan] * len(qs)
        values, ends = self._bins_in_order()
        last = self._count - 1
        ranks = [math.floor(q * last) for q in qs]
        exact = {0: self._min, last: self._max}
        return [exact[rank] if rank in exact else values[_first_above(ends, rank)] for rank in ranks]

    def _bins_in_order(self) -> tuple[list[float], list[int]]:
        """Return the bins' values, ascending, and how many inputs lie in each and those before it."""
        values: list[float] = []
        ends: list[int] = []
        end = 0
        for key in sorted(self._negative, reverse=True):
            end += self._negative[key]
            values.append(-self._middle(key))
            ends.append(end)
        if self._zeros:
            end += self._zeros
            values.append(0.0)
            ends.append(end)
        for key in sorted(self._positive):
            end += self._positive[key]
            values.append(self._middle(key))
            ends.append(end)
        # The exact extremes are known: holding the estimates between them only makes them better.
        return [min(max(value, self._min), self._max) for value in values], ends

    def _middle(self, key: int) -> float:
        try:
            return math.exp(key * self._gamma_log + self._middle_log)
        except OverflowError:
            return math.inf

    def to_dict(self) -> dict[str, Any]:
        """Return a description of plain numbers and lists, fit for JSON, that `from_dict` reads.

        >>> sketch = QuantileSketch()
        >>> sketch.add(1.0, count=2)
        >>> sketch.to_dict()["positive"]
        [[0, 2]]
        """
        return {
            "format": _FORMAT,
            "relative_accuracy": self._relative_accuracy,
            "max_bins": self._max_bins,
            "count": self._count,
            "sum": self._sum,
            "min": self._min if self._count else None,
            "max": self._max if self._count else None,
            "zeros": self._zeros,
            "positive": [[key, self._positive[key]] for key in sorted(self._positive)],
            "negative": [[key, self._negative[key]] for key in sorted(self._negative)],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> QuantileSketch:
        """Rebuild a sketch from `to_dict`.

        Raises:
            InvalidArgumentError: If `data` is not such a description or contradicts itself.

        >>> QuantileSketch.from_dict(QuantileSketch().to_dict()).count
        0
        """
        try:
            if data["format"] != _FORMAT:
                raise InvalidArgumentError(f"a sketch of format {data['format']!r}, readable is {_FORMAT}")
            sketch = cls(float(data["relative_accuracy"]), _read_count(data["max_bins"], 2))
            sketch._positive = _read_bins(data["positive"], sketch._max_bins)
            sketch._negative = _read_bins(data["negative"], sketch._max_bins)
            sketch._zeros = _read_count(data["zeros"], 0)
            sketch._count = _read_count(data["count"], 0)
            sketch._sum = float(data["sum"])
            if sketch._count:
                sketch._min, sketch._max = float(data["min"]), float(data["max"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidArgumentError(f"not a sketch: {_describe(error)}") from error
        total = sum(sketch._positive.values()) + sum(sketch._negative.values()) + sketch._zeros
        if total != sketch._count:
            raise InvalidArgumentError(f"not a sketch: count {sketch._count}, bins {total}")
        if sketch._count and not -math.inf < sketch._min <= sketch._max < math.inf:
            raise InvalidArgumentError(f"not a sketch: min {sketch._min}, max {sketch._max}")
        return sketch


def _describe(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)


def _not_finite(value: float) -> InvalidArgumentError:
    return InvalidArgumentError(f"a sketch takes finite numbers, got {value!r}")


def _as_float(value: float) -> float:
    given: object = value
    try:
        if isinstance(given, str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise _not_finite(value) from error


def _is_plain_number(value: object) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _as_floats(values: Sequence[float] | range | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    try:
        given = np.asarray(values)
        if given.size and given.dtype.kind not in "fiub":
            raise InvalidArgumentError(f"a sketch takes finite numbers, got an array of type {given.dtype}")
        array = given.astype(np.float64, copy=False).ravel()
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgumentError(f"a sketch takes a sequence of finite numbers: {error}") from error
    finite = np.isfinite(array)
    if not finite.all():
        raise _not_finite(float(array[~finite][0]))
    return array


def _add_counts(bins: dict[int, int], counted: Any) -> None:
    for key, count in counted:
        bins[key] = bins.get(key, 0) + count


def _collapse(bins: dict[int, int], max_bins: int, *, lowest_first: bool) -> None:
    """Put the outermost bins together until `max_bins` are left (the paper's Algorithm 3).

    What is left is the `max_bins` innermost keys of all ever seen, so the result does not depend on the
    order.
    """
    surplus = len(bins) - max_bins
    if surplus <= 0:
        return
    keys = sorted(bins, reverse=not lowest_first)
    bins[keys[surplus]] += sum(bins.pop(key) for key in keys[:surplus])


def _first_above(ends: list[int], rank: int) -> int:
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if ends[middle] > rank:
            high = middle
        else:
            low = middle + 1
    return low


def _read_count(value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{value!r} is not a count")
    return value


def _read_bins(pairs: Any, max_bins: int) -> dict[int, int]:
    if not isinstance(pairs, list) or len(pairs) > max_bins:
        raise ValueError("bins must be a list of at most max_bins pairs")
    bins: dict[int, int] = {}
    for key, count in pairs:
        if not isinstance(key, int) or isinstance(key, bool) or key in bins:
            raise ValueError(f"{key!r} is not the key of a bin, or comes twice")
        bins[key] = _read_count(count, 1)
    return bins
