"""A YAML pipeline means what the Python one means: the same plan, the same results."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage.kernel.api import (
    Backoff,
    Contract,
    ErrorPolicy,
    Execution,
    IOSpec,
    JobResult,
    LocalEnvironment,
    OnError,
    PipelineError,
    Recovery,
    Resources,
    StateKind,
    StateSpec,
)
from sage.kernel.declarative import load_pipeline_file

YamlFile = Callable[..., Path]


def run(path: Path, capsys: Any, settings: dict[str, Any] | None = None) -> list[str]:
    load_pipeline_file(path, settings).submit()
    return capsys.readouterr().out.splitlines()


def test_every_kind_gives_the_plan_of_the_same_python(yaml_file: YamlFile, steps: Path) -> None:
    path = yaml_file("""
        pipeline: all
        environment: {queue_capacity: 32, fusion: false}
        operators:
          - source: steps:Numbers
            name: numbers
            config: {count: 7}
          - map: steps:Times
            name: times
            config: {factor: 3}
            parallelism: 2
          - collection: [1, 2]
            name: more
          - filter: steps:is_odd
            name: odd
            input: [times, more]
          - flatmap: builtins:range
            name: each
          - key_by: steps:parity
            name: parity
            input: odd
            parallelism: 2
          - reduce: steps:larger
            name: larger
            emit: final
          - print: "> "
            name: out
          - aggregate: {create: 0, add: steps:add, result: steps:shout}
            name: total
            input: parity
            parallelism: 3
          - sink: terminal_sink
            name: end
          - count:
            name: count
            input: parity
          - print:
            name: counted
          - sum:
            name: sum
            input: parity
          - print:
            name: summed
          - print:
            name: rest
            input: each
    """)
    given = load_pipeline_file(path)
    import steps as module  # type: ignore[import-not-found]  # written by the fixture, found by the loader

    from sage.libs.foundation.io import TerminalSink

    env = LocalEnvironment("all", {"queue_capacity": 32, "fusion": False})
    times = env.from_source(module.Numbers, {"count": 7}, name="numbers").map(
        module.Times, {"factor": 3}, name="times", parallelism=2
    )
    odd = times.union(env.from_collection([1, 2], name="more")).filter(module.is_odd, name="odd")
    each = odd.flatmap(range, name="each")
    parity = odd.key_by(module.parity, name="parity", parallelism=2)
    parity.reduce(module.larger, name="larger", emit="final").print("> ", name="out")
    parity.aggregate(0, module.add, module.shout, name="total", parallelism=3).sink(TerminalSink, name="end")
    parity.count(name="count").print(name="counted")
    parity.sum(name="sum").print(name="summed")
    each.print(name="rest")
    assert env.compile().diff(given.compile()) == ()
    assert [found.name for found in given.graph.transformations][:4] == ["numbers", "times", "more", "odd"]


def test_results(yaml_file: YamlFile, capsys: pytest.CaptureFixture[str]) -> None:
    path = yaml_file("""
        pipeline: sales
        operators:
          - collection:
              - {user: {id: ada}, eur: 5, tags: [new]}
              - {user: {id: bob}, eur: 20, tags: []}
              - {user: {id: ada}, eur: 7, tags: [new]}
              - {user: {id: eve}, eur: 700, tags: [new]}
          - filter: {field: eur, below: 100}
          - key_by: {field: user.id}
          - sum: eur
            emit: final
          - print:
    """)
    assert run(path, capsys) == ["('ada', 12)", "('bob', 20)"]


def test_functions_as_sources_and_folds(yaml_file: YamlFile, steps: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = yaml_file("""
        pipeline: p
        operators:
          - source: steps:numbers
          - key_by: builtins:bool
          - aggregate: {create: "builtins:list", add: "operator:concat"}
            input: bool
            contract: {io: {errors: {on_error: dead_letter}}}
          - print: never
          - max:
            input: bool
            emit: final
          - print: "max "
    """)
    env = load_pipeline_file(path, {"home": str(path.parent / "home")})
    job = env.submit()
    # concat refuses numbers: all three are dead letters of that branch, none of the other.
    assert (job.wait().dead_letters, capsys.readouterr().out) == (3, "max (True, 3)\n")


def test_fan_out_gives_each_branch_all_items(
    yaml_file: YamlFile, steps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = yaml_file("""
        pipeline: p
        operators:
          - collection: [1, 2, 3]
            name: in
          - map: steps:square
          - print: "square "
          - filter: steps:is_odd
            input: in
          - print: "odd "
    """)
    assert sorted(run(path, capsys)) == ["odd 1", "odd 3", "square 1", "square 4", "square 9"]


def test_shapes(yaml_file: YamlFile, capsys: pytest.CaptureFixture[str]) -> None:
    path = yaml_file("""
        pipeline: p
        parameters: {most: 5}
        operators:
          - collection: [a, B, A, b, c, D, d, e, F]
          - distinct: {key: "builtins:str.lower"}
          - sample: {every: 1}
          - limit: ${most}
          - batch: {size: "${SAGE_TEST_SIZE:-2}", max_wait_s: null}
          - print:
          - distinct:
            input: collection
          - batch: 20
          - map: builtins:len
          - print: "distinct "
    """)
    assert sorted(run(path, capsys)) == ["['a', 'B']", "['c', 'D']", "['e']", "distinct 9"]


CONTRACT = """
    resources: {cpu: 0.5, gpu: 0, memory_bytes: 1000, concurrency: 3}
    state: {kind: stateful, recovery: checkpoint, keyed: false}
    io:
      queue_capacity: 9
      timeout_s: 2.5
      outputs_max: 10
      errors: {on_error: fail, retries: 4, backoff: fixed, delay_s: 0.5, delay_s_max: 8, jitter: 0.25}
    execution: thread
    cpu_bound: true
