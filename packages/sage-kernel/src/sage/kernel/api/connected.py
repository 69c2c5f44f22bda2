"""Two streams as the inputs of one operator: `connect` + `comap`, and the keyed `join`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from sage.kernel.graph import Contract, OperatorKind, PipelineError
from sage.kernel.operators import CoMapSpec, Function, IntervalJoinSpec, JoinSpec, OperatorSpec

from .base_stream import BaseStream, Config, check_together
from .declare import user_location
from .misnomers import no_such_method

__all__ = ["ConnectedStreams", "KeyedJoin"]

Stream = TypeVar("Stream", bound=BaseStream)


def _sides(left: BaseStream, right: BaseStream) -> dict[str, Any]:
    """For each input of an operator on two streams, whether it is of the first or the second one."""
    return {"sides": (0,) * len(left._feeds) + (1,) * len(right._feeds)}


def _interval(function: Any, kind: str, within: Any, time: Any, lateness_s: Any, outputs_max: int) -> IntervalJoinSpec:
    where = user_location()
    if kind != "inner":
        raise PipelineError(f"a join within an interval is an inner join, got kind {kind!r} ({where})")
    if not isinstance(within, tuple) or len(within) != 2 or not all(_is_seconds(bound) for bound in within):
        raise PipelineError(f"within must be (lower_s, upper_s), two numbers of seconds, got {within!r} ({where})")
    if within[0] > within[1]:
        raise PipelineError(f"within must be (lower_s, upper_s) with lower_s <= upper_s, got {within!r} ({where})")
    times = time if isinstance(time, tuple) else (time, time)
    if len(times) != 2 or not all(callable(given) and not inspect.iscoroutinefunction(given) for given in times):
        raise PipelineError(
            f"join needs time=, a plain function that gives the event time of an item in seconds (or one for each "
            f"stream), got {time!r} ({where})"
        )
    if not _is_seconds(lateness_s) or lateness_s < 0:
        raise PipelineError(f"lateness_s must be a number of seconds >= 0, got {lateness_s!r} ({where})")
    return IntervalJoinSpec(function, within[0], within[1], times, lateness_s, outputs_max)


def _is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


class ConnectedStreams(Generic[Stream]):
    """Two streams side by side; made by `stream.connect(other)`.

    Raises:
        PipelineError: the other is no stream, or one of another environment, or only one of them has keys.
    """

    def __init__(self, first: Stream, second: object) -> None:
        self._first = first
        self._second = check_together("connect", first, second)
        if self._first._keyed is not self._second._keyed:
            which = "the second" if self._first._keyed else "the first"
            raise PipelineError(
                f"connect takes two streams with keys or two without, {which} has none: call key_by(...) on it, or use "
                f"the streams before their key_by ({user_location()})"
            )

    if not TYPE_CHECKING:  # for a type checker there is nothing that is not there

        def __getattr__(self, name: str) -> Any:
            """Say what is meant by a name of a stream."""
            raise no_such_method(self, name, "these are two streams, say with comap(...) what becomes of their items")

    def comap(
        self,
        map1: Any,
        map2: Any = None,
        config: Config | None = None,
        *,
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> Stream:
        """One item in from either stream, one item out. On keyed streams the outputs keep the key of their item.

        Args:
            map1: the function for items of the first stream; or a `CoMapFunction` class or instance, which has both.
            map2: the function for items of the second stream. Behind a class its config may stand here.
            config: of a class.
            parallelism: replicas; on keyed streams each owns some of the keys.
            contract: what the operator needs, keeps and promises.
            name: unique in the pipeline.

        Returns:
            The stream of the outputs, keyed where the two are.

        Example:
            >>> from sage.kernel.api import CoMapFunction, LocalEnvironment
            >>> class Rated(CoMapFunction):
            ...     def execute1(self, order):
            ...         return order[1] * self.ctx.state.get("rate", 1)
            ...     def execute2(self, rate):
            ...         self.ctx.state["rate"] = rate[1]
            ...         return f"{rate[0]} at {rate[1]}"
            >>> env = LocalEnvironment("demo")
            >>> rates = env.from_collection([("eur", 2)]).key_by(lambda pair: pair[0])
            >>> orders = env.from_collection([("usd", 10)]).key_by(lambda pair: pair[0])
            >>> sorted(orders.connect(rates).comap(Rated).collect(), key=str)
            [10, 'eur at 2']
        """
        is_class = isinstance(map1, type) and callable(getattr(map1, "execute1", None))
        target: Any
        if is_class or isinstance(map1, Function):
            if map2 is not None and config is None and not callable(map2):
                map2, config = None, map2
            if map2 is not None:
                raise PipelineError(
                    f"a CoMapFunction has the functions of both streams: give comap nothing but its config "
                    f"({user_location()})"
                )
            target = map1
        else:
            for given in (map1, map2):
                if not callable(given) or (isinstance(given, type) and issubclass(given, Function)):
                    got = "one function" if callable(map1) and map2 is None else repr(given)
                    raise PipelineError(
                        f"comap takes two functions, one for each stream, or a CoMapFunction, got {got} "
                        f"({user_location()})"
                    )
            target = CoMapSpec(map1, map2)
        first, second = self._first, self._second
        facts: dict[str, Any] = {"parallelism": parallelism, "contract": contract, "name": name}
        facts |= {"feeds": first._feeds + second._feeds, "options": _sides(first, second)}
        return first._next(first._add(OperatorKind.COMAP, target, config, **facts))


class KeyedJoin(BaseStream):
    """`join` of a keyed stream."""

    def join(
        self,
        other: BaseStream,
        function: Callable[[Any, Any], Any] | None = None,
        *,
        kind: str = "inner",
        within: tuple[float, float] | None = None,
        time: Any = None,
        lateness_s: float = 0.0,
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> Self:
        """Pairs each item with each item of the other keyed stream that has the same key. A pair is put out when the
        second of the two comes; the outputs keep the key.

        Without `within` all items of both streams stay in memory until the job ends. With it, two items are a pair if
        `within[0] <= time(right) - time(left) <= within[1]`, in seconds of event time, and an item is kept only until
        the watermark says that no partner can come any more. The watermark of a replica is the smaller one of the
        latest event times that it has seen of the two streams, less `lateness_s`; a stream that is silent holds it up.
        Items before the watermark are not joined: they go to the side output "late", or are dropped and counted there.

        Args:
            other: a keyed stream of the same environment.
            function: `function(left, right)` makes the output of a pair, `left` being an item of this stream; a plain
                function. None gives the pair.
            kind: "inner", or "left": a left item that has met no partner is put out at the end of the stream, as
                `function(left, None)`; not with `within`.
            within: smallest and largest time of the right item minus that of the left one, in seconds.
            time: event time of an item in seconds, a plain function; or two of them, for left and right items.
            lateness_s: how far behind the latest item of its stream one may come. Several replicas in front of the
                join make that larger than it is in the source.
            parallelism: replicas; each owns some of the keys.
            contract: what the operator needs, keeps and promises; an item may make `io.outputs_max` pairs.
            name: unique in the pipeline.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> env = LocalEnvironment("demo")
            >>> people = env.from_collection([(1, "ada"), (2, "bob")]).key_by(lambda person: person[0])
            >>> orders = env.from_collection([(1, "tea")]).key_by(lambda order: order[0])
            >>> people.join(orders, lambda person, order: (person[1], order and order[1]), kind="left").collect()
            [('ada', 'tea'), ('bob', None)]
            >>> views = env.from_collection([("ad", 0.0), ("ad", 50.0)]).key_by(lambda view: view[0])
            >>> clicks = env.from_collection([("ad", 3.0)]).key_by(lambda click: click[0])
            >>> views.join(clicks, within=(0, 10), time=lambda event: event[1]).collect()
            [(('ad', 0.0), ('ad', 3.0))]
        """
        check_together("join", self, other)
        if not other._keyed:
            raise PipelineError(f"join needs a key on both streams: call key_by(...) on the other ({user_location()})")
        if kind not in ("inner", "left"):
            raise PipelineError(f"join kind must be 'inner' or 'left', got {kind!r} ({user_location()})")
        if function is not None and not callable(function):
            raise PipelineError(f"join takes a function of two items, got {function!r} ({user_location()})")
        if isinstance(function, Function) or inspect.iscoroutinefunction(function):
            raise PipelineError(
                f"join takes a plain function, got {function!r}: join the pairs, and use map behind it "
                f"({user_location()})"
            )
        outputs_max = (contract if isinstance(contract, Contract) else Contract()).io.outputs_max
        facts: dict[str, Any] = {"parallelism": parallelism, "contract": contract, "name": name}
        facts |= {"feeds": self._feeds + other._feeds, "options": {**_sides(self, other), "join": kind}}
        spec: OperatorSpec = JoinSpec(function, kind == "left", outputs_max)
        if within is not None:
            spec = _interval(function, kind, within, time, lateness_s, outputs_max)
        elif time is not None or lateness_s:
            raise PipelineError(
                f"time= and lateness_s= of a join go with within=(lower_s, upper_s) ({user_location()})"
            )
        return self._next(self._add(OperatorKind.JOIN, spec, default_name="join", **facts))
