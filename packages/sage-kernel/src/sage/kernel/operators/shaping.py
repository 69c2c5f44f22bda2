"""Operators that need no code of the user, or only a key or a predicate: distinct, limit, ordered, sample, split."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from sage.common.errors import SageError

from .branches import BranchItem
from .functions import FilterFunction, Function
from .specs import BoundOperator, OperatorSpec

__all__ = [
    "REST",
    "DistinctSpec",
    "FutureSpec",
    "InterleaveSpec",
    "LimitSpec",
    "NotHashableError",
    "OrderedSpec",
    "SampleSpec",
    "SplitSpec",
]

REST = "rest"
"""The branch of a split to which items go that fit no other."""


class NotHashableError(SageError):
    """What `distinct` compares by cannot be remembered."""


@dataclass(frozen=True, slots=True)
class DistinctSpec(OperatorSpec):
    """`distinct`: the first item of each kind.

    Attributes:
        key: what two items are compared by, None for the items themselves.
        keyed: whether items of different keys of the stream are different in any case.
        max_keys: how many are remembered; None is no limit.
    """

    key: Callable[[Any], Hashable] | None
    keyed: bool
    max_keys: int | None

    @property
    def entries(self) -> tuple[Callable[..., Any], ...]:
        """The key function."""
        return () if self.key is None else (self.key,)

    def bind(self) -> BoundOperator:
        """The operator of one replica."""
        function = _Distinct(self)
        return BoundOperator(function.execute, function)


class _Distinct(FilterFunction[Any]):
    def __init__(self, spec: DistinctSpec) -> None:
        super().__init__()
        self._spec = spec
        # A dict, because it keeps the order in which they came.
        self._seen: dict[Hashable, None] = {}

    def execute(self, item: Any) -> bool:
        """Whether it is the first of its kind."""
        key, seen = self._spec.key, self._seen
        own = item if key is None else key(item)
        kind = (self.ctx.key, own) if self._spec.keyed else own
        try:
            if kind in seen:
                return False
        except TypeError as error:
            what = "key" if key is not None else "item"
            hint = "let key= make" if key is not None else "give it key=, a function that makes"
            raise NotHashableError(
                f"distinct {self.ctx.name!r} needs hashable {what}s, got {type(own).__name__}: {hint} a text or a "
                f"tuple of texts and numbers of the item ({error})"
            ) from error
        if self._spec.max_keys is not None and len(seen) >= self._spec.max_keys:
            del seen[next(iter(seen))]
        seen[kind] = None
        return True

    def get_state(self) -> Any:
        """What has been seen, oldest first."""
        return list(self._seen)

    def restore_state(self, state: Any) -> None:
        """Take it back."""
        self._seen = dict.fromkeys(state)


@dataclass(frozen=True, slots=True)
class LimitSpec(OperatorSpec):
    """`limit`: the first `items` items."""

    items: int

    @property
    def entries(self) -> tuple[Callable[..., Any], ...]:
        """None of the user's."""
        return ()

    def bind(self) -> BoundOperator:
        """The operator of one replica."""
        function = _Limit(self.items)
        return BoundOperator(function.execute, function)


class _Limit(FilterFunction[Any]):
    def __init__(self, items: int) -> None:
        super().__init__()
        self._left = items

    def setup(self) -> None:
        """A limit of 0 waits for nothing."""
        if not self._left:
            self.ctx.enough()

    def execute(self, item: Any) -> bool:
        """Whether there is still room for it."""
        if not self._left:
            return False
        self._left -= 1
        if not self._left:
            self.ctx.enough()
        return True

    def get_state(self) -> Any:
        """How many are still to come."""
        return self._left

    def restore_state(self, state: Any) -> None:
        """Take it back."""
        self._left = state


@dataclass(frozen=True, slots=True)
class SampleSpec(OperatorSpec):
    """`sample`: each item with the probability `fraction`, or each `every`-th one."""

    fraction: float | None
    every: int | None
    seed: int

    @property
    def entries(self) -> tuple[Callable[..., Any], ...]:
        """None of the user's."""
        return ()

    def bind(self) -> BoundOperator:
        """The operator of one replica."""
        function = _Sample(self)
        return BoundOperator(function.execute, function)


class _Sample(FilterFunction[Any]):
    def __init__(self, spec: SampleSpec) -> None:
        super().__init__()
        self._spec = spec
        self._passed_by = 0

    def setup(self) -> None:
        """Replicas draw independently of each other, and the same in each run."""
        self._draw = random.Random(f"{self._spec.seed}:{self.ctx.replica_index}").random

    def execute(self, item: Any) -> bool:
        """Whether it is in the sample."""
        if self._spec.fraction is not None:
            return self._draw() < self._spec.fraction
        assert self._spec.every is not None
        taken = not self._passed_by
        self._passed_by = (self._passed_by + 1) % self._spec.every
        return taken


