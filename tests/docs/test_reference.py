"""The reference has every public name, and the page of the command is what the command says of itself."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
API = ROOT / "docs" / "reference" / "api"
AUTOMODULE = re.compile(
    r"^\.\. automodule:: (?P<module>\S+)(?:\n   :exclude-members: \+(?P<excluded>.+))?", re.MULTILINE
)


def documented() -> dict[str, set[str]]:
    """The modules of the reference, each with the names that its page leaves out."""
    found: dict[str, set[str]] = {}
    for page in API.glob("*.rst"):
        for match in AUTOMODULE.finditer(page.read_text(encoding="utf-8")):
            assert match["module"] not in found, f"{match['module']} is twice in the reference"
            found[match["module"]] = set(re.split(r",\s*", match["excluded"] or "")) - {""}
    return found


def public_packages() -> list[str]:
    """All packages that export names."""
    names: list[str] = []
    for init in ROOT.glob("packages/*/src/sage/**/__init__.py"):
        name = ".".join(init.parent.parts[init.parts.index("sage", len(ROOT.parts)) :])
        if importlib.import_module(name).__all__:
            names.append(name)
    return sorted(names)


def common_modules() -> list[str]:
    """The modules of sage.common, which has no package that exports them."""
    folder = ROOT / "packages" / "sage-common" / "src" / "sage" / "common"
    return sorted(f"sage.common.{path.stem}" for path in folder.glob("*.py") if not path.stem.startswith("_"))


def test_the_packages_are_found() -> None:
    assert "sage.kernel.api" in public_packages()
    assert "sage.libs.foundation.io" in public_packages()
    assert "sage.common.errors" in common_modules()


@pytest.mark.parametrize("module", [*public_packages(), *common_modules()])
def test_each_public_package_is_in_the_reference(module: str) -> None:
    assert module in documented()


def test_what_a_page_leaves_out_stands_on_another() -> None:
    everywhere = documented()
    elsewhere = set(importlib.import_module("sage.kernel.api").__all__)
    for module, excluded in everywhere.items():
        assert excluded <= set(importlib.import_module(module).__all__), module
        assert excluded <= elsewhere, module


def test_the_page_of_the_command_is_its_help() -> None:
    spec = importlib.util.spec_from_file_location("cli_reference", ROOT / "docs" / "cli_reference.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert page == script.reference(), "run: python docs/cli_reference.py > docs/reference/cli.md"
