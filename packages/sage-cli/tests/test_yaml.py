"""YAML pipelines with the real command: run, compile, validate, schema, to YAML."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sage.kernel.graph import ExecutionGraph

Sage = Callable[..., subprocess.CompletedProcess[str]]
Pipeline = Callable[..., Path]

_SALES = """\
pipeline: sales
parameters:
  below: 100
operators:
  - collection:
      - {user: {id: ada}, eur: 5}
      - {user: {id: bob}, eur: 20}
      - {user: {id: ada}, eur: 7}
      - {user: {id: eve}, eur: 700}
  - filter: {field: eur, below: "${below}"}
    name: small
  - key_by: {field: user.id}
  - sum: eur
    name: total
    emit: final
  - sink: terminal_sink
    name: out
    config:
      prefix: ${PREFIX:-}
"""


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    path = tmp_path / "sales.yaml"
    path.write_text(_SALES)
    return path


def test_run_with_settings_as_for_python(sage: Sage, sales: Path) -> None:
    done = sage("run", sales)
    assert (done.returncode, done.stdout) == (0, "('ada', 12)\n('bob', 20)\n")
    assert "sales finished in" in done.stderr
    arguments = ("--set", "below=1000", "--set", "out.format=json", "--parallelism", "total=2", "--quiet")
    done = sage("run", sales, *arguments, env={"PREFIX": "> "})
    assert (done.returncode, sorted(done.stdout.splitlines()), done.stderr) == (
        0,
        ['> ["ada",12]', '> ["bob",20]', '> ["eve",700]'],
        "",
    )
    done = sage("run", sales, "--set", "blow=3")
    assert (done.returncode, done.stderr) == (
        2,
        "error: unknown setting 'blow' for " + f"{sales}; did you mean 'below'?\n",
    )


def test_compile_shows_the_plan(sage: Sage, sales: Path) -> None:
    done = sage("compile", sales, "--parallelism", "total=3", "--format", "json")
    graph = ExecutionGraph.from_json(done.stdout)
    assert len([task for task in graph.tasks if task.chain[0] == "total"]) == 3
    text = sage("compile", sales, "--explain").stdout
    assert "collection -> small -> key_by" in text
    assert "why:" in text


_BAD = """\
pipeline: bad
operators:
  - source: file_sorce
  - source: file_source
    config: {file_path: [1]}
  - map: hybrid_retriever
    config: {documents: docs, top_k: five}
    contract: {io: {errors: {retries: -1}}}
  - sink: terminal_sink
    config: {prefix: "${TOKEN}${NOT_THERE}"}