@dataclass(frozen=True, slots=True)
class OrderedSpec(OperatorSpec):
    """`ordered`: what restores the order stands in front of its task; the operator itself passes items on."""

    @property
    def entries(self) -> tuple[Callable[..., Any], ...]:
        """None of the user's."""
        return ()

    def bind(self) -> BoundOperator:
        """The operator of one replica."""
        return BoundOperator(_same, None)


@dataclass(frozen=True, slots=True)
class FutureSpec(OperatorSpec):
    """A future: items that come back enter the loop again as they are."""

    @property
    def entries(self) -> tuple[Callable[..., Any], ...]:
        """None of the user's."""
        return ()

    def bind(self) -> BoundOperator:
        """The operator of one replica."""
        return BoundOperator(_same, None)


def _same(item: Any) -> Any:
    return item


@dataclass(frozen=True, slots=True)
class SplitSpec(OperatorSpec):
    """`split`: each item to one branch.

    Attributes:
        names: of the branches.
        predicates: one for each name, the first that is true decides; empty where `chooser` decides.
        chooser: gives the name of an item's branch.
    """

    names: tuple[str, ...]
    predicates: tuple[Callable[[Any], Any], ...]
    chooser: Callable[[Any], Any] | None

    @property
    def entries(self) -> tuple[Callable[..., Any], ...]:
        """The user's functions."""
        return self.predicates if self.chooser is None else (self.chooser,)

    def bind(self) -> BoundOperator:
        """The operator of one replica."""
        function = _Split(self)
        return BoundOperator(function.execute_async if self.is_async else function.execute, function)


class _Split(Function):
    def __init__(self, spec: SplitSpec) -> None:
        super().__init__()
        self._chooser = spec.chooser
        self._names = frozenset(spec.names)
        self._cases = tuple(zip(spec.names, spec.predicates, strict=False))

    def execute(self, item: Any) -> BranchItem:
        """The item with its branch."""
        if self._chooser is not None:
            return self._to(self._chooser(item), item)
        for name, predicate in self._cases:
            if predicate(item):
                return self._to(name, item)
        return self._to(REST, item)

    async def execute_async(self, item: Any) -> BranchItem:
        """The same with a coroutine function that chooses."""
        assert self._chooser is not None
        return self._to(await self._chooser(item), item)

    def _to(self, name: Any, item: Any) -> BranchItem:
        try:
            branch = name if name in self._names else REST
        except TypeError as error:
            raise NotHashableError(f"split {self.ctx.name!r}: a branch is named by a text, got {name!r}") from error
        if branch not in self.ctx.branches:
            self.ctx.metrics.count(f"dropped.{branch}")
        return BranchItem(branch, item)


@dataclass(frozen=True, slots=True)
class InterleaveSpec(OperatorSpec):
    """`interleave`: an item of each stream in turn.

    Attributes:
        streams: how many there are.
        ahead: items of one stream that may wait for the others.
    """

    streams: int
    ahead: int

    @property
    def entries(self) -> tuple[Callable[..., Any], ...]:
        """None of the user's."""
        return ()

    def bind(self) -> BoundOperator:
        """The operator of one replica."""
        function = _Interleave(self)
        return BoundOperator(function.execute, function, ended=function.ended)


class _Interleave(Function):
    """Items arrive as `(stream, item)`.

    Invariant: between two calls nothing waits that could go: it is the turn of a stream that is open and has no item
    here, and no other one has more than `ahead`.
    """

    def __init__(self, spec: InterleaveSpec) -> None:
        super().__init__()
        self._ahead = spec.ahead
        self._waiting: list[deque[Any]] = [deque() for _ in range(spec.streams)]
        self._open = [True] * spec.streams
        self._turn = 0

    def execute(self, sided: tuple[int, Any]) -> list[Any]:
        """What can go on now."""
        stream, item = sided
        self._waiting[stream].append(item)
        outputs = self._take()
        if len(self._waiting[stream]) > self._ahead:
            # The stream whose turn it is may be silent for ever: nobody waits for it without bound.
            outputs.append(self._waiting[stream].popleft())
        return outputs

    def ended(self, stream: int) -> list[Any]:
        """Nothing more comes of `stream`; what can go on now."""
        self._open[stream] = False
        return self._take()

    def _take(self) -> list[Any]:
        outputs: list[Any] = []
        idle = 0
        while idle < len(self._waiting):
            waiting = self._waiting[self._turn]
            if waiting:
                outputs.append(waiting.popleft())
                idle = 0
            elif self._open[self._turn]:
                break
            else:
                idle += 1
            self._turn = (self._turn + 1) % len(self._waiting)
        return outputs

    def get_state(self) -> Any:
        """What waits, which streams are open, whose turn it is."""
        return self._waiting, self._open, self._turn

    def restore_state(self, state: Any) -> None:
        """Take it back."""
        self._waiting, self._open, self._turn = state
