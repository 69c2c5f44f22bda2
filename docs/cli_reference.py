"""Writes `reference/cli.md`, the page of the `sage` command, from the command's own help.

    python docs/cli_reference.py > docs/reference/cli.md

A test compares the two.
"""

from __future__ import annotations

import re
import sys
from enum import Enum
from typing import Any

import typer

from sage.cli.main import app

_HEAD = """# The `sage` command

This page is made from the command's own help by `python docs/cli_reference.py`; `sage COMMAND --help` shows the same.
See also [exit codes](exit-codes.md).
"""


def reference() -> str:
    """The page as Markdown."""
    lines = [_HEAD]
    root: Any = typer.main.get_command(app)
    _write(root, "sage", lines)
    return "\n".join(lines).rstrip() + "\n"


def _write(command: Any, name: str, lines: list[str]) -> None:
    # Only a group has commands; typer exports no base class to tell the two apart by.
    commands: dict[str, Any] = getattr(command, "commands", {})
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    usage = [name, "[OPTIONS]", *(each.metavar or each.name.upper() for each in arguments)]
    if commands:
        usage += ["COMMAND", "[ARGS]..."]
    lines += [f"## `{name}`", "", f"```text\n{' '.join(usage)}\n```", "", _prose(command.help or ""), ""]
    if arguments or options:
        lines += ["| option | what it does | default |", "|---|---|---|"]
        lines += [_row(each.metavar or each.name.upper(), each) for each in arguments]
        lines += [_row(", ".join(each.opts), each) for each in options]
        lines.append("")
    for child_name, child in commands.items():
        _write(child, f"{name} {child_name}", lines)


def _row(title: str, parameter: Any) -> str:
    takes = "" if parameter.param_type_name == "argument" else _value(parameter)
    default = parameter.default
    shown = "" if default in (None, False, "") or parameter.required else f"`{_text(default)}`"
    return f"| `{title}{takes}` | {_prose(parameter.help or '')} | {shown} |"


def _value(parameter: Any) -> str:
    if parameter.is_flag:
        return ""
    if isinstance(parameter.default, Enum):
        # A bar would end the cell of the table.
        return " " + ",".join(_text(choice) for choice in type(parameter.default))
    return f" {parameter.metavar or parameter.name.upper()}"


def _text(value: Any) -> str:
    return str(value.value if isinstance(value, Enum) else value)


def _prose(text: str) -> str:
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


if __name__ == "__main__":
    sys.stdout.write(reference())