"""
_FOUND = {
    "3:5": "there is no operator 'file_sorce'; did you mean 'file_source'?",
    "5:14": "file_path must be a path, got a list",
    "7:31": "top_k must be a whole number, got 'five'",
    "8:21": "io.errors: errors.retries must be >= 0, got -1",
    "10:14": "the environment variable 'NOT_THERE' is not set",
}


def test_validate_tells_everything_at_once(sage: Sage, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(_BAD)
    done = sage("validate", "bad.yaml", env={"TOKEN": "swordfish"})
    assert done.returncode == 2
    assert done.stderr == ""
    told = [line.removeprefix("bad.yaml:").split(": ", 1) for line in done.stdout.splitlines()[:-2]]
    assert [place for place, _ in told] == list(_FOUND)
    assert all(message.startswith(_FOUND[place]) for place, message in told), told
    assert done.stdout.endswith("\n\n5 errors in bad.yaml\n")
    assert "swordfish" not in done.stdout
    report = json.loads(sage("validate", "bad.yaml", "--json", env={"TOKEN": "swordfish"}).stdout)
    assert report["valid"] is False
    assert [each["location"] for each in report["findings"]] == [f"bad.yaml:{place}" for place in _FOUND]
    run = sage("run", "bad.yaml", env={"TOKEN": "swordfish"})
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 5
    assert run.stderr.startswith("error: bad.yaml:")
    assert "swordfish" not in run.stderr


def test_validate_what_is_right(sage: Sage, sales: Path, squares: Path) -> None:
    done = sage("validate", sales)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{sales} is a valid pipeline\n", "")
    assert json.loads(sage("validate", sales, "--json").stdout) == {"file": str(sales), "valid": True, "findings": []}
    assert sage("validate", squares).returncode == 0
    assert sage("validate", sales, "--set", "below=many").returncode == 0  # text can be compared with text
    wrong = sage("validate", squares, "--set", "itmes=3")
    assert (wrong.returncode, "did you mean 'items'" in wrong.stdout) == (2, True)


def test_validate_runs_nothing(sage: Sage, tmp_path: Path) -> None:
    (tmp_path / "touching.py").write_text(
        "from pathlib import Path\n"
        "from sage.kernel.api import MapFunction\n"
        "class Touch(MapFunction):\n"
        "    def __init__(self, config=None):\n        Path('ran').touch()\n"
        "    def setup(self):\n        Path('ran').touch()\n"
        "    def execute(self, item):\n        return item\n"
    )
    (tmp_path / "p.yaml").write_text("pipeline: p\noperators:\n- collection: [1]\n- map: touching:Touch\n- print:\n")
    assert sage("validate", "p.yaml").returncode == 0
    assert sage("compile", "p.yaml").returncode == 0
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\xff", "1:1: not UTF-8: byte 0x89"),
        (b"# " + b"x" * 10_000_000, "larger than the limit of 1048576 bytes"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\n" + b"".join(
            b"%c: &%c [%s]\n" % (letter, letter, b", ".join([b"*%c" % (letter - 1)] * 9)) for letter in range(99, 112)
        ), "(an alias bomb?)"),
        (b"pipeline: p\npipeline: q\n", "2:1: duplicate key 'pipeline', first given in line 1: remove one of them"),
        (b"pipeline: !!python/object/apply:os.system [touch ran]\n", "the tag !!python/object/apply:os.system is not"),
        (None, "is a directory"),
    ],
    ids=["binary", "10 MB", "bomb", "duplicate", "tag", "directory"],
)  # fmt: skip
@pytest.mark.parametrize("command", ["run", "compile", "validate"])
def test_what_is_no_pipeline_file(sage: Sage, tmp_path: Path, command: str, content: bytes | None, told: str) -> None:
    path = tmp_path / "odd.yaml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    done = sage(command, "odd.yaml")
    assert done.returncode == 2
    output = done.stdout + done.stderr
    assert told in output
    assert len(output) < 500
    assert "Traceback" not in output
    assert not (tmp_path / "ran").exists()


def test_schema_is_json(sage: Sage) -> None:
    schema = json.loads(sage("schema").stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "config.hybrid_retriever" in schema["$defs"]


# -- operators


def test_operators_lists_what_is_installed(sage: Sage, tmp_path: Path) -> None:
    facts = tmp_path / "acme_ops-2.1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-ops\nVersion: 2.1\n")
    (facts / "entry_points.txt").write_text(
        "[sage.operators]\nacme_broken = acme_broken:Thing\nacme_len = builtins:len\n"
    )
    (tmp_path / "acme_broken.py").write_text("raise RuntimeError('no \\x1b[31m licence')\n")
    env = {"PYTHONPATH": str(tmp_path)}
    done = sage("operators", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    for line in (
        r"^file_source +source +sage-kernel +- +Lines of a text file",
        r"^llm_generator +map +sage-middleware +concurrency=32, ",
        r"^acme_len +function +acme-ops +- ",
        r"^acme_broken +error +acme-ops +- +module 'acme_broken' cannot be imported: RuntimeError: no \\x1b\[31m",
        r"^\d+ operators, 1 of them cannot be used; one in full: sage operators NAME$",
    ):
        assert re.search(line, done.stdout, re.MULTILINE), line
    assert "\x1b" not in done.stdout
    listed = [json.loads(line) for line in sage("operators", "--json", env=env).stdout.splitlines()]
    by_name = {operator["name"]: operator for operator in listed}
    assert by_name["acme_broken"]["kind"] == "error"
    assert by_name["terminal_sink"]["config"]["properties"]["format"]["enum"] == ["text", "json"]
    assert by_name["llm_generator"]["contract"]["resources"]["concurrency"] == 32
    wrong = sage("operators", "acme_broken", env=env)
    assert wrong.returncode == 2
    assert "operator 'acme_broken' cannot be used" in wrong.stderr


def test_one_operator_in_full(sage: Sage, tmp_path: Path) -> None:
    done = sage("operators", "terminal_sink")
    assert done.returncode == 0
    for line in (
        r"^kind +sink$",
        r"^from +sage-kernel 0\.",
        r"^import path +sage\.libs\.foundation\.io:TerminalSink$",
        r"^format +'text' \| 'json' +text +\"text\" or \"json\"\.",
        r"^  - sink: terminal_sink$",
        r"^      format: text$",
    ):
        assert re.search(line, done.stdout, re.MULTILINE), line
    missing = sage("operators", "terminal_snk")
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: there is no operator 'terminal_snk'; did you mean 'terminal_sink'?")


# -- to YAML and diff


_STEPS = """
from sage.kernel.api import *

