"""Generates the Python function that runs a chain over a batch.

One loop over the rows, each operator called in place: a call from Python code to a Python function costs half
of a call through `map()` (no C frame in between), each item goes through the whole chain before the next one
is touched, and a `StopIteration` out of user code cannot end the batch, as it would in `map()`. Which
operator raised is read off the line number of the traceback, so the path without errors pays nothing for it.

Invariants of the generated function: `v` holds the input of the operator that is being called; `n_rows`
counts the rows begun; after an error the loop goes on with the next row (or the next output of the innermost
flatmap).
"""

from __future__ import annotations

import functools
import itertools
import linecache
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import length_hint
from types import CodeType
from typing import Any, NamedTuple

from sage.kernel.graph import Emit, OperatorKind
from sage.kernel.operators import BadRecord
from sage.kernel.telemetry import OperatorCounters

from .steps import FOLDS, Interrupted, Step, check_output, explode
from .together import extend_of, key_at, key_column

__all__ = [
    "COUNTED",
    "RESULT_LINE",
    "SOURCE_LINE",
    "ChainCode",
    "ChainShape",
    "StepForm",
    "compile_text",
    "generate_chain",
]

SOURCE_LINE = -1
"""Step number of the line that fetches the next row."""

RESULT_LINE = -2
"""`RESULT_LINE - i` is the number of the line that calls `result` of step `i`, whose item has been folded by then."""

COUNTED = frozenset({OperatorKind.FILTER, OperatorKind.FLATMAP, OperatorKind.BATCH})
"""Kinds whose number of outputs does not follow from the number of inputs."""

_TEXTS_MAX = 256
_filenames: deque[str] = deque()
_serial = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainShape:
    """Which columns come in and go out.

    Attributes:
        keys_in: each row brings its key.
        origins_in: each row brings its origin.
        keys_out: outputs are appended with their key.
        records: rows may be `BadRecord`s of a source.
        flush_each: each output is sent on at once, stamped with the time of its row (a source that may wait
            for its next item).
        timed: the time of each call is taken.
        counted: the number of rows is not known before; bad records do not count.
        stamped: each row is given the time as its origin where it brings none (rows that are gathered into lists).
        stops: the rows end when the job stops; the one that was fetched last is then left, and `rows` says which
            that is.
        together: the first operator has been called for all items at once. There is one row, which is its outputs, the
            keys of its items and how many outputs each of them has.
    """

    keys_in: bool = False
    origins_in: bool = False
    keys_out: bool = False
    records: bool = False
    flush_each: bool = False
    timed: bool = False
    counted: bool = True
    stops: bool = False
    stamped: bool = False
    together: bool = False

    @property
    def traces(self) -> bool:
        """Whether each row has an origin of its own."""
        return self.origins_in or self.flush_each or self.stamped


@dataclass(frozen=True, slots=True)
class ChainCode:
    """A generated function and what is needed to understand its frames.

    Attributes:
        run: `run(rows, size, out, out_keys, out_origins)` returns the number of rows that it ran; `size` is
            how many there are, where that is known.
        code: its code object, by which its frames are found on a stack.
        step_of_line: step number by line, `SOURCE_LINE` for the line that fetches a row, `RESULT_LINE` minus a step
            number for the line that calls its `result`.
        source: its text.
        counted: whether it counts its rows in `n_rows` as it goes; else that is their number from the beginning.
    """

    run: Callable[..., int]
    code: CodeType
    step_of_line: dict[int, int]
    source: str
    counted: bool


class StepForm(NamedTuple):
    """What the text of a chain depends on, of one step; replicas of an operator have the same."""

    name: str
    kind: OperatorKind
    emit: Emit
    enters: bool
    has_result: bool
    outputs_max: int
    counts: bool
    extends: bool


class _Writer:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 0
        self.step_of_line: dict[int, int] = {}

    def add(self, text: str, step: int | None = None) -> None:
        self.lines.append("    " * self.depth + text)
        if step is not None:
            self.step_of_line[len(self.lines)] = step


