"""Without a C++ compiler, the build of sage-middleware ends with a message that says what to install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def program(name: str) -> Path:
    """Where a build tool is: beside this interpreter, or on PATH."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"needs {name}; `make dev` installs it")
    return Path(found)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH has the build tools and nothing else: no compiler."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("cmake", "ninja"):
        (tools / name).symlink_to(program(name))
    kept = {name: value for name, value in os.environ.items() if name not in {"CC", "CXX", "PYTHONPATH"}}
    return {**kept, "PATH": str(tools), "COLUMNS": "200"}


def run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and everything that the user sees, with line breaks and indentation folded."""
    outcome = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=55,
        check=False,
    )
    return outcome.returncode, " ".join(outcome.stdout.split())


def assert_says_what_to_install(output: str) -> None:
    assert "No C++ compiler found" in output
    assert "GCC 12 or newer, Clang 14 or newer" in output
    assert "apt-get install g++" in output
    assert "xcode-select --install" in output


def test_pip_says_what_to_install(tmp_path: Path, environment: dict[str, str]) -> None:
    package = REPOSITORY / "packages" / "sage-middleware"
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index"]
    code, output = run([*command, "--wheel-dir", str(tmp_path / "wheels"), str(package)], environment)
    assert code != 0
    assert_says_what_to_install(output)
    assert not list(tmp_path.glob("wheels/*"))


def test_cmake_alone_says_what_to_install(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [str(program("cmake")), "-S", str(REPOSITORY), "-B", str(tmp_path / "build"), "-G", "Ninja"]
    code, output = run(command, environment)
    assert code != 0
    assert_says_what_to_install(output)


def test_a_name_in_cxx_that_does_not_exist_is_named(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [str(program("cmake")), "-S", str(REPOSITORY), "-B", str(tmp_path / "build"), "-G", "Ninja"]
    code, output = run(command, {**environment, "CXX": "g++-99"})
    assert code != 0
    assert_says_what_to_install(output)
    assert "CXX names 'g++-99', which does not exist or does not work." in output
