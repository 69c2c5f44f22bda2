"""What a task and its process say to each other: tuples that begin with one of these numbers.

Where a task has several processes in a line, each passes on to the next what it would have answered, with what those
before it have told; the answer of the last is the answer of the task. What does not concern a process it passes on as
it is, so that all keeps its order. Of `READY`, `ENTERING`, `LEFT` and `ENDED` each process tells the task by itself,
and `END` comes to it both ways.

Parent to process:

- `BATCH, values, keys, origins`: work on these rows; `keys` is None without keys, `origins` one number or a list
- `SINGLE, value, key, origin`: work on one row and say before each call which one it is: the last process died of it,
  or of one of its neighbours
- `FINISH`: the stream has ended
- `ECHO`: answer, so that the thread that waits for answers looks up
- `END`: tear down

Process to parent; answers come in the order of the batches:

- `READY, tears_down, exploding`: set up; whether an operator has a `teardown` of its own, and the position of the
  first that makes several items of one (the number of operators without such)
- `DONE, rows, busy_ns, values, keys, origins`: so many rows are through and nothing special happened
- `COUNTED, rows, busy_ns, values, keys, origins, reports, starts`: likewise, with a `Report` of the process, or of some
  processes up to the last of the line; `starts` is for each row how many outputs were there before it, None where each
  row has exactly one
- `ALONE, ...`: likewise, in a line, for the row of a `SINGLE`
- `REFUSED, reason`: the batch cannot be unpickled
- `ENTERING, step, value, key`: a call of `SINGLE` begins; the value is `None, False` where it cannot be sent
- `LEFT, step`: in a line, the row of a `SINGLE` is about to be passed on to the process that begins with this operator
- `PAUSING, begins`: a retry waits, or has waited
- `FINISHED, reports`: everything is put out
- `FAILED, message, error, reports`: the job fails
- `ECHO`
- `ENDED, error, reports`: torn down; the process is free
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sage.common.quantiles import QuantileSketch
from sage.kernel.graph import BaseTransformation, OperatorKind, StateKind
from sage.kernel.operators import FunctionFactory
from sage.kernel.operators.specs import OperatorSpec

from .remote_errors import PortableError

__all__ = [
    "ALONE",
    "ANSWERS",
    "BATCH",
    "BATCH_NS",
    "COUNTED",
    "DONE",
    "ECHO",
    "END",
    "ENDED",
    "ENTERING",
    "FAILED",
    "FINISH",
    "FINISHED",
    "LEFT",
    "PAUSING",
    "READY",
    "REFUSED",
    "SINGLE",
    "Letter",
    "Report",
    "keeps_state",
]

_STATELESS_KINDS: Final = frozenset(
    {
        OperatorKind.MAP,
        OperatorKind.FILTER,
        OperatorKind.FLATMAP,
        OperatorKind.KEY_BY,
        OperatorKind.COMAP,
        OperatorKind.SPLIT,
        # What restores the order stands in front of its task; in a chain it passes items on.
        OperatorKind.ORDERED,
        OperatorKind.SINK,
    }
)

BATCH_NS: Final = 30_000_000
"""What a batch may take: longer than on a thread, because a message to a process costs more than a packet."""

BATCH: Final = 1
SINGLE: Final = 2
FINISH: Final = 3
ECHO: Final = 4
END: Final = 5

READY: Final = 10
DONE: Final = 11
COUNTED: Final = 12
REFUSED: Final = 13
ENTERING: Final = 14
PAUSING: Final = 15
FINISHED: Final = 16
FAILED: Final = 17
ENDED: Final = 18
ALONE: Final = 19
LEFT: Final = 20


def keeps_state(operator: BaseTransformation) -> bool:
    """Whether it keeps something between items by its kind or its contract; what its code keeps in `ctx.state` without
    saying so shows only when it does.
    """
    state, factory = operator.contract.state, operator.factory
    if operator.kind not in _STATELESS_KINDS or state.kind is StateKind.STATEFUL or state.keyed:
        return True
    # Filters that the library itself makes (distinct, limit, sample) remember what they have let pass.
    made_here = isinstance(factory, FunctionFactory) and isinstance(factory.target, OperatorSpec)
    return made_here and operator.kind is OperatorKind.FILTER


ANSWERS: Final = frozenset({DONE, COUNTED, ALONE})
"""They answer rows, and hold outputs."""


@dataclass(slots=True)
class Letter:
    """A dead letter on its way.

    Attributes:
        step: number of the operator in the chain.
        item: its input; text where `travels` is false, because the item itself cannot.
        side: of an operator on two streams, which one the item came from.
    """

    step: int
    item: Any
    travels: bool
    key: Hashable
    keyed: bool
    attempts: int
    error: PortableError
    side: int | None = None


@dataclass(slots=True)
class Report:
    """What has come together in the process.

    Attributes:
        counts: for each operator items in, items out, errors, retries, dead letters, since the process began to work.
        letters: since the last report.
        times: for each operator time of the sampled calls, their number and sketch, since the last report that had
            them; empty without any.
        counters: what the operators count themselves, by position of the operator.
        keeps_state: whether an operator keeps state that would go with the process.
        first: position in the chain of its first operator.
        broken: rows of the answer that came to this process with something that cannot be rebuilt there, and why.
    """

    counts: tuple[tuple[int, int, int, int, int], ...]
    letters: list[Letter]
    times: tuple[tuple[int, int, QuantileSketch], ...] = ()
    counters: dict[int, dict[str, float]] | None = None
    keeps_state: bool = False
    first: int = 0
    broken: Sequence[tuple[int, str]] = ()
