"""The `sage` command: its commands, their options, and what an error looks like.

Results go to standard output, progress, summary and errors to standard error. Exit codes: `ExitCode`.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sage.common.errors import SageError, StoreError
from sage.common.logging import configure as configure_logging
from sage.common.logging import reset as reset_logging
from sage.kernel.api import JobFailedError

from .compile_command import PipelineForm, PlanFormat, compare_plans, compile_pipeline, write_pipeline
from .db_app import app as db_app
from .dead_letters_command import export_dead_letters, list_dead_letters, show_dead_letter
from .doctor_command import run_doctor
from .errors import CommandError, CommandInterruptedError
from .exit_codes import ExitCode
from .operators_command import list_operators, show_operator
from .plain_text import printable
from .retry_command import retry_dead_letters
from .run_command import run_pipeline
from .session import Session, session_of
from .summary import DEFAULT_HOME
from .terminal import Terminal, open_missing_streams
from .validate_command import print_schema, validate_pipeline
from .versions import installed_versions

__all__ = ["app", "main"]

_EPILOG = (
    "Exit codes: 0 done, 1 finished with dead letters, 2 wrong usage or pipeline, 3 failed, "
    "130 interrupted (Ctrl-C), 141 the reader of the output is gone, 143 terminated."
)
# typer carries its own copy of click since 0.26 and exports none of its base classes but through this one.
_ClickError: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
_BAD = (ExitCode.USAGE, ExitCode.FAILED, ExitCode.INTERRUPTED, ExitCode.TERMINATED)
_THREAD_END_S = 0.5

app = typer.Typer(
    name="sage",
    help="Compile and run dataflow pipelines for LLM applications.",
    epilog=_EPILOG,
    no_args_is_help=False,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
dead_letters = typer.Typer(help="Items that could not be processed, and why.", no_args_is_help=False)
app.add_typer(dead_letters, name="dead-letters")
app.add_typer(db_app, name="db")

Pipeline = Annotated[
    Path,
    typer.Argument(
        metavar="PIPELINE",
        help="A Python file with a function build() that returns an environment, an environment at module "
        "level, or a script that calls submit(); or a YAML file.",
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A parameter of build() or of the YAML file, a setting of the environment (queue_capacity, grace_s, "
        "watchdog_s, home, ...), or OPERATOR.KEY of an operator's config. VALUE is a YAML scalar. Repeatable.",
        show_default=False,
    ),
]
Parallelism = Annotated[
    list[str] | None,
    typer.Option(metavar="OPERATOR=N", help="Replicas of an operator. Repeatable.", show_default=False),
]
Calibrate = Annotated[
    bool,
    typer.Option(
        "--calibrate",
        help="Measure first what an item costs: operators that are safe to call twice are called with at most 64 first "
        "items of the sources, and see them once more than in the run.",
    ),
]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where in the code an error was raised.")]
Every = Annotated[bool, typer.Option("--all", help="Also those that have been retried.")]
Home = Annotated[
    Path,
    typer.Option(metavar="DIR", help="The folder that a run keeps its dead letters in.", show_default=True),
]


def _print_versions(wanted: bool) -> None:
    if wanted:
        for name, found in installed_versions().items():
            sys.stdout.write(f"{name:<16} {found or 'not installed (runs from its source tree)'}\n")
        raise typer.Exit(ExitCode.DONE)


@app.callback(invoke_without_command=True)
def _sage(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_versions, help="Print the versions and exit."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")
        raise typer.Exit(ExitCode.USAGE)


@app.command(
    epilog=_EPILOG,
    help="Run a pipeline to its end.\n\nWhat its sinks print goes to standard output; progress (on a "
    "terminal only) and the summary go to standard error. Ctrl-C lets items under way finish, within the "
    "grace period (grace_s); a second one aborts.",
)
def run(
    context: typer.Context,
    pipeline: Pipeline,
    settings: Settings = None,
    parallelism: Parallelism = None,
    calibrate: Calibrate = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Instead of the summary write the result as one JSON object, the last line of the output.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
    max_dead_letters: Annotated[
        str | None,
        typer.Option(
            metavar="N|N%",
            help="Fail when more items than this, or a larger share of the items read, cannot be processed.",
            show_default=False,
        ),
    ] = None,
    show_traceback: Traceback = False,
) -> int:
    """`sage run`."""
    session = session_of(context)
    session.traceback = show_traceback
    return run_pipeline(
        session,
        pipeline,
        settings or [],
        parallelism or [],
        calibrate=calibrate,
        max_dead_letters=max_dead_letters,
        as_json=as_json,
        quiet=quiet,
    )


@app.command(
    "compile",
    epilog=_EPILOG,
    help="Show the execution graph of a pipeline without running it.\n\nWith --diff show what differs between the "
    "plans of two pipelines; a JSON file is a plan that --format json wrote. Exit code 0: they are the same, 1: they "
    "differ.",
)
def compile_(
    context: typer.Context,
    pipeline: Pipeline,
    other: Annotated[
        Path | None,
        typer.Argument(metavar="[OTHER]", help="The second pipeline, with --diff.", show_default=False),
    ] = None,
    settings: Settings = None,
    parallelism: Parallelism = None,
    calibrate: Calibrate = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say what the compiler decided, and why.")] = False,
    form: Annotated[PlanFormat, typer.Option("--format", help="How the plan is written.")] = PlanFormat.TEXT,
    diff: Annotated[bool, typer.Option("--diff", help="Compare the plans of PIPELINE and OTHER.")] = False,
    to: Annotated[
        PipelineForm | None,
        typer.Option("--to", metavar="yaml", help="Instead of the plan, write a Python pipeline as a YAML file."),
    ] = None,
    show_traceback: Traceback = False,
) -> int:
    """`sage compile`."""
    session_of(context).traceback = show_traceback
    given, replicas = settings or [], parallelism or []
    if diff != (other is not None):
        raise CommandError("--diff compares two pipelines: sage compile --diff PIPELINE OTHER")
    if ((diff or to) and explain) or (diff and to):
        raise CommandError("--diff, --to and --explain do not go together")
    if calibrate and (diff or to):
        raise CommandError("--calibrate goes with the plan of one pipeline, not with --diff or --to")
    if other is not None:
        return compare_plans(pipeline, other, given, replicas, form=form)
    if to is not None:
        return write_pipeline(pipeline, given, replicas)
    return compile_pipeline(pipeline, given, replicas, form=form, explain=explain, calibrate=calibrate)


@app.command(
    epilog=_EPILOG,
    help="Check a pipeline file and compile it, without running it.\n\nAll errors of a YAML file are shown at once, "
    "each with line and column. Exit code 0: it is valid, 2: it is not. The modules that it names are imported.",
)
def validate(
    context: typer.Context,
    pipeline: Pipeline,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
    show_traceback: Traceback = False,
) -> int:
    """`sage validate`."""
    session_of(context).traceback = show_traceback
    return validate_pipeline(pipeline, settings or [], as_json=as_json)


@app.command(
    help="Print the JSON Schema of YAML pipelines, with the configs of the operators that are installed: editors "
    "complete and check by it.",
)
def schema() -> int:
    """`sage schema`."""
    return print_schema()


@app.command(
    help="List the operators that a YAML pipeline can name, or show one: its config, contract and an example.",
)
def operators(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show this one.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> int:
    """`sage operators`."""
    return list_operators(as_json=as_json) if name is None else show_operator(name, as_json=as_json)


@app.command(
    help="Check this machine: Python, packages, native code, extras, write access. Exit code 3 when "
    "something that is needed fails."
)
def doctor(home: Home = DEFAULT_HOME) -> int:
    """`sage doctor`."""
    return run_doctor(home)


@app.command()
def version() -> None:
    """Print the versions of the five distributions."""
    _print_versions(True)


@dead_letters.callback(invoke_without_command=True)
def _dead_letters(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")
        raise typer.Exit(ExitCode.USAGE)


@dead_letters.command("list")
def dead_letters_list(
    job: Annotated[str | None, typer.Option(metavar="ID", help="Only those of this run.")] = None,
    operator: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this operator.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="The newest N.")] = 50,
    every: Every = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    home: Home = DEFAULT_HOME,
) -> int:
    """List the items that could not be processed, oldest first."""
    return list_dead_letters(home, job=job, operator=operator, limit=limit, as_json=as_json, every=every)


@dead_letters.command("show")
def dead_letters_show(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="Its number in the list.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
    home: Home = DEFAULT_HOME,
) -> int:
    """Show one of them: item, key, error, traceback, attempts, time."""
    return show_dead_letter(home, number, as_json=as_json)


@dead_letters.command("export")
def dead_letters_export(
    job: Annotated[str | None, typer.Option(metavar="ID", help="Only those of this run.")] = None,
    operator: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this operator.")] = None,
    every: Every = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="A new file, of mode 0600, instead of standard output."),
    ] = None,
    home: Home = DEFAULT_HOME,
) -> int:
    """Write the items that could not be processed as JSON Lines, oldest first."""
    return export_dead_letters(home, job=job, operator=operator, every=every, output=output)


@dead_letters.command(
    "retry",
    epilog=_EPILOG,
    help="Give items that could not be processed back to the operators that failed on them, in the pipeline as it is "
    "now.\n\nAn item goes on from there through the rest of the pipeline; what fails again is a new dead letter. A "
    "letter is closed when the job has ended: after a kill before that all are still open, and a sink may be given the "
    "same outputs again.",
)
def dead_letters_retry(
    context: typer.Context,
    pipeline: Pipeline,
    job: Annotated[str | None, typer.Option(metavar="ID", help="Only those of this run.")] = None,
    operator: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this operator.")] = None,
    settings: Settings = None,
    parallelism: Parallelism = None,
    empty_state: Annotated[
        bool,
        typer.Option("--empty-state", help="Go on although operators that keep state begin with none."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Instead of the summary write one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
    home: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder that the run kept its dead letters in; by default the one of the pipeline.",
            show_default=False,
        ),
    ] = None,
    show_traceback: Traceback = False,
) -> int:
    """`sage dead-letters retry`."""
    session = session_of(context)
    session.traceback = show_traceback
    return retry_dead_letters(
        session,
        pipeline,
        settings or [],
        parallelism or [],
        job=job,
        operator=operator,
        home=home,
        empty_state=empty_state,
        as_json=as_json,
        quiet=quiet,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code.

    Args:
        arguments: what stands behind `sage`; those of the process by default.
    """
    open_missing_streams()
    configure_logging("WARNING")
    try:
        with Terminal() as terminal:
            code = _call(list(sys.argv[1:] if arguments is None else arguments), terminal)
        code = _after_output(code, terminal)
    finally:
        reset_logging()
    _leave_hanging_threads(code)
    return code


