"""Generates the function that runs one item through a chain of maps.

A batch of one costs a loop, an iterator and an output list beside the operators. Where items come one at a time that
is a fifth of a hop, so they get a form of their own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any

from sage.kernel.graph import OperatorKind

from .codegen import ChainCode, compile_text
from .steps import Step

__all__ = ["NO_OUTPUT", "generate_lone"]

NO_OUTPUT = object()
"""What the function gives when the operator raised; what follows from that, if anything, is among the outputs."""


def generate_lone(
    steps: Sequence[Step],
    *,
    fail: Callable[..., None],
    account: Callable[[int, tuple[int, ...]], None],
) -> ChainCode | None:
    """`run(value)` gives the output; None where the chain is more than maps that see no key.

    Args:
        steps: the operators.
        fail: `fail(error, value, keys, origin)` deals with an item whose operator raised.
        account: `account(rows, passed)` counts a batch in which an operator raised.
    """
    if not steps or any(step.kind is not OperatorKind.MAP or step.enter is not None for step in steps):
        return None
    names: dict[str, Any] = {"account": account, "fail": fail, "NO_OUTPUT": NO_OUTPUT}
    for index, step in enumerate(steps):
        names |= {f"call{index}": step.call, f"c{index}": step.counters}
    text, code, step_of_line = _write(len(steps))
    exec(code, names)  # noqa: S102  # the text is written here, its names are ours
    run = names["lone"]
    return ChainCode(run, run.__code__, step_of_line, text, counted=True)


@functools.lru_cache(maxsize=64)
def _write(steps: int) -> tuple[str, CodeType, dict[int, int]]:
    # `n_rows` and `rows` are what the watchdog and a failing job read off the frame of a batch.
    lines = ["def lone(v):", "    n_rows = 1; rows = ()", "    try:"]
    step_of_line: dict[int, int] = {}
    for index in range(steps):
        lines.append(f"        v = call{index}(v)")
        step_of_line[len(lines)] = index
    lines += ["    except Exception as error:", "        fail(error, v, (None,), None)"]
    lines += [f"        account(1, {(0,) * steps})", "        return NO_OUTPUT"]
    lines += [f"    c{index}.items_in += 1; c{index}.items_out += 1" for index in range(steps)]
    lines += ["    return v"]
    text = "\n".join(lines) + "\n"
    return text, compile_text(text), step_of_line
