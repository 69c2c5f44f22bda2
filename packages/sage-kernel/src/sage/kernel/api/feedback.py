"""Feedback: a stream whose items come later, and how it is filled."""

from __future__ import annotations

from typing import Any

from sage.kernel.graph import PipelineError

from .base_stream import BaseStream, feed_facts
from .declare import user_location
from .environment import Environment

__all__ = ["MAX_IN_FLIGHT", "FillableStream", "StreamFeedback"]

MAX_IN_FLIGHT = 1000


class FillableStream(BaseStream):
    """A stream that is declared before its items are: made by `env.from_future()`."""

    def __init__(self, env: Environment, name: str) -> None:
        super().__init__(env, (name,))
        self._name = name

    def fill(self, stream: BaseStream, *, max_in_flight: int = MAX_IN_FLIGHT, max_rounds: int | None = None) -> None:
        """Let the items of `stream`, which is made out of this one, come back as items of this one: a loop. Keys are
        forgotten.

        The loop's stream ends when all streams that enter the loop from outside have ended and no item is inside any
        more, which is counted and not guessed by time. Then the end of stream goes through the loop once, and folds
        with `emit="final"` emit. What they send back to the future finds the loop ended: it becomes a dead letter.

        Args:
            stream: what comes back. Items that are done must leave before: filter them out of it.
            max_in_flight: items from outside wait (and so, in the end, their source) while so many are inside the
                loop, or half as many where items may multiply in it (`flatmap`, `join`, side outputs, `broadcast`, a
                stream that two operators of the loop take). What comes back never waits for room; if more than
                `max_in_flight` items have come back and not gone round again yet, the job fails and says so.
            max_rounds: how often an item may come back; None for as often as it takes. One that comes back once more
                leaves the loop: through `future.side_output("exhausted")` where somebody takes that, else it becomes a
                dead letter. What an operator makes of an item has gone round as often as the item: each output of a
                `flatmap`, a list as often as the item in it that has most, a pair of `join` as often as the item that
                came last.

        Raises:
            PipelineError: the future has been filled, or `stream` is no stream of the same environment, or
                `max_in_flight` or `max_rounds` is below 1.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> def step(pair):
            ...     n, steps = pair
            ...     return (n // 2 if n % 2 == 0 else 3 * n + 1), steps + 1
            >>> env = LocalEnvironment("collatz")
            >>> again = env.from_future("again")
            >>> stepped = env.from_collection([(6, 0), (7, 0)]).union(again).map(step)
            >>> again.fill(stepped.filter(lambda pair: pair[0] > 1), max_in_flight=100)
            >>> sorted(stepped.filter(lambda pair: pair[0] == 1).collect())
            [(1, 8), (1, 16)]
        """
        where = f"(operator {self._name!r}, {user_location()})"
        graph = self._env.graph
        future = graph[self._name]
        if future.inputs:
            raise PipelineError(
                f"the future {self._name!r} is filled a second time, the first is at {future.options['filled_at']}: "
                f"fill it once with the union of both streams {where}"
            )
        if not isinstance(stream, BaseStream):
            raise PipelineError(f"fill takes a stream, got {stream!r} {where}")
        if stream._env is not self._env:
            raise PipelineError(
                f"a future is filled by a stream of its own environment {self._env.name!r}, got one of another, "
                f"{stream._env.name!r} {where}"
            )
        if isinstance(max_in_flight, bool) or not isinstance(max_in_flight, int) or max_in_flight < 1:
            raise PipelineError(f"max_in_flight must be a whole number >= 1, got {max_in_flight!r} {where}")
        if max_rounds is not None and (
            isinstance(max_rounds, bool) or not isinstance(max_rounds, int) or max_rounds < 1
        ):
            raise PipelineError(f"max_rounds must be a whole number >= 1 or None, got {max_rounds!r} {where}")
        facts = feed_facts(stream._feeds)
        options: dict[str, Any] = {
            "max_in_flight": max_in_flight,
            "max_rounds": max_rounds,
            "filled_at": user_location(),
        }
        graph.fill(self._name, facts["inputs"], facts["branches"], options)


class StreamFeedback(BaseStream):
    """The other way to say it: `stream.fill_future(future)`."""

    def fill_future(
        self, future: FillableStream, *, max_in_flight: int = MAX_IN_FLIGHT, max_rounds: int | None = None
    ) -> None:
        """Let the items of this stream come back as items of `future`; see `FutureStream.fill`.

        Raises:
            PipelineError: `future` was not made by `env.from_future()`, or cannot be filled by this stream.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> env = LocalEnvironment("halves")
            >>> again = env.from_future()
            >>> halves = env.from_collection([12, 5]).union(again).map(lambda n: n // 2)
            >>> halves.filter(lambda n: n > 2).fill_future(again)
            >>> sorted(halves.filter(lambda n: n <= 2).collect())
            [1, 2]
        """
        if not isinstance(future, FillableStream):
            raise PipelineError(f"fill_future takes what env.from_future() made, got {future!r} ({user_location()})")
        future.fill(self, max_in_flight=max_in_flight, max_rounds=max_rounds)