def _call(arguments: list[str], terminal: Terminal) -> int:
    session = Session(terminal)
    try:
        returned = app(arguments, prog_name="sage", standalone_mode=False, obj=session)
        return int(returned or 0)
    except CommandInterruptedError as error:
        terminal.say(str(error))
        return ExitCode.INTERRUPTED
    except (SageError, _ClickError) as error:
        _show_error(session, error)
        return ExitCode.FAILED if isinstance(error, (JobFailedError, StoreError)) else ExitCode.USAGE
    except (KeyboardInterrupt, typer.Abort):
        terminal.say("interrupted")
        return ExitCode.INTERRUPTED
    except Exception as error:  # a defect of ours: still one line for people, and how to see more
        _show_error(session, error)
        return ExitCode.FAILED


def _show_error(session: Session, error: Exception) -> None:
    if session.traceback:
        session.terminal.say(printable("".join(traceback.format_exception(error)).rstrip()))
    message = str(error)
    if isinstance(error, _ClickError):
        # Its str() leaves out which option it is about.
        message = error.format_message()  # type: ignore[attr-defined]
        context = getattr(error, "ctx", None)
        if context is not None:
            message = f"{message.rstrip('.')} (see: {context.command_path} --help)"
    elif not isinstance(error, SageError):
        message = f"{type(error).__name__}: {error} (a defect of SAGE; --traceback shows where)"
    session.terminal.say(f"error: {printable(message)}")


def _after_output(code: int, terminal: Terminal) -> int:
    """What could not be written shows only when the last of it is written."""
    error = terminal.output_error
    if error is None:
        return code
    if isinstance(error, BrokenPipeError):
        return ExitCode.OUTPUT_GONE if code in (ExitCode.DONE, ExitCode.DEAD_LETTERS) else code
    terminal.say(f"error: cannot write to standard output: {error.strerror or error}")
    return code if code in _BAD else ExitCode.FAILED


def _leave_hanging_threads(code: int) -> None:
    """Leave the process at once when an operator that never returns was given up.

    The interpreter would wait at its end for what such an operator waits for: a thread of an executor, a lock
    of an output stream.
    """
    try:
        for thread in threading.enumerate():
            if thread.name.startswith("sage-"):
                thread.join(_THREAD_END_S)
                if thread.is_alive():
                    logging.shutdown()
                    os._exit(code)
    except KeyboardInterrupt:  # all is said and stored: whoever cannot wait need not
        os._exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
