"""Generates the coroutine functions in which a slot works off rows through a chain of plain coroutine
functions: one row after the other (`run_pending`), or a packet in one go (see `async_batches`).

Awaiting the user's coroutine in place costs one frame; going step by step through `Chain.process_async` costs
four. Chains with a flatmap, a time limit or a function that only sometimes returns an awaitable go step by
step.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol

from sage.kernel.graph import OperatorKind

from .async_batches import BatchCode
from .codegen import compile_text
from .steps import Step, cancelled_call

__all__ = ["AsyncChainCode", "SlotPool", "generate_async_chain"]

_IN_ONE_GO = frozenset({OperatorKind.MAP, OperatorKind.FILTER})
_PLAIN = frozenset({OperatorKind.MAP, OperatorKind.FILTER, OperatorKind.KEY_BY, OperatorKind.SINK})


class SlotPool(Protocol):
    """What the slots of a replica share, as far as generated code needs it."""

    covered: bool
    """Whether somebody else is looking, or about to look, for the next row."""
    timing: bool
    """Whether the times of calls are taken at this moment."""
    in_flight: int
    """Rows taken and not finished."""
    flush_scheduled: bool
    """Whether outputs are sent at the end of this turn of the loop anyway."""
    blocked: asyncio.Task[None] | None
    """What waits for room downstream; nobody takes a further row meanwhile."""

    def wake_one(self) -> None:
        """See that somebody else looks for the next row while this slot is away."""

    def row_done(self, key: Hashable, origin: int) -> None:
        """A row is through, and something follows from it: a flush, the next row of its key, the end."""


class AsyncChainCode(NamedTuple):
    """A generated coroutine function.

    Attributes:
        run_pending: `await run_pending(slots, pending)` works rows off until none is pending.
        times_ns: for each step the times of its calls so far; whoever reads them empties them.
        batch: works packets off in one go; None where something follows from each row.
    """

    run_pending: Callable[[SlotPool, deque[tuple[Any, Any, int]]], Awaitable[None]]
    times_ns: tuple[list[int], ...]
    batch: BatchCode | None


def generate_async_chain(
    steps: Sequence[Step],
    *,
    each_row: bool,
    keys_in: bool,
    keys_out: bool,
    outputs: tuple[list[Any], list[Any], list[int]],
    fail: Callable[..., Awaitable[None]],
    now: Callable[[], int],
) -> AsyncChainCode | None:
    """The coroutine function of a chain, None where the chain must go step by step.

    Args:
        steps: the operators.
        each_row: `row_done` is called for each row, because something follows from each: the next row of its key.
        keys_in: rows have a key, which operators and dead letters are told; a packet in one go knows of none.
        keys_out: outputs are appended with their key.
        outputs: lists of values, keys and origins to append to; they are emptied in place.
        fail: `await fail(step number, error, value, key, origin)` deals with an item whose operator raised.
        now: monotonic clock in ns.
    """
    if not all(_is_plain(step) for step in steps):
        return None
    lines = [
        "async def run_pending(slots, pending):",
        "    popleft = pending.popleft; wake_one = slots.wake_one; row_done = slots.row_done",
        "    while pending:",
        "        v, k, o = popleft(); first_key = k; at = 0",
        "        if not slots.covered: wake_one()",
        "        try:",
    ]
    names: dict[str, Any] = {"now": now, "fail": fail, "shield": asyncio.shield}
    names |= {"CancelledError": asyncio.CancelledError, "cancelled_call": cancelled_call}
    names |= {"names": [step.name for step in steps]}
    names |= {"emit": outputs[0].append, "emit_key": outputs[1].append, "emit_origin": outputs[2].append}
    times: tuple[list[int], ...] = tuple([] for _ in steps)
    for index, step in enumerate(steps):
        names |= {f"call{index}": step.call, f"c{index}": step.counters, f"time{index}": times[index].append}
        names |= {f"enter{index}": step.enter, f"guard{index}": step.guard.check if step.guard else None}
        lines += [f"            {line}" for line in _step_lines(index, step)]
    if steps[-1].kind is not OperatorKind.SINK:
        lines += ["            emit(v); emit_origin(o)"] + (["            emit_key(k)"] if keys_out else [])
    lines += ["        except CancelledError as error:"]
    lines += ["            await fail(at, cancelled_call(names[at], error), v, k, o)"]
    lines += ["        except Exception as error:", "            await fail(at, error, v, k, o)"]
    # A filter leaves by `continue`; the row is through all the same.
    lines += ["        finally:", "            slots.in_flight = left = slots.in_flight - 1"]
    # What nothing follows from costs no call: outputs of other rows have a flush under way already.
    nothing_follows = (
        "" if each_row or steps[-1].kind is OperatorKind.SINK else "if not left or not slots.flush_scheduled: "
    )
    lines += [f"            {nothing_follows}row_done(first_key, o)"]
    lines += ["        if slots.blocked is not None: await shield(slots.blocked)"]
    keyed = keys_in or keys_out
    in_one_go = not each_row and not keyed and all(step.kind in _IN_ONE_GO for step in steps)
    if in_one_go:
        lines += _batch_lines(steps)
    text = "\n".join(lines) + "\n"
    exec(compile_text(text), names)  # noqa: S102  # the text is written above, its names are ours
    batch = _batch_code(steps, names["run_rows"], outputs, fail) if in_one_go else None
    return AsyncChainCode(names["run_pending"], times, batch)


def _is_plain(step: Step) -> bool:
    return step.kind in _PLAIN and step.io.timeout_s is None and inspect.iscoroutinefunction(step.call)


def _step_lines(index: int, step: Step) -> list[str]:
    lines = [f"at = {index}"] if index else []
    if step.enter is not None:
        lines.append(f"enter{index}(k)")
    lines += [
        f"c{index}.items_in += 1",
        "if slots.timing:",
        "    start = now()",
        f"    r = await call{index}(v)",
        f"    time{index}(now() - start)",
        "else:",
        f"    r = await call{index}(v)",
    ]
    match step.kind:
        case OperatorKind.MAP:
            lines.append("v = r")
        case OperatorKind.FILTER:
            lines.append("if not r: continue")
        case OperatorKind.KEY_BY:
            lines += [f"guard{index}(r)", "k = r"]
        case OperatorKind.SINK:
            lines.append("emit_origin(o)")
    return [*lines, f"c{index}.items_out += 1"]


def _counted_together(steps: Sequence[Step]) -> int:
    """How many steps see each row: those up to the first filter."""
    filters = (index for index, step in enumerate(steps) if step.kind is OperatorKind.FILTER)
    return next(filters, len(steps) - 1) + 1


def _batch_lines(steps: Sequence[Step]) -> list[str]:
    together = _counted_together(steps)
    lines = [
        "async def run_rows(rows, emit, failed):",
        "    at = 0",
        "    while True:",
        "        try:",
        "            for v in rows:",
    ]
    for index, step in enumerate(steps):
        body = [f"at = {index}"] if len(steps) > 1 else []
        body += [f"c{index}.items_in += 1"] if index >= together else []
        if step.kind is OperatorKind.FILTER:
            body += [f"if not await call{index}(v): continue", f"c{index}.items_out += 1"]
        else:
            body += [f"v = await call{index}(v)"]
            body += [f"c{index}.items_out += 1"] if index >= together else []
        lines += [f"                {line}" for line in body]
    lines += ["                emit(v)", "            return"]
    lines += ["        except CancelledError as error: failure = cancelled_call(names[at], error)"]
    lines += ["        except Exception as error: failure = error"]
    return [*lines, "        await failed(at, failure, v)"]


def _batch_code(
    steps: Sequence[Step],
    run: Callable[..., Awaitable[None]],
    outputs: tuple[list[Any], list[Any], list[int]],
    fail: Callable[..., Awaitable[None]],
) -> BatchCode:
    together = steps[: _counted_together(steps)]
    filters = together[-1].kind is OperatorKind.FILTER
    counters = [step.counters for step in together]
    return BatchCode(run, together=counters, filters=filters, outputs=(outputs[0], outputs[2]), fail=fail)