def double(n):
    return 2 * n

def build(replicas: int = 1):
    env = LocalEnvironment("doubles")
    env.from_collection([1, 2]).map(double, parallelism=replicas).print("> ")
    return env
"""


def test_a_python_pipeline_as_yaml(sage: Sage, tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text(_STEPS)
    done = sage("compile", "--to", "yaml", "steps.py", "--set", "replicas=2")
    assert done.returncode == 0, done.stderr
    assert "- map: steps:double\n" in done.stdout
    (tmp_path / "written.yaml").write_text(done.stdout)
    assert sorted(sage("run", "written.yaml", "--quiet").stdout.splitlines()) == ["> 2", "> 4"]
    same = sage("compile", "--diff", "steps.py", "written.yaml", "--set", "map.x=1")
    assert same.returncode == 2  # a setting must fit both
    assert sage("compile", "--diff", "written.yaml", "written.yaml").returncode == 0
    again = sage("compile", "--to", "yaml", "written.yaml")
    assert (again.returncode, again.stderr) == (
        2,
        "error: written.yaml is YAML already: --to yaml is for Python pipelines\n",
    )


_STREAMS = """
from sage.kernel.api import *
from sage.libs.foundation import FieldFilter

def step(pair):
    return [pair[0] - 1, pair[1] + 1]

def to_go(pair):
    return pair[0] > 0

def sign(n):
    return "negative" if n < 0 else "positive"

def tens(numbers):
    return [10 * n for n in numbers]

def pair(one, two):
    return [one, two]

def shout(text):
    return text.upper()

class Ask(MapFunction):
    def execute(self, item):
        return self.ctx.call_service("shout", item)

