"""What a running task looks like from outside: for the watchdog and for live views. Costs the task
nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Iterable, Sequence
from functools import partial
from operator import length_hint
from pathlib import Path
from types import FrameType
from typing import Any

from sage.platform import Worker

from .codegen import RESULT_LINE, SOURCE_LINE, ChainCode
from .job_master import TaskView
from .process_task import ProcessTask
from .task import Activity, Task

__all__ = ["view_task"]

_RUNTIME = Path(__file__).parent


def view_task(task: Task, worker: Worker) -> TaskView:
    """Look at a task. A generated chain function keeps its row count and its line in its frame, so that a
    batch that hangs can be told from one that goes on, and an operator that hangs from a source that waits.
    """
    counters = task.counters
    queued = task.parts.inbox.occupancy if task.parts.inbox is not None else 0
    activity = task.activity
    moved = (counters.items_in, counters.items_out, counters.batches, activity)
    if task.pausing:
        doing = f"{task.pausing} item(s) waiting before a retry"
        return TaskView(moved, in_work=True, queued=queued, doing=doing, pausing=True)
    if activity not in (Activity.WORKING, Activity.SETUP):
        return TaskView(moved, in_work=False, queued=queued, doing=task.doing)
    if activity is Activity.SETUP:
        stack = task.stack if isinstance(task, ProcessTask) else partial(_stack, worker.frame())
        return TaskView(moved, in_work=True, queued=queued, doing="in setup()", stack=stack)
    if isinstance(task, ProcessTask):
        names = ", ".join(task.parts.node.chain)
        return TaskView(moved, in_work=True, queued=queued, doing=f"in {names}", stack=task.stack)
    frame = worker.frame()
    found = _chain_frame(frame, task.chain.codes)
    if found is None:
        # An event loop between two items, or a thread between two batches.
        calls = sum(operator.timed_items + operator.errors for operator in counters.operators)
        names = ", ".join(task.parts.node.chain)
        stack = partial(_stack_of_calls, task.coroutines, frame)
        return TaskView((*moved, calls), in_work=True, queued=queued, doing=f"in {names}", stack=stack)
    chain_frame, code = found
    step = code.step_of_line.get(chain_frame.f_lineno)
    if step is not None and step <= RESULT_LINE:
        step = RESULT_LINE - step
    local = chain_frame.f_locals
    # Rows begun are counted where their number is not known before; else the iterator knows how many are left.
    progress = (*moved, local.get("n_rows"), length_hint(local.get("rows", ())), chain_frame.f_lineno)
    if step == SOURCE_LINE and task.parts.source is not None:
        return TaskView(progress, in_work=False, queued=queued, doing="waiting for its source's next item")
    name = task.chain.steps[step].name if step is not None and step != SOURCE_LINE else task.parts.node.chain[0]
    return TaskView(
        progress,
        in_work=True,
        queued=queued,
        doing=f"in operator {name!r}",
        stack=partial(_stack, frame, below=chain_frame),
    )


def _chain_frame(frame: FrameType | None, codes: Iterable[ChainCode]) -> tuple[FrameType, ChainCode] | None:
    by_code = {code.code: code for code in codes}
    while frame is not None:
        code = by_code.get(frame.f_code)
        if code is not None:
            return frame, code
        frame = frame.f_back
    return None


def _stack_of_calls(coroutines: Sequence[asyncio.Task[None]], frame: FrameType | None) -> str:
    """Where a call waits, and how many others there are; the thread's own stack where none does or one computes."""
    waiting = [found for found in map(_awaiting, coroutines) if found]
    if not waiting or asyncio.current_task(coroutines[0].get_loop()) is not None:
        return _stack(frame)
    others = f"and {len(waiting) - 1} more call(s)\n" if len(waiting) > 1 else ""
    return "".join(traceback.format_list(waiting[0][-6:])) + others


def _awaiting(task: asyncio.Task[None]) -> list[traceback.FrameSummary]:
    """The frames of the user's coroutines that it waits in, outermost first; none of a task that waits for work."""
    frames: list[tuple[FrameType, int]] = []
    awaited: Any = task.get_coro()
    while awaited is not None:  # down to what is no coroutine or generator of Python: mostly a future
        if inspect.iscoroutine(awaited):
            frame, awaited = awaited.cr_frame, awaited.cr_await
        elif inspect.isgenerator(awaited):
            frame, awaited = awaited.gi_frame, awaited.gi_yieldfrom
        else:
            break
        if frame is not None:
            frames.append((frame, frame.f_lineno))
    ours = max((place for place, (frame, _) in enumerate(frames) if _is_ours(frame)), default=-1)
    return list(traceback.StackSummary.extract(iter(frames[ours + 1 :])))


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return name.startswith("<sage ") or Path(name).parent == _RUNTIME


def _stack(frame: FrameType | None, below: FrameType | None = None) -> str:
    """The frames from `below` (exclusive) inwards, at most six: where the user's code is."""
    lines = traceback.extract_stack(frame) if frame is not None else []
    if below is not None and frame is not None:
        depth, walk = 0, frame
        while walk is not below and walk.f_back is not None:
            depth, walk = depth + 1, walk.f_back
        lines = traceback.StackSummary.from_list(lines[-depth:] if depth else [])
    return "".join(traceback.format_list(lines[-6:]))
