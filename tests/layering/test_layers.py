"""The import contracts hold, and a breach of each of them is found."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The Python sources of all five distributions, as one tree below ``sage``."""
    for sources in sorted((ROOT / "packages").glob("sage-*/src/sage")):
        pattern = shutil.ignore_patterns("__pycache__", "*.so", "*.pyi")
        shutil.copytree(sources, tmp_path / "sage", ignore=pattern, dirs_exist_ok=True)
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def lint(house: Path) -> tuple[int, str]:
    """Exit code and output of lint-imports over `house`."""
    # -S: no .pth file is read, so that the editable installations of the real packages, parts of the same
    # namespace, stay out of the import path. The tools come back through PYTHONPATH.
    done = subprocess.run(
        [sys.executable, "-S", "-c", LINT, "--no-cache"],
        cwd=house,
        env={"PYTHONPATH": sysconfig.get_path("purelib"), "COLUMNS": "200", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=50,
    )
    return done.returncode, done.stdout + done.stderr


def plant(house: Path, module: str, text: str) -> None:
    """Write a new module, with the packages above it when they are missing."""
    path = house.joinpath(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "__init__.py").touch()
    path.write_text(text)


def test_the_house_keeps_its_contracts(house: Path) -> None:
    code, output = lint(house)
    assert code == 0, output
    assert "Contracts: 3 kept, 0 broken." in output


UPWARD = [
    ("sage.common.planted", "sage.platform"),
    ("sage.platform.planted", "sage.kernel.graph"),
    ("sage.kernel.graph.planted", "sage.libs"),
    ("sage.kernel.runtime.planted", "sage.middleware"),
    ("sage.libs.planted", "sage.cli"),
    ("sage.common.planted", "sage.cli"),
    ("sage.kernel.graph.planted", "sage.kernel.runtime"),
    ("sage.kernel.packet.planted", "sage.kernel.operators"),
    ("sage.kernel.compiler.planted", "sage.kernel.api"),
]


@pytest.mark.parametrize(("importer", "imported"), UPWARD)
def test_an_upward_import_is_found(house: Path, importer: str, imported: str) -> None:
    plant(house, importer, f"import {imported}\n")
    code, output = lint(house)
    assert code == 1
    assert f"{importer} -> {imported}" in output


def test_an_upward_import_inside_a_function_is_found(house: Path) -> None:
    plant(house, "sage.platform.planted", "def f():\n    from sage.kernel import api\n    return api\n")
    code, output = lint(house)
    assert code == 1
    assert "sage.platform.planted -> sage.kernel.api" in output


def test_runtime_and_insight_do_not_know_each_other(house: Path) -> None:
    plant(house, "sage.kernel.insight.planted", "import sage.kernel.runtime\n")
    code, output = lint(house)
    assert code == 1
    assert "sage.kernel.insight.planted -> sage.kernel.runtime" in output


@pytest.mark.parametrize("package", ["sage.extra", "sage.kernel.extra"])
def test_a_package_without_a_place_is_found(house: Path, package: str) -> None:
    plant(house, f"{package}.planted", "")
    code, output = lint(house)
    assert code == 1
    assert f"- {package}" in output


def test_a_cycle_between_siblings_is_found(house: Path) -> None:
    plant(house, "sage.libs.planted_a", "import sage.libs.planted_b\n")
    plant(house, "sage.libs.planted_b", "def f():\n    import sage.libs.planted_a\n")
    code, output = lint(house)
    assert code == 1
    assert "No cycles are allowed in sage.libs" in output
