"""What runs in the process of a task: the chain, over the rows that the task sends (see `process_protocol`)."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sage.common.quantiles import QuantileSketch
from sage.common.serialization import explain_unpicklable
from sage.kernel.graph import OnError, OperatorError, OperatorKind
from sage.kernel.operators import Function, OperatorContext
from sage.kernel.operators.context import ServiceCalls
from sage.kernel.operators.process_code import ProcessOrder
from sage.kernel.telemetry import ReplicaCounters
from sage.platform.errors import LinkClosedError
from sage.platform.process_links import Link, UnreadableMessageError

from . import process_protocol as say
from .chain import Chain, SetAside
from .codegen import COUNTED as COUNTED_KINDS
from .codegen import ChainShape
from .process_protocol import Letter, Report, keeps_state
from .process_rows import kept_outputs, rows_of, undone
from .remote_errors import TransportError, portable_error
from .steps import Step, StepFailed
from .task import BatchLimit, Task
from .task_factory import create_operator

__all__ = ["ProcessWorker"]

_REPORT_TIMES_NS = 400_000_000
_TEXT_MAX = 4096


class _Letters:
    """Takes the dead letters of the chain; they leave with the next answer.

    Attributes:
        outputs: of the chain.
        places: for each letter since the last answer, how many outputs there were before it.
    """

    def __init__(self, names: Sequence[str], first: int) -> None:
        self._names = list(names)
        self._first = first
        self.waiting: list[Letter] = []
        self.outputs: Sequence[Any] = ()
        self.places: list[int] = []

    def add(self, letter: SetAside) -> None:
        self.places.append(len(self.outputs))
        item, travels = letter.item, True
        try:
            pickle.dumps(item, 5)
        except Exception:  # an item may be anything; its text goes instead
            item, travels = _text(item), False
        self.waiting.append(
            Letter(
                self._first + self._names.index(letter.operator),
                item,
                travels,
                letter.key,
                letter.keyed,
                letter.attempts,
                portable_error(letter.error),
                letter.side,
            )
        )


class ProcessWorker:
    """One chain in one process.

    Args:
        link: to the task.
        rows: where rows come from and answers go: the same, but in a line of processes.
        order: what there is to do.
        services: what its operators may call.
    """

    OUT_LIMIT = Task.OUT_LIMIT

    def __init__(self, link: Link, rows: Link, order: ProcessOrder, services: ServiceCalls) -> None:
        self._link = link
        self._rows = rows
        self._services = services
        self._order = order
        self._now: Callable[[], int] = time.monotonic_ns
        node = order.node
        self._counters = ReplicaCounters(node.chain)
        self._operators = self._counters.operators
        self._letters = _Letters(node.chain, order.first)
        self._functions: list[tuple[int, Function, OperatorContext]] = []
        self._steps: list[Step] = []
        self._set_up: list[tuple[str, Function]] = []
        self._batches = self._item_ns = self._errors = 0
        self._full = False
        self._pausing = False
        self._counted: dict[int, dict[str, float]] = {}
        self._keeps_state = False
        self._starts: list[int] = []
        self._inputs: Sequence[Any] = ()
        self._input_keys: Sequence[Hashable] | None = None
        self._times_sent_ns = 0
        self._limit = BatchLimit(maximum=Task.OUT_LIMIT, target_ns=say.BATCH_NS)

    # -- set-up and tear-down

    def prepare(self) -> None:
        """Make the operators and set them up."""
        node = self._order.node
        operators = self._order.code.unpack()
        for position, operator in enumerate(operators):
            made = create_operator(operator, node, self._operators[position], self._order.job, services=self._services)
            assert isinstance(made, Step)
            self._steps.append(made)
            if made.function is not None:
                self._functions.append((position, made.function, made.context))
        self._exploding = next(
            (index for index, step in enumerate(self._steps) if step.kind is OperatorKind.FLATMAP), len(self._steps)
        )
        self._keeps_state = any(map(keeps_state, operators))
        self._make_chains(self._steps)
        for position, function, context in self._functions:
            name = node.chain[position]
            try:
                function.attach(context)
                function.setup()
            except Exception as error:  # the boundary to user code
                raise OperatorError(f"setup of operator {name!r} failed: {type(error).__name__}: {error}") from error
            self._set_up.append((name, function))

    def _make_chains(self, steps: Sequence[Step]) -> None:
        """The chain that runs many rows, of these steps, and the one for a row alone, of all."""
        kinds = {step.kind for step in steps}
        # Where each row leaves each operator once, the counts follow from the number of rows.
        self._derivable = not kinds & COUNTED_KINDS and not any(step.emit.value == "final" for step in steps)
        self._starts_noted = bool(kinds & COUNTED_KINDS)
        self._may_be_plain = self._derivable and not self._starts_noted
        self._chain = self._make_chain(steps)
        self._single_chain = self._make_chain([self._traced(index, step) for index, step in enumerate(self._steps)])
        self._single_chain.outputs = self._chain.outputs
        self._letters.outputs = self._chain.outputs.values
        self._plain_run = self._chain.code(timed=False, origins_in=False).run

    def _make_chain(self, steps: Sequence[Step]) -> Chain:
        return Chain(
            steps,
            source=None,
            shape=ChainShape(keys_in=self._order.keys_in, keys_out=self._order.keys_out),
            dead_letters=self._letters,
            flush=self._note_full,
            pause=self._pause,
            now=self._now,
            replica_index=self._order.node.replica_index,
            out_limit=self.OUT_LIMIT,
            seed=self._order.node.replica_index,
        )

    def _traced(self, index: int, step: Step) -> Step:
        """The step, of which the task is told before each call."""
        call = step.call

        def traced(value: Any) -> Any:
            self._tell_entering(index, step, value)
            return call(value)

        return replace(step, call=traced)

    def _tell_entering(self, index: int, step: Step, value: Any) -> None:
        index += self._order.first
        key = step.context.key if step.enter is not None else None
        try:
            self._link.send((say.ENTERING, index, (value, True), key))
        except LinkClosedError:
            raise
        except Exception:  # whatever pickling raises
            self._link.send((say.ENTERING, index, (None, False), key))

    @property
    def facts(self) -> tuple[bool, int]:
        """What `READY` tells."""
        tears_down = any(type(function).teardown is not Function.teardown for _, function, _ in self._functions)
        return tears_down, self._exploding

    def tear_down(self) -> BaseException | None:
        """Tear down what was set up, last first; the first error."""
        failed: BaseException | None = None
        while self._set_up:
            name, function = self._set_up.pop()
            try:
                function.teardown()
            except BaseException as error:  # also a SystemExit must not keep the others from being torn down
                failed = OperatorError(f"teardown of operator {name!r} failed: {type(error).__name__}: {error}")
                failed.__cause__ = error
        for _, function, _ in self._functions:
            function.detach()
        return failed

    # -- the loop

    def serve(self) -> None:
        """Work until the task says that it is over."""
        link = self._rows
        receive = link.receive
        while True:
            try:
                message = receive()
            except UnreadableMessageError as error:
                link.send((say.REFUSED, str(error)))
                self.skip_until(say.ECHO)
                continue
            what = message[0]
            if what == say.BATCH:
                _, values, keys, origins = message
                if keys is not None or origins.__class__ is not int or not self._run_plain(values, len(values)):
                    self._work(values, keys, origins)
            elif what == say.SINGLE:
                self._work_single(message[1], message[2], message[3])
            elif what == say.ECHO:
                link.send(message)
            elif what == say.FINISH:
                self._chain.finish(self._flush_final)
                link.send((say.FINISHED, [self.report()]))
            else:
                return

    def skip_until(self, wanted: int) -> None:
        """Throw away what the task had sent before it knew."""
        while True:
            try:
                if self._rows.receive()[0] == wanted:
                    return
            except UnreadableMessageError:
                continue

    def _work(self, values: list[Any], keys: list[Hashable] | None, origins: int | list[int]) -> None:
        size = len(values)
        position = 0
        while position < size:
            count = size - position
            limit = self._limit.items
            if count > limit:
                count = limit
            timed = self._item_ns >= Task.TIMED_ALWAYS_NS or self._chain.checks_all
            if not timed and not self._batches % Task.TIMED_EVERY:
                timed, count = True, min(count, Task.TIMED_ITEMS)
            self._batches += 1
            if count == size:
                # It may end before, where its rows have many outputs.
                position = self._run(values, keys, origins, timed)
                continue
            stop = position + count
            position += self._run(
                values[position:stop],
                keys if keys is None else keys[position:stop],
                origins if isinstance(origins, int) else origins[position:stop],
                timed,
            )

    def _run_plain(self, values: list[Any], size: int) -> bool:
        """The short way from rows to their answer, where nothing is to be noted on the way; whether that was so. Of a
        few rows of quick operators the long one is most of the work.

        Args:
            values: the rows; they have no keys, and one origin.
            size: how many.
        """
        counter = self._batches
        if (
            not self._may_be_plain
            or not counter % Task.TIMED_EVERY
            or self._item_ns >= Task.TIMED_ALWAYS_NS
            or size > self._limit.items
            or self._chain.checks_all
        ):
            return False
        self._batches = counter + 1
        self._inputs, self._input_keys = values, None
        outputs = self._chain.outputs
        start = self._now()
        self._plain_run(iter(values), size, outputs.values, outputs.keys, outputs.origins)
        busy = self._now() - start
        self._item_ns = busy // size
        limit = self._limit
        if size >= limit.items or busy > limit.target_ns:
            limit.update(size, busy)
        self._answer(size, busy)
        return True

    def _run(self, values: list[Any], keys: list[Hashable] | None, origins: int | list[int], timed: bool) -> int:
        """Run rows, or the first of them where they have too many outputs, and answer for them; how many."""
        size, chain, outputs = len(values), self._chain, self._chain.outputs
        many = origins.__class__ is not int
        self._inputs, self._input_keys = values, keys
        start = self._now()
        if keys is None and not many and not timed and not self._starts_noted:
            self._plain_run(iter(values), size, outputs.values, outputs.keys, outputs.origins)
        else:
            columns: list[Sequence[Any]] = [values]
            if keys is not None:
                columns.append(keys)
            if not isinstance(origins, int):
                columns.append(origins)
            rows: Iterator[Any] = iter(zip(*columns, strict=True) if len(columns) > 1 else values)
            self._full = False
            rows = self._noting_starts(rows) if self._starts_noted else rows
            size = chain.run_batch(rows, 0, chain.code(timed=timed, origins_in=many, counted=True))
        busy = self._now() - start
        self._item_ns = busy // size
        limit = self._limit
        if size >= limit.items or busy > limit.target_ns:
            limit.update(size, busy)
        self._answer(size, busy)
        return size

    def _noting_starts(self, rows: Iterator[Any]) -> Iterator[Any]:
        """The rows, until there are too many outputs."""
        self._starts.clear()
        outputs, note = self._chain.outputs.values, self._starts.append
        for row in rows:
            note(len(outputs))
            yield row
            if self._full:
                return

    def _note_full(self) -> None:
        # Outputs leave at the end of a row: if the process dies, it is for rows that have given all or nothing.
        self._full = True

    def _work_single(self, value: Any, key: Hashable, origin: int | None) -> None:
        self._inputs, self._input_keys = [value], [key] if self._order.keys_in else None
        self._starts[:] = [0]
        start = self._now()
        self._run_single(value, key, origin)
        self._answer(1, self._now() - start, special=True, alone=True)

    def _run_single(self, value: Any, key: Hashable, origin: int | None) -> None:
        self._single_chain.process(0, value, key, origin, fresh=True)

    # -- answers

    def _answer(self, rows: int, busy: int, *, special: bool = False, alone: bool = False) -> None:
        outputs, errors = self._chain.outputs, 0
        for operator in self._operators:
            errors += operator.errors
        # The first batches of a task, and then each after a sample of times, tell more than rows and outputs.
        news = self._batches % Task.TIMED_EVERY == 1 and self._times_due()
        if self._functions:
            news |= self._has_news()
        if special or news or errors != self._errors or not self._derivable:
            self._errors = errors
            self._answer_counted(rows, busy, alone=alone)
            return
        try:
            self._rows.send((say.DONE, rows, busy, outputs.values, outputs.keys or None, outputs.origins or None))
        except LinkClosedError:
            raise
        except Exception:  # whatever pickling raises
            self._answer_counted(rows, busy)
            return
        outputs.clear()

    def _times_due(self) -> bool:
        return self._operators[0].timed_items > 0 and self._now() - self._times_sent_ns > _REPORT_TIMES_NS

    def _has_news(self) -> bool:
        """Whether an operator has counted something itself, or begun to keep state."""
        news = False
        for position, _, context in self._functions:
            # A thread of the operator's own may be counting.
            counters = context.metrics.snapshot()
            if counters and self._counted.get(position) != counters:
                self._counted[position] = counters
                news = True
            if not self._keeps_state and context.get_keyed_state():
                self._keeps_state = news = True
        return news

    def _answer_counted(self, rows: int, busy: int, *, alone: bool = False) -> None:
        outputs = self._chain.outputs
        self._has_news()
        what = say.ALONE if alone and not self._order.is_alone else say.COUNTED
        starts = self._row_starts(rows)
        try:
            self._send_counted(what, rows, busy, starts)
        except LinkClosedError:
            raise
        except Exception:  # whatever pickling raises: find the outputs that cannot travel
            starts = self._set_aside_outputs(rows, starts)
            self._send_counted(what, rows, busy, starts)
        outputs.clear()
        self._letters.places.clear()

    def _row_starts(self, rows: int) -> list[int] | None:
        """For each row how many outputs there were before it, None where each has exactly one."""
        places = self._letters.places
        if not rows or (not self._starts_noted and not places):
            return None
        if self._starts_noted:
            return self._starts[:rows]
        # Each row has gone through or has become a letter.
        starts, before, letters = [], 0, iter(places)
        place = next(letters, -1)
        for _ in range(rows):
            starts.append(before)
            if place == before:
                place = next(letters, -1)
            else:
                before += 1
        return starts

    def _send_counted(self, what: int, rows: int, busy: int, starts: list[int] | None) -> None:
        waiting = self._letters.waiting
        report = self.report(times=self._times_due())
        if what == say.ALONE and self._order.last < self._order.size:
            # Before it goes, so that the task knows of it whatever the next process does with it.
            self._link.send((say.LEFT, self._order.last))
        try:
            self._rows.send(self._counted_answer(what, rows, busy, report, starts))
        except BaseException:
            self._letters.waiting = waiting
            raise

    def _counted_answer(self, what: int, rows: int, busy: int, report: Report, starts: list[int] | None) -> Any:
        outputs = self._chain.outputs
        return what, rows, busy, outputs.values, outputs.keys or None, outputs.origins or None, [report], starts

    def report(self, *, times: bool = True) -> Report:
        """What has come together since the last one."""
        operators = self._operators
        letters, self._letters.waiting = self._letters.waiting, []
        sampled: tuple[tuple[int, int, QuantileSketch], ...] = ()
        if times:
            self._times_sent_ns = self._now()
            sampled = tuple((each.timed_ns, each.timed_items, each.service_ns) for each in operators)
            for operator in operators:
                operator.timed_ns = operator.timed_items = 0
                operator.service_ns = QuantileSketch()
        return Report(
            tuple((o.items_in, o.items_out, o.errors, o.retries, o.dead_letters) for o in operators),
            letters,
            sampled,
            {self._order.first + position: counted for position, counted in self._counted.items()} or None,
            self._keeps_state,
            self._order.first,
        )

    def _set_aside_outputs(self, rows: int, starts: list[int] | None) -> list[int] | None:
        """Outputs that cannot be sent become errors of the last operator; a row of which one output cannot be sent is
        set aside as a whole. The starts of the rows in what is left.
        """
        outputs, step = self._chain.outputs, self._steps[-1]
        errors: dict[int, TransportError] = {}
        for index, value in enumerate(outputs.values):
            reason = _unsendable(value) or (_unsendable(outputs.keys[index]) if outputs.keys else None)
            if reason is not None:
                errors[index] = reason
        if errors and step.io.errors.on_error is OnError.FAIL:
            raise StepFailed(f"operator {step.name!r} gave an output that cannot be sent on", min(errors.items())[1])
        counted = len(outputs.values)
        gone: set[int] = set()
        for row, (error, indexes) in rows_of(errors, starts, counted).items():
            gone.update(indexes)
            if rows:
                self._set_aside_row(row, error, len(indexes))
            else:
                self._set_aside_last(row, error)
        left = kept_outputs(outputs.values, outputs.keys, outputs.origins, gone)
        outputs.values[:], outputs.keys[:], outputs.origins[:] = left
        if starts is None and not rows:
            return None
        before = starts or range(counted)
        return [start - sum(index < start for index in gone) for start in before]

    def _set_aside_row(self, row: int, error: Exception, outputs: int) -> None:
        """The letter has the input of the first operator, from which on the row can be worked on again."""
        for operator, counts in zip(self._operators, undone(len(self._steps), self._exploding, outputs), strict=True):
            operator.items_in += counts[0]
            operator.items_out += counts[1]
            operator.errors += counts[2]
        item, first, keys = self._inputs[row], self._steps[0], self._input_keys
        side, item = item if first.sided else (None, item)
        self._add_letter(first, item, None if keys is None else keys[row], keys is not None, error, side)

    def _set_aside_last(self, index: int, error: Exception) -> None:
        """An output that belongs to no row, at the end of the stream: there is only its text."""
        outputs, step = self._chain.outputs, self._steps[-1]
        step.counters.items_out -= 1
        step.counters.errors += 1
        key = outputs.keys[index] if outputs.keys and _unsendable(outputs.keys[index]) is None else None
        self._add_letter(step, _text(outputs.values[index]), key, bool(outputs.keys), error, None)

    def _add_letter(
        self, step: Step, item: Any, key: Hashable, keyed: bool, error: Exception, side: int | None
    ) -> None:
        step.counters.dead_letters += 1
        self._letters.add(
            SetAside(
                operator=step.name,
                replica_index=self._order.node.replica_index,
                item=item,
                key=key,
                keyed=keyed,
                attempts=1,
                error=error,
                side=side,
            )
        )

    def _flush_final(self) -> None:
        if self._chain.outputs.values:
            self._answer_counted(0, 0)

    def _pause(self, seconds: float) -> None:
        if seconds < 0.05:
            time.sleep(seconds)
            return
        self._rows.send((say.PAUSING, True))
        time.sleep(seconds)
        self._rows.send((say.PAUSING, False))

    def last_reports(self) -> list[Report]:
        """Everything that has not been told yet."""
        self._has_news()
        return [self.report()]


def _unsendable(value: Any) -> TransportError | None:
    try:
        pickle.dumps(value, 5)
    except Exception as error:  # an item may be anything
        reason = explain_unpicklable(value) or f"cannot pickle: {error}"
        refused = TransportError(f"the output cannot be sent from the process: {reason}")
        refused.__cause__ = error
        return refused
    return None


def _text(value: Any) -> str:
    try:
        return repr(value)[:_TEXT_MAX]
    except Exception as error:  # an item's own __repr__ may raise
        return f"<{type(value).__name__} whose repr() raised {type(error).__name__}>"
