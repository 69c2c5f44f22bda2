"""`sage run`: what goes where, exit codes, settings, wrong input."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Sage = Callable[..., subprocess.CompletedProcess[str]]
Pipeline = Callable[..., Path]


def test_results_go_to_stdout_and_the_summary_to_stderr(sage: Sage, squares: Path) -> None:
    done = sage("run", squares)
    assert done.returncode == 0
    assert done.stdout == "".join(f"{n * n}\n" for n in range(10))
    assert "squares finished in" in done.stderr
    assert re.search(r"items +10 in, 10 out, 0 errors, 0 dead letters", done.stderr)
    for operator in ("numbers", "check", "square", "show"):
        assert re.search(rf"^{operator} +1 +10 +10 +0 ", done.stderr, re.MULTILINE), operator
    # No colour, no cursor movement, no progress in a pipe.
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr


def test_quiet_prints_results_only(sage: Sage, squares: Path) -> None:
    done = sage("run", squares, "--quiet", "--set", "items=3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n1\n4\n", "")


def test_json_is_the_last_line_and_agrees_with_the_run(sage: Sage, squares: Path) -> None:
    done = sage("run", squares, "--json", "--set", "items=20", "--set", "zero_at=7", "--set", "home=kept")
    *results, last = done.stdout.splitlines()
    report = json.loads(last)
    assert done.returncode == report["exit_code"] == 1
    assert len(results) == 19
    assert report["state"] == "finished"
    assert report["metrics"]["items_in"] == 20
    assert report["metrics"]["items_out"] == len(results)
    assert report["metrics"]["errors"] == report["dead_letters"] == 1
    assert report["metrics"]["throughput"] > 0
    assert [operator["operator"] for operator in report["metrics"]["operators"]] == [
        "numbers",
        "check",
        "square",
        "show",
    ]
    assert [operator["items_out"] for operator in report["metrics"]["operators"]] == [20, 19, 19, 19]
    assert report["first_dead_letter"]["item"] == "7"
    assert report["first_dead_letter"]["operator"] == "check"
    assert report["offsets"] == {"numbers": [20]}
    assert Path(report["dead_letters_path"]) == Path("kept/dead_letters.db")
    assert "finished in" not in done.stderr  # the summary is off


def test_json_stands_on_a_line_of_its_own(sage: Sage, pipeline: Pipeline) -> None:
    path = pipeline("""
        env = LocalEnvironment("unended")
        env.from_collection("ab").sink(lambda item: sys.stdout.write(item) and None)
    """)
    done = sage("run", path, "--json")
    first, last = done.stdout.splitlines()
    assert first == "ab"
    assert json.loads(last)["metrics"]["items_out"] == 2


def test_dead_letters_give_exit_code_1_and_the_way_to_see_them(sage: Sage, squares: Path, tmp_path: Path) -> None:
    done = sage("run", squares, "--set", "zero_at=4", "--set", "home=some runs")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 9
    assert "1 dead letter (check 1)" in done.stderr
    assert "item 4 of operator 'check'" in done.stderr
    assert "ZeroDivisionError: integer division or modulo by zero" in done.stderr
    shown = re.search(r"see them +sage (dead-letters .*)", done.stderr)
    assert shown is not None
    # The command is exact: a shell runs it as it stands.
    again = subprocess.run(
        ["sh", "-c", f'"$0" -m sage.cli.main {shown[1]}', *_python()],
        cwd=tmp_path, capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "check" in again.stdout
    assert "1 dead letter" in again.stdout


def _python() -> list[str]:
    import sys

    return [sys.executable]


def test_quiet_still_says_that_items_were_set_aside(sage: Sage, squares: Path) -> None:
    done = sage("run", squares, "--quiet", "--set", "zero_at=4")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "1 item(s) could not be processed" in done.stderr


def test_a_failed_job_gives_exit_code_3_and_names_item_and_line(sage: Sage, pipeline: Pipeline) -> None:
    path = pipeline("""
        from sage.kernel.api import IOSpec
        strict = Contract(io=IOSpec(errors=ErrorPolicy(on_error=OnError.FAIL)))
        def halve(n):
            return 1 // (n - 2)
        env = LocalEnvironment("strict")
        env.from_collection([1, 2, 3]).map(halve, contract=strict).print()
    """)
    done = sage("run", path)
    assert done.returncode == 3
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: job 'strict' failed: ")
    assert "operator 'halve' raised for the item 2" in error
    assert "ZeroDivisionError" in error
    assert "pipeline.py:9, in halve" in error
    assert "Traceback" not in done.stderr
    assert "strict failed in" in done.stderr
    shown = sage("run", path, "--traceback", "--json")
    assert shown.returncode == 3
    assert "Traceback (most recent call last)" in shown.stderr
    assert json.loads(shown.stdout.splitlines()[-1])["state"] == "failed"


def test_an_operator_that_never_returns_is_found(sage: Sage, pipeline: Pipeline) -> None:
    path = pipeline("""
        import threading
        def stuck(n):
            threading.Event().wait()
        env = LocalEnvironment("hanging", {"watchdog_s": 1, "abort_grace_s": 0.5})
        env.from_collection([1, 2]).map(stuck, parallelism=1).print()
    """)
    done = sage("run", path)
    assert done.returncode == 3
    error = done.stderr[done.stderr.index("error: ") :]
    assert "no progress for" in error
    assert "watchdog_s=1" in error
    assert "in operator 'stuck'" in error
    assert 'pipeline.py", line 8, in stuck' in error
    assert "threading.Event().wait()" in error


def test_an_executor_that_never_returns_does_not_hold_the_process(sage: Sage, pipeline: Pipeline) -> None:
    path = pipeline("""
        async def stuck(n):
            await asyncio.to_thread(time.sleep, 1000)
        env = LocalEnvironment("hanging", {"watchdog_s": 1, "abort_grace_s": 0.5})
        env.from_collection([1]).map(stuck).print()
    """)
    done = sage("run", path)  # without care the interpreter waits at its end for the executor's thread
    assert done.returncode == 3
    assert "stuck" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.py"], "error: pipeline file 'nowhere.py' does not exist"),
        (["run", "."], "error: '.' is not a file"),
        (["run"], "error: Missing argument 'PIPELINE'"),
        (["run", "pipeline.py", "--sett", "a=1"], "error: No such option: --sett"),
        (["run", "pipeline.py", "--set", "top_k"], "error: --set top_k: expected key=value, there is no '='"),
        (["run", "pipeline.py", "--set", "itms=4"], "did you mean 'items'?"),
        (["run", "pipeline.py", "--set", "a b=4"], "'a b' is not a key"),
        (
            ["run", "pipeline.py", "--set", "squar.key=4"],
            "there is no operator 'squar'; did you mean 'square'?",
        ),
        (
            ["run", "pipeline.py", "--set", "square.key=4"],
            "'square' was not declared as a class with a config",
        ),
        (["run", "pipeline.py", "--set", "queue_capacity=many"], "config key 'queue_capacity': "),
        (
            ["run", "pipeline.py", "--parallelism", "sqare=2"],
            "unknown operator 'sqare'; did you mean 'square'?",
        ),
        (["run", "pipeline.py", "--parallelism", "square"], "expected operator=N"),
        (["run", "pipeline.py", "--parallelism", "square=0"], "N must be a whole number >= 1, got '0'"),
        (["run", "pipeline.py", "--parallelism", "square=two"], "N must be a whole number >= 1, got 'two'"),
        (["compile", "pipeline.py", "--format", "svg"], "'svg' is not one of"),
        (["compile", "pipeline.py", "--format", "dot", "--explain"], "--explain goes with --format text"),
        (["walk"], "No such command 'walk'"),
        (["dead-letters", "show", "one"], "error: Invalid value for 'NUMBER': "),
        (["dead-letters", "list", "--home", "nowhere"], "there is no folder 'nowhere'"),
        (["dead-letters", "list", "--limit", "0"], "error: Invalid value for '--limit': "),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(sage: Sage, squares: Path, arguments: list[str], message: str) -> None:
    done = sage(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("env = LocalEnvironment('x'\n", "pipeline.py:5: SyntaxError: '(' was never closed"),
        ("\n\nx = 1 / 0\n", "pipeline.py:7: ZeroDivisionError: division by zero"),
        ("sys.exit(4)\n", "pipeline.py:5: SystemExit: 4"),
        (
            "from absent_module import x\n",
            "pipeline.py:5: ModuleNotFoundError: No module named 'absent_module'",
        ),
        ("x = 1\n", "declares no environment at module level"),
        ("a, b = LocalEnvironment('a'), LocalEnvironment('b')\n", "declares 2 environments"),
        ("def build():\n    return 5\n", "build() must return the environment, got 5"),
        ("def build(docs):\n    return LocalEnvironment('x')\n", "needs --set docs=..."),
        (
            "env = LocalEnvironment('x')\nenv.from_collection([1]).map(str)\n",
            "the stream of 'str' goes nowhere",
        ),
        ("env = LocalEnvironment('x', {'watchdog': 1})\n", "unknown config key 'watchdog'; did you mean"),
    ],
)
def test_a_wrong_file_names_its_line_and_gives_exit_code_2(
    sage: Sage, pipeline: Pipeline, code: str, message: str
) -> None:
    done = sage("run", pipeline(code))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_syntax_error_of_an_imported_file_names_that_file(sage: Sage, pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("x = 1\n\ny = = 2\n")
    done = sage("run", pipeline("import neighbour\n"))
    assert done.returncode == 2
    assert "neighbour.py:3: SyntaxError: invalid syntax" in done.stderr


def test_settings_reach_build_environment_and_sections_of_operators(sage: Sage, pipeline: Pipeline) -> None:
    path = pipeline("""
        from pydantic import BaseModel
        class Inner(BaseModel, extra="forbid"):
            sign: int = 1
            twice: bool = False
        class Outer(BaseModel, extra="forbid"):
            inner: Inner = Inner()
        class Turn(MapFunction):
            Config = Outer
            def execute(self, n):
                return n * self.config.inner.sign * (2 if self.config.inner.twice else 1)
        env = LocalEnvironment("turn")
        env.from_collection([1, 2]).map(Turn, {"inner": {"twice": True}}, name="turn.round").print()
        env.submit()
        raise AssertionError("a file that submits is loaded up to there")
    """)
    done = sage("run", path, "--set", "turn.round.inner.sign=-1", "--set", "queue_capacity=1", "--quiet")
    assert (done.returncode, done.stdout) == (0, "-2\n-4\n"), done.stderr
    wrong = sage("run", path, "--set", "turn.round.inner.sing=-1")
    assert wrong.returncode == 2
    assert "sing" in wrong.stderr


def test_parallelism_is_applied(sage: Sage, squares: Path) -> None:
    done = sage("run", squares, "--parallelism", "square=3", "--json")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    replicas = {operator["operator"]: operator["replicas"] for operator in report["metrics"]["operators"]}
    assert replicas == {"numbers": 1, "check": 1, "square": 3, "show": 1}


def test_a_question_file_that_does_not_exist_fails_before_anything_runs(sage: Sage, pipeline: Pipeline) -> None:
    path = pipeline("""
        from sage.libs.foundation.io import FileSource, TerminalSink
        env = LocalEnvironment("questions")
        env.from_source(FileSource, {"file_path": "absent.txt"}).sink(TerminalSink)
    """)
    done = sage("run", path)
    assert done.returncode == 3
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert "'absent.txt'" in error
    assert "FileSource" in error


def test_control_characters_of_items_do_not_reach_the_terminal(sage: Sage, pipeline: Pipeline) -> None:
    path = pipeline(r"""
        def refuse(item):
            raise ValueError("bad \x1b[2J item")
        env = LocalEnvironment("hostile")
        env.from_collection(["\x1b[31m"]).map(refuse).print()
    """)
    done = sage("run", path)
    listed = sage("dead-letters", "list")
    shown = sage("dead-letters", "show", "1")
    assert (done.returncode, listed.returncode, shown.returncode) == (1, 0, 0)
    assert "\x1b" not in done.stderr + listed.stdout + shown.stdout
    assert r"bad \x1b[2J item" in shown.stdout


def test_a_job_that_fails_before_it_begins_shows_no_table_of_zeros(sage: Sage, pipeline: Pipeline) -> None:
    path = pipeline(
        """
        from sage.kernel.api import LocalEnvironment, MapFunction

        class Opens(MapFunction[int, int]):
            def setup(self):
                open("not-there.txt")

            def execute(self, item):
                return item

        env = LocalEnvironment("opens")
        env.from_collection([1]).map(Opens).print()
        """
    )
    done = sage("run", path)
    assert done.returncode == 3
    assert "opens failed before it began" in done.stderr
    assert "not-there.txt" in done.stderr
    assert "throughput" not in done.stderr
