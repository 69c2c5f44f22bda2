"""A chain of fused operators: runs batches by generated code and deals with what goes wrong, item by item.

Accounting rule: each item that enters an operator leaves it in exactly one way: passed on (one or more
outputs), dropped (filter, flatmap without outputs, folded into state), taken (sink), set aside (dead letter),
or the job fails.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import length_hint
from types import TracebackType
from typing import Any

from sage.kernel.graph import Emit, OnError, OperatorError, OperatorKind
from sage.kernel.operators import BadRecord, SinkFunction
from sage.kernel.operators.specs import Together
from sage.kernel.telemetry import OperatorCounters

from .codegen import COUNTED, RESULT_LINE, SOURCE_LINE, ChainCode, ChainShape, generate_chain
from .failure import line_of, preview
from .gather import ListCallError
from .list_work import ListWork
from .lone import generate_lone
from .places import DatedState
from .set_aside import DeadLetterSink, SetAside
from .steps import Interrupted, KeyGuard, ResultError, Step, StepFailed, UnawaitedError, cancelled_call

__all__ = ["Chain", "DeadLetterSink", "Outputs", "SetAside"]


class Outputs:
    """The output lists of a chain: parallel columns, emptied in place when they are sent on."""

    __slots__ = ("keys", "origins", "values")

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.keys: list[Hashable] = []
        self.origins: list[int] = []

    def clear(self) -> None:
        """Forget everything."""
        self.values.clear()
        self.keys.clear()
        self.origins.clear()


class Chain(ListWork):
    """The operators of one replica, source excluded.

    Args:
        steps: the operators in order; may be empty (a source alone).
        source: counters of the source in front, or None.
        shape: which columns come in and go out.
        dead_letters: where items are set aside.
        flush: sends on what is in `outputs` and empties it.
        pause: waits that many seconds before a retry; raises `Interrupted` when the job is aborted meanwhile.
        now: monotonic clock in ns.
        out_limit: outputs that may gather inside a batch.
        aborting: a list that is not empty when the job is aborted.
        stopping: a list that is not empty when the source in front has to end.
        seed: of the jitter of retries.

    Attributes:
        outputs: what the chain has put out and nobody has sent on yet.
        bad_records: records of the source that were set aside.
        rows_failed: rows that had been begun in the batch in which the job failed.
        times_ns_sum: time in operators in the last timed batch.
        row_times_ns: in the last timed batch, time from the beginning of a row to the end of its sink, per
            item.
        checks_all: an operator gave what only the timed form of the code finds: each batch must be timed.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        source: OperatorCounters | None,
        shape: ChainShape,
        dead_letters: DeadLetterSink,
        flush: Callable[[], None],
        pause: Callable[[float], None],
        now: Callable[[], int],
        replica_index: int = 0,
        out_limit: int = 1024,
        aborting: list[bool] | None = None,
        stopping: list[bool] | None = None,
        seed: int = 0,
    ) -> None:
        self.steps = tuple(steps)
        self._dated = tuple(step.state for step in self.steps if isinstance(step.state, DatedState))
        self.outputs = Outputs()
        self.bad_records = 0
        self.rows_failed = 0
        self.checks_all = False
        self.shape = shape
        self._source = source
        self._dead_letters = dead_letters
        self._flush = flush
        self._pause = pause
        self._now = now
        self._replica_index = replica_index
        self._out_limit = out_limit
        self._aborting = [] if aborting is None else aborting
        self._stopping = [] if stopping is None else stopping
        self._random = random.Random(seed)
        self._failures: list[int] = []
        self._flush_each = False
        self.times_ns_sum = 0
        self.row_times_ns: list[int] = []
        self._codes: dict[tuple[bool, ...] | str, ChainCode] = {}
        self._key_of_step = self._key_positions()

    def _key_positions(self) -> list[int]:
        """For each step, the position in the tuple of keys of the key that it works under."""
        positions, current = [], 0
        for step in self.steps:
            positions.append(current)
            if step.kind is OperatorKind.KEY_BY:
                current += 1
        return positions

    def code(
        self,
        *,
        timed: bool,
        origins_in: bool,
        counted: bool = False,
        flush_each: bool = False,
        stops: bool = False,
        together: bool = False,
    ) -> ChainCode:
        """The generated function for one form of input."""
        form = (timed, origins_in, counted, flush_each, stops, together)
        self._flush_each = flush_each
        found = self._codes.get(form)
        if found is None:
            found = self._codes[form] = generate_chain(
                self.steps,
                replace(
                    self.shape,
                    timed=timed,
                    origins_in=origins_in,
                    counted=counted or self.shape.records,
                    flush_each=flush_each,
                    stops=stops,
                    together=together,
                ),
                fail=self._fail,
                bad_record=self.set_aside_record,
                flush=self._flush,
                now=self._now,
                out_limit=self._out_limit,
                aborting=self._aborting,
                stopping=self._stopping,
                source=self._source,
                failures=self._failures,
                account=self._account,
                record_times=self._record_times,
            )
        return found

    @property
    def together(self) -> Together | None:
        """What calls the first operator for many items at once; None where it can only be called item by item."""
        if not self.steps or self.shape.stamped or self._dated:
            return None
        return self.steps[0].together

    def lone_code(self) -> Callable[[Any], Any] | None:
        """The generated function for one item without key, see `lone`; None where the chain is more than maps."""
        code = generate_lone(self.steps, fail=self._fail, account=self._account)
        if code is None or self._source is not None:
            return None
        self._codes["lone"] = code
        return code.run

    @property
    def codes(self) -> Iterable[ChainCode]:
        """All functions generated so far, to recognise their frames on a stack."""
        return tuple(self._codes.values())

    def run_batch(self, rows: Iterator[Any], size: int, code: ChainCode) -> int:
        """Run all rows and return how many that were; outputs gather in `outputs`. Counts items of all
        operators.

        Args:
            rows: the rows, of the form that `code` is for.
            size: how many there are; ignored where the code counts them.
            code: what `code()` returned.

        Raises:
            StepFailed: an operator raised and its contract says that the job fails.
            Interrupted: the job is being aborted.
        """
        outputs = self.outputs
        if self._dated:
            rows = self._dating(rows)
        return code.run(rows, size, outputs.values, outputs.keys, outputs.origins)

    def _dating(self, rows: Iterator[Any]) -> Iterator[Any]:
        """The rows, each known to the folds that note where their keys first came; its origin stands last."""
        for row in rows:
            for state in self._dated:
                state.stamp = row[-1]
            yield row

    def _account(self, rows: int, passed: tuple[int, ...]) -> None:
        """Count a batch in which an operator raised; generated code counts the others itself."""
        items = rows
        if self._source is not None:
            self._source.items_in += items
            self._source.items_out += items
        for index, step in enumerate(self.steps):
            step.counters.items_in += items
            items = passed[index] if step.kind in COUNTED else items - self._failures.count(index)
            if step.emit is Emit.FINAL:
                break
            step.counters.items_out += items
        self._failures.clear()

    def _record_times(self, times: tuple[list[int], ...], row_times: list[int]) -> None:
        self.times_ns_sum = 0
        self.row_times_ns = row_times
        for step, taken in zip(self.steps, times, strict=True):
            if taken:
                total = sum(taken)
                self.times_ns_sum += total
                step.counters.timed_ns += total
                step.counters.timed_items += len(taken)
                step.counters.service_ns.add_many(taken)

    def _fail(self, error: Exception, value: Any, keys: tuple[Hashable, ...], origin: int | None) -> None:
        """Called from generated code: an operator raised for `value`."""
        trace = error.__traceback__
        assert trace is not None
        code = next(code for code in self._codes.values() if code.code is trace.tb_frame.f_code)
        try:
            self._fail_at(code.step_of_line[trace.tb_lineno], trace, error, value, keys, origin)
        except StepFailed:
            self._account_failed(trace.tb_frame.f_locals, code)
            raise

    def count_left(self, left: BaseException, code: ChainCode) -> int:
        """Count a batch that was left because the job is being aborted; the rows that had been begun."""
        trace = left.__traceback__
        while trace is not None and trace.tb_frame.f_code is not code.code:
            trace = trace.tb_next
        if trace is None:
            return 0
        self._account_failed(trace.tb_frame.f_locals, code)
        return self.rows_failed

    def _account_failed(self, local: Mapping[str, Any], code: ChainCode) -> None:
        """Count the batch in which the job fails, which generated code cannot do any more."""
        rows = local["n_rows"] if code.counted else local["n_rows"] - length_hint(local["rows"])
        self.rows_failed = rows
        self._account(rows, tuple(local.get(f"n{index}", 0) for index in range(len(self.steps))))

    def _fail_at(
        self,
        index: int,
        trace: TracebackType,
        error: Exception,
        value: Any,
        keys: tuple[Hashable, ...],
        origin: int | None,
    ) -> None:
        if index == SOURCE_LINE:
            raise StepFailed("the source raised", error) from error
        folded = index <= RESULT_LINE
        if folded:
            index = RESULT_LINE - index
        self._failures.append(index)
        if isinstance(error, UnawaitedError):
            self.checks_all = True
        step = self.steps[index]
        if step.kind is OperatorKind.KEY_BY and isinstance(error, TypeError) and trace.tb_next is None:
            error = _unhashable(step.guard, keys[self._key_of_step[index] + 1]) or error
        if isinstance(error, ListCallError):
            self.work_off(index, error.gathered, error.error)
            return
        self.process(index, value, keys[self._key_of_step[index]], origin, error, folded=folded)

    def process(
        self,
        index: int,
        value: Any,
        key: Hashable,
        origin: int | None,
        error: Exception | None = None,
        *,
        fresh: bool = False,
        folded: bool = False,
    ) -> None:
        """Run one item from step `index` on, step by step, with retries.

        Args:
            index: step to begin at.
            value: its input.
            key: the input's key.
            origin: when the item came into being, None where that is not tracked per item.
            error: what the first attempt raised, None to begin with a first attempt.
            fresh: the item has not been counted at step `index` yet.
            folded: step `index` is an aggregate that has folded the item, and whose `result` raised.
        """
        for state in self._dated:
            state.stamp = origin
        while index < len(self.steps):
            if self.steps[index].gather is not None:
                assert origin is not None
                self.gather(index, value, key, origin)
                return
            outputs = self._attempt(index, value, key, origin, error, fresh=fresh, folded=folded)
            # One output, as of a map, goes on in this loop: a chain may be longer than the stack is deep.
            if len(outputs) != 1:
                for out_value, out_key in outputs:
                    self.process(index + 1, out_value, out_key, origin, fresh=True)
                return
            ((value, key),) = outputs
            index, error, fresh, folded = index + 1, None, True, False
        self._emit(value, key, origin)

    def _attempt(
        self,
        index: int,
        value: Any,
        key: Hashable,
        origin: int | None,
        error: Exception | None,
        *,
        fresh: bool,
        folded: bool,
    ) -> list[tuple[Any, Hashable]]:
        """Call one operator for one item, with retries; its outputs, none when the item has been set aside."""
        step = self.steps[index]
        counters = step.counters
        if fresh:
            counters.items_in += 1
        attempts = 0 if error is None else 1
        while True:
            if error is None:
                attempts += 1
                try:
                    outputs = step.result_again(key) if folded else step.apply(value, key)
                    break
                except ResultError as raised:
                    error, folded = raised.error, True
                except Exception as raised:  # the boundary to user code: it is the item's error
                    error = raised
            pause = self._next_pause(step, value, key, attempts, error, sided=step.sided)
            if pause is None:
                return []
            self._pause(pause)
            error = None
        counters.items_out += 1 if step.kind is OperatorKind.SINK else len(outputs)
        if step.kind is OperatorKind.SINK and origin is not None:
            self.outputs.origins.append(origin)
        return outputs

    async def process_async(
        self,
        value: Any,
        key: Hashable,
        origin: int,
        *,
        pause: Callable[[float], Awaitable[None]],
        call: Callable[[Step, Any, Hashable], Awaitable[list[tuple[Any, Hashable]]]],
        index: int = 0,
        error: Exception | None = None,
    ) -> None:
        """`process` for a chain of `async` operators; `call` makes one attempt at one step. With an `error`
        the first attempt at step `index` has been made and counted already.
        """
        if index == len(self.steps):
            self._emit(value, key, origin)
            return
        step = self.steps[index]
        counters = step.counters
        counters.items_in += error is None
        attempts, folded = 0, False
        while True:
            attempts += 1
            if error is None:
                try:
                    outputs = step.result_again(key) if folded else await call(step, value, key)
                    break
                except ResultError as raised:
                    error, folded = raised.error, True
                except asyncio.CancelledError as cancelled:
                    error = cancelled_call(step.name, cancelled)
                except Exception as raised:  # the boundary to user code: it is the item's error
                    error = raised
            wait = self._next_pause(step, value, key, attempts, error, sided=step.sided)
            if wait is None:
                return
            await pause(wait)
            error = None
        counters.items_out += 1 if step.kind is OperatorKind.SINK else len(outputs)
        if step.kind is OperatorKind.SINK:
            self.outputs.origins.append(origin)
        if isinstance(step.state, DatedState):
            step.state.note(key, origin)
        for out_value, out_key in outputs:
            await self.process_async(out_value, out_key, origin, pause=pause, call=call, index=index + 1)

    def _next_pause(
        self, step: Step, value: Any, key: Hashable, attempts: int, error: Exception, *, sided: bool = False
    ) -> float | None:
        """Count the error; seconds to the next attempt, or None when the item has been set aside."""
        side, value = value if sided else (None, value)
        counters = step.counters
        counters.errors += 1
        policy = step.io.errors
        if attempts <= policy.retries:
            counters.retries += 1
            return policy.pause_before(attempts, self._random.random())
        if policy.on_error is OnError.FAIL:
            raise StepFailed(
                f"operator {step.name!r} raised for the item {preview(value)} after {attempts} attempt(s)",
                error,
            )
        keyed = self.shape.keys_in or self._key_of_step[self.steps.index(step)] > 0
        self._set_aside(
            counters,
            SetAside(
                operator=step.name,
                replica_index=self._replica_index,
                item=value,
                key=key if keyed else None,
                keyed=keyed,
                attempts=attempts,
                error=error,
                side=side,
            ),
        )
        return None

    def item_failed(self, step: Step, value: Any, key: Hashable, attempts: int, error: Exception) -> float | None:
        """For tasks that call an operator themselves: count the error; seconds to the next attempt, or None when the
        item has been set aside.

        Raises:
            StepFailed: the contract says that the job fails.
        """
        return self._next_pause(step, value, key, attempts, error)

    def set_aside_record(self, record: BadRecord) -> None:
        """A record that the source could not read becomes a dead letter of the source."""
        source = self._source
        assert source is not None
        source.errors += 1
        self.bad_records += 1
        letter = SetAside(
            operator=source.name,
            replica_index=self._replica_index,
            item=record.item,
            key=None,
            keyed=False,
            attempts=1,
            error=record.error,
        )
        self._set_aside(source, letter)

    def _set_aside(self, counters: OperatorCounters, letter: SetAside) -> None:
        try:
            self._dead_letters.add(letter)
        except Exception as error:  # a store may fail in many ways; an item that cannot be kept must stop the job
            raise StepFailed(
                f"an item of operator {letter.operator!r} could not be processed ({line_of(letter.error)}) "
                f"and its dead letter could not "
                f"be stored: the job stops so that nothing is lost silently. The item: "
                f"{preview(letter.item)}",
                error,
            ) from letter.error
        counters.dead_letters += 1

    def _emit(self, value: Any, key: Hashable, origin: int | None) -> None:
        if self.steps and self.steps[-1].kind is OperatorKind.SINK:
            return
        outputs = self.outputs
        outputs.values.append(value)
        if self.shape.keys_out:
            outputs.keys.append(key)
        if origin is not None:
            outputs.origins.append(origin)
        if self._flush_each or len(outputs.values) >= self._out_limit:
            self._flush()

    def input_ended(self, side: int) -> None:
        """One of the streams of the first operator has ended: pass on what waited for it."""
        step = self.steps[0]
        assert step.ended is not None
        origin = self._now() if self.shape.stamped else None
        for value in step.ended(side):
            step.counters.items_out += 1
            self.process(1, value, None, origin, fresh=True)
        self._flush()

    def finish(self, flush: Callable[[], None]) -> None:
        """The stream has ended: emit what operators have kept for the end, and tell the sink.

        Raises:
            OperatorError: `finish` of the sink raised.
            Interrupted: the job is aborted: its stream has not come to its end.
        """
        if self._aborting:
            raise Interrupted
        for index, step in enumerate(self.steps):
            while step.gather is not None and (gathered := step.gather.take()) is not None:
                self.work_off(index, gathered)
                if len(self.outputs.values) >= self._out_limit:
                    flush()
            for emitted, (kept_key, accumulator) in enumerate(step.kept()):
                origin = self._end_origin(step, kept_key)
                for value, key in self._final_outputs(step, kept_key, accumulator):
                    step.counters.items_out += 1
                    self.process(index + 1, value, key, origin, fresh=True)
                if emitted % self._out_limit == self._out_limit - 1:
                    flush()
        flush()
        self._finish_sink()

    def _finish_sink(self) -> None:
        function = self.steps[-1].function if self.steps else None
        if not isinstance(function, SinkFunction):
            return
        try:
            function.finish()
        except Exception as error:  # the boundary to user code
            name = self.steps[-1].name
            raise OperatorError(f"finish of operator {name!r} failed: {type(error).__name__}: {error}") from error

    async def finish_async(
        self,
        *,
        pause: Callable[[float], Awaitable[None]],
        call: Callable[[Step, Any, Hashable], Awaitable[list[tuple[Any, Hashable]]]],
        flush: Callable[[], Awaitable[None]],
        now: Callable[[], int],
    ) -> None:
        """`finish` for a chain of `async` operators."""
        for index, step in enumerate(self.steps):
            for kept_key, accumulator in list(step.kept()):
                for value, key in self._final_outputs(step, kept_key, accumulator):
                    step.counters.items_out += 1
                    origin = self._end_origin(step, kept_key) or now()
                    await self.process_async(value, key, origin, pause=pause, call=call, index=index + 1)
                if len(self.outputs.values) >= self._out_limit:
                    await flush()
        await flush()
        self._finish_sink()

    def _end_origin(self, step: Step, key: Hashable) -> int | None:
        """The origin of what is emitted for `key` at the end of the stream; None where nobody asks for one."""
        if isinstance(step.state, DatedState):
            return step.state.end_stamp(key, self._now())
        return self._now() if self.shape.stamped else None

    def _final_outputs(self, step: Step, key: Hashable, accumulator: Any) -> list[tuple[Any, Hashable]]:
        """What is emitted for a key; nothing where it cannot be computed and the accumulator was set
        aside.
        """
        attempts = 0
        while True:
            attempts += 1
            try:
                return [step.final_output(key, accumulator)]
            except Exception as raised:  # the boundary to user code: it is the accumulator's error
                pause = self._next_pause(step, accumulator, key, attempts, raised)
            if pause is None:
                return []
            self._pause(pause)


def _unhashable(guard: KeyGuard | None, key: Any) -> Exception | None:
    assert guard is not None
    try:
        guard.check(key)
    except Exception as error:  # returned, to stand in the place of the bare TypeError
        return error
    return None
