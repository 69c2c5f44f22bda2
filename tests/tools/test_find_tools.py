"""What `make` says when Python or the compiler is missing or too old: which, why, and what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run_script(name: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, output and errors of one of the scripts."""
    command = ["/bin/sh", str(TOOLS / name), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
    return done.returncode, done.stdout, done.stderr


def program(folder: Path, name: str, script: str) -> Path:
    """An executable shell script."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_first_python_that_will_do_is_taken(tmp_path: Path) -> None:
    shim = program(tmp_path, "shim", "echo 'not active' >&2; exit 127")
    code, output, _ = run_script("find_python.sh", "no-such-python", str(shim), sys.executable, PATH="/usr/bin:/bin")
    assert (code, output.strip()) == (0, sys.executable)


def test_each_python_that_will_not_do_is_named_with_the_reason(tmp_path: Path) -> None:
    shim = program(tmp_path, "shim", "echo 'not active' >&2; exit 127")
    old = program(tmp_path, "old", "echo 'is Python 3.9, SAGE needs 3.11 or newer' >&2; exit 1")
    code, output, errors = run_script("find_python.sh", "no-such-python", str(shim), str(old), PATH="/usr/bin:/bin")
    assert (code, output) == (1, "")
    assert errors.splitlines()[1:4] == [
        "  no-such-python: not on the PATH",
        f"  {shim}: not active",
        f"  {old}: is Python 3.9, SAGE needs 3.11 or newer",
    ]
    assert "make dev PYTHON=" in errors


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_a_python_without_venv_is_told_what_to_install(tmp_path: Path, missing: str) -> None:
    (tmp_path / f"{missing}.py").write_text("raise ImportError\n")
    code, _, errors = run_script("find_python.sh", sys.executable, PATH="/usr/bin:/bin", PYTHONPATH=str(tmp_path))
    assert code == 1
    assert "has no venv module (Debian, Ubuntu: apt-get install python3-venv)" in errors


@pytest.mark.parametrize("name", ["c++", "g++", "clang++"])
def test_any_of_the_usual_compilers_will_do(tmp_path: Path, name: str) -> None:
    compiler = program(tmp_path, name, "")
    assert run_script("find_compiler.sh", PATH=str(tmp_path)) == (0, f"{compiler}\n", "")


def test_cxx_decides(tmp_path: Path) -> None:
    program(tmp_path, "g++", "")
    mine = program(tmp_path, "mine", "")
    assert run_script("find_compiler.sh", PATH=str(tmp_path), CXX="mine")[:2] == (0, f"{mine}\n")
    code, _, errors = run_script("find_compiler.sh", PATH=str(tmp_path), CXX="g++-99")
    assert code == 1
    assert "CXX names one that is not on the PATH: 'g++-99'" in errors
