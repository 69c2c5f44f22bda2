"""Each house rule of tools/tidy.py: one file that breaks it, one that does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TIDY = Path(__file__).resolve().parents[2] / "tools" / "tidy.py"
KERNEL = "packages/sage-kernel/src/sage/kernel"
CLI = "packages/sage-cli/src/sage/cli"


def run_tidy(root: Path) -> tuple[int, list[str]]:
    """Exit code and the lines ``path:line: rule: message``."""
    done = subprocess.run(
        [sys.executable, str(TIDY), str(root)], capture_output=True, text=True, check=False, timeout=30
    )
    return done.returncode, done.stdout.splitlines()


def findings_of(tmp_path: Path, path: str, text: str) -> list[str]:
    """What tidy finds in a repository of one file, each as ``line: rule``."""
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    code, lines = run_tidy(tmp_path)
    assert code == (1 if lines else 0)
    assert all(line.startswith(f"{path}:") for line in lines)
    return [": ".join(line.split(":", 3)[1:3]).replace(":  ", ": ") for line in lines]


def function_of(lines: int, docstring_lines: int = 0) -> str:
    """A function that covers exactly `lines` lines beside its docstring."""
    docstring = '    """First.\n' + "\n" * (docstring_lines - 2) + '    """\n' if docstring_lines else ""
    return "def f() -> None:\n" + docstring + "    x = 1\n" * (lines - 1)


BROKEN = {
    "a function of 71 lines": (f"{KERNEL}/a.py", function_of(71), ["1: function-length"]),
    "an inner function counts into the outer one": (
        f"{KERNEL}/a.py",
        "def g() -> None:\n" + "".join(f"    {line}\n" for line in function_of(70).splitlines()),
        ["1: function-length"],
    ),
    "a module of 601 lines": (f"{KERNEL}/a.py", "x = 1\n" * 601, ["1: module-length"]),
    "a package that does not say what it is": (
        f"{KERNEL}/graph/__init__.py",
        "from sage.kernel.graph.a import A\n\n__all__ = ['A']\n",
        ["1: package-init"],
    ),
    "a package that tells too much": (
        f"{KERNEL}/graph/__init__.py",
        '"""One.\n' + "line\n" * 11 + '"""\n\n__all__ = []\n',
        ["1: package-init"],
    ),
    "code in a package": (
        f"{KERNEL}/graph/__init__.py",
        '"""One."""\n\n__all__: list[str] = []\n\n\ndef f() -> int:\n    return 1\n',
        ["6: package-init"],
    ),
    "a package without public names": (f"{KERNEL}/graph/__init__.py", '"""One."""\n', ["1: package-all"]),
    "a module called utils": (f"{KERNEL}/utils.py", "", ["1: banned-name"]),
    "a folder called helpers": ("tools/helpers/paths.py", "", ["1: banned-name"]),
    "a leftover in a comment": (f"{KERNEL}/a.py", "x = 1  # TO" + "DO later\n", ["1: leftover"]),
    "a leftover in C++": ("cpp/vdb/src/a.cpp", "\n// FIX" + "ME\n", ["2: leftover"]),
    "a leftover in a document": ("docs/a.md", "HA" + "CK: see below\n", ["1: leftover"]),
    "a leftover in a build file": ("cpp/CMakeLists.txt", "# XX" + "X\n", ["1: leftover"]),
    "print in a library": (f"{KERNEL}/a.py", "print(1)\n", ["1: print"]),
    "print in sage.libs": ("packages/sage-kernel/src/sage/libs/a.py", "print(1)\n", ["1: print"]),
    "a bare except": (f"{KERNEL}/a.py", "try:\n    x = 1\nexcept:\n    x = 2\n", ["3: broad-except"]),
    "a broad except": ("tools/a.py", "try:\n    x = 1\nexcept Exception:\n    x = 2\n", ["3: broad-except"]),
    "a broad except in a tuple": (
        f"{KERNEL}/a.py",
        "try:\n    x = 1\nexcept (OSError, BaseException) as error:\n    x = error\n",
        ["3: broad-except"],
    ),
    "raising something else without the cause": (
        f"{KERNEL}/a.py",
        "try:\n    x = 1\nexcept Exception:\n    raise ValueError from None\n",
        ["3: broad-except"],
    ),
    "a noqa is no reason": (
        f"{KERNEL}/a.py",
        "try:\n    x = 1\nexcept Exception:  # noqa: BLE001\n    x = 2\n",
        ["3: broad-except"],
    ),
    "an upward import in a string": (
        f"{KERNEL}/a.py",
        'import importlib\n\nx = importlib.import_module("sage.middleware.rag")\n',
        ["3: layer-string"],
    ),
    "an upward import in an f-string": (
        f"{KERNEL}/a.py",
        'from importlib import import_module\n\nx = import_module(f"sage.cli.{1}")\n',
        ["3: layer-string"],
    ),
    "the kernel reaching up to its own library": (
        f"{KERNEL}/a.py",
        '__import__("sage.libs.io")\n',
        ["1: layer-string"],
    ),
    "sage is no package": (
        "packages/sage-kernel/src/sage/__init__.py",
        '"""One."""\n\n__all__: list[str] = []\n',
        ["1: namespace"],
    ),
    "a syntax error": (f"{KERNEL}/a.py", "x = 1\ndef (\n", ["2: syntax"]),
    "two findings come in order": (
        f"{KERNEL}/a.py",
        "print(1)\ntry:\n    print(2)\nexcept Exception:\n    pass\n",
        ["1: print", "3: print", "4: broad-except"],
    ),
}

SOUND = {
    "a function of 70 lines": (f"{KERNEL}/a.py", function_of(70)),
    "a docstring does not count": (f"{KERNEL}/a.py", function_of(70, docstring_lines=40)),
    "a module of 600 lines": (f"{KERNEL}/a.py", "x = 1\n" * 600),
    "a package that re-exports": (
        f"{KERNEL}/graph/__init__.py",
        '"""One.\n' + "line\n" * 10 + '"""\n\nfrom __future__ import annotations\n\nfrom sage.kernel.graph.a import A\n'
        '\n__all__ = ["A"]\n',
    ),
    "an __init__ of tests may be empty": ("packages/sage-kernel/tests/__init__.py", ""),
    "a word that contains a marker": ("docs/a.md", "A HA" + "CKSAW and a TO" + "DOIST\n"),
    "print in the command line": (f"{CLI}/a.py", "print(1)\n"),
    "print in a tool": ("tools/a.py", "print(1)\n"),
    "a method called print": (f"{KERNEL}/a.py", "stream.print()\n"),
    "a reason before": (
        f"{KERNEL}/a.py",
        "try:\n    x = 1\n# The user's code may raise anything.\nexcept Exception:\n    x = 2\n",
    ),
    "a reason beside": (
        f"{KERNEL}/a.py",
        "try:\n    x = 1\nexcept Exception:  # anything at all\n    x = 2\n",
    ),
    "a reason below": (
        f"{KERNEL}/a.py",
        "try:\n    x = 1\nexcept Exception:\n    # anything at all\n    x = 2\n",
    ),
    "a reason in a wrapped handler": (
        f"{KERNEL}/a.py",
        "try:\n    x = 1\nexcept (\n    Exception\n):  # anything at all\n    x = 2\n",
    ),
    "cleaning up and raising again": (
        f"{KERNEL}/a.py",
        "try:\n    x = 1\nexcept BaseException:\n    x = 2\n    raise\n",
    ),
    "a narrow except": (f"{KERNEL}/a.py", "try:\n    x = 1\nexcept (OSError, ValueError):\n    x = 2\n"),
    "a downward import in a string": (
        f"{CLI}/a.py",
        'import importlib\n\nx = importlib.import_module("sage.kernel.api")\n',
    ),
    "a string that imports nothing of ours": (
        f"{KERNEL}/a.py",
        'import importlib\n\nx = importlib.import_module("ray")\n',
    ),
    "what git ignores": ("build/utils.py", "print(1)  # TO" + "DO\n"),
    "what is hidden": (".venv/lib/utils.py", "print(1)  # TO" + "DO\n"),
    "data of tests": ("tests/data/a.md", "TO" + "DO\n"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_tidy_finds(tmp_path: Path, name: str) -> None:
    path, text, expected = BROKEN[name]
    assert findings_of(tmp_path, path, text) == expected


@pytest.mark.parametrize("name", SOUND)
def test_tidy_accepts(tmp_path: Path, name: str) -> None:
    path, text = SOUND[name]
    assert findings_of(tmp_path, path, text) == []


def test_a_banned_name_comes_with_a_replacement(tmp_path: Path) -> None:
    (tmp_path / "helpers.py").write_text("")
    assert run_tidy(tmp_path) == (
        1,
        ["helpers.py:1: banned-name: 'helpers': move each function beside the code that it helps"],
    )


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"x = 1\n\xff\xfe")
    code, lines = run_tidy(tmp_path)
    assert code == 1
    assert lines == ["a.py:1: encoding: is not UTF-8: invalid start byte at byte 6"]


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "cpp").mkdir()
    (tmp_path / "cpp" / "a.cpp").write_text("// TO" + "DO\n")
    (tmp_path / "link").symlink_to(tmp_path / "cpp", target_is_directory=True)
    (tmp_path / "cpp" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert [line.split(":")[0] for line in run_tidy(tmp_path)[1]] == ["cpp/a.cpp"]


def test_a_root_that_does_not_exist(tmp_path: Path) -> None:
    assert run_tidy(tmp_path / "nowhere") == (2, [])
