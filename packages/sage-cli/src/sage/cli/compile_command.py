"""`sage compile`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sage.common.config import FILE_BYTES_MAX
from sage.kernel.compiler import render_dot, render_mermaid, render_text
from sage.kernel.declarative import PipelineFileError, is_yaml, load_pipeline_file
from sage.kernel.declarative.write import pipeline_to_yaml
from sage.kernel.graph import ExecutionGraph

from .errors import CommandError
from .exit_codes import ExitCode
from .plain_text import printable
from .plan_diff import Difference, diff_plans
from .quantities import plural
from .settings import load_with_settings

__all__ = ["PipelineForm", "PlanFormat", "compare_plans", "compile_pipeline", "write_pipeline"]

_PLAN_BYTES_MAX = 64 * FILE_BYTES_MAX
_SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


class PlanFormat(StrEnum):
    """How a plan is written."""

    TEXT = "text"
    JSON = "json"
    MERMAID = "mermaid"
    DOT = "dot"


class PipelineForm(StrEnum):
    """What a pipeline can be turned into."""

    YAML = "yaml"


def compile_pipeline(
    pipeline: Path,
    settings: list[str],
    parallelism: list[str],
    *,
    form: PlanFormat,
    explain: bool,
    calibrate: bool = False,
) -> ExitCode:
    """Print the plan of a pipeline; nothing is run, but for the sample of `calibrate`.

    Raises:
        CommandError: `explain` with a diagram, which has no place for reasons.
        SageError: an option, the file or its pipeline is wrong.
    """
    if explain and form in (PlanFormat.MERMAID, PlanFormat.DOT):
        raise CommandError(f"--explain goes with --format text or json (which always has the reasons), not {form}")
    environment = load_with_settings(pipeline, settings, parallelism)
    if calibrate:
        environment.configure(calibrate=True)
    graph = environment.compile()
    match form:
        case PlanFormat.TEXT:
            text = render_text(graph, explain=explain)
        case PlanFormat.JSON:
            text = f"{graph.to_json()}\n"
        case PlanFormat.MERMAID:
            text = render_mermaid(graph)
        case PlanFormat.DOT:
            text = render_dot(graph)
    sys.stdout.write(text)
    return ExitCode.DONE


def write_pipeline(pipeline: Path, settings: list[str], parallelism: list[str]) -> ExitCode:
    """Print a Python pipeline as YAML, once what is printed has been seen to compile to the same plan.

    Raises:
        CommandError: the pipeline is YAML already, or would not be the same one.
        PipelineFileError: operators that have no name, each with its line.
    """
    if is_yaml(pipeline):
        raise CommandError(f"{pipeline} is YAML already: --to yaml is for Python pipelines")
    environment = load_with_settings(pipeline, settings, parallelism)
    plan = environment.compile()
    text = pipeline_to_yaml(environment)
    with tempfile.TemporaryDirectory(prefix="sage-") as folder:
        written = Path(folder) / f"{pipeline.stem}.yaml"
        written.write_text(text, encoding="utf-8")
        try:
            differences = plan.diff(load_pipeline_file(written, environ={}).compile())
        except PipelineFileError as error:
            # Where it stands in a file that nobody will see does not matter, nor how often.
            told = "; ".join(dict.fromkeys(finding.message for finding in error.findings))
            raise CommandError(
                f"{pipeline} cannot be written as YAML, because that could not be read back: {told}"
            ) from error
    if differences:
        raise CommandError(f"{pipeline} cannot be written as YAML: read back it would be {'; '.join(differences)}")
    sys.stdout.write(text)
    return ExitCode.DONE


def compare_plans(old: Path, new: Path, settings: list[str], parallelism: list[str], *, form: PlanFormat) -> ExitCode:
    """Print what differs between the plans of two pipelines; exit code 1 when something does.

    Raises:
        CommandError: `form` is a diagram.
        SageError: an option, a file or its pipeline is wrong.
    """
    if form in (PlanFormat.MERMAID, PlanFormat.DOT):
        raise CommandError(f"--diff goes with --format text or json, not {form}")
    found = diff_plans(_plan(old, settings, parallelism), _plan(new, settings, parallelism))
    if form is PlanFormat.JSON:
        fields = {"old": str(old), "new": str(new), "equal": not found, "differences": [asdict(each) for each in found]}
        sys.stdout.write(msgspec.json.encode(fields).decode() + "\n")
    else:
        _print_differences(old, new, found)
    return ExitCode.DIFFERENT if found else ExitCode.DONE


def _plan(path: Path, settings: list[str], parallelism: list[str]) -> ExecutionGraph:
    if path.suffix.lower() != ".json":
        with _own_imports():
            return load_with_settings(path, settings, parallelism).compile()
    try:
        with path.open("rb") as file:
            data = file.read(_PLAN_BYTES_MAX + 1)
    except OSError as error:
        raise CommandError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    if len(data) > _PLAN_BYTES_MAX:
        raise CommandError(f"{path}: larger than the limit of {_PLAN_BYTES_MAX} bytes")
    return ExecutionGraph.from_json(data)


@contextmanager
def _own_imports() -> Iterator[None]:
    """What a pipeline imports from its own folder must not be what the next one, from another folder, is given."""
    path, modules = list(sys.path), set(sys.modules)
    try:
        yield
    finally:
        folders = [Path(folder) for folder in sys.path if folder not in path]
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and any(Path(file).is_relative_to(folder) for folder in folders):
                del sys.modules[name]


def _print_differences(old: Path, new: Path, found: tuple[Difference, ...]) -> None:
    if not found:
        sys.stdout.write(f"{old} and {new} have the same plan\n")
        return
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(Text.assemble(("-", "red"), f" {printable(str(old))}"), soft_wrap=True)
    console.print(Text.assemble(("+", "green"), f" {printable(str(new))}"), soft_wrap=True)
    console.print()
    table = Table(box=box.SIMPLE, show_header=False, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for fold in (False, False, False, True):
        table.add_column(no_wrap=not fold, overflow="fold")
    for each in found:
        sign, style = _SIGNS[each.change]
        table.add_row(Text(sign, style), each.what, Text(printable(each.subject), style), Text(_told(each)))
    console.print(table)
    console.print()
    console.print(plural(len(found), "difference"))


def _told(each: Difference) -> str:
    if each.what == "plan" and each.before:
        return f"{each.before['name']} -> {each.after['name']}"
    if each.change == "changed":
        return ", ".join(
            f"{name.replace('_', ' ')} {_value(each.before[name])} -> {_value(each.after[name])}"
            for name in each.before
        )
    facts = dict(each.before or each.after)
    if each.what == "task":
        words = [f"{facts['replicas']} x {facts['execution']}"]
        if facts["operators"] != each.subject:
            words.insert(0, facts["operators"])
        if facts["queue"] is not None:
            words.append(f"queue {facts['queue']}")
        return ", ".join(words)
    return f"{facts['routing']}{' by key' if facts['by_key'] else ''}"


def _value(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
