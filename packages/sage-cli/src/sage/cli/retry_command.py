"""`sage dead-letters retry`."""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from sage.kernel.api.replay import DeadLetterRetry, RetryOutcome

from .dead_letters_command import require_home
from .exit_codes import ExitCode
from .plain_text import one_line, printable
from .quantities import plural
from .run_command import Ending, run_job
from .session import Session
from .settings import load_with_settings
from .summary import DEFAULT_HOME

__all__ = ["retry_dead_letters"]

_REFUSED_SHOWN = 5


def retry_dead_letters(
    session: Session,
    pipeline: Path,
    settings: list[str],
    parallelism: list[str],
    *,
    job: str | None,
    operator: str | None,
    home: Path | None,
    empty_state: bool,
    as_json: bool,
    quiet: bool,
) -> ExitCode:
    """Give the open dead letters of a pipeline back to the operators that failed on them.

    Raises:
        CommandError: the folder is not there.
        SageError: an option, the file or its pipeline is wrong, or it cannot take its letters back; nothing has run.
        JobFailedError: the job failed; all letters are still open.
    """
    environment = load_with_settings(pipeline, settings, parallelism)
    if home is not None:
        environment.configure(home=home)
    require_home(environment.config.home)
    with DeadLetterRetry(environment, job_id=job, operator=operator, empty_state=empty_state) as retry:
        if not retry.count:
            outcome = RetryOutcome(retried=0, failed_again=0, still_open=0, refused=retry.refused)
            _tell(session, environment.name, None, outcome, environment.config.home, as_json=as_json, quiet=quiet)
            return ExitCode.DEAD_LETTERS if retry.refused else ExitCode.DONE
        ending = run_job(session, retry.submit, environment.config.grace_s, as_json=as_json, quiet=quiet)
        outcome = retry.commit(ending.result)
    _tell(session, environment.name, ending, outcome, environment.config.home, as_json=as_json, quiet=quiet)
    if ending.failure is not None and ending.code is ExitCode.FAILED:
        raise ending.failure
    if ending.code is ExitCode.DONE and outcome.refused:
        return ExitCode.DEAD_LETTERS
    return ending.code


def _tell(
    session: Session,
    name: str,
    ending: Ending | None,
    outcome: RetryOutcome,
    home: Path,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    if ending is not None and ending.code is ExitCode.OUTPUT_GONE:
        return
    if as_json:
        fields = {
            "name": name,
            "job_id": None if ending is None else ending.result.job_id,
            "state": None if ending is None else ending.result.state.value,
            "retried": outcome.retried,
            "failed_again": outcome.failed_again,
            "still_open": outcome.still_open,
            "refused": [{"number": number, "reason": reason} for number, reason in sorted(outcome.refused.items())],
        }
        session.terminal.write_output_line(msgspec.json.encode(fields).decode())
    elif not quiet:
        _print(session.terminal.console(), name, ending, outcome, home)


def _print(console: Console, name: str, ending: Ending | None, outcome: RetryOutcome, home: Path) -> None:
    if ending is None and not outcome.refused:
        console.print(f"no open dead letters of {name!r} in {home}", soft_wrap=True, markup=False)
        return
    through = outcome.retried - outcome.failed_again
    console.print()
    if ending is not None:
        line = Text.assemble((name, "bold"), f": {plural(outcome.retried, 'dead letter')} retried")
        console.print(line, soft_wrap=True)
        if outcome.retried and through >= 0:
            # Behind a flatmap one item may fail several times, so the two need not add up to what was retried.
            console.print(Text(f"  went through   {through:,}", "green"), soft_wrap=True)
    if outcome.failed_again and ending is not None:
        first = ending.job.first_dead_letter
        console.print(Text(f"  failed again   {outcome.failed_again:,}", "yellow"), soft_wrap=True)
        error = one_line(f"{first.error_type}: {first.error}")
        console.print(f"    the first    {error}", soft_wrap=True, markup=False)
        command = ["sage", "dead-letters", "list", "--job", ending.result.job_id]
        command += [] if home == DEFAULT_HOME else ["--home", str(home)]
        console.print(f"    see them     {shlex.join(command)}", soft_wrap=True, markup=False)
    if outcome.still_open:
        console.print(Text(f"  still open     {outcome.still_open:,}", "yellow"), soft_wrap=True)
    if outcome.refused:
        console.print(Text(f"  not possible   {len(outcome.refused):,}", "yellow"), soft_wrap=True)
        for number, reason in sorted(outcome.refused.items())[:_REFUSED_SHOWN]:
            console.print(f"    letter {number}: {printable(reason)}", soft_wrap=True, markup=False)
