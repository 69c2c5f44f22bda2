"""What the process of a task is called to do, alone or as one of a line (see `process_protocol`)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Any

from sage.common.errors import SageError
from sage.kernel.operators.context import ServiceCalls
from sage.kernel.operators.process_code import ProcessOrder
from sage.platform.errors import LinkClosedError
from sage.platform.process_lines import join_line
from sage.platform.process_links import Link, UnreadableMessageError

from . import process_protocol as say
from .process_book import mend_letters
from .process_calls import NoServices, ServiceCaller
from .process_lists import ListWorker
from .process_protocol import Report
from .process_rows import kept_outputs
from .process_worker import ProcessWorker
from .remote_errors import portable_error
from .salvage import reason_unreadable, salvage
from .steps import StepFailed
from .task import Task

__all__ = ["run_worker"]


class _NextWorker(ProcessWorker):
    """One of a line that is not the first: what it works on are answers of the process before it. It makes one answer
    of each, whatever that held.
    """

    _rows_before = 0
    _busy_before = 0
    _reports_before: Sequence[Report] = ()
    _starts_before: Sequence[int] | None = None
    _broken: Sequence[tuple[int, str]] = ()
    _special = False

    def serve(self) -> None:
        """Work until the task says that it is over."""
        link = self._rows
        receive = link.receive
        while True:
            try:
                message = receive()
            except UnreadableMessageError as error:
                message = self._without_broken(salvage(error.pickled, error.buffers))
            what = message[0]
            if what == say.DONE:
                _, rows, busy, values, keys, origins = message
                self._rows_before, self._busy_before = rows, busy
                self._special = False
                if keys is not None or origins is not None or not self._run_plain(values, rows):
                    self._work_all(values, keys, origins)
            elif what == say.COUNTED:
                self._take_counted(*message[1:])
                self._special = True
                self._work_all(message[3], message[4], message[5])
                self._forget()
            elif what == say.ALONE:
                self._take_counted(*message[1:])
                if message[3]:
                    keys, origins = message[4], message[5]
                    self._work_single(message[3][0], keys[0] if keys else None, origins[0] if origins else None)
                else:
                    self._answer(0, 0, special=True, alone=True)
                self._forget()
            elif what == say.FINISHED:
                self._rows_before = self._busy_before = 0
                self._chain.finish(self._flush_final)
                link.send((say.FINISHED, [*message[1], self.report()]))
            elif what == say.END:
                return
            else:
                link.send(message)

    def last_reports(self) -> list[Report]:
        """Everything that has not been told yet, also of those before it in the answer that it works on."""
        before, self._reports_before = self._reports_before, ()
        return [*before, *super().last_reports()]

    def _take_counted(
        self, rows: int, busy: int, values: Any, keys: Any, origins: Any, reports: Any, starts: Any
    ) -> None:
        self._rows_before, self._busy_before, self._reports_before, self._starts_before = rows, busy, reports, starts

    def _forget(self) -> None:
        self._reports_before, self._starts_before, self._broken = (), None, ()

    def _work_all(self, values: Any, keys: Any, origins: Any) -> None:
        if not values:
            self._answer(0, 0)
            return
        timed = self._item_ns >= Task.TIMED_ALWAYS_NS or self._chain.checks_all
        timed = timed or not self._batches % Task.TIMED_EVERY
        self._batches += 1
        self._run(values, keys, origins or 0, timed)

    def _answer(self, rows: int, busy: int, *, special: bool = False, alone: bool = False) -> None:
        super()._answer(rows, busy + self._busy_before, special=special or self._special, alone=alone)

    def _counted_answer(self, what: int, rows: int, busy: int, report: Report, starts: list[int] | None) -> Any:
        answer = super()._counted_answer(what, rows, busy, report, starts)
        report.broken = self._broken
        composed = _compose(self._starts_before, starts, len(self._chain.outputs.values))
        return what, self._rows_before, busy, *answer[3:6], [*self._reports_before, report], composed

    def _without_broken(self, answer: Any) -> Any:
        """An answer of which something cannot be rebuilt here, without the rows that held it: they are told to the
        task, which has them still.
        """
        mend_letters(answer)
        if answer[0] not in say.ANSWERS:
            return answer
        what, rows, busy, values, keys, origins, *more = answer
        reports, starts = more or ((), None)
        broken: dict[int, str] = {}
        for index, value in enumerate(values):
            reason = reason_unreadable((value, keys[index] if keys else None))
            if reason:
                broken[index] = reason
        before = range(len(values)) if starts is None else starts
        self._broken = [(_row_of(index, before), reason) for index, reason in broken.items()]
        left, left_keys, left_origins = kept_outputs(values, keys or (), origins or (), set(broken))
        starts = [start - sum(index < start for index in broken) for start in before]
        what = say.COUNTED if what == say.DONE else what
        return what, rows, busy, left, left_keys or None, left_origins or None, reports, starts


def _row_of(index: int, starts: Sequence[int]) -> int:
    """The row that gave the output at `index`: each gives one at most, so it is the last that begins there."""
    return max(row for row, start in enumerate(starts) if start == index)


def _compose(first: Sequence[int] | None, second: Sequence[int] | None, outputs: int) -> Sequence[int] | None:
    """For each row that came into the line how many outputs were before it behind the second of two processes.

    Args:
        first: by row of the first one, how many outputs of it were before; None where each has exactly one.
        second: likewise of the second, whose rows these outputs are.
        outputs: of the second.

    Example:
        >>> _compose([0, 1, 1, 2], [0, 0, 1], 2)
        [0, 0, 0, 1]
    """
    if first is None or second is None:
        return second if first is None else first
    ends = [*second, outputs]
    return [ends[start] for start in first]


def run_worker(link: Link, order: ProcessOrder) -> None:
    """Entry of the process: set up, work, tear down; then the process is free for the next task."""
    with ExitStack() as opened:
        rows = link if order.is_alone else opened.enter_context(closing(join_line()))
        services: ServiceCalls = NoServices()
        if order.calls:
            services = ServiceCaller(opened.enter_context(closing(join_line())))
        failed, worker = _work(link, rows, order, services)
    link.send((say.ENDED, None if failed is None else portable_error(failed), worker.last_reports()))


def _work(
    link: Link, rows: Link, order: ProcessOrder, services: ServiceCalls
) -> tuple[BaseException | None, ProcessWorker]:
    """Work until the end; what tearing down has raised."""
    kind = _NextWorker if order.first else ListWorker if order.lists else ProcessWorker
    worker = kind(link, rows, order, services)
    is_ready = False
    try:
        try:
            worker.prepare()
            link.send((say.READY, *worker.facts))
            is_ready = True
            worker.serve()
        except LinkClosedError:
            # Where it is a neighbour that has gone, the task decides what follows.
            if order.is_alone:
                raise
        except BaseException as error:  # also a SystemExit of the user's must reach the job
            _tell_failure(rows if is_ready else link, worker, error)
            worker.skip_until(say.END)
        if not order.is_alone:
            _end_in_line(link, rows, order)
    finally:
        failed = worker.tear_down()
    return failed, worker


def _end_in_line(link: Link, rows: Link, order: ProcessOrder) -> None:
    """Pass on that it is over, and wait until the task says so too: only that comes when a neighbour has gone.

    Raises:
        LinkClosedError: the task is gone.
    """
    if order.last < order.size:
        try:
            rows.send((say.END,))
        except LinkClosedError:
            pass  # the task sees that the neighbour has gone
    while link.receive()[0] != say.END:
        continue


def _tell_failure(link: Link, worker: ProcessWorker, error: BaseException) -> None:
    message, raised = "", error
    if isinstance(error, StepFailed):
        message, raised = str(error), error.error
    elif not isinstance(error, SageError):
        message = "its process raised"
    link.send((say.FAILED, message, portable_error(raised), worker.last_reports()))
