"""The join of two keyed streams by event time: pairs of items that lie close enough to each other."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from sage.common.errors import SageError

from .connected import JoinSizeError
from .functions import Function
from .specs import BoundOperator, OperatorSpec

__all__ = ["LATE", "EventTimeError", "IntervalJoinSpec"]

LATE = "late"
"""The side output of an interval join: items behind the watermark."""

Sided = tuple[int, Any]


class EventTimeError(SageError):
    """What a time function returned is no point in time."""


@dataclass(frozen=True, slots=True)
class IntervalJoinSpec(OperatorSpec):
    """`join(within=...)`.

    Attributes:
        function: makes the output of a pair; None gives the pair itself.
        lower_s: smallest time of the right item minus that of the left one, in seconds.
        upper_s: largest.
        times: event time of an item of the left and of the right stream, in seconds.
        lateness_s: how far behind the latest one of its stream an item may come.
        outputs_max: most pairs of one item.
    """

    function: Callable[[Any, Any], Any] | None
    lower_s: float
    upper_s: float
    times: tuple[Callable[[Any], float], Callable[[Any], float]]
    lateness_s: float
    outputs_max: int

    @property
    def entries(self) -> tuple[Callable[..., Any], ...]:
        """The function of a pair."""
        return () if self.function is None else (self.function,)

    def bind(self) -> BoundOperator:
        """The operator of one replica."""
        join = _IntervalJoin(self)
        return BoundOperator(join.execute, join)


class _IntervalJoin(Function):
    """Keeps the items of both sides by key for as long as a partner may come.

    Invariants: the watermark is the smaller one of the two streams' latest event times, less the lateness; items before
    it are not joined, so no item is kept whose partners would all lie before it.
    """

    def __init__(self, spec: IntervalJoinSpec) -> None:
        super().__init__()
        self._spec = spec
        self._latest = [-math.inf, -math.inf]
        self._watermark = -math.inf
        self._number = 0
        # By side and key: number of arrival -> (event time, item).
        self._kept: tuple[dict[Hashable, dict[int, tuple[float, Any]]], ...] = ({}, {})
        # By side: (watermark from which nobody can meet it, number, key), soonest first.
        self._ends: tuple[list[tuple[float, int, Hashable]], ...] = ([], [])

    def execute(self, sided: Sided) -> list[Any]:
        """The outputs of all pairs that the item makes with those before it."""
        side, item = sided
        key, time = self.ctx.key, self._time(side, item)
        if time < self._watermark:
            self.ctx.side_output(LATE, item)
            return []
        outputs = self._pairs(side, item, key, time)
        self._keep(side, item, key, time)
        if time > self._latest[side]:
            self._latest[side] = time
            self._advance(min(self._latest) - self._spec.lateness_s)
        return outputs

    def _time(self, side: int, item: Any) -> float:
        time = self._spec.times[side](item)
        if isinstance(time, bool) or not isinstance(time, (int, float)) or not math.isfinite(time):
            raise EventTimeError(
                f"join {self.ctx.name!r}: the event time of an item is a number of seconds, got {time!r} "
                "(of a datetime take .timestamp())"
            )
        return time

    def _pairs(self, side: int, item: Any, key: Hashable, time: float) -> list[Any]:
        lower, upper, function = self._spec.lower_s, self._spec.upper_s, self._spec.function
        outputs = []
        for other_time, other in self._kept[1 - side].get(key, {}).values():
            left, right = (other, item) if side else (item, other)
            apart = time - other_time if side else other_time - time
            if lower <= apart <= upper:
                outputs.append((left, right) if function is None else function(left, right))
                if len(outputs) > self._spec.outputs_max:
                    raise JoinSizeError(
                        f"join {self.ctx.name!r}: one item makes more pairs of the key {key!r} than io.outputs_max = "
                        f"{self._spec.outputs_max}: narrow the interval, or raise the limit"
                    )
        return outputs

    def _keep(self, side: int, item: Any, key: Hashable, time: float) -> None:
        self._number += 1
        self._kept[side].setdefault(key, {})[self._number] = (time, item)
        # The latest event time of a partner: nobody of the other stream comes any more behind that watermark.
        end = time - self._spec.lower_s if side else time + self._spec.upper_s
        heapq.heappush(self._ends[side], (end, self._number, key))

    def _advance(self, watermark: float) -> None:
        if watermark <= self._watermark:
            return
        self._watermark = watermark
        for kept, ends in zip(self._kept, self._ends, strict=True):
            while ends and ends[0][0] < watermark:
                _, number, key = heapq.heappop(ends)
                of_key = kept[key]
                del of_key[number]
                if not of_key:
                    del kept[key]

    def get_state(self) -> Any:
        """What is kept, and how far the streams are."""
        return self._latest, self._watermark, self._number, self._kept, self._ends

    def restore_state(self, state: Any) -> None:
        """Take it back."""
        self._latest, self._watermark, self._number, self._kept, self._ends = state
