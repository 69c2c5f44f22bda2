"""Runs the real command in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

TIMEOUT_S = 40
_CLEARED = (
    "OPENAI_BASE_URL",
    "OPENAI_API_KEY",
    "OPENAI_MODEL",
    "COLUMNS",
    "LINES",
    "NO_COLOR",
    "FORCE_COLOR",
    "SAGE_SIMD",
)
_IMPORTS = """
from __future__ import annotations
import asyncio, sys, time
from sage.kernel.api import *
"""


class Sage(Protocol):
    """`sage(*arguments)` runs the command to its end."""

    def __call__(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]: ...


def _environment(changes: dict[str, str] | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _CLEARED}
    return {**kept, "TERM": "xterm-256color", "LANG": "C.UTF-8", **(changes or {})}


def _signals_as_in_a_shell() -> None:
    # A test run in the background may have SIGINT ignored, which children inherit.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "sage.cli.main", *map(str, arguments)]


@pytest.fixture
def sage(tmp_path: Path) -> Sage:
    def run(
        *arguments: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=cwd or tmp_path,
            env=_environment(env),
            timeout=TIMEOUT_S,
            check=False,
            text=True,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
            **{"capture_output": True, **options},
        )

    return run


@pytest.fixture
def start_sage(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start_sage(*arguments)` starts the command and returns at once; it is ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command(*arguments),
            cwd=tmp_path,
            env=_environment(options.pop("env", None)),
            text=True,
            encoding="utf-8",
            preexec_fn=_signals_as_in_a_shell,  # noqa: PLW1509 - it only sets a signal
            **{
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "stdin": subprocess.DEVNULL,
                **options,
            },
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(TIMEOUT_S)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def pipeline(tmp_path: Path) -> Callable[..., Path]:
    """`pipeline(code)` writes a pipeline file."""

    def write(code: str, name: str = "pipeline.py") -> Path:
        path = tmp_path / name
        path.write_text(_IMPORTS + textwrap.dedent(code))
        return path

    return write


@pytest.fixture
def squares(pipeline: Callable[..., Path]) -> Path:
    """1, 4, 9, ... by a `build` with parameters; divides by `n - zero_at`."""
    return pipeline(
        """
        def build(items: int = 10, zero_at: int = -1, queue: str = "x") -> LocalEnvironment:
            env = LocalEnvironment("squares")
            numbers = env.from_collection(range(items), name="numbers")
            checked = numbers.map(lambda n: (1 // (n - zero_at), n)[1], name="check")
            checked.map(lambda n: n * n, name="square").print(name="show")
            return env
        """
    )
