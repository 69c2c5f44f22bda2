"""What every stream is made of: an environment, the operators whose outputs it carries, and how the next operator is
added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from sage.kernel.graph import OperatorKind, PipelineError, Routing

from .declare import declare, user_location
from .environment import Environment
from .misnomers import no_such_method

__all__ = ["BaseStream", "Config", "Feed", "check_together", "feed_facts"]

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Feed:
    """One of the operators whose outputs a stream carries.

    Attributes:
        operator: its name.
        branch: which branch of its outputs; None for the main stream.
        routing: how the next operator's replicas have to share them; None lets the compiler choose.
    """

    operator: str
    branch: str | None = None
    routing: Routing | None = None


def feed_facts(feeds: Sequence[Feed]) -> dict[str, Any]:
    """What `declare` has to know of an operator's inputs."""
    branches, routings = tuple(feed.branch for feed in feeds), tuple(feed.routing for feed in feeds)
    return {
        "inputs": tuple(feed.operator for feed in feeds),
        "branches": branches if any(branch is not None for branch in branches) else (),
        "routings": routings if any(routing is not None for routing in routings) else (),
    }


def check_together(what: str, first: BaseStream, other: object) -> BaseStream:
    """Refuse what cannot stand beside `first` in an operator on several streams.

    Raises:
        PipelineError: it is no stream, or one of another environment.
    """
    if not isinstance(other, BaseStream):
        raise PipelineError(f"{what} takes streams, got {other!r} ({user_location()})")
    if other._env is not first._env:
        names = f"one of {other._env.name!r} and one of {first._env.name!r}"
        if other._env.name == first._env.name:
            names = f"streams of two that are both called {first._env.name!r}"
        raise PipelineError(f"{what} joins streams of one environment, got {names} ({user_location()})")
    return other


class BaseStream:
    """A stream of items, keyed or not."""

    _keyed = False

    def __init__(self, env: Environment, inputs: tuple[str | Feed, ...]) -> None:
        self._env = env
        self._feeds = tuple(Feed(given) if isinstance(given, str) else given for given in inputs)
        self._inputs = tuple(feed.operator for feed in self._feeds)

    if not TYPE_CHECKING:  # for a type checker there is nothing that is not there

        def __getattr__(self, name: str) -> Any:
            """Say what is meant by a name that no stream has, or not this one."""
            raise no_such_method(self, name)

    def _add(
        self,
        kind: OperatorKind,
        target: Any,
        config: Config | None = None,
        *,
        feeds: Sequence[Feed] | None = None,
        **arguments: Any,
    ) -> str:
        """Declare an operator behind this stream, or behind `feeds`; its name."""
        arguments["keyed_input"] = self._keyed
        return declare(
            self._env.graph, kind, target, config, **feed_facts(self._feeds if feeds is None else feeds), **arguments
        ).name

    def _next(self, name: str, branch: str | None = None) -> Self:
        """The stream behind operator `name`, keyed as this one is."""
        return type(self)(self._env, (Feed(name, branch),))
