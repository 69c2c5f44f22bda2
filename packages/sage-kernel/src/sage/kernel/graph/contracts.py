"""Operator contracts: what an operator needs, what it keeps, how it talks (paper, section 3, eq. 1).

A contract is declared once, on the operator class, and may be replaced where the operator is used. Compiler,
placement, runtime and metrics read it; nothing else describes an operator's behaviour.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from sage.common.errors import InvalidArgumentError

__all__ = [
    "Backoff",
    "Batching",
    "Contract",
    "ErrorPolicy",
    "Execution",
    "IOSpec",
    "OnError",
    "Recovery",
    "Resources",
    "StateKind",
    "StateSpec",
]


class Execution(StrEnum):
    """The vehicle that runs an operator; AUTO lets the compiler choose from the operator's own code."""

    AUTO = "auto"
    THREAD = "thread"
    PROCESS = "process"
    ASYNC = "async"


class StateKind(StrEnum):
    """Whether an operator keeps anything between items."""

    STATELESS = "stateless"
    STATEFUL = "stateful"


class Recovery(StrEnum):
    """How an operator comes back after a failure: from its snapshot, or from nothing."""

    CHECKPOINT = "checkpoint"
    RESTART = "restart"


class OnError(StrEnum):
    """What happens to an item whose operator raised and has no retry left."""

    DEAD_LETTER = "dead_letter"
    FAIL = "fail"


class Backoff(StrEnum):
    """How the pause between two attempts grows."""

    FIXED = "fixed"
    EXPONENTIAL = "exponential"