def generate_chain(
    steps: Sequence[Step],
    shape: ChainShape,
    *,
    fail: Callable[..., None],
    bad_record: Callable[[BadRecord], None],
    flush: Callable[[], None],
    now: Callable[[], int],
    out_limit: int,
    aborting: list[bool],
    stopping: list[bool],
    source: OperatorCounters | None,
    failures: list[int],
    account: Callable[[int, tuple[int, ...]], None],
    record_times: Callable[[tuple[list[int], ...], list[int]], None],
) -> ChainCode:
    """Generate the function of a chain.

    Args:
        steps: the operators, source excluded.
        shape: which columns come in and go out.
        fail: `fail(error, value, keys, origin)` deals with an item whose operator raised; raises
            `BaseException` to end the batch.
        bad_record: deals with a record that the source could not read.
        flush: sends on what is in the output lists and empties them in place.
        now: monotonic clock in ns.
        out_limit: outputs that may gather before `flush` is called inside a batch.
        aborting: a list that is not empty when the job is aborted; looked at before each row, so that a batch of
            items that have become slow ends soon as well.
        stopping: a list that is not empty when sources have to end; looked at instead where the shape `stops`.
        source: counters of the source in front, or None.
        failures: a list that is not empty when an operator has raised in this batch.
        account: `account(rows, passed)` counts a batch in which an operator raised; `passed` says for each
            filter and flatmap how many items it passed on.
        record_times: `record_times(times, row_times)`: for each step the times of its calls, and for each
            item that reached a sink the time since its row was begun, all in ns.
    """
    forms = tuple(
        StepForm(
            name=step.name,
            kind=step.kind,
            emit=step.emit,
            enters=step.enter is not None,
            has_result=step.result is not None,
            outputs_max=step.io.outputs_max,
            counts=step.builtin == "count",
            extends=extend_of(step) is not None,
        )
        for step in steps
    )
    text, code, step_of_line = _write_chain(forms, shape, source is not None)
    names: dict[str, Any] = {
        "BadRecord": BadRecord,
        "Interrupted": Interrupted,
        "aborting": aborting,
        "account": account,
        "bad_record": bad_record,
        "check_output": check_output,
        "explode": explode,
        "fail": fail,
        "key_at": key_at,
        "key_column": key_column,
        "failures": failures,
        "flush": flush,
        "length_hint": length_hint,
        "now": now,
        "out_limit": out_limit,
        "record_times": record_times,
        "source": source,
        "stopping": stopping,
    }
    for index, step in enumerate(steps):
        names |= {f"call{index}": step.call, f"enter{index}": step.enter, f"state{index}": step.state}
        names |= {f"create{index}": step.create, f"result{index}": step.result, f"step{index}": step}
        names |= {f"c{index}": step.counters, f"extend{index}": extend_of(step)}
        if step.gather is not None:
            names[f"gather{index}"] = step.gather.add
        if step.guard is not None:
            names |= {f"known{index}": step.guard.known, f"guard{index}": step.guard.check}
    exec(code, names)  # noqa: S102  # the text is written here, its names are ours
    run = names["chain"]
    return ChainCode(run, run.__code__, step_of_line, text, shape.counted)


@functools.lru_cache(maxsize=_TEXTS_MAX)
def _write_chain(
    forms: tuple[StepForm, ...], shape: ChainShape, has_source: bool
) -> tuple[str, CodeType, dict[int, int]]:
    """Text, code and step by line of a chain: written once, however many replicas run it."""
    writer = _Writer()
    _header(writer, forms, shape)
    _loop(writer, forms, shape, has_source)
    text = "\n".join(writer.lines) + "\n"
    return text, compile_text(text), writer.step_of_line


@functools.lru_cache(maxsize=_TEXTS_MAX)
def compile_text(text: str) -> CodeType:
    """Compile generated text once, however many replicas run it; tracebacks will show its lines."""
    filename = f"<sage chain {next(_serial)}>"
    # As many as the cache of this function holds: programs that build pipelines all day must not grow by their text.
    _filenames.append(filename)
    if len(_filenames) > _TEXTS_MAX:
        linecache.cache.pop(_filenames.popleft(), None)
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    return compile(text, filename, "exec")


