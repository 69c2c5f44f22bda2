"""The commands in the documents are run, and what the documents show is what they print.

A fenced block of the language `console` is a session: lines that begin with `$ ` are commands, the lines below
a command are what it writes to standard output and standard error (`...` stands for anything). The sessions of
a document run one after the other in one folder. That folder has the files of the document (code blocks with a
caption) and, as in a checkout, `docs`, `examples`, `cpp` and `CMakeLists.txt`. A command must succeed unless
the next one is `echo $?`.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(?P<head>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
CAPTION = re.compile(r"\A:caption: (?P<name>[\w./-]+)\n\n?")
CHECKOUT = ("docs", "examples", "cpp", "CMakeLists.txt")
# One of the documents builds all of the native libraries.
TIMEOUT_S = 400.0
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Command:
    """One command of a session and what the document says that it prints."""

    text: str
    expected: str


def blocks_of(text: str) -> list[tuple[str, str]]:
    """Head and body of all fenced blocks, in order."""
    return [(found["head"].strip(), found["body"]) for found in FENCE.finditer(text)]


def files_of(text: str) -> dict[str, str]:
    """The files that a document shows: code blocks with a caption, by their name."""
    files: dict[str, str] = {}
    for head, body in blocks_of(text):
        caption = CAPTION.match(body)
        if head.startswith("{code-block}") and caption is not None:
            files[caption["name"]] = body[caption.end() :]
    return files


def sessions_of(text: str) -> list[Command]:
    """All commands of a document, in order."""
    commands: list[Command] = []
    for head, body in blocks_of(text):
        if head != "console":
            continue
        assert body.startswith("$ "), f"a console block begins with a command, got {body[:40]!r}"
        for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            commands.append(Command(command.strip(), expected))
    return commands


DOCUMENTS = sorted(
    document
    for document in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("packages/*/README.md")]
    if "_build" not in document.parts and sessions_of(document.read_text(encoding="utf-8"))
)


def environment() -> dict[str, str]:
    """That of this process, with our command first in the path and nothing that changes what is printed."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "SAGE_"))}
    folder = str(Path(sys.executable).parent)
    return variables | {
        "PATH": f"{folder}{os.pathsep}{variables.get('PATH', '')}",
        "COLUMNS": "120",
        "TERM": "dumb",
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run(command: Command, folder: Path, last_code: int) -> subprocess.CompletedProcess[str]:
    """Run one command in a shell in which `$?` is the exit code of the one before."""
    return subprocess.run(
        ["bash", "-c", f"(exit {last_code}); {command.text}"],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
        check=False,
    )


def check(text: str, folder: Path) -> list[str]:
    """Run the sessions of a document; what is not as the document says, described."""
    for name, content in files_of(text).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    commands, code, problems = sessions_of(text), 0, []
    for number, command in enumerate(commands):
        done = run(command, folder, code)
        code = done.returncode
        tells_code = number + 1 < len(commands) and commands[number + 1].text == "echo $?"
        if code and not tells_code:
            problems.append(f"$ {command.text}\nexit code {code}\n{done.stdout}")
        elif not doctest.OutputChecker().check_output(command.expected, done.stdout, FLAGS):
            problems.append(f"$ {command.text}\nexpected:\n{command.expected}\ngot:\n{done.stdout}")
    return problems


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what the commands of the documents find in a checkout."""
    for name in CHECKOUT:
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_the_documents_have_sessions() -> None:
    names = {str(document.relative_to(ROOT)) for document in DOCUMENTS}
    assert {"docs/tutorial.md", "docs/howto/errors.md", "docs/howto/cpp.md"} <= names


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_commands_do_what_the_document_says(document: Path, checkout: Path) -> None:
    problems = check(document.read_text(encoding="utf-8"), checkout)
    assert not problems, "\n\n".join(problems)


def test_a_wrong_output_and_a_failure_are_found(tmp_path: Path) -> None:
    right = "```{code-block} text\n:caption: a.txt\n\nhello\n```\n\n```console\n$ cat a.txt\nhel...\n```\n"
    assert check(right, tmp_path) == []
    assert check("```console\n$ (exit 3)\n$ echo $?\n3\n```\n", tmp_path) == []
    wrong, failed = check("```console\n$ echo 1\n2\n$ (exit 3)\n```\n", tmp_path)
    assert "expected:\n2" in wrong
    assert "exit code 3" in failed
