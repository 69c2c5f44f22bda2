"""`sage run`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sage.kernel.api import JobFailedError, JobHandle, JobResult, JobState
from sage.kernel.runtime.dead_letter_budget import DeadLetterBudget
from sage.kernel.runtime.dead_letters import DeadLetter

from .exit_codes import ExitCode
from .interrupts import Interrupts
from .plain_text import printable
from .progress import PERIOD_S, ProgressLine
from .report import result_json
from .session import Session
from .settings import load_with_settings
from .summary import print_summary
from .terminal import Terminal

__all__ = ["Ending", "run_job", "run_pipeline"]

_FLUSH_S = 1.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job has ended.

    Attributes:
        job: the job.
        result: what it did.
        code: exit code of the command.
        failure: why it failed, None when it did not.
    """

    job: JobHandle
    result: JobResult
    code: ExitCode
    failure: JobFailedError | None = None


def run_pipeline(
    session: Session,
    pipeline: Path,
    settings: list[str],
    parallelism: list[str],
    *,
    calibrate: bool = False,
    max_dead_letters: str | None = None,
    as_json: bool,
    quiet: bool,
) -> ExitCode:
    """Run the pipeline of a file to its end.

    Raises:
        SageError: an option, the file or its pipeline is wrong; nothing has run.
        JobFailedError: the job failed; summary or JSON have been written.
    """
    environment = load_with_settings(pipeline, settings, parallelism)
    if calibrate:
        environment.configure(calibrate=True)
    if max_dead_letters is not None:
        DeadLetterBudget.parse(max_dead_letters)
        environment.configure(max_dead_letters=max_dead_letters)
    ending = run_job(
        session, lambda: environment.submit(wait=False), environment.config.grace_s, as_json=as_json, quiet=quiet
    )
    _tell(session, ending, as_json=as_json, quiet=quiet)
    if ending.failure is not None and ending.code is ExitCode.FAILED:
        raise ending.failure
    return ending.code


def run_job(session: Session, start: Callable[[], JobHandle], grace_s: float, *, as_json: bool, quiet: bool) -> Ending:
    """Start a job and wait for its end, with progress and Ctrl-C; tells nothing of how it ended.

    Raises:
        SageError: it cannot be started.
    """
    terminal = session.terminal
    if not (quiet or as_json):
        # The summary tells of dead letters in more detail than the kernel's warning.
        logging.getLogger("sage.kernel.job").setLevel(logging.ERROR)
    with Interrupts(terminal, grace_s) as interrupts:
        job = start()
        interrupts.watch(job)
        terminal.on_output_error = lambda: job.abort("standard output can no longer be written")
        if terminal.output_error is not None:  # while the file was loaded
            terminal.on_output_error()
        failure: JobFailedError | None = None
        try:
            result = _wait(job, terminal, progress=terminal.shows_progress and not quiet)
        except JobFailedError as error:
            failure, result = error, error.result
        terminal.on_output_error = None
        terminal.hide()
        if result.state in (JobState.FAILED, JobState.ABORTED):
            terminal.flush_within(_FLUSH_S)
        else:
            terminal.flush()
    return Ending(job, result, _exit_code(result, terminal, interrupts), failure)


def _wait(job: JobHandle, terminal: Terminal, *, progress: bool) -> JobResult:
    if not progress:
        return job.wait()
    line = ProgressLine(job, time.monotonic)
    while True:
        try:
            return job.wait(PERIOD_S)
        except TimeoutError:
            terminal.show(line.text())


def _exit_code(result: JobResult, terminal: Terminal, interrupts: Interrupts) -> ExitCode:
    if result.state is JobState.FAILED:
        return ExitCode.FAILED
    if terminal.output_error is not None:
        gone = isinstance(terminal.output_error, BrokenPipeError)
        return ExitCode.OUTPUT_GONE if gone else ExitCode.FAILED
    if result.state is JobState.ABORTED and not interrupts.aborted:
        return ExitCode.FAILED
    if interrupts.exit_code is not None:
        return interrupts.exit_code
    return ExitCode.DEAD_LETTERS if result.dead_letters else ExitCode.DONE


def _tell(session: Session, ending: Ending, *, as_json: bool, quiet: bool) -> None:
    terminal, result, code = session.terminal, ending.result, ending.code
    first: DeadLetter | None = ending.job.first_dead_letter
    if code is ExitCode.OUTPUT_GONE:
        return  # who ends a pipe early has what they wanted
    if as_json:
        terminal.write_output_line(result_json(result, first, code))
    elif not quiet:
        print_summary(terminal.console(), result, first)
    if result.state is JobState.ABORTED and code is ExitCode.FAILED and terminal.output_error is None:
        terminal.say(f"error: job {result.name!r} was aborted: {printable(result.reason)}")
