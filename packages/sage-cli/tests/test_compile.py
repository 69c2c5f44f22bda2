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


_MEASURED = """
    def crunch(n):
        print("crunch", n)
        return sum(i * i for i in range(3000)) * 0 + n
    def build():
        env = LocalEnvironment("measured")
        env.from_collection([1, 2, 3], name="numbers").map(crunch).print(name="end")
        return env
"""


def test_calibrate_calls_operators_on_a_sample_and_explains(sage: Sage, pipeline: Pipeline) -> None:
    path = pipeline(_MEASURED)
    done = sage("compile", path, "--calibrate", "--explain")
    assert done.returncode == 0
    assert done.stdout.startswith("crunch 1\ncrunch 2\ncrunch 3\nmeasured: ")
    assert re.search(r"calibrate +crunch: [0-9.e+]+ us per item, [0-9]+% of it computing \(2 items\)", done.stdout)
    assert re.search(r"calibrate +end: left as declared: it is a sink", done.stdout)
    assert re.search(r"execution +crunch: (process|thread): measured, it takes", done.stdout)
    plain = sage("compile", path, "--explain").stdout
    assert "crunch 1" not in plain
    assert "calibrate" not in plain
    for other in (("--diff", path), ("--to", "yaml")):
        refused = sage("compile", path, "--calibrate", *other)
        assert refused.returncode == 2
        assert "--calibrate goes with the plan of one pipeline" in refused.stderr


def test_a_calibrated_run_sees_the_sample_once_more(sage: Sage, pipeline: Pipeline) -> None:
    path = pipeline(_MEASURED)
    done = sage("run", path, "--calibrate", "--quiet")
    assert done.returncode == 0
    assert sorted(done.stdout.split("\n")) == sorted(["", "1", "2", "3", *[f"crunch {n}" for n in (1, 2, 3)] * 2])


def test_what_cannot_pay_is_refused_unless_it_is_asked_for_in_so_many_words(sage: Sage, pipeline: Pipeline) -> None:
    path = pipeline("""
        from sage.kernel.api import Contract, Execution, IOSpec
        env = LocalEnvironment("refused")
        cheap = Contract(execution=Execution.PROCESS, io=IOSpec(item_cost_s=2e-7))
        env.from_collection([1]).map(abs, contract=cheap).print()
    """)
    refused = sage("compile", path)
    assert refused.returncode == 2
    assert "takes 0.2 us (io.item_cost_s) of work per item" in refused.stderr
    assert 'set coarsen="warn"' in refused.stderr
    for switch in ("warn", "false"):
        assert sage("compile", path, "--set", f"coarsen={switch}").returncode == 0
