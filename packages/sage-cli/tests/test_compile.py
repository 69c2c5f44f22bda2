"""`sage compile`, `sage version`, `sage --help`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from sage.kernel.graph import ExecutionGraph

Sage = Callable[..., subprocess.CompletedProcess[str]]
Pipeline = Callable[..., Path]


def test_formats(sage: Sage, squares: Path) -> None:
    arguments = ("compile", squares, "--parallelism", "square=2")
    text = sage(*arguments)
    assert text.returncode == 0
    assert text.stderr == ""
    assert "  square  (2 x thread, queue " in text.stdout
    assert "why:" not in text.stdout
    explained = sage(*arguments, "--explain").stdout
    assert explained.startswith(text.stdout)
    assert re.search(r"parallelism +square: 2 replica\(s\): set for this run", explained)
    graph = ExecutionGraph.from_json(sage(*arguments, "--format", "json").stdout)
    assert len([task for task in graph.tasks if task.chain == ("square",)]) == 2
    assert graph.notes
    mermaid = sage(*arguments, "--format", "mermaid").stdout
    assert mermaid.startswith("flowchart LR\n")
    assert "2 x thread" in mermaid
    dot = sage(*arguments, "--format", "dot").stdout
    assert dot.startswith('digraph "squares" {')
    assert dot.rstrip().endswith("}")


def test_nothing_is_run(sage: Sage, pipeline: Pipeline, tmp_path: Path) -> None:
    path = pipeline("""
        from pathlib import Path
        class Touch(MapFunction):
            def setup(self):
                Path("ran").touch()
            def execute(self, n):
                Path("ran").touch()
        env = LocalEnvironment("touch")
        env.from_collection([1]).map(Touch).print()
        env.submit()
    """)
    assert sage("compile", path).returncode == 0
    assert not (tmp_path / "ran").exists()


def test_versions(sage: Sage) -> None:
    lines = sage("version").stdout.splitlines()
    names = [line.split()[0] for line in lines]
    assert names == ["sage-common", "sage-platform", "sage-kernel", "sage-middleware", "sage-cli"]
    assert sage("--version").stdout.splitlines() == lines


def test_help(sage: Sage) -> None:
    done = sage("--help")
    assert done.returncode == 0
    for command in ("run", "compile", "doctor", "dead-letters", "version"):
        assert re.search(rf"\b{command}\b", done.stdout)
    bare = sage()
    assert bare.returncode == 2
    assert "compile" in bare.stdout
    run = sage("run", "--help")
    assert run.returncode == 0
    for option in ("--set", "--parallelism", "--json", "--quiet", "--traceback"):
        assert option in run.stdout
    assert "130 interrupted" in " ".join(run.stdout.split())
