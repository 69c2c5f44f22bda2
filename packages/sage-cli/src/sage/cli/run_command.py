"""`sage run`."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from sage.kernel.api import JobFailedError, JobHandle, JobResult, JobState
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

__all__ = ["run_pipeline"]

_FLUSH_S = 1.0


def run_pipeline(
    session: Session,
    pipeline: Path,
    settings: list[str],
    parallelism: list[str],
    *,
    as_json: bool,
    quiet: bool,
) -> ExitCode:
    """Run the pipeline of a file to its end.

    Raises:
        SageError: an option, the file or its pipeline is wrong; nothing has run.
        JobFailedError: the job failed; summary or JSON have been written.
    """
    terminal = session.terminal
    environment = load_with_settings(pipeline, settings, parallelism)
    if not (quiet or as_json):
        # The summary tells of dead letters in more detail than the kernel's warning.
        logging.getLogger("sage.kernel.job").setLevel(logging.ERROR)
    with Interrupts(terminal, environment.config.grace_s) as interrupts:
        job = environment.submit(wait=False)
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
    code = _exit_code(result, terminal, interrupts)
    _tell(session, result, job.first_dead_letter, code, as_json=as_json, quiet=quiet)
    if failure is not None and code is ExitCode.FAILED:
        raise failure
    return code


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


def _tell(
    session: Session,
    result: JobResult,
    first: DeadLetter | None,
    code: ExitCode,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    terminal = session.terminal
    if code is ExitCode.OUTPUT_GONE:
        return  # who ends a pipe early has what they wanted
    if as_json:
        terminal.write_output_line(result_json(result, first, code))
    elif not quiet:
        print_summary(terminal.console(), result, first)
    if result.state is JobState.ABORTED and code is ExitCode.FAILED and terminal.output_error is None:
        terminal.say(f"error: job {result.name!r} was aborted: {printable(result.reason)}")
