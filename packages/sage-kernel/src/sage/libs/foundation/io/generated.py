"""Sources that take their items from Python: a callable, or another source at a given rate."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from sage.kernel.operators import BadRecord, OperatorContext, SourceFunction
from sage.libs.errors import SourceError

__all__ = ["GeneratorSource", "RateSource"]

Out = TypeVar("Out")
_SLICE_S = 0.05


class _GeneratorConfig(BaseModel, extra="forbid"):
    generator: Callable[[], Iterable[Any]]


class GeneratorSource(SourceFunction[Out]):
    """Items of a callable that returns an iterable; each call must give the same items again, in the same
    order.

    Config: `{"generator": callable}`, or the callable itself.

    Raises:
        SourceError: the callable returns something that cannot be iterated (the likely mistake: it returns
            one item).

    Example:
        >>> source = GeneratorSource(lambda: (n * n for n in range(4)))
        >>> list(source.execute()), list(source.read_from(2))
        ([0, 1, 4, 9], [4, 9])
    """

    Config: ClassVar[type[BaseModel] | None] = _GeneratorConfig

    def __init__(self, config: Callable[[], Iterable[Out]] | Mapping[str, Any] | BaseModel | None = None) -> None:
        # A pydantic model is no callable, so the two forms cannot be confused.
        super().__init__({"generator": config} if callable(config) else config)

    def execute(self) -> Iterator[Out]:
        """Yield the items from the beginning; with parallelism above 1 each replica takes its share."""
        items = self.config.generator()
        if not isinstance(items, Iterable):
            raise SourceError(
                "GeneratorSource: the callable must return an iterable of items, got"
                f" {type(items).__name__}; yield the items"
                " instead of returning one"
            )
        replica, replicas = (0, 1) if self._ctx is None else (self._ctx.replica_index, self._ctx.parallelism)
        if replicas == 1:
            yield from items
            return
        for number, item in enumerate(items):
            if number % replicas == replica:
                yield item


class _RateConfig(BaseModel, extra="forbid"):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    source: Any
    rate_per_s: float = Field(gt=0, allow_inf_nan=False)
    arrivals: Literal["constant", "poisson"] = "constant"
    seed: int = 0


class RateSource(SourceFunction[tuple[Any, int]]):
    """Items of another source at a given rate, whether or not the pipeline keeps up (an open system).

    Yields `(item, arrival_ns)`: the intended arrival on the clock of `time.monotonic_ns`. A late item
    keeps its intended arrival, so that latency measured from there includes the waiting that a slow pipeline
    causes (no coordinated omission). A `BadRecord` of the inner source comes at once. A wait for the next arrival ends
    within 50 ms when the job is told to stop.

    Config:
        source: a `SourceFunction` instance, an iterable that can be read again, or a callable that returns
            one.
        rate_per_s: items per second over all replicas.
        arrivals: "constant" gaps, or "poisson" (exponential gaps from `seed`).
        seed: of the gaps.

    Example:
        >>> source = RateSource({"source": "abc", "rate_per_s": 1000})
        >>> first, second, third = source.execute()
        >>> first[0], second[1] - first[1], third[1] - first[1]
        ('a', 1000000, 2000000)
    """

    Config: ClassVar[type[BaseModel] | None] = _RateConfig
    timed: ClassVar[bool] = True

    def __init__(self, config: Mapping[str, Any] | BaseModel | None = None) -> None:
        super().__init__(config)
        source = self.config.source
        if isinstance(source, SourceFunction):
            self._inner: SourceFunction[Any] = source
        elif isinstance(source, Iterable) and not isinstance(source, Iterator):
            self._inner = GeneratorSource(lambda: source)
        elif callable(source) and not isinstance(source, type):
            self._inner = GeneratorSource(source)
        else:
            raise SourceError(
                "RateSource: source must be a source instance, an iterable that can be read again (not an"
                " iterator), or a"
                f" callable that returns one, got {source!r}"
            )

    def attach(self, ctx: OperatorContext) -> None:
        """Hand the context on to the inner source."""
        super().attach(ctx)
        self._inner.attach(ctx)

    def setup(self) -> None:
        """Set up the inner source."""
        self._inner.setup()

    def teardown(self) -> None:
        """Tear down the inner source."""
        self._inner.teardown()

    def execute(self) -> Iterator[Any]:
        """Yield `(item, arrival_ns)`, the first one at once."""
        return self._paced(self._inner.execute())

    def read_from(self, offset: Any) -> Iterator[Any]:
        """Go on behind `offset` of the inner source; the schedule of arrivals begins anew."""
        return self._paced(self._inner.read_from(offset))

    def offset_after(self, count: int) -> Any:
        """The inner source's offset."""
        return self._inner.offset_after(count)

    def _paced(self, items: Iterable[Any]) -> Iterator[Any]:
        replica, replicas = (0, 1) if self._ctx is None else (self._ctx.replica_index, self._ctx.parallelism)
        rate = self.config.rate_per_s / replicas
        draw = random.Random(f"{self.config.seed}/{replica}")
        constant = self.config.arrivals == "constant"
        start = time.monotonic_ns()
        since_start_s = 0.0
        for number, item in enumerate(items):
            if isinstance(item, BadRecord):
                yield item, time.monotonic_ns()
                continue
            # Multiplied and not added up in the constant case: no drift.
            since_start_s = number / rate if constant else since_start_s
            arrival = start + round(since_start_s * 1e9)
            if not self._wait_until(arrival):
                return
            yield item, arrival
            since_start_s += draw.expovariate(rate)

    def _wait_until(self, arrival_ns: int) -> bool:
        """Wait; False when the job was told to stop meanwhile."""
        while (wait_s := (arrival_ns - time.monotonic_ns()) / 1e9) > 0:
            if self._ctx is not None and self._ctx.stopping:
                return False
            time.sleep(min(wait_s, _SLICE_S))
        return True
