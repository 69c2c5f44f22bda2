"""`sage operators`: what a pipeline file can name."""

from __future__ import annotations

import re
import sys
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sage.kernel.declarative import OperatorRegistry, RegisteredOperator
from sage.kernel.declarative.describe import config_fields, contract_summary, example_of, summary_of
from sage.kernel.declarative.schema import config_schema
from sage.kernel.graph import Contract

from .exit_codes import ExitCode
from .plain_text import one_line, printable
from .quantities import plural

__all__ = ["list_operators", "show_operator"]

_WIDTH_WITHOUT_TERMINAL = 160
_ORDER = ("source", "map", "flatmap", "filter", "key_by", "comap", "reduce", "aggregate", "sink", "function")
_LABEL_WIDTH = 14
_CONTRACT_WIDTH = 24
_TEXT_MIN = 20
_GAP = 2


def list_operators(*, as_json: bool) -> ExitCode:
    """Print all operators that are installed: a table, or one JSON object per line.

    Those that cannot be imported are listed with what is wrong; that is no error of this command.
    """
    found = sorted(OperatorRegistry().operators(), key=lambda each: (_rank(each), each.name))
    if as_json:
        for operator in found:
            sys.stdout.write(msgspec.json.encode(_fields(operator), enc_hook=str).decode() + "\n")
        return ExitCode.DONE
    console = _console()
    headers = ["operator", "kind", "from", "contract", "what it does"]
    rows = [_row(operator) for operator in found]
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    # One line for each: what is too long for it is shown in full by `sage operators NAME`.
    widths[3] = min(widths[3], _CONTRACT_WIDTH)
    widths[4] = max(_TEXT_MIN, min(widths[4], console.width - sum(widths[:4]) - _GAP * len(headers)))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for header, width in zip(headers, widths, strict=True):
        table.add_column(header, no_wrap=True, overflow="ellipsis", min_width=width, max_width=width)
    for operator, row in zip(found, rows, strict=True):
        table.add_row(*(Text(cell, "red" if operator.error else "default") for cell in row))
    console.print(table)
    broken = sum(1 for operator in found if operator.error)
    console.print()
    tail = f", {broken} of them cannot be used" if broken else ""
    console.print(f"{plural(len(found), 'operator')}{tail}; one in full: sage operators NAME", soft_wrap=True)
    return ExitCode.DONE


def _row(operator: RegisteredOperator) -> list[str]:
    if operator.error:
        return [operator.name, "error", operator.distribution, "-", one_line(operator.error)]
    # Without the sections, which the column has no room for.
    contract = re.sub(r"\b(?:resources|state|io|errors)\.", "", contract_summary(_contract(operator))) or "-"
    return [operator.name, _kind(operator), operator.distribution, contract, one_line(summary_of(operator.target))]


def show_operator(name: str, *, as_json: bool) -> ExitCode:
    """Print one operator: what it does, its config and an example.

    Raises:
        PipelineError: there is none, or it cannot be used.
    """
    operator = OperatorRegistry().get(name)
    if as_json:
        sys.stdout.write(msgspec.json.encode(_fields(operator), enc_hook=str).decode() + "\n")
        return ExitCode.DONE
    console = _console()
    lines = [
        ("operator", operator.name),
        ("kind", _kind(operator)),
        ("from", f"{operator.distribution} {operator.version}".strip() or "-"),
        ("import path", operator.path),
        ("contract", contract_summary(_contract(operator)) or "the default one"),
    ]
    for label, text in lines:
        console.print(Text.assemble((f"{label:<{_LABEL_WIDTH}}", "dim"), printable(text)), soft_wrap=True)
    console.print()
    console.print(Text(printable(summary_of(operator.target))))
    console.print()
    console.print(_config_table(operator))
    console.print()
    console.print(Text("In a pipeline file:", "dim"))
    console.print()
    for line in example_of(operator).splitlines():
        console.print(Text(f"  {line}"), soft_wrap=True)
    return ExitCode.DONE


def _config_table(operator: RegisteredOperator) -> Table | Text:
    fields = config_fields(operator.target)
    if not fields:
        return Text(
            "It takes no config." if operator.kind is None else "Its config is not described: any key is taken."
        )
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("config", no_wrap=True)
    table.add_column("type", overflow="fold", max_width=30)
    table.add_column("default", overflow="fold", max_width=24)
    table.add_column("what it means", overflow="fold", min_width=20)
    for field in fields:
        default = Text("required", "yellow") if field.required else Text(one_line(field.default))
        table.add_row(Text(field.name, "bold"), Text(field.type), default, Text(printable(field.doc)))
    return table


def _fields(operator: RegisteredOperator) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": operator.name,
        "kind": "error" if operator.error else _kind(operator),
        "distribution": operator.distribution,
        "version": operator.version,
        "path": operator.path,
        "error": operator.error,
    }
    if not operator.error:
        fields["summary"] = summary_of(operator.target)
        fields["contract"] = msgspec.to_builtins(_contract(operator))
        fields["config"] = config_schema(operator)
        fields["example"] = example_of(operator)
    return fields


def _contract(operator: RegisteredOperator) -> Contract:
    # A plain function has none.
    contract = getattr(operator.target, "contract", None)
    return contract if isinstance(contract, Contract) else Contract()


def _kind(operator: RegisteredOperator) -> str:
    return "function" if operator.kind is None else operator.kind.value


def _rank(operator: RegisteredOperator) -> int:
    return len(_ORDER) if operator.error else _ORDER.index(_kind(operator))


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False)
