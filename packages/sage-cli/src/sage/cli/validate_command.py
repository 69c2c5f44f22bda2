"""`sage validate` and `sage schema`."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from sage.common.errors import SageError
from sage.kernel.declarative import Finding, PipelineFileError, check_pipeline_file, is_yaml
from sage.kernel.declarative.schema import pipeline_schema

from .exit_codes import ExitCode
from .plain_text import printable
from .quantities import plural
from .settings import load_with_settings, parse_settings

__all__ = ["print_schema", "validate_pipeline"]


def validate_pipeline(pipeline: Path, settings: list[str], *, as_json: bool) -> ExitCode:
    """Print all that is wrong with a pipeline file; it is compiled and not run.

    Raises:
        CommandInterruptedError: Ctrl-C.
        ConfigError: a `--set` cannot be read.
    """
    given = parse_settings(settings)
    if is_yaml(pipeline):
        findings = check_pipeline_file(pipeline, given)
    else:
        findings = _check_python(pipeline, settings)
    if as_json:
        fields = {
            "file": str(pipeline),
            "valid": not findings,
            "findings": [{"location": each.location, "message": each.message} for each in findings],
        }
        sys.stdout.write(msgspec.json.encode(fields).decode() + "\n")
    else:
        _print(pipeline, findings)
    return ExitCode.USAGE if findings else ExitCode.DONE


def print_schema() -> ExitCode:
    """Print the JSON Schema of pipeline files, with the operators that are installed here."""
    schema = msgspec.json.encode(pipeline_schema(), enc_hook=str)
    sys.stdout.write(msgspec.json.format(schema, indent=2).decode() + "\n")
    return ExitCode.DONE


def _check_python(pipeline: Path, settings: list[str]) -> tuple[Finding, ...]:
    """Of a Python file only the first error is known: it ends with it."""
    try:
        load_with_settings(pipeline, settings, []).compile()
    except PipelineFileError as error:
        return error.findings
    except SageError as error:
        return (Finding(str(pipeline), str(error)),)
    return ()


def _print(pipeline: Path, findings: tuple[Finding, ...]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for finding in findings:
        line = Text.assemble((f"{printable(finding.location)}:", "bold"), " ", printable(finding.message))
        console.print(line, soft_wrap=True)
    if findings:
        console.print()
        console.print(Text(f"{plural(len(findings), 'error')} in {printable(str(pipeline))}", "bold red"))
    else:
        console.print(Text(f"{printable(str(pipeline))} is a valid pipeline", "green"), soft_wrap=True)
