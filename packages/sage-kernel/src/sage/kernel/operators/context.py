"""What an operator may ask of the runtime while it runs: who it is, the current key, its keyed state, a
logger, metrics.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, MutableMapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final, Protocol

from sage.common.errors import InvalidArgumentError, SageError

from .branches import BranchItem

__all__ = ["CURRENT_KEY", "NO_KEY", "ContextError", "OperatorContext", "OperatorMetrics", "ServiceCalls"]


class _NoKey:
    """The absence of a key; `None` is a key like any other."""

    def __repr__(self) -> str:
        return "<no key>"


NO_KEY: Final = _NoKey()
CURRENT_KEY: ContextVar[Hashable] = ContextVar("sage_current_key", default=NO_KEY)
_SIDE_ITEMS: ContextVar[list[BranchItem] | None] = ContextVar("sage_side_items", default=None)


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

    def snapshot(self) -> dict[str, float]:
        """The counters at this moment; any thread may ask, while others count."""
        # Copying a dict is one step of the interpreter, going through it is not.
        return self._counters.copy()


class ServiceCalls(Protocol):
    """How operators reach the services of their job; `who` stands in messages."""

    def call(self, who: str, name: str, request: Any, timeout_s: float | None) -> Any:
        """Ask and wait."""

    async def call_async(self, who: str, name: str, request: Any, timeout_s: float | None) -> Any:
        """Ask and wait, in a coroutine."""


class OperatorContext:
    """`self.ctx` of an operator; one per replica.

    Attributes:
        name: the operator's name in the pipeline.
        replica_index: 0-based number of this replica.
        parallelism: how many replicas there are.
        job: the job's name.
        logger: logger named `sage.operator.<name>`.
        metrics: counters of this replica.
        branches: the side outputs (of a split: the branches) that somebody takes.

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
        branches: frozenset[str] = frozenset(),
        on_enough: Callable[[], None] | None = None,
        services: ServiceCalls | None = None,
    ) -> None:
        self.name = name
        self.replica_index = replica_index
        self.parallelism = parallelism
        self.job = job
        self.logger = logging.getLogger(f"sage.operator.{name}")
        self.metrics = OperatorMetrics()
        self.keyed = keyed
        self.branches = branches
        self._side_items: list[BranchItem] | None = None
        self._on_enough = on_enough
        self._services = services
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

    def enough(self) -> None:
        """The operator passes on nothing any more: sources whose items it alone waits for may end."""
        if self._on_enough is not None:
            self._on_enough()

    def call_service(self, name: str, request: Any, timeout_s: float | None = None) -> Any:
        """Ask the service `name` and wait for its answer. In an `async` operator use `call_service_async`.

        Raises:
            ServiceError: there is no such service.
            TimeoutError: no answer within `timeout_s` seconds.
            Exception: whatever the service raises.
        """
        if self._concurrent:
            raise ContextError(
                f"operator {self.name!r} is async: use `await self.ctx.call_service_async({name!r}, ...)`, a call that "
                f"waits would hold up its event loop"
            )
        return self._calls(name).call(f"operator {self.name!r}", name, request, timeout_s)

    async def call_service_async(self, name: str, request: Any, timeout_s: float | None = None) -> Any:
        """`call_service` for a coroutine; other items go on meanwhile."""
        return await self._calls(name).call_async(f"operator {self.name!r}", name, request, timeout_s)

    def _calls(self, name: str) -> ServiceCalls:
        if self._services is None:
            raise ContextError(
                f"operator {self.name!r} cannot call the service {name!r}: services are there in a running job"
            )
        return self._services

    def side_output(self, branch: str, item: Any) -> None:
        """Put `item` out on the side output `branch`, which `stream.side_output(branch)` takes. It is passed on
        together with what the call returns, so not at all if the call raises.

        An item for a branch that nobody takes is dropped and counted (`dropped.<branch>` in the metrics).

        Raises:
            ContextError: called outside of `execute` of a map, flatmap, filter or comap.
        """
        if branch not in self.branches:
            self.metrics.count(f"dropped.{branch}")
            return
        items = _SIDE_ITEMS.get() if self._concurrent else self._side_items
        if items is None:
            raise ContextError(
                f"operator {self.name!r} called ctx.side_output outside of an execute(): side outputs belong to an item"
            )
        items.append(BranchItem(branch, item))

    def open_side(self) -> list[BranchItem]:
        """A new list for the side outputs of one call; the runtime makes it before each."""
        items: list[BranchItem] = []
        if self._concurrent:
            _SIDE_ITEMS.set(items)
        else:
            self._side_items = items
        return items

    def close_side(self) -> None:
        """The call is over: what is put aside from now on belongs to no item."""
        if self._concurrent:
            _SIDE_ITEMS.set(None)
        else:
            self._side_items = None

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
        return self._current_key("key")

    def _current_key(self, asked: str) -> Hashable:
        key = CURRENT_KEY.get() if self._concurrent else self._key
        if key is NO_KEY:
            raise ContextError(
                f"operator {self.name!r} asked for ctx.{asked}, but its stream has no key: call key_by(...) before it "
                "(union, interleave, broadcast and rebalance forget the key)"
            )
        return key

    @property
    def state(self) -> MutableMapping[str, Any]:
        """State of the current key: a dict that only this key's items see.

        Raises:
            ContextError: the stream has no key here.
        """
        key = self._current_key("state")
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