env = LocalEnvironment("streams")
env.register_service("shout", shout)
numbers = env.from_collection([3, -1, 2], name="numbers")
parts = numbers.split(sign, into=["negative", "positive"], name="sign")
parts["negative"].print("negative ")
again = env.from_future("again")
body = parts["positive"].map(abs).map(tens, batch=Batching(size=2))
items = env.from_collection([[2, 0], [1, 0]])
stepped = items.union(again).map(step)
ways = stepped.split({"more": to_go})
again.fill(ways["more"], max_in_flight=9)
ways["rest"].print("loop ")
body.rebalance().map(abs, parallelism=2).print("ten ")
left, right = numbers.key_by(abs), env.from_collection([3]).key_by(abs, parallelism=2)
left.join(right, pair).print("join ")
left.connect(right).comap(abs, str).print("comap ")
numbers.interleave(env.from_collection([7]), ahead=5).print("turns ")
numbers.map(abs, parallelism=2).ordered(max_ahead=5).print("in order ")
prices = env.from_collection([{"eur": 1}, {"eur": 100}])
prices.split({"cheap": FieldFilter({"field": "eur", "below": 9}).execute})["cheap"].print("cheap ")
env.from_collection(["a"]).map(Ask).print("ask ")
"""


def test_streams_loops_and_services_as_yaml(sage: Sage, tmp_path: Path) -> None:
    (tmp_path / "streams.py").write_text(_STREAMS)
    done = sage("compile", "--to", "yaml", "streams.py")
    assert done.returncode == 0, done.stderr
    (tmp_path / "written.yaml").write_text(done.stdout)
    assert "- fill:\n    future: again\n    max_in_flight: 9\n  input: split/more\n" in done.stdout
    assert sage("validate", "written.yaml").stdout == "written.yaml is a valid pipeline\n"
    same = sage("compile", "--diff", "streams.py", "written.yaml")
    assert (same.returncode, same.stdout) == (0, "streams.py and written.yaml have the same plan\n")
    one, other = (sage("run", name, "--quiet") for name in ("streams.py", "written.yaml"))
    assert (one.returncode, other.returncode, one.stderr, other.stderr) == (0, 0, "", "")
    lines = sorted(one.stdout.splitlines())
    assert lines == sorted(other.stdout.splitlines())
    assert [line for line in lines if not line.startswith(("turns", "comap"))] == [
        "ask A", "cheap {'eur': 1}", "in order 1", "in order 2", "in order 3", "join [3, 3]", "loop [0, 1]",
        "loop [0, 2]", "negative -1", "ten 20", "ten 30",
    ]  # fmt: skip


def test_a_script_that_submits_cannot_be_imported_by_what_is_written(sage: Sage, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "from sage.kernel.api import LocalEnvironment\n"
        "def step(n):\n    return n\n"
        "LocalEnvironment('p').from_collection([1]).map(step).map(step).print().submit()\n"
    )
    done = sage("compile", "--to", "yaml", "script.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: script.py cannot be written as YAML, because that could not be read back: module 'script' runs a "
        "pipeline while it is imported: put its submit() behind `if __name__ == '__main__'`\n"
    )


def test_what_has_no_name_is_told_with_its_line(sage: Sage, pipeline: Pipeline) -> None:
    path = pipeline("""
        env = LocalEnvironment("nameless")
        env.from_collection([1]).map(lambda n: n).filter(lambda n: n).print()
    """)
    done = sage("compile", "--to", "yaml", path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 2
    for name in ("map", "filter"):
        told = rf"pipeline\.py:7: operator '{name}' cannot be written as YAML: it is a lambda"
        assert re.search(told, done.stderr), done.stderr


def test_diff(sage: Sage, tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text(_STEPS)
    plan = sage("compile", "steps.py", "--format", "json").stdout
    (tmp_path / "plan.json").write_text(plan)
    same = sage("compile", "--diff", "plan.json", "steps.py")
    assert (same.returncode, same.stdout) == (0, "plan.json and steps.py have the same plan\n")
    done = sage("compile", "--diff", "plan.json", "steps.py", "--set", "replicas=2")
    assert done.returncode == 1
    assert done.stdout.splitlines()[:2] == ["- plan.json", "+ steps.py"]
    for line in (
        r"^\+ +task +double +2 x thread, queue \d+",
        r"^\+ +stream +collection -> double +least_loaded",
        r"^~ +task +collection +operators collection \+ double \+ print -> collection",
        r"^\d differences$",
    ):
        assert re.search(line, done.stdout, re.MULTILINE), (line, done.stdout)
    assert done.stdout == sage("compile", "--diff", "plan.json", "steps.py", "--set", "replicas=2").stdout
    report = json.loads(
        sage("compile", "--diff", "--format", "json", "plan.json", "steps.py", "--set", "replicas=2").stdout
    )
    assert report["equal"] is False
    (task,) = [each for each in report["differences"] if (each["what"], each["subject"]) == ("task", "double")]
    assert (task["change"], task["after"]["replicas"]) == ("added", 2)


def test_diff_of_two_folders_with_modules_of_the_same_name(sage: Sage, tmp_path: Path) -> None:
    for folder, replicas in (("old", 1), ("new", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "sizes.py").write_text(f"REPLICAS = {replicas}\n")
        (tmp_path / folder / "main.py").write_text(
            _STEPS.replace("replicas: int = 1", "replicas=__import__('sizes').REPLICAS")
        )
    assert sage("compile", "--diff", "old/main.py", "new/main.py").returncode == 1
    assert sage("compile", "--diff", "old/main.py", "old/main.py").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--diff", "a.yaml"], "--diff compares two pipelines"),
        (["a.yaml", "b.yaml"], "--diff compares two pipelines"),
        (["--diff", "a.yaml", "b.yaml", "--explain"], "do not go together"),
        (["--diff", "a.yaml", "b.yaml", "--format", "dot"], "--diff goes with --format text or json, not dot"),
        (["--diff", "nowhere.json", "a.yaml"], "nowhere.json: no such file or directory"),
        (["--diff", "odd.json", "a.yaml"], "not an execution graph"),
        (["a.yaml", "--to", "toml"], "'toml' is not"),
    ],
)
def test_diffs_that_make_no_sense(sage: Sage, tmp_path: Path, arguments: list[str], told: str) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("pipeline: p\noperators:\n- collection: [1]\n- print:\n")
    (tmp_path / "odd.json").write_text('{"a": 1}')
    done = sage("compile", *arguments)
    assert done.returncode == 2
    assert told in done.stderr
