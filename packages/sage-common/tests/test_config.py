"""Configuration: places, limits, duplicates in three formats, layers, typed reading, validation."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any, Literal

import pydantic
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sage.common.config import (
    Config,
    Location,
    config_from_env,
    load_config,
    merge,
    parse_override,
    resolve_config,
)
from sage.common.errors import ConfigError, InvalidArgumentError

YAML = """\
# pipeline
name: demo
retriever:
  top_k: five
  stages:
    - kind: bm25
    - {kind: vector, weight: 0.5}
"""
TOML = """\
# pipeline
name = "demo"
[retriever]
top_k = "five"
[[retriever.stages]]
kind = "bm25"
[[retriever.stages]]
inner = {kind = 'vector', "weight" = 0.5}
text = \"\"\"
[not.a.table]
x = 1 # no comment\"\"\"
"after text".dotted = [ 1, # comment ]
   {deep = 2}, ]
"""
JSON = """{
  "name": "demo",
  "retriever": {"top_k": "five",
    "stages": [{"kind": "bm25"}, {"kind": "vector"}]}
}"""


def _place(config: Config, path: str) -> str:
    return str(config.location(path))


def _error(text: str, source: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Config.from_text(text, source)
    return str(caught.value)


def test_yaml_places() -> None:
    config = Config.from_text(YAML, "c.yaml")
    assert _place(config, "name") == "c.yaml:2:1"
    assert _place(config, "retriever.top_k") == "c.yaml:4:3"
    assert _place(config, "retriever.stages.0") == "c.yaml:6:7"
    assert _place(config, "retriever.stages.1.weight") == "c.yaml:7:22"
    assert _place(config, "retriever.missing") == "c.yaml:3:1"
    assert config.location("missing") is None
    assert config.to_dict() == yaml.safe_load(YAML)


def test_toml_places() -> None:
    config = Config.from_text(TOML, "c.toml")
    assert _place(config, "name") == "c.toml:2:1"
    assert _place(config, "retriever") == "c.toml:3:2"
    assert _place(config, "retriever.top_k") == "c.toml:4:1"
    assert _place(config, "retriever.stages.0.kind") == "c.toml:6:1"
    assert _place(config, "retriever.stages.1") == "c.toml:7:1"
    assert _place(config, "retriever.stages.1.inner.weight") == "c.toml:8:27"
    inside = ("retriever", "stages", 1, "after text", "dotted")
    assert str(config.location(inside)) == "c.toml:12:14"
    assert str(config.location((*inside, 1, "deep"))) == "c.toml:13:5"
    assert config.get("retriever.stages.1.text", str) == "[not.a.table]\nx = 1 # no comment"


def test_toml_keeps_dates_and_windows_lines() -> None:
    config = Config.from_text("a = 2024-01-02\r\nb = 07:32:00\r\n", "c.toml")
    assert config.get("a", dt.date) == dt.date(2024, 1, 2)
    assert _place(config, "b") == "c.toml:2:1"


def test_json_places() -> None:
    config = Config.from_text(JSON, "c.json")
    assert _place(config, "retriever.top_k") == "c.json:3:17"
    assert _place(config, "retriever.stages.1.kind") == "c.json:4:35"
    assert config.to_dict() == json.loads(JSON)


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), _json_values, max_size=3), st.booleans(), st.sampled_from([None, 1]))
def test_json_reads_what_python_reads(values: dict[str, Any], ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(values, ensure_ascii=ascii_only, indent=indent)
    assert Config.from_text(text, "c.json").to_dict() == values


@given(st.text('{}[]",:0123e.-+truefalsn \\u\n', max_size=20))
def test_json_refuses_what_python_refuses(text: str) -> None:
    try:
        values = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except ValueError:
        values = None
    if isinstance(values, dict):
        assert Config.from_text(text, "c.json").to_dict() == values
    else:
        assert "c.json:" in _error(text, "c.json")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise ValueError(name)


# PyYAML writes YAML 1.1, which leaves some numbers of version 1.2 unquoted as texts; so texts are without
# digits here.
_words = st.text(st.characters(exclude_categories=["Nd", "Cs"]))
_yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_words, _yaml_values, max_size=3))
def test_yaml_reads_what_yaml_writes(values: dict[str, Any]) -> None:
    try:
        text = yaml.safe_dump(values, allow_unicode=False)
        yaml.safe_load(text)
    except yaml.YAMLError:
        return
    assert Config.from_text(text, "c.yaml").to_dict() == values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("on", "on"), ("true", True), ("False", False), ("010", 10), ("0x1F", 31), ("0o17", 15),
        ("1:30", "1:30"), ("1e-3", 0.001), (".5", 0.5), ("-.inf", float("-inf")), ("~", None), ("null", None),
        ("2024-01-01", "2024-01-01"), ('"5"', "5"), ("'true'", "true"), ("!!str 5", "5"), ("1_000", "1_000"),
        ("<<", "<<"), ("=", "="), ("+5", 5), ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_yaml_scalars_are_those_of_version_1_2(text: str, value: Any) -> None:
    assert Config.from_text(f"a: {text}", "c.yaml").to_dict() == {"a": value}


def test_yaml_merge_keys_and_aliases() -> None:
    config = Config.from_text("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\nsame: *b\n", "c.yaml")
    assert config.get("use", dict) == {"x": 1, "y": 3}
    assert _place(config, "use.y") == "c.yaml:4:3"
    assert _place(config, "use.x") == "c.yaml:1:11"
    changed = config.with_value("same.x", 9, Location("test"))
    assert changed.get("base.x", int) == 1


@pytest.mark.parametrize(
    ("text", "source", "message"),
    [
        ("a: 1\nb: 2\na: 3", "c.yaml", "c.yaml:3:1: duplicate key 'a', first given in line 1"),
        ("s:\n  a: 1\n  a: 1", "c.yaml", "c.yaml:3:3: duplicate key 'a', first given in line 2"),
        ('{"a": 1,\n"a": 2}', "c.json", "c.json:2:1: duplicate key 'a', first given in line 1"),
        ("a = 1\nb = 2\na = 3", "c.toml", "c.toml:3:1: duplicate key 'a', first given in line 1"),
        ("[s]\na = 1\n[t]\n[s]\nb = 1", "c.toml", "c.toml:4:2: duplicate key 's', first given in line 1"),
        ("a: [1,\nb: 2", "c.yaml", "not YAML"),
        ("a: 1\n\tb: 2", "c.yaml", "c.yaml:2:1: not YAML"),
        ("- a", "c.yaml", "must be a mapping"),
        ("text", "c.yaml", "must be a mapping"),
        ("a: 1\n---\nb: 2", "c.yaml", "not YAML"),
        ("1: a", "c.yaml", "a key must be text, got 1: put it in quotes"),
        ("{[a]: 1}", "c.yaml", "a key must be text"),
        (
            "a: !!python/object/apply:os.system [x]",
            "c.yaml",
            "the tag !!python/object/apply:os.system is not allowed",
        ),
        ("a: !!python/name:os.system x", "c.yaml", "is not allowed"),
        ("a: !!binary aGk=", "c.yaml", "the tag !!binary is not allowed"),
        ("a: !mine x", "c.yaml", "the tag !mine is not allowed"),
        ("a: &x [*x]", "c.yaml", "refers to what contains it"),
        ("a: *x", "c.yaml", "undefined alias"),
        ("a: {<<: 5}", "c.yaml", "<< must be given a mapping"),
        ("a: b\x00", "c.yaml", "is not allowed"),
        ("a = ", "c.toml", "c.toml:1:5: not TOML"),
        ("a = [1", "c.toml", "c.toml:1:7: not TOML"),
        ("[1]", "c.json", "must be a JSON object"),
        ('{"a": 1} x', "c.json", "c.json:1:10: not JSON: more text"),
        ("{'a': 1}", "c.json", "double quotes"),
        ('{"a": "x\ny"}', "c.json", "control character"),
        ('{"a": NaN}', "c.json", "expected a value, got 'N'"),
        ('{"a": "\\x"}', "c.json", "not JSON"),
        ("", "c.json", "must be a JSON object"),
    ],
)
def test_wrong_files_are_refused_with_their_place(text: str, source: str, message: str) -> None:
    error = _error(text, source)
    assert message in error
    assert error.startswith(f"{source}:")


def test_bombs_are_refused() -> None:
    layers = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    layers += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "alias bomb" in _error("\n".join(layers), "c.yaml")
    assert "deeper than 64" in _error("a: " + "[" * 10_000, "c.yaml")
    assert "deeper than 64" in _error('{"a": ' * 10_000, "c.json")
    assert "deeper than 64" in _error("a = " + "[" * 500 + "]" * 500, "c.toml")
    assert "deeper" in _error("a = " + "[" * 20_000, "c.toml")
    assert "deeper than 64" in _error("a: " + "{a: " * 10_000, "c.yaml")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("\ufeffa: ä\n", encoding="utf-8")
    assert load_config(path).get("a", str) == "ä"
    with pytest.raises(ConfigError, match="larger than the limit of 5 bytes"):
        load_config(path, limit_bytes=5)
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:2:1: not UTF-8: byte 0xff"):
        load_config(path)
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "d.yaml").mkdir()
    with pytest.raises(ConfigError, match="is a directory"):
        load_config(tmp_path / "d.yaml")
    with pytest.raises(ConfigError, match="ends in"):
        load_config(tmp_path / "c.ini")
    with pytest.raises(ConfigError, match="not a path"):
        load_config("a\0.yaml")
    path.write_text("")
    assert load_config(path).to_dict() == {}


def test_layers_keep_their_places(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a:\n  x: 1\n  y: [1, 2]\nb: 2\nstages: [{n: 1}]\n")
    config = resolve_config(
        path,
        defaults={"a": {"x": 0, "z": 9}, "b": 0, "c": {"d": 1}},
        env_prefix="SAGE_",
        environ={"SAGE_A__Y": "[7]", "SAGE_C": "null", "OTHER": "1"},
        overrides=["b=3", "new.deep=hello world", "stages.0.n=5"],
    )
    assert config.to_dict() == {
        "a": {"x": 1, "z": 9, "y": [7]},
        "b": 3,
        "c": None,
        "stages": [{"n": 5}],
        "new": {"deep": "hello world"},
    }
    assert _place(config, "a.x") == f"{path}:2:3"
    assert _place(config, "a.z") == "defaults"
    assert _place(config, "a.y") == "environment variable SAGE_A__Y"
    assert _place(config, "a.y.0") == "environment variable SAGE_A__Y"
    assert _place(config, "b") == "--set b=3"
    assert _place(config, "stages.0.n") == "--set stages.0.n=5"


_layers = st.recursive(
    st.integers() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), _layers, max_size=3), max_size=4))
def test_merging_agrees_with_a_recursive_update(layers: list[dict[str, Any]]) -> None:
    def update(below: Any, above: Any) -> Any:
        if not (isinstance(below, dict) and isinstance(above, dict)):
            return above
        return below | {key: update(below.get(key), value) for key, value in above.items()}

    expected: Any = {}
    for layer in layers:
        expected = update(expected, layer)
    before = json.dumps(layers)
    merged = merge(*(Config.from_mapping(layer) for layer in layers))
    assert merged.to_dict() == expected
    assert json.dumps(layers) == before


def test_merging_sections() -> None:
    part = Config.from_text(YAML, "c.yaml").section("retriever")
    merged = merge(Config.from_mapping({"top_k": 1}), part)
    assert merged.get("top_k", str) == "five"
    assert _place(merged, "top_k") == "c.yaml:4:3"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=5", 5), ("a=", None), ('a=""', ""), ("a=x=y", "x=y"), ("a= b: c # d ", "b: c # d"),
        ("a=[1, x]", [1, "x"]), ("a={b: {c: 1}}", {"b": {"c": 1}}), ("a='5'", "5"),
        ("a=http://x:1/y", "http://x:1/y"), ("a=*", "*"),
    ],
)  # fmt: skip
def test_overrides(text: str, value: Any) -> None:
    assert parse_override(text) == ("a", value)


@pytest.mark.parametrize("text", ["top_k", "", "=5", "a b=5", "a..b=5", ".a=5", "a=[1", 'a="x', "a={a: 1, a: 2}"])
def test_wrong_overrides_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        parse_override(text)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name.x=1", r"name is 'demo' \(c.yaml:2:1\), not a section"),
        ("retriever.stages.2=1", r"is a list of 2 items .*no such item"),
        ("retriever.stages.x=1", "no such item"),
        (".".join("abcd" * 20) + "=1", "deeper than 64"),
    ],
)
def test_overrides_that_fit_nowhere_are_refused(override: str, message: str) -> None:
    path, value = parse_override(override)
    with pytest.raises(ConfigError, match=message):
        Config.from_text(YAML, "c.yaml").with_value(path, value, Location(f"--set {override}"))


def test_contradicting_variables_are_refused() -> None:
    with pytest.raises(ConfigError, match="environment variable SAGE_A__B: a is 1"):
        config_from_env("SAGE_", {"SAGE_A": "1", "SAGE_A__B": "2"})
    with pytest.raises(ConfigError, match="SAGE_A: not YAML"):
        config_from_env("SAGE_", {"SAGE_A": "[1"})
    with pytest.raises(ConfigError, match="is not a key"):
        config_from_env("SAGE_", {"SAGE___A": "1"})
    with pytest.raises(InvalidArgumentError, match="prefix"):
        config_from_env("", {})
    with pytest.raises(ConfigError, match="a key must be text"):
        Config.from_mapping({"a": {1: 2}})


def test_typed_reading() -> None:
    config = Config.from_text(YAML, "c.yaml")
    assert config.get("name", str) == "demo"
    assert config.get("none", int, 7) == 7
    assert config.get("none", int, None) is None
    assert config.get("retriever.stages.1.weight", float) == 0.5
    assert config.get("name", Path) == Path("demo")
    assert "retriever.top_k" in config
    assert "retriever.topk" not in config
    assert repr(config) == "Config(keys=['name', 'retriever'])"
    with pytest.raises(ConfigError, match=r"^c\.yaml:4:3: retriever\.top_k must be an integer, got 'five'$"):
        config.get("retriever.top_k", int)
    with pytest.raises(ConfigError, match=r"c\.yaml:3:1: .*'retriever\.topk', did you mean 'top_k'\?"):
        config.get("retriever.topk", int)
    with pytest.raises(ConfigError, match="name must be a section, got 'demo'"):
        config.section("name")
    with pytest.raises(ConfigError, match="true or false, got 1"):
        Config.from_mapping({"a": 1}).get("a", bool)
    with pytest.raises(ConfigError, match="an integer, got true"):
        Config.from_mapping({"a": True}).get("a", int)


class Stage(pydantic.BaseModel):
    kind: Literal["bm25", "vector"]
    weight: float = pydantic.Field(1.0, ge=0, le=1)


class Retriever(pydantic.BaseModel):
    top_k: int
    stages: list[Stage] = []
    extra: int | None = None


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    a: int


def test_validation_reports_everything_with_its_place() -> None:
    text = (
        "retriever:\n  top_k: five\n  stages:\n    - kind: bm52\n    - kind: vector\n      weight: 2\n"
        "      wieght: 1\n  extra: x\n  stagse: []\n"
    )
    with pytest.raises(ConfigError) as caught:
        Config.from_text(text, "c.yaml").validate(Retriever, "retriever")
    kind = "retriever.stages.0.kind"
    assert sorted(str(caught.value).splitlines()) == sorted(
        [
            "c.yaml:2:3: retriever.top_k must be an integer, got 'five'",
            f"c.yaml:4:7: {kind} must be 'bm25' or 'vector', got 'bm52', did you mean 'bm25'?",
            "c.yaml:6:7: retriever.stages.1.weight must be <= 1.0, got 2",
            "c.yaml:7:7: unknown key 'retriever.stages.1.wieght', did you mean 'weight'?",
            "c.yaml:8:3: retriever.extra must be an integer, got 'x'",
            "c.yaml:9:3: unknown key 'retriever.stagse', did you mean 'stages'?",
        ]
    )
    assert caught.value.location == "c.yaml:2:3"


def test_validation_of_missing_and_open() -> None:
    with pytest.raises(ConfigError, match=r"c\.yaml:1:1: missing required key 'top_k' in section 'retriever'"):
        Config.from_text("retriever: {}", "c.yaml").validate(Retriever, "retriever")
    with pytest.raises(ConfigError, match="^missing required key 'top_k'$"):
        Config().validate(Retriever)
    assert Config.from_mapping({"a": 1, "b": 2}).validate(Open).model_extra == {"b": 2}
    assert Config.from_mapping({"top_k": 3}).validate(Retriever).top_k == 3


def test_nested_models_decide_about_unknown_keys_for_themselves() -> None:
    class Outer(pydantic.BaseModel):
        inner: Open
        stage: Stage | None = None

    config = Config.from_mapping({"inner": {"a": 1, "b": 2}})
    assert config.validate(Outer).inner.model_extra == {"b": 2}
    with pytest.raises(ConfigError, match="unknown key 'stage.x'"):
        config.with_value("stage", {"kind": "bm25", "x": 1}, Location("test")).validate(Outer)
    with pytest.raises(ConfigError, match="inner.a must be an integer"):
        config.with_value("inner.a", "x", Location("test")).validate(Outer)


class Checked(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    even: int = 0
    stage: Stage | None = None
    names: dict[str, int] = {}
    choice: int | bool | None = None
    url: pydantic.HttpUrl | None = None

    @pydantic.field_validator("even")
    @classmethod
    def _is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("even: 3", "c.yaml:1:1: even: must be even, got 3"),
        ("stage: {kind: bm25, wieght: 1}", "unknown key 'stage.wieght', did you mean 'weight'?"),
        ("stage: {kind: bm25, zzz: 1}", "unknown key 'stage.zzz' (known: kind, weight)"),
        ("stage: [1]", "c.yaml:1:1: stage must be a mapping, got a list"),
        ("stage: {kind: null}", "c.yaml:1:9: stage.kind must be 'bm25' or 'vector', got null"),
        ("names: {a: x}", "c.yaml:1:9: names.a must be an integer, got 'x'"),
        ("choice: [1]", "c.yaml:1:1: choice must be an integer, got a list"),
        ("url: no", "url: input should be a valid URL"),
        ("even: {a: 1}", "even must be an integer, got a mapping"),
    ],
)
def test_validation_messages(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_text(text, "c.yaml").validate(Checked)
    assert message in str(caught.value)


_toml_text = st.text(st.characters(min_codepoint=32, max_codepoint=0xD7FF, exclude_characters="\x7f"), max_size=4)
_toml_values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e9, 1e9) | _toml_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_toml_text, inner, max_size=3),
    max_leaves=8,
)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[ # [x\n" + ",\n".join(_toml(item) for item in value) + "]"
    return json.dumps(value)


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {path} | {inner for key, item in items for inner in _paths(item, (*path, key))}


@given(
    st.dictionaries(_toml_text, _toml_values, max_size=3),
    st.dictionaries(_toml_text, st.dictionaries(_toml_text, _toml_values, max_size=3), max_size=3),
    st.lists(st.dictionaries(_toml_text, _toml_values, max_size=2), max_size=3),
)
def test_toml_knows_the_place_of_everything(
    plain: dict[str, Any], tables: dict[str, dict[str, Any]], rows: list[dict[str, Any]]
) -> None:
    lines = [f"{json.dumps('p' + key)} = {_toml(value)}" for key, value in plain.items()]
    for name, table in tables.items():
        lines += [f" [ t . {json.dumps(name)} ] # '"]
        lines += [f"\t{json.dumps(key)}={_toml(value)}" for key, value in table.items()]
    for row in rows:
        lines += ["[[r]]", *(f"{json.dumps(key)} = {_toml(value)}" for key, value in row.items())]
    text = "\n".join(lines)
    config = Config.from_text(text, "c.toml")
    values = config.to_dict()
    assert values == {
        **{"p" + key: value for key, value in plain.items()},
        **({"t": tables} if tables else {}),
        **({"r": rows} if rows else {}),
    }
    places = {path: config.location(path) for path in _paths(values) - {()}}
    assert None not in places.values()
    # Every key has a place of its own: none was found only by falling back to what is around it.
    own = [place for path, place in places.items() if path not in {("t",), ("r",), ("r", 0)}]
    assert len(set(own)) == len(own)