def _header(writer: _Writer, steps: Sequence[StepForm], shape: ChainShape) -> None:
    writer.add("def chain(rows, size, out, out_keys, out_origins):")
    writer.depth += 1
    if not steps or steps[-1].kind is not OperatorKind.SINK:
        writer.add("emit = out.append")
    if shape.keys_out:
        writer.add("emit_key = out_keys.append")
    if shape.traces:
        writer.add("emit_origin = out_origins.append")
    keys = ["k0"] + [f"k{index + 1}" for index, step in enumerate(steps) if step.kind is OperatorKind.KEY_BY]
    writer.add(f"{' = '.join(['v', 'o', *keys])} = None")
    passed = [f"n{index}" for index, step in enumerate(steps) if step.kind in COUNTED]
    if shape.counted:
        writer.add(f"{' = '.join(['n_rows', *passed])} = 0")
    else:
        writer.add("n_rows = size")
        if passed:
            writer.add(f"{' = '.join(passed)} = 0")
    if shape.timed:
        for index in range(len(steps)):
            writer.add(f"times{index} = []; time{index} = times{index}.append")
        writer.add("row_times = []; row_time = row_times.append")


def _loop(writer: _Writer, steps: Sequence[StepForm], shape: ChainShape, has_source: bool) -> None:
    columns = ["v"] + (["k0"] if shape.keys_in else []) + (["o"] if shape.origins_in else [])
    if shape.together:
        columns = ["r", "keys", "counts"]
    writer.add("while True:")
    writer.depth += 1
    writer.add("try:")
    writer.depth += 1
    writer.add(f"for {', '.join(columns)} in rows:", SOURCE_LINE)
    writer.depth += 1
    if shape.stops:
        writer.add("if stopping:")
        writer.add("    if aborting: raise Interrupted")
        if not shape.counted:
            writer.add("    n_rows -= 1 + length_hint(rows)")
        writer.add("    break")
    else:
        writer.add("if aborting: raise Interrupted")
    if shape.records:
        writer.add("if v.__class__ is BadRecord:")
        writer.add("    bad_record(v)")
        writer.add("    continue")
    if shape.counted:
        writer.add("n_rows += 1")
    if shape.traces and not shape.origins_in:
        writer.add("o = now()")
    if shape.timed:
        writer.add("row_start = now()")
    loops = _body(writer, steps, shape)
    keys = ", ".join(["k0"] + [f"k{index + 1}" for index, step in enumerate(steps) if step.kind is OperatorKind.KEY_BY])
    finds_key = shape.together and not _asks_for_keys(steps, shape)
    for _ in range(loops):
        writer.depth -= 1
        writer.add("break")
        writer.depth -= 1
        writer.add("except Exception as error:")
        if finds_key:
            writer.add("    k0 = key_at(keys, counts, n0 - 1 - length_hint(rows0))")
        writer.add(f"    fail(error, v, ({keys},), o)")
        writer.depth -= 1
    writer.depth -= 1
    _count(writer, steps, shape, has_source)
    writer.add("return n_rows")
    writer.depth -= 1
    writer.add("except Exception as error:")
    writer.add(f"    fail(error, v, ({keys},), o)")


def _count(writer: _Writer, steps: Sequence[StepForm], shape: ChainShape, has_source: bool) -> None:
    """Counts the batch: straight-line where nothing raised."""
    if shape.timed:
        times = "".join(f"times{index}, " for index in range(len(steps)))
        writer.add(f"record_times(({times}), row_times)")
    passed = "".join(f"n{index}, " if step.kind in COUNTED else "0, " for index, step in enumerate(steps))
    writer.add("if failures:")
    writer.add(f"    account(n_rows, ({passed}))")
    writer.add("else:")
    items = "n_rows"
    lines = [f"source.items_in += {items}; source.items_out += {items}"] if has_source else []
    for index, step in enumerate(steps):
        lines.append(f"c{index}.items_in += {items}")
        if step.emit is Emit.FINAL:
            break
        if step.kind in COUNTED:
            items = f"n{index}"
        lines.append(f"c{index}.items_out += {items}")
    for line in lines or ["pass"]:
        writer.add(f"    {line}")