"""


def test_every_field_of_a_contract_can_be_given(yaml_file: YamlFile, steps: Path) -> None:
    contract = textwrap.indent(CONTRACT, "    ")
    path = yaml_file(f"""\
pipeline: p
operators:
  - collection: [1]
  - map: steps:square
    contract:
{contract}
  - print:
""")
    assert load_pipeline_file(path).graph["square"].contract == Contract(
        resources=Resources(cpu=0.5, memory_bytes=1000, concurrency=3),
        state=StateSpec(kind=StateKind.STATEFUL, recovery=Recovery.CHECKPOINT),
        io=IOSpec(
            queue_capacity=9,
            timeout_s=2.5,
            outputs_max=10,
            errors=ErrorPolicy(
                on_error=OnError.FAIL, retries=4, backoff=Backoff.FIXED, delay_s=0.5, delay_s_max=8.0, jitter=0.25
            ),
        ),
        execution=Execution.THREAD,
        cpu_bound=True,
    )


def test_what_a_contract_does_not_say_stays_as_the_operator_declares(yaml_file: YamlFile, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from sage.kernel.api import *\n"
        "class Ask(MapFunction):\n"
        "    contract = Contract(resources=Resources(concurrency=32), io=IOSpec(timeout_s=3.0))\n"
        "    async def execute(self, item):\n"
        "        return item\n"
    )
    path = yaml_file("""
        pipeline: p
        operators:
          - collection: [1]
          - map: own:Ask
            contract: {io: {errors: {retries: 2}}}
          - print:
    """)
    contract = load_pipeline_file(path).graph["Ask"].contract
    assert contract.resources.concurrency == 32
    assert contract.io == IOSpec(timeout_s=3.0, errors=ErrorPolicy(retries=2))


def test_retries_of_a_file_are_retries(yaml_file: YamlFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "flaky.py").write_text(
        "calls = []\n"
        "def flaky(n):\n"
        "    calls.append(n)\n"
        "    if calls.count(n) < 3:\n"
        "        raise ConnectionError('busy')\n"
        "    return n\n"
    )
    path = yaml_file("""
        pipeline: p
        operators:
          - collection: [1]
          - map: flaky:flaky
            contract: {io: {errors: {retries: 2, backoff: exponential, delay_s: 0.001, delay_s_max: 0.01, jitter: 1}}}
          - print:
    """)
    result: JobResult = load_pipeline_file(path).submit().wait()
    assert capsys.readouterr().out == "1\n"
    assert [(each.errors, each.retries) for each in result.metrics.operators] == [(0, 0), (2, 2), (0, 0)]


# -- settings


def test_settings_are_parameters_settings_and_configs(
    yaml_file: YamlFile, steps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = yaml_file("""
        pipeline: p
        parameters: {factor: 2, items: [1, 2]}
        operators:
          - collection: ${items}
          - map: steps:Times
            config: {factor: "${factor}"}
          - print: "x${factor} "
    """)
    assert run(path, capsys) == ["x2 2", "x2 4"]
    assert run(path, capsys, {"factor": 5, "items": [7]}) == ["x5 35"]
    assert run(path, capsys, {"Times.factor": 10}) == ["x2 10", "x2 20"]
    assert load_pipeline_file(path, {"queue_capacity": 3}).config.queue_capacity == 3
    with pytest.raises(PipelineError, match=r"unknown setting 'facter' for .*pipeline.yaml; did you mean 'factor'\?"):
        load_pipeline_file(path, {"facter": 5})
    with pytest.raises(PipelineError, match="factor"):
        load_pipeline_file(path, {"factor": "many"})


def test_a_parameter_without_default_must_be_given(yaml_file: YamlFile, capsys: pytest.CaptureFixture[str]) -> None:
    path = yaml_file("""
        pipeline: p
        parameters:
          word:
        operators:
          - collection: ["${word}"]
          - print:
    """)
    with pytest.raises(PipelineError, match=r"pipeline.yaml:4:3: parameter 'word' has no default: give it with --set"):
        load_pipeline_file(path)
    assert run(path, capsys, {"word": "hi"}) == ["hi"]


def test_names_are_given_or_those_of_the_operators(yaml_file: YamlFile, steps: Path) -> None:
    path = yaml_file("""
        pipeline: p
        operators:
          - collection: [1]
          - map: steps:square
          - map: steps:square
          - map: builtins:str.upper
          - print:
    """)
    names = [found.name for found in load_pipeline_file(path).graph.transformations]
    assert names == ["collection", "square", "square-2", "str_upper", "print"]


def test_a_module_that_submits_while_it_is_imported_is_refused(yaml_file: YamlFile, tmp_path: Path) -> None:
    (tmp_path / "runs.py").write_text(
        "from sage.kernel.api import LocalEnvironment\n"
        "def step(n):\n"
        "    return n\n"
        "LocalEnvironment('x').from_collection([1]).map(step).print().submit()\n"
    )
    path = yaml_file("pipeline: p\noperators:\n  - collection: [1]\n  - map: runs:step\n  - print:\n")
    with pytest.raises(PipelineError, match=r"pipeline.yaml:4:5: module 'runs' runs a pipeline while it is imported"):
        load_pipeline_file(path)
    assert "runs" not in sys.modules
