"""What an operator may ask of the runtime while it runs: who it is, the current key, its keyed state, a
logger, metrics.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, MutableMapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final

from sage.common.errors import InvalidArgumentError, SageError

__all__ = ["CURRENT_KEY", "NO_KEY", "ContextError", "OperatorContext", "OperatorMetrics"]


class _NoKey:
    """The absence of a key; `None` is a key like any other."""

    def __repr__(self) -> str:
        return "<no key>"


NO_KEY: Final = _NoKey()
CURRENT_KEY: ContextVar[Hashable] = ContextVar("sage_current_key", default=NO_KEY)


class ContextError(SageError):
    """The operator asked for something that its place in the pipeline does not give (a key outside
    `key_by`).
    """


class OperatorMetrics:
    """Counters that an operator keeps about its own work; they stand in the run's summary and JSON.

    Example:
        >>> metrics = OperatorMetrics()
        >>> metrics.count("tokens", 12); metrics.count("tokens", 3)
        >>> dict(metrics.counters)
        {'tokens': 15}
    """

    __slots__ = ("_counters", "counters")

    def __init__(self) -> None:
        self._counters: dict[str, float] = {}
        self.counters: Mapping[str, float] = MappingProxyType(self._counters)

    def count(self, name: str, amount: float = 1) -> None:
        """Add `amount` to the counter `name`.

        Raises:
            InvalidArgumentError: `amount` is no number.
        """
        if not isinstance(amount, (int, float)):
            raise InvalidArgumentError(f"counter {name!r} counts numbers, got {amount!r}")
        self._counters[name] = self._counters.get(name, 0) + amount


class OperatorContext:
    """`self.ctx` of an operator; one per replica.

    Attributes:
        name: the operator's name in the pipeline.
        replica_index: 0-based number of this replica.
        parallelism: how many replicas there are.
        job: the job's name.
        logger: logger named `sage.operator.<name>`.
        metrics: counters of this replica.

    Example:
        >>> ctx = OperatorContext("count", keyed=True)
        >>> ctx.enter("a"); ctx.state["n"] = 1
        >>> ctx.enter("b"); dict(ctx.state)
        {}
        >>> ctx.enter("a"); ctx.key, ctx.state["n"]
        ('a', 1)
    """

    def __init__(
        self,
        name: str,
        *,
        replica_index: int = 0,
        parallelism: int = 1,
        job: str = "",
        keyed: bool = False,
        concurrent: bool = False,
        stopping: list[bool] | None = None,
    ) -> None:
        self.name = name
        self.replica_index = replica_index
        self.parallelism = parallelism
        self.job = job
        self.logger = logging.getLogger(f"sage.operator.{name}")
        self.metrics = OperatorMetrics()
        self.keyed = keyed
        self._stopping = [] if stopping is None else stopping
        # Items of an `async` replica overlap, so there the current key belongs to the task and not to the
        # replica.
        self._concurrent = concurrent
        self._key: Hashable = NO_KEY
        self._state_by_key: dict[Hashable, dict[str, Any]] = {}

    @property
    def stopping(self) -> bool:
        """Whether the job has been told to stop: a source that waits should look, and end."""
        return bool(self._stopping)

    def enter(self, key: Hashable) -> None:
        """Make `key` the current one; the runtime calls this before each item of a keyed stream."""
        if self._concurrent:
            CURRENT_KEY.set(key)
        else:
            self._key = key

    @property
    def key(self) -> Hashable:
        """Key of the item that is being worked on.

        Raises:
            ContextError: the stream has no key here.
        """
        key = CURRENT_KEY.get() if self._concurrent else self._key
        if key is NO_KEY:
            raise ContextError(
                f"operator {self.name!r} asked for ctx.key, but its stream has no key: call key_by(...) just before it"
            )
        return key

    @property
    def state(self) -> MutableMapping[str, Any]:
        """State of the current key: a dict that only this key's items see.

        Raises:
            ContextError: the stream has no key here.
        """
        key = self.key
        found = self._state_by_key.get(key)
        if found is None:
            found = self._state_by_key[key] = {}
        return found

    def get_keyed_state(self) -> dict[Hashable, dict[str, Any]]:
        """All keyed state of this replica (not a copy); what a snapshot stores."""
        return self._state_by_key

    def restore_keyed_state(self, state: dict[Hashable, dict[str, Any]]) -> None:
        """Replace all keyed state of this replica."""
        self._state_by_key = state