def _body(writer: _Writer, steps: Sequence[StepForm], shape: ChainShape) -> int:
    """Writes the operators; returns how many loops (flatmaps) are open."""
    loops, key = 0, "k0"
    for index, step in enumerate(steps):
        # A list takes the outputs of a flatmap as they are; where each has a time of its own they part.
        into = index + 1 if len(steps) == index + 2 and steps[-1].extends else 0
        into = 0 if shape.timed or shape.traces else into
        if shape.together and not index:
            loops += _open_outputs(writer, index, into, keyed=_asks_for_keys(steps, shape), checks=True)
            if into:
                return loops
            continue
        if step.enters:
            writer.add(f"enter{index}({key})")
        if shape.timed:
            writer.add("start = now()")
        match step.kind:
            case OperatorKind.MAP:
                _write_map(writer, index, shape.timed)
            case OperatorKind.FILTER:
                _write_filter(writer, index, shape.timed)
            case OperatorKind.FLATMAP:
                _write_flatmap(writer, index, step, shape.timed)
                loops += _open_outputs(writer, index, into)
                if into:
                    return loops
            case OperatorKind.BATCH:
                _write_gather(writer, index, key, shape.timed)
                loops += 1
            case OperatorKind.KEY_BY:
                key = f"k{index + 1}"
                folds = index + 1 < len(steps) and steps[index + 1].kind in FOLDS
                _write_key_by(writer, index, step, shape.timed, check=not folds)
            case OperatorKind.REDUCE | OperatorKind.AGGREGATE:
                checked_by = index - 1 if index and steps[index - 1].kind is OperatorKind.KEY_BY else None
                _write_fold(writer, index, step, key, shape.timed, checked_by)
            case OperatorKind.SINK:
                writer.add(f"{'r = ' if shape.timed else ''}call{index}(v)", index)
                _write_time(writer, index, shape.timed)
                _write_check(writer, index, shape.timed)
        if step.emit is Emit.FINAL:
            # Nothing goes further here; what is behind gets its items one by one, at the end of the stream.
            return loops
    last = steps[-1] if steps else None
    if last is not None and last.kind is OperatorKind.SINK:
        if shape.timed:
            writer.add("row_time(now() - row_start)")
        if shape.origins_in or shape.stamped:
            writer.add("emit_origin(o)")
        return loops
    writer.add("emit(v)")
    if shape.keys_out:
        writer.add(f"emit_key({key})")
    if shape.traces:
        writer.add("emit_origin(o)")
    if shape.flush_each:
        writer.add("flush()")
    elif loops:
        writer.add("if len(out) >= out_limit: flush()")
    return loops


def _write_time(writer: _Writer, index: int, timed: bool) -> None:
    if timed:
        writer.add(f"time{index}(now() - start)")


def _write_check(writer: _Writer, index: int, timed: bool) -> None:
    # The timed form looks at what comes back as well: a coroutine that nobody awaits is found in the first
    # batch.
    if timed:
        writer.add(f"check_output(step{index}.name, r)", index)


def _write_map(writer: _Writer, index: int, timed: bool) -> None:
    if not timed:
        writer.add(f"v = call{index}(v)", index)
        return
    writer.add(f"r = call{index}(v)", index)
    _write_time(writer, index, timed)
    _write_check(writer, index, timed)
    writer.add("v = r")


def _write_filter(writer: _Writer, index: int, timed: bool) -> None:
    if not timed:
        writer.add(f"if not call{index}(v): continue", index)
    else:
        writer.add(f"r = call{index}(v)", index)
        _write_time(writer, index, timed)
        _write_check(writer, index, timed)
        writer.add("if not r: continue", index)
    writer.add(f"n{index} += 1")


def _write_flatmap(writer: _Writer, index: int, step: StepForm, timed: bool) -> None:
    writer.add(f"r = call{index}(v)", index)
    _write_time(writer, index, timed)
    # A list of a size that is allowed is what it should be; everything else is looked at.
    too_many = f"len(r) > {step.outputs_max}"
    writer.add(f"if r.__class__ is not list or {too_many}: r = explode({step.name!r}, r, {step.outputs_max})", index)