def _at_least(rule: str, value: float, minimum: float, *, whole: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise InvalidArgumentError(f"{rule} must be a {'whole ' if whole else ''}number, got {value!r}")
    if not math.isfinite(value):
        raise InvalidArgumentError(f"{rule} must be finite, got {value!r}")
    if not value >= minimum:
        raise InvalidArgumentError(f"{rule} must be >= {minimum:g}, got {value!r}")


def _choice(owner: Any, rule: str, name: str, kind: type[StrEnum]) -> None:
    """Make the attribute `name` a member of `kind`; its text will do as well."""
    value = getattr(owner, name)
    try:
        object.__setattr__(owner, name, kind(value))
    except ValueError:
        members = ", ".join(repr(str(member)) for member in kind)
        raise InvalidArgumentError(f"{rule}.{name} must be one of {members}, got {value!r}") from None


def _made_of(owner: Any, rule: str, **parts: type[Any]) -> None:
    for name, kind in parts.items():
        value = getattr(owner, name)
        if not isinstance(value, kind):
            article = "an" if kind.__name__[0] in "EI" else "a"
            hint = _PLACES.get(type(value).__name__, "")
            raise InvalidArgumentError(f"{rule}.{name} must be {article} {kind.__name__}, got {value!r}{hint}")


_PLACES: Final = {
    "ErrorPolicy": "; an ErrorPolicy stands in io: Contract(io=IOSpec(errors=...))",
    "Batching": "; a Batching stands in io: Contract(io=IOSpec(batching=...))",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one replica needs (R of the contract).

    Attributes:
        cpu: cores that one replica needs; a plan for a node that has fewer is refused.
        gpu: GPUs that one replica needs; a plan that needs more than the node has is refused.
        memory_bytes: memory that one replica needs; likewise.
        concurrency: items in flight at once inside one `async` replica; None takes the default of 64.

    Example:
        >>> Resources(cpu=1.5).cpu
        1.5
        >>> Resources(cpu=-1)
        Traceback (most recent call last):
        ...
        sage.common.errors.InvalidArgumentError: resources.cpu must be >= 0, got -1
    """

    cpu: float = 0.0
    gpu: float = 0.0
    memory_bytes: int = 0
    concurrency: int | None = None

    def __post_init__(self) -> None:
        _at_least("resources.cpu", self.cpu, 0)
        _at_least("resources.gpu", self.gpu, 0)
        _at_least("resources.memory_bytes", self.memory_bytes, 0, whole=True)
        if self.concurrency is not None:
            _at_least("resources.concurrency", self.concurrency, 1, whole=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSpec:
    """What one replica keeps between items (S of the contract).

    Attributes:
        kind: STATEFUL: the compiler says so where replicas would each keep a state of their own.
        recovery: how it comes back after a failure; it stands in the plan, nothing acts on it yet.
        keyed: it keeps its state in `ctx.state`, by key; refused on a stream without keys.
    """

    kind: StateKind = StateKind.STATELESS
    recovery: Recovery = Recovery.RESTART
    keyed: bool = False

    def __post_init__(self) -> None:
        _choice(self, "state", "kind", StateKind)
        _choice(self, "state", "recovery", Recovery)
        _made_of(self, "state", keyed=bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPolicy:
    """What follows when the operator raises: `retries` further attempts, then a dead letter or a failed job.

    Attributes:
        on_error: DEAD_LETTER sets the item aside and goes on; FAIL ends the job.
        retries: attempts after the first one.
        backoff: FIXED waits `delay_s` before each retry; EXPONENTIAL doubles it each time.
        delay_s: seconds before the first retry.
        delay_s_max: longest pause in seconds.
        jitter: share of the pause, 0 to 1, that is drawn at random, so that replicas do not retry in step.

    Example:
        >>> ErrorPolicy(retries=2, delay_s=0.1, backoff=Backoff.EXPONENTIAL, jitter=0).pauses(lambda: 0.5)
        [0.1, 0.2]
    """

    on_error: OnError = OnError.DEAD_LETTER
    retries: int = 0
    backoff: Backoff = Backoff.EXPONENTIAL
    delay_s: float = 0.1
    delay_s_max: float = 30.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        _choice(self, "errors", "on_error", OnError)
        _choice(self, "errors", "backoff", Backoff)
        _at_least("errors.retries", self.retries, 0, whole=True)
        _at_least("errors.delay_s", self.delay_s, 0)
        _at_least("errors.delay_s_max", self.delay_s_max, 0)
        _at_least("errors.jitter", self.jitter, 0)
        if self.jitter > 1:
            raise InvalidArgumentError(f"errors.jitter is a share of the pause and must be <= 1, got {self.jitter!r}")

    def pause_before(self, retry: int, draw: float) -> float:
        """Seconds to wait before retry number `retry` (1-based); `draw` is a random number in [0, 1)."""
        grown = self.delay_s * (2.0 ** min(retry - 1, 60)) if self.backoff is Backoff.EXPONENTIAL else self.delay_s
        pause = min(grown, self.delay_s_max)
        return pause * (1.0 - self.jitter * draw)

    def pauses(self, random: Callable[[], float]) -> list[float]:
        """All pauses of one item in order; `random` gives numbers in [0, 1)."""
        return [self.pause_before(retry, random()) for retry in range(1, self.retries + 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How the items of a batched function come together: it gets a list of items and gives a list of as many outputs.

    Attributes:
        size: most items in a list.
        max_wait_s: a list that is not full goes when its first item has waited so long; None waits until it is full
            or the stream ends.

    Example:
        >>> Batching(size=32, max_wait_s=0.01).size
        32
        >>> Batching(size=0)
        Traceback (most recent call last):
        ...
        sage.common.errors.InvalidArgumentError: batching.size must be >= 1, got 0
    """

    size: int = 32
    max_wait_s: float | None = 0.01

    def __post_init__(self) -> None:
        _at_least("batching.size", self.size, 1, whole=True)
        if self.max_wait_s is not None:
            _at_least("batching.max_wait_s", self.max_wait_s, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class IOSpec:
    """How an operator takes and gives items (I of the contract).

    Attributes:
        queue_capacity: items that may wait in one replica's inbox; None lets the compiler choose.
        timeout_s: longest time of one call of an `async` operator; None is no limit. A call that is over it
            is cancelled and counts as an error. A thread cannot be interrupted: there the job's watchdog is
            the limit.
        outputs_max: most outputs of one `flatmap` call; more is an error of that item (a generator that never
            ends).
        errors: what follows when the operator raises.
        batching: the function of a `map` takes and gives lists; None takes and gives single items.
        item_cost_s: processor time of one item in seconds, where it is known: the compiler then spares hand-overs that
            cost more than they bring.
    """

    queue_capacity: int | None = None
    timeout_s: float | None = None
    outputs_max: int = 100_000
    errors: ErrorPolicy = field(default_factory=ErrorPolicy)
    batching: Batching | None = None
    item_cost_s: float | None = None

    def __post_init__(self) -> None:
        _made_of(self, "io", errors=ErrorPolicy)
        if self.item_cost_s is not None:
            _at_least("io.item_cost_s", self.item_cost_s, 0)
        if self.batching is not None and not isinstance(self.batching, Batching):
            raise InvalidArgumentError(f"io.batching must be a Batching, got {self.batching!r}")
        if self.queue_capacity is not None:
            _at_least("io.queue_capacity", self.queue_capacity, 1, whole=True)
        if self.timeout_s is not None:
            _at_least("io.timeout_s", self.timeout_s, 0)
            if self.timeout_s == 0:
                raise InvalidArgumentError("io.timeout_s must be > 0, got 0 (None is no limit)")
        _at_least("io.outputs_max", self.outputs_max, 1, whole=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """C(v) = (R, S, I) of one operator, and the vehicle that it asks for.

    Example:
        >>> contract = Contract(execution=Execution.ASYNC, resources=Resources(concurrency=8))
        >>> contract.resources.concurrency, contract.io.errors.on_error.value
        (8, 'dead_letter')

    Attributes:
        resources: what one replica needs.
        state: what it keeps between items.
        io: how it takes and gives items.
        execution: the vehicle that it asks for.
        cpu_bound: it computes in Python.
        services: names of the services that it calls; one that is not registered is refused when the pipeline is
            compiled.
    """

    resources: Resources = field(default_factory=Resources)
    state: StateSpec = field(default_factory=StateSpec)
    io: IOSpec = field(default_factory=IOSpec)
    execution: Execution = Execution.AUTO
    cpu_bound: bool = False
    services: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _choice(self, "contract", "execution", Execution)
        _made_of(self, "contract", resources=Resources, state=StateSpec, io=IOSpec, cpu_bound=bool)
        if not isinstance(self.services, tuple) or not all(isinstance(name, str) for name in self.services):
            raise InvalidArgumentError(f"contract.services must be a tuple of names, got {self.services!r}")
