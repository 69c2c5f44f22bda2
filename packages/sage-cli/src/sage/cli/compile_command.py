"""`sage compile`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path

from sage.kernel.compiler import render_dot, render_mermaid, render_text

from .errors import CommandError
from .exit_codes import ExitCode
from .settings import load_with_settings

__all__ = ["PlanFormat", "compile_pipeline"]


class PlanFormat(StrEnum):
    """How a plan is written."""

    TEXT = "text"
    JSON = "json"
    MERMAID = "mermaid"
    DOT = "dot"


def compile_pipeline(
    pipeline: Path, settings: list[str], parallelism: list[str], *, form: PlanFormat, explain: bool
) -> ExitCode:
    """Print the plan of a pipeline; nothing is run.

    Raises:
        CommandError: `explain` with a diagram, which has no place for reasons.
        SageError: an option, the file or its pipeline is wrong.
    """
    if explain and form in (PlanFormat.MERMAID, PlanFormat.DOT):
        raise CommandError(f"--explain goes with --format text or json (which always has the reasons), not {form}")
    graph = load_with_settings(pipeline, settings, parallelism).compile()
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