def _open_outputs(writer: _Writer, index: int, into: int, *, keyed: bool = False, checks: bool = False) -> int:
    """Goes on with the outputs in `r`: gives them to the list that step `into` is, or opens a loop over them, where
    `keyed` each with its key. Returns how many loops that were.
    """
    writer.add(f"n{index} += len(r)")
    if into:
        writer.add(f"extend{into}(r)")
        return 0
    writer.add(f"rows{index} = zip(r, key_column(keys, counts))" if keyed else f"rows{index} = iter(r)")
    writer.add("while True:")
    writer.depth += 1
    writer.add("try:")
    writer.depth += 1
    writer.add(f"for v, k0 in rows{index}:" if keyed else f"for v in rows{index}:")
    writer.depth += 1
    if checks:
        writer.add("if aborting: raise Interrupted")
    return 1


def _asks_for_keys(steps: Sequence[StepForm], shape: ChainShape) -> bool:
    """Whether somebody behind the first operator looks at the keys that items came with."""
    for step in steps[1:]:
        if step.enters or step.kind in FOLDS:
            return True
        if step.kind is OperatorKind.KEY_BY:
            return False
    return shape.keys_out


def _write_gather(writer: _Writer, index: int, key: str, timed: bool) -> None:
    """Most rows only wait; with the last one of a list the outputs of all go on, each with its key and origin."""
    writer.add(f"r = gather{index}(v, {key}, o)", index)
    _write_time(writer, index, timed)
    writer.add("if r is None: continue")
    writer.add(f"n{index} += len(r)")
    writer.add(f"rows{index} = iter(r)")
    writer.add("while True:")
    writer.depth += 1
    writer.add("try:")
    writer.depth += 1
    writer.add(f"for v, {key}, o in rows{index}:")
    writer.depth += 1


def _write_key_by(writer: _Writer, index: int, step: StepForm, timed: bool, *, check: bool) -> None:
    writer.add(f"k{index + 1} = call{index}(v)", index)
    _write_time(writer, index, timed)
    if check:
        # Text and whole numbers are always good keys; to find one among many known ones costs more than its call.
        key = f"k{index + 1}"
        other = f"type({key}) is not str and type({key}) is not int"
        writer.add(f"if {other} and {key} not in known{index}: guard{index}({key})", index)


def _write_fold(writer: _Writer, index: int, step: StepForm, key: str, timed: bool, checked_by: int | None) -> None:
    """Reduce and aggregate. A key whose `key_by` is just before is checked when it first comes, so that the
    look-up of its state is the only one; an error of that check is the error of the `key_by`.
    """
    aggregates = step.kind is OperatorKind.AGGREGATE
    # Counting needs no call. Where calls are timed there is one, so that the times mean the same for all folds.
    inline = step.counts and not timed
    writer.add("try:")
    looked_up = f"    r = state{index}[{key}] + 1" if inline else f"    a = state{index}[{key}]"
    writer.add(looked_up, index if checked_by is None else checked_by)
    writer.add("except KeyError:")
    if checked_by is not None:
        writer.add(f"    guard{checked_by}({key})", checked_by)
    if inline:
        writer.add("    r = 1")
    elif aggregates:
        writer.add(f"    r = call{index}(create{index}(), v)", index)
    else:
        writer.add("    r = v")
    if not inline:
        writer.add("else:")
        writer.add(f"    r = call{index}(a, v)", index)
    _write_check(writer, index, timed)
    if step.emit is Emit.FINAL:
        writer.add(f"state{index}[{key}] = r")
    elif not aggregates:
        writer.add(f"state{index}[{key}] = v = r")
    elif not step.has_result:
        writer.add(f"state{index}[{key}] = r; v = ({key}, r)")
    else:
        # The state comes first: whatever happens to the result, the item has been folded.
        writer.add(f"state{index}[{key}] = r")
        writer.add(f"u = result{index}(r)", RESULT_LINE - index)
        writer.add(f"v = ({key}, u)")
    _write_time(writer, index, timed)
