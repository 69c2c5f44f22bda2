#!/usr/bin/env python3
"""The house rules that no off-the-shelf linter knows, checked over the whole repository.

Usage::

    tools/tidy.py [ROOT]

Prints one line per finding, ``path:line: rule: message``. Exits with 1 for any, 0 for none, 2 when
ROOT is no directory. Needs only the standard library, so that it runs before anything is installed.
"""

from __future__ import annotations

import ast
import io
import os
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 600
INIT_DOCSTRING_LINES_MAX = 12

#: A name that says nothing about its content -> what to do instead.
BANNED_NAMES = {
    "utils": "name it after what it does: 'paths', 'retry', 'text'",
    "util": "name it after what it does: 'paths', 'retry', 'text'",
    "helpers": "move each function beside the code that it helps",
    "helper": "move each function beside the code that it helps",
    "common_utils": "put what is shared into sage.common under its own name",
    "misc": "split it by topic, one module each",
    "agentic": "there is 'agent'; two names for one thing confuse",
}

#: Import package -> its height in the house. libs ships with the kernel and stands on it.
LAYER_HEIGHTS = {"common": 1, "platform": 2, "kernel": 3, "libs": 4, "middleware": 5, "cli": 6}

#: Import packages whose work is to write to a terminal.
MAY_PRINT = {"cli"}

TEXT_FILE = re.compile(r"Makefile$|.*\.(c|cc|cfg|cmake|cpp|h|hpp|ini|json|md|py|pyi|rst|sh|toml|txt|yaml|yml)$")
SKIPPED_DIRECTORIES = {"build", "dist", "_build", "__pycache__", "_generated", "node_modules"}

# In pieces: this file must pass its own check.
LEFTOVER = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK")) + r")\b")
TOOL_COMMENT = re.compile(r"#\s*(noqa|type:|pragma|pyright:|mypy:|fmt:)[^#]*")


@dataclass(frozen=True, order=True)
class Finding:
    """One breach of one rule at one place."""

    path: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.message}"


@dataclass(frozen=True)
class Module:
    """A parsed Python file: its path below the root, its text, its tree, its comments by line."""

    path: Path
    lines: list[str]
    tree: ast.Module
    comments: dict[int, str]

    @property
    def layer(self) -> str | None:
        """The import package below ``sage``, such as ``kernel``; None outside of the distributions."""
        parts = self.path.parts
        if len(parts) > 5 and parts[0] == "packages" and parts[2:4] == ("src", "sage"):
            return parts[4]
        return None

    def finding(self, line: int, rule: str, message: str) -> Finding:
        """Build a finding in this file."""
        return Finding(self.path.as_posix(), line, rule, message)


