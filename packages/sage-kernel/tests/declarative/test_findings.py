"""Everything that is wrong with a file is found at once, with line and column; nothing of it is a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage.kernel.declarative import PipelineFileError, check_pipeline_file, load_pipeline_file

YamlFile = Callable[..., Path]
HEAD = "pipeline: p\noperators:\n  - collection: [1]\n"

NOT_SET = (
    "the environment variable 'SAGE_T' is not set: set it, give it a default (${SAGE_T:-...}), or declare it under "
    "parameters"
)


def found(path: Path, **options: object) -> list[str]:
    return [str(finding).removeprefix(f"{path}:") for finding in check_pipeline_file(path, **options)]  # type: ignore[arg-type]


def test_all_errors_in_one_go(yaml_file: YamlFile, steps: Path) -> None:
    path = yaml_file("""\
        pipeline: p
        enviroment: {}
        operators:
          - source: file_sorce
          - source: file_source
            name: lines
            config: {file_pth: x, encoding: 5}
          - map: steps:Times
            config: {factor: five}
            contract: {io: {eror: 2, errors: {retries: -1}}, execution: tread}
            paralelism: 3
          - map: steps:squar
            input: line
          - sink: terminal_sink
            config: {format: txt, prefix: "${SAGE_T}"}
          - map: steps:square
            parallelism: 0
    """)
    assert found(path) == [
        "2:1: unknown key 'enviroment'; did you mean 'environment'?",
        f"4:5: there is no operator 'file_sorce'; did you mean 'file_source'? {NOT_INSTALLED}",
        "7:5: missing required key 'file_path'",
        "7:14: unknown key 'file_pth'; did you mean 'file_path'?",
        "7:27: encoding must be text, got 5",
        "9:14: factor must be a whole number, got 'five'",
        "10:21: unknown key 'io.eror'; did you mean 'errors'?",
        "10:30: io.errors: errors.retries must be >= 0, got -1",
        "10:54: execution must be 'auto', 'thread', 'process' or 'async', got 'tread'; did you mean 'thread'?",
        "11:5: unknown key 'paralelism'; did you mean 'parallelism'?",
        "12:5: module 'steps' has no 'squar'; did you mean 'square'?",
        "13:5: there is no operator 'line' above this one; did you mean 'lines'?",
        "15:14: format must be 'text' or 'json', got 'txt'; did you mean 'text'?",
        f"15:27: {NOT_SET}",
        "16:5: nothing comes out of the sink 'terminal_sink' before it: say `input: NAME`",
        "17:5: parallelism must be a whole number >= 1, got 0",
    ]
    with pytest.raises(PipelineFileError) as raised:
        load_pipeline_file(path)
    assert len(raised.value.findings) == 16
    assert len(str(raised.value).splitlines()) == 16


def case(text: str, *expected: str) -> Any:
    return pytest.param(text, list(expected), id=expected[0].split(": ", 1)[1][:40])


KINDS = (
    "source, collection, future, requests, map, flatmap, filter, key_by, split, comap, join, interleave, reduce, "
    "aggregate, count, sum, min, max, mean, limit, batch, sample, distinct, ordered, fill, sink, print, respond"
)
NOT_INSTALLED = "(`sage operators` lists all; module:Object names any other)"
PRINT = "  - print:\n"
LOOP = (
    "Items come back only through a future: put `- future:` with a name above, take that name here, and put "
    "`- fill: NAME` behind {!r}"
)
LOOPED = HEAD + (
    "  - future:\n    name: again\n  - map: steps:square\n    input: [collection, again]\n    name: body\n"
    "  - filter: steps:is_odd\n    name: more\n"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        case(
            "",
            "1:1: a pipeline file begins with `pipeline: NAME`, got nothing",
            "1:1: operators must be a list of at least one operator, got nothing",
        ),
        case(
            "pipeline: 3\noperators: []\n",
            "1:1: a pipeline file begins with `pipeline: NAME`, got 3",
            "2:1: operators must be a list of at least one operator, got an empty list",
        ),
        case("pipeline: p\noperators: [5]\n", "2:13: an operator is a mapping such as `map: name`, got 5"),
        case("pipeline: p\noperators: {}\n", "2:1: operators must be a list of at least one operator, got dict"),
        case(HEAD + "  - mapp: len\n" + PRINT, "4:5: unknown key 'mapp'; did you mean 'map'?"),
        case(
            HEAD + "  - map: a:b\n    filter: c:d\n",
            f"4:5: the operator has 2 kinds (map, filter): it needs exactly one of {KINDS}",
        ),
        case(HEAD + "  - name: a\n", f"4:5: the operator says no kind: it needs exactly one of {KINDS}"),
        case(
            HEAD + "  - map: builtins:abs\n",
            "4:5: the stream of 'abs' goes nowhere: put a sink behind it, or take it with `input:`",
        ),
        case(
            HEAD + "  - map: builtins:abs\n    name: collection\n" + PRINT,
            "5:5: names of operators must be unique, got 'collection' twice; the first is in line 3",
        ),
        case(
            HEAD
            + "  - print:\n    input: later\n  - map: builtins:abs\n    name: later\n    input: collection\n"
            + PRINT,
            "5:5: there is no operator 'later' above this one; it must stand above",
        ),
        case(HEAD + "  - count:\n" + PRINT, "4:5: count works on items with a key: put key_by before it"),
        case(
            HEAD + "  - sum: [1]\n" + PRINT,
            "4:5: sum takes the name of a field, or nothing for the item itself, got [1]",
        ),
        case(
            HEAD + "  - print:\n    emit: final\n",
            "5:5: emit goes with reduce, aggregate, count, sum, min, max, mean, not with print",
        ),
        case(
            HEAD + "  - map: terminal_sink\n" + PRINT,
            "4:5: map needs a MapFunction, got TerminalSink, which is a SinkFunction (operator 'terminal_sink')",
        ),
        case(HEAD + "  - map: len\n" + PRINT, f"4:5: there is no operator 'len' {NOT_INSTALLED}"),
        case(HEAD + "  - map: 'os:'\n" + PRINT, "4:5: 'os:' is no import path: write module:Object"),
        case(
            HEAD + "  - map: no_such_module_x:f\n" + PRINT,
            "4:5: there is no module 'no_such_module_x': it must be installed, or lie beside the pipeline file",
        ),
        case(
            HEAD + "  - map: builtins:abs\n    config: {a: 1}\n" + PRINT,
            "4:5: config goes with an operator class; <built-in function abs> is not one, got config {'a': 1} "
            "(operator 'abs')",
        ),
        case(
            HEAD + "  - map: builtins:abs\n    name: '!'\n" + PRINT,
            "4:5: an operator name is made of letters, digits, '_', '-', '.', ':' and blanks, got '!'",
        ),
        case(
            HEAD + "  - filter: {field: a}\n" + PRINT,
            "4:5: give at least one test: equals, not_equals, above, at_least, below, at_most, one_of, contains, "
            "exists",
        ),
        case(
            HEAD + "  - key_by: {feild: a}\n" + PRINT,
            "4:5: missing required key 'field'",
            "4:14: unknown key 'feild'; did you mean 'field'?",
        ),
        case(HEAD + "  - limit: many\n" + PRINT, "4:5: items must be a number, got 'many'"),
        case(HEAD + "  - limit:\n" + PRINT, "4:5: limit needs items"),
        case(HEAD + "  - limit: -1\n" + PRINT, "4:5: limit must be a whole number >= 0, got -1"),
        case(HEAD + "  - sample: {fracton: 0.5}\n" + PRINT, "4:14: unknown key 'fracton'; did you mean 'fraction'?"),
        case(HEAD + "  - batch: 2\n    config: {a: 1}\n" + PRINT, "5:5: batch takes no config here"),
        case(HEAD + "  - aggregate: {create: 0}\n" + PRINT, "4:5: aggregate needs add"),
        case(
            HEAD
            + "  - map: steps:square\n    name: body\n    input: [collection, more]\n  - filter: steps:is_odd\n"
            + "    name: more\n"
            + PRINT,
            "6:25: a cycle: body -> more -> body. " + LOOP.format("more"),
        ),
        case(
            HEAD + "  - map: steps:square\n    name: own\n    input: own\n" + PRINT,
            "6:5: a cycle: own -> own. " + LOOP.format("own"),
        ),
        case(
            HEAD + "  - future:\n    name: again\n  - map: steps:square\n    input: [collection, again]\n" + PRINT,
            "4:5: the future 'again' is never filled: put `- fill: again` behind what comes back",
        ),
        case(
            HEAD + "  - future:\n    name: again\n  - fill: agian\n    input: collection\n",
            "6:5: there is no future 'agian' above this one; did you mean 'again'?",
        ),
        case(HEAD + "  - fill: collection\n", "4:5: 'collection' is no future"),
        case(
            LOOPED + "  - fill: again\n  - fill: again\n    input: more\n  - print:\n    input: body\n",
            "12:5: the future 'again' is filled a second time, the first is at {path}:11:5: fill it once with the "
            "union of both streams (operator 'again')",
        ),
        case(
            LOOPED + "  - fill: {future: again, max_in_flight: 0}\n    name: x\n  - print:\n",
            "11:5: max_in_flight must be a whole number >= 1, got 0 (operator 'again')",
            "12:5: fill is no operator and has no name",
            "13:5: nothing comes out of the fill before it: say `input: NAME`",
        ),
        case(
            HEAD + "  - split: {by: {odd: steps:is_odd}}\n" + PRINT,
            "5:5: split 'split' has branches, name one of them: `input: split/odd`",
        ),
        case(
            HEAD + "  - split: {by: {odd: steps:is_odd}}\n  - print:\n    input: split/od\n",
            "6:5: split 'split' has no branch 'od'; did you mean 'odd'?",
        ),
        case(
            HEAD + "  - split: {by: {a: {field: n, blow: 3}, b: steps:is_od}}\n  - print:\n    input: split/a\n",
            "4:32: unknown key 'blow'; did you mean 'below'?",
            "4:42: module 'steps' has no 'is_od'; did you mean 'is_odd'?",
        ),
        case(
            HEAD + "  - split: {by: {a: 3}}\n    name: x\n  - print:\n    input: x/a\n",
            "4:18: branch 'a' must be an import path module:Object or tests of a field such as {field: eur, below: "
            "100}, got 3",
        ),
        case(
            HEAD + "  - print:\n    input: collection/late\n",
            "5:5: side_output takes from a map, flatmap, filter, comap or join just before it, got 'collection', a "
            "source",
        ),
        case(
            HEAD + "  - comap: {map1: steps:square, map2: steps:square}\n" + PRINT,
            "4:5: comap takes two streams: say `input: [FIRST, SECOND]`, got 1",
        ),
        case(
            HEAD + "  - comap: {map1: steps:square, mop2: steps:square}\n    input: [collection, collection]\n" + PRINT,
            "4:5: comap needs map2",
            "4:33: unknown key 'mop2'; did you mean 'map2'?",
        ),
        case(
            HEAD + "  - join:\n    input: [collection, collection]\n" + PRINT,
            "4:5: join needs a key on both streams: put key_by before the first one",
        ),
        case(
            HEAD + "  - join: {within: [1], tme: steps:square}\n    input: [collection, collection]\n" + PRINT,
            "4:12: within must be a list of two numbers, got [1]",
            "4:25: unknown key 'tme'; did you mean 'time'?",
        ),
        case(
            HEAD + "  - map: steps:square\n    input: {form: collection, routing: all}\n" + PRINT,
            "5:13: unknown key 'form'; did you mean 'from'?",
            "5:31: routing must be 'broadcast' or 'rebalance', got 'all'",
        ),
        case(
            HEAD + "  - map: steps:square\n    ordered: true\n  - sink: terminal_sink\n    ordered: 1\n",
            "5:5: `ordered: true` goes with sink, not with map: put `- ordered:` before it",
            "7:5: ordered must be true or false, got 1",
        ),
        case(
            HEAD + "  - ordered:\n    parallelism: 2\n" + PRINT,
            "5:5: ordered has one replica: leave out parallelism",
        ),
        case(
            HEAD + "  - map: steps:square\n    batch: {sise: 3}\n" + PRINT,
            "5:5: batch needs size",
            "5:13: unknown key 'sise'; did you mean 'size'?",
        ),
        case(
            "pipeline: p\nservices:\n  a: {}\n  b: steps:nothing_of_it\n  c: {service: steps:square, concurency: 1}\n"
            "  d: {service: steps:square, concurrency: 0}\n"
            "  e:\n    operators: [{requests: }, {batch: 3}, {respond: }]\noperators:\n  - collection: [1]\n" + PRINT,
            "3:3: service 'a' is an import path module:Object, or a mapping with `service` or `operators`",
            "4:3: module 'steps' has no 'nothing_of_it'",
            "5:30: unknown key 'concurency'; did you mean 'concurrency'?",
            "6:3: concurrency must be a whole number >= 1, got 0 (service 'd')",
            "7:3: each request has one answer, so batch cannot stand in the pipeline of a service: a list of requests "
            "has no answer for each: use map(function, batch=...), which gives one for each item (operator 'batch', "
            "{path}:8:31)",
        ),
        case(
            "pipeline: p\nservices: {prices: steps:square}\noperators:\n  - collection: [1]\n  - map: steps:square\n"
            "    contract: {services: [price]}\n" + PRINT,
            "5:5: operator 'square' calls the service 'price', which is not registered; did you mean 'prices'? "
            "(operator 'square')",
        ),
        case(
            "pipeline: p\nenvironment: {watchdog_s: -1, max_dead_letters: many}\noperators:\n  - collection: [1]\n"
            + PRINT,
            "2:15: watchdog_s should be greater than 0, got -1",
            "2:31: max_dead_letters: max_dead_letters must be a whole number >= 0 or a share such as '1%', got 'many'",
        ),
    ],
)
def test_one_error(yaml_file: YamlFile, steps: Path, text: str, expected: list[str]) -> None:
    path = yaml_file(text)
    assert found(path) == [each.replace("{path}", str(path)) for each in expected]


def test_errors_of_the_compiler_have_a_place(yaml_file: YamlFile, steps: Path) -> None:
    path = yaml_file("""\
        pipeline: p
        operators:
          - collection: ["a b"]
          - flatmap: steps:words
          - map: steps:square
          - print:
    """)
    (only,) = found(path)
    assert only.startswith(
        "5:5: 'square' takes int, but 'words' gives str (operator 'square'); 'words' is declared at "
    )
    assert only.endswith("pipeline.yaml:4:5")
    with pytest.raises(Exception, match=r"operator 'square', .*pipeline\.yaml:5:5\)"):
        load_pipeline_file(path).compile()


# -- what is no pipeline file at all


def test_a_yaml_bomb_is_refused_before_it_grows(yaml_file: YamlFile) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (only,) = found(yaml_file("\n".join(lines)))
    assert "more than 100000 values, aliases expanded (an alias bomb?)" in only


def test_duplicate_keys_are_refused_with_both_lines(yaml_file: YamlFile) -> None:
    assert found(yaml_file("pipeline: p\noperators:\n  - map: a:b\n    map: c:d\n")) == [
        "4:5: duplicate key 'map', first given in line 3: remove one of them"
    ]


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system [ls]", "!!python/name:os.system", "!own x"])
def test_tags_build_no_objects(yaml_file: YamlFile, tag: str) -> None:
    (only,) = found(yaml_file(f"pipeline: {tag}\n"))
    assert only.startswith("1:11: the tag !")
    assert "is not allowed" in only


def test_ten_megabytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"# " + b"x" * 10_000_000)
    assert [str(finding) for finding in check_pipeline_file(path)] == [
        f"{path}: larger than the limit of 1048576 bytes"
    ]


def test_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "junk.yaml"
    path.write_bytes(bytes(range(256)) * 10)
    (only,) = check_pipeline_file(path)
    assert (only.location, only.message) == (f"{path}:2:1", "not UTF-8: byte 0x80")
    path.write_bytes(b"pipeline: \x00p\n")
    (only,) = check_pipeline_file(path)
    assert only.message.startswith("not YAML: the character ")
    path.write_text("pipeline: [p\noperators: }")
    (only,) = check_pipeline_file(path)
    assert only.location == f"{path}:2:10"
    (only,) = check_pipeline_file(tmp_path / "nowhere.yaml")
    assert str(only) == f"{tmp_path / 'nowhere.yaml'}: no such file or directory"
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    (only,) = check_pipeline_file(folder)
    assert str(only) == f"{folder}: is a directory"


# -- variables and secrets


def test_variables(yaml_file: YamlFile, steps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_TEST_FACTOR", "7")
    monkeypatch.setenv("SAGE_TEST_NIL", "")
    path = yaml_file("""
        pipeline: "$$p"
        operators:
          - collection: ["${SAGE_TEST_NIL:-none}", "${SAGE_TEST_NIL}", "a${SAGE_T:-}b", "$$${SAGE_TEST_FACTOR}", "$5"]
          - map: steps:Times
            config:
              factor: ${SAGE_TEST_FACTOR}
            parallelism: ${SAGE_TEST_REPLICAS:-2}
          - print:
    """)
    env = load_pipeline_file(path)
    assert env.name == "$p"
    assert env.graph["Times"].factory.config.factor == 7  # type: ignore[attr-defined]
    assert env.graph["Times"].parallelism == 2
    items = env.graph["collection"].factory.target.iterable  # type: ignore[attr-defined]
    assert items == ("none", "", "ab", "$7", "$5")


@pytest.mark.parametrize("text", ["${", "${1A}", "${A-b}", "${A", "${}"])
def test_what_begins_like_a_variable_and_is_none(yaml_file: YamlFile, text: str) -> None:
    (only,) = found(yaml_file(f'pipeline: "{text}"\noperators:\n  - collection: [1]\n  - print:\n'))[:1]
    assert only == "1:1: '${' begins no reference: write ${NAME} or ${NAME:-default}, and $$ for a dollar sign"


def test_the_value_of_a_variable_is_never_read_as_yaml(yaml_file: YamlFile) -> None:
    text = 'pipeline: p\noperators:\n  - collection: ["${X}"]\n    name: c\n  - print:\n'
    env = load_pipeline_file(yaml_file(text), environ={"X": "a\nname: evil, [1] ${Y} $$ *alias"})
    target = env.graph["c"].factory.target  # type: ignore[attr-defined]
    assert target.iterable == ("a\nname: evil, [1] ${Y} $$ *alias",)


@pytest.mark.parametrize(
    "where",
    [
        "  - map: steps:Times\n    config: {factor: '${SECRET}'}\n",
        "  - map: steps:Times\n    config: {factor: 'x${SECRET}'}\n",
        "  - map: steps:Times\n    contract: {execution: '${SECRET}'}\n",
        "  - map: '${SECRET}'\n",
        "  - map: 'builtins:${SECRET}'\n",
        "  - map: builtins:abs\n    name: '/${SECRET}'\n",
        "  - map: builtins:abs\n    parallelism: '${SECRET}'\n",
        "  - map: builtins:abs\n    input: '${SECRET}'\n",
        "  - sum: a\n    emit: '${SECRET}'\n",
        "  - sum: ['${SECRET}']\n",
        "  - '${SECRET}'\n",
        "  - sink: steps:Guarded\n    config: {url: '${SECRET}'}\n",
    ],
)
def test_a_secret_is_never_in_a_message(yaml_file: YamlFile, steps: Path, where: str) -> None:
    steps.write_text(
        steps.read_text()
        + """
from sage.kernel.api import SinkFunction
from pydantic import field_validator
class _Url(BaseModel):
    url: str
    @field_validator("url")
    @classmethod
    def _check(cls, url):
        raise ValueError(f"cannot use {url!r}")
class Guarded(SinkFunction):
    Config = _Url
    def execute(self, item):
        pass
"""
    )
    secret = "hunter2'swordfish"
    findings = check_pipeline_file(yaml_file(HEAD + where + "  - print:\n"), environ={"SECRET": secret})
    assert findings
    text = "\n".join(map(str, findings))
    assert "hunter2" not in text
    assert "swordfish" not in text
    assert "${SECRET}" in text
