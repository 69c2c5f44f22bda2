"""`FutureStream`: the stream of a future, which is used like any other before it is filled."""

from __future__ import annotations

from sage.kernel.graph import OperatorKind
from sage.kernel.operators import FutureSpec

from .base_stream import Feed
from .datastream import DataStream
from .declare import declare
from .environment import Environment
from .feedback import FillableStream

__all__ = ["FutureStream", "declare_future"]


class FutureStream(FillableStream, DataStream):
    """The stream of a future. What is chained to it are plain streams; `fill` says which items it has."""

    def _next(self, name: str, branch: str | None = None) -> DataStream:  # type: ignore[override]  # only it can be filled
        return DataStream(self._env, (Feed(name, branch),))


def declare_future(env: Environment, name: str | None) -> FutureStream:
    """Add a future to the graph of an environment."""
    added = declare(
        env.graph,
        OperatorKind.FUTURE,
        FutureSpec(),
        name=name,
        default_name="future",
        parallelism=1,
        options={"single": "what comes back to a future comes in one stream, so it has one replica"},
    )
    return FutureStream(env, added.name)