def docstring_lines(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many lines of the file the docstring of `node` covers; 0 when it has none."""
    if not node.body or ast.get_docstring(node, clean=False) is None:
        return 0
    first = node.body[0]
    return (first.end_lineno or first.lineno) - first.lineno + 1


def check_lengths(module: Module) -> Iterator[Finding]:
    """Functions fit a screen, modules a sitting."""
    if len(module.lines) > MODULE_LINES_MAX:
        message = f"{len(module.lines)} lines, at most {MODULE_LINES_MAX}: split it by topic"
        yield module.finding(1, "module-length", message)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1 - docstring_lines(node)
            if length > FUNCTION_LINES_MAX:
                message = f"'{node.name}' has {length} lines without its docstring, at most {FUNCTION_LINES_MAX}"
                yield module.finding(node.lineno, "function-length", message)


def names_all(statement: ast.stmt) -> bool:
    """Whether `statement` assigns ``__all__``."""
    match statement:
        case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.AnnAssign(target=ast.Name(id="__all__")):
            return True
        case _:
            return False


def is_reexport(statement: ast.stmt) -> bool:
    """Whether `statement` is one of those that a package ``__init__`` consists of."""
    if names_all(statement) or isinstance(statement, ast.Import | ast.ImportFrom):
        return True
    match statement:
        case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=body, orelse=[]):
            return all(is_reexport(inner) for inner in body)
        case _:
            return False


def check_package_init(module: Module) -> Iterator[Finding]:
    """A package ``__init__`` tells its layout in a few lines and only re-exports."""
    if module.path.name != "__init__.py" or module.layer is None:
        return
    covered = docstring_lines(module.tree)
    if covered == 0:
        yield module.finding(1, "package-init", "has no docstring: say what the package is and how it is laid out")
    elif covered > INIT_DOCSTRING_LINES_MAX:
        message = f"docstring of {covered} lines, at most {INIT_DOCSTRING_LINES_MAX}"
        yield module.finding(1, "package-init", message)
    for statement in module.tree.body[1 if covered else 0 :]:
        if not is_reexport(statement):
            message = "only imports and __all__ stand here: move this into a module of its own"
            yield module.finding(statement.lineno, "package-init", message)
    if not any(names_all(statement) for statement in module.tree.body):
        yield module.finding(1, "package-all", "has no __all__: name what is public")


def check_prints(module: Module) -> Iterator[Finding]:
    """Libraries return values and log; only the command line prints."""
    if module.layer is None or module.layer in MAY_PRINT:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield module.finding(node.lineno, "print", "a library does not print: return it, or use logging")


def is_broad(handler: ast.ExceptHandler) -> bool:
    """Whether `handler` catches everything, alone or in a tuple, and does not end by raising it again."""
    if isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None:
        return False
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or ast.unparse(kind) in {"Exception", "BaseException"} for kind in kinds)


def check_broad_excepts(module: Module) -> Iterator[Finding]:
    """A broad except says why: in a comment on the line before, on its own, or above its first statement."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and is_broad(node):
            nearby = (module.comments.get(line, "") for line in range(node.lineno - 1, node.body[0].lineno + 1))
            if not any(TOOL_COMMENT.sub("", comment).strip(" #") for comment in nearby):
                yield module.finding(node.lineno, "broad-except", "say in a comment why everything is caught here")


def imported_name(call: ast.Call) -> str | None:
    """The name that a dynamic import imports, as far as it is written out; None for any other call."""
    match call.func:
        case ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"):
            pass
        case _:
            return None
    match call.args:
        case [ast.Constant(value=str(name)) | ast.JoinedStr(values=[ast.Constant(value=str(name)), *_]), *_]:
            return name
        case _:
            return None


def check_layer_strings(module: Module) -> Iterator[Finding]:
    """An upward import does not become right by being written as a string."""
    own = LAYER_HEIGHTS.get(module.layer or "")
    if own is None:
        return
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        name = imported_name(node) or ""
        if name.startswith("sage.") and LAYER_HEIGHTS.get(name.split(".")[1], 0) > own:
            message = f"sage.{module.layer} must not reach up to '{name}': use an entry point (importlib.metadata)"
            yield module.finding(node.lineno, "layer-string", message)


def check_names(path: Path) -> Iterator[Finding]:
    """File and directory names say what is inside; ``sage`` stays a namespace."""
    parts = path.parts
    if parts[-3:] == ("src", "sage", "__init__.py"):
        yield Finding(
            path.as_posix(),
            1,
            "namespace",
            "delete it: sage is a PEP 420 namespace shared by five distributions",
        )
    for name in dict.fromkeys((*parts[:-1], path.stem)):
        if name in BANNED_NAMES:
            yield Finding(path.as_posix(), 1, "banned-name", f"'{name}': {BANNED_NAMES[name]}")


def check_leftovers(path: Path, lines: list[str]) -> Iterator[Finding]:
    """Open work stands in the issue tracker, not in the files."""
    for number, line in enumerate(lines, start=1):
        if match := LEFTOVER.search(line):
            yield Finding(path.as_posix(), number, "leftover", f"{match[0]}: do it now or open an issue")


def read_comments(text: str) -> dict[int, str]:
    """The comments of a Python file by line number."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


MODULE_CHECKS = (check_lengths, check_package_init, check_prints, check_broad_excepts, check_layer_strings)


def check_file(root: Path, path: Path) -> Iterator[Finding]:
    """All findings in one file; `path` is relative to `root`."""
    try:
        text = (root / path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        yield Finding(path.as_posix(), 1, "encoding", f"is not UTF-8: {error.reason} at byte {error.start}")
        return
    lines = text.splitlines()
    yield from check_leftovers(path, lines)
    if path.suffix != ".py":
        return
    yield from check_names(path)
    try:
        module = Module(path, lines, ast.parse(text), read_comments(text))
    except (SyntaxError, tokenize.TokenError) as error:
        yield Finding(path.as_posix(), getattr(error, "lineno", None) or 1, "syntax", str(error))
        return
    for check in MODULE_CHECKS:
        yield from check(module)


def is_skipped(directory: Path) -> bool:
    """Whether `directory` is hidden, generated, or holds the data of tests, which may be anything."""
    if directory.name in SKIPPED_DIRECTORIES or directory.name.startswith("."):
        return True
    return directory.name == "data" and "tests" in directory.parts


def files_below(root: Path) -> Iterator[Path]:
    """The text files of the repository, relative to `root`, without builds, environments and caches."""
    for name, subdirectories, files in os.walk(root):  # Path.walk needs Python 3.12
        below = Path(name).relative_to(root)
        subdirectories[:] = sorted(directory for directory in subdirectories if not is_skipped(below / directory))
        for file in sorted(files):
            if TEXT_FILE.match(file):
                yield below / file


def main(arguments: list[str]) -> int:
    """Run all checks; the exit code."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    if not root.is_dir():
        print(f"tidy: '{root}' is no directory", file=sys.stderr)
        return 2
    findings = sorted(finding for path in files_below(root) for finding in check_file(root, path))
    for finding in findings:
        print(finding)
    if findings:
        print(f"tidy: {len(findings)} findings", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
