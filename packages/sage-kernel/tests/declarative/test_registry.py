"""Operators by name: what a distribution registers, and what happens when it is broken."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from sage.kernel.api import LocalEnvironment, MapFunction, PipelineError, SourceFunction
from sage.kernel.declarative import GROUP, OperatorRegistry, load_pipeline_file
from sage.kernel.declarative.describe import config_fields, config_model, contract_summary, example_of, summary_of
from sage.kernel.declarative.registry import import_object, kind_of
from sage.kernel.graph import OperatorKind

OURS = {
    "file_source": "source", "jsonl_source": "source", "csv_source": "source", "directory_source": "source",
    "rate_source": "source", "sentence_chunker": "flatmap", "field_key": "key_by", "field_filter": "filter",
    "jsonl_sink": "sink", "csv_sink": "sink", "terminal_sink": "sink", "hybrid_retriever": "map",
    "chroma_retriever": "map", "qa_promptor": "map", "llm_generator": "map", "embedder": "map",
}  # fmt: skip


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=GROUP)


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A third party's distribution with three operators, of which one can be used."""
    facts = tmp_path / "acme_ops-2.1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-ops\nVersion: 2.1\n")
    (facts / "entry_points.txt").write_text(
        f"[{GROUP}]\nacme_double = acme_ops:Double\nacme_broken = acme_broken:Thing\nacme_gone = acme_ops:Gone\n"
        "acme_number = acme_ops:NUMBER\nacme_class = acme_ops:Plain\n"
    )
    (tmp_path / "acme_ops.py").write_text(
        "from sage.kernel.api import MapFunction\n"
        "class Double(MapFunction):\n    def execute(self, item):\n        return 2 * item\n"
        "NUMBER = 5\nclass Plain: pass\n"
    )
    (tmp_path / "acme_broken.py").write_text("raise RuntimeError('no licence found')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_what_sage_brings_is_registered_and_can_be_used() -> None:
    found = {operator.name: operator for operator in OperatorRegistry().operators() if operator.name in OURS}
    assert {name: str(operator.kind) for name, operator in found.items()} == OURS
    assert {operator.error for operator in found.values()} == {""}
    assert {operator.distribution for operator in found.values()} == {"sage-kernel", "sage-middleware"}


def test_a_third_party_is_found_and_its_broken_operators_harm_no_other(
    distribution: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = OperatorRegistry()
    found = {operator.name: operator for operator in registry.operators()}
    assert set(OURS) <= set(found)
    double = found["acme_double"]
    assert (double.distribution, double.version, double.error) == ("acme-ops", "2.1", "")
    assert found["acme_broken"].error == ("module 'acme_broken' cannot be imported: RuntimeError: no licence found")
    assert found["acme_gone"].error == "module 'acme_ops' has no 'Gone'; there are: Double, MapFunction, NUMBER, Plain"
    assert found["acme_number"].error == "acme_ops:NUMBER is a int, no operator"
    assert found["acme_class"].error.startswith("acme_ops:Plain is a class without a base")
    path = distribution / "p.yaml"
    path.write_text("pipeline: p\noperators:\n  - collection: [4]\n  - map: acme_double\n  - print:\n")
    load_pipeline_file(path).submit()
    assert capsys.readouterr().out == "8\n"
    path.write_text("pipeline: p\noperators:\n  - collection: [4]\n  - map: acme_broken\n  - print:\n")
    with pytest.raises(PipelineError, match=r"4:5: operator 'acme_broken' cannot be used: .*no licence found"):
        load_pipeline_file(path)


def test_a_name_that_two_register_is_nobodys() -> None:
    registry = OperatorRegistry([point("root", "math:sqrt"), point("root", "cmath:sqrt"), point("one", "math:ceil")])
    with pytest.raises(PipelineError, match=r"'root' cannot be used: the name is registered 2 times: cmath:sqrt of an"):
        registry.get("root")
    assert registry.resolve("one")(0.5) == 1
    assert registry.names == ("one", "root")


def test_names_of_targets_are_found_again() -> None:
    registry = OperatorRegistry([point("ceiling", "math:ceil")])
    assert registry.name_of(registry.resolve("math:ceil")) == "ceiling"
    assert registry.name_of(len) is None


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("os", "is no import path"),
        ("os:", "is no import path"),
        (":x", "is no import path"),
        ("os:path.", "is no import path"),
        ("os path:x", "is no import path"),
        ("os:__import__('x')", "is no import path"),
        ("os.pth:x", "there is no module 'os.pth'"),
        ("os:pathh", "did you mean 'path'"),
        ("builtins:str.uper", "str has no 'uper'; did you mean 'upper'"),
    ],
)
def test_import_paths_that_lead_nowhere(path: str, message: str) -> None:
    with pytest.raises(PipelineError, match=message.replace("(", r"\(")):
        import_object(path)


def test_a_module_that_lacks_another_names_that_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lacking.py").write_text("import no_such_module_y\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PipelineError, match="'lacking' cannot be imported: No module named 'no_such_module_y'"):
        import_object("lacking:x")
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(PipelineError, match="'leaving' cannot be imported: SystemExit: 3"):
        import_object("leaving:x")
    assert "leaving" not in sys.modules


def test_kinds() -> None:
    class Both(MapFunction[int, int]):
        def execute(self, item: int) -> int:
            return item

    assert kind_of(Both) is OperatorKind.MAP
    assert kind_of(SourceFunction) is OperatorKind.SOURCE
    assert kind_of(Both()) is None
    assert kind_of(int) is None


# -- what is known of an operator


class _Inner(BaseModel):
    """Inner.

    Attributes:
        deep: how deep,
            in metres.
    """

    deep: float = 1.5


class _Outer(BaseModel):
    path: str = Field(description="where it is")
    inner: _Inner = _Inner()
    many: list[str] = Field(default_factory=lambda: ["a"])


class Described(MapFunction[int, int]):
    """Does
    things.

    More of it.

    Config:
        path: not this text.
        many, inner: both.
        no entry
    """

    Config = _Outer

    def execute(self, item: int) -> int:
        return item


def test_config_fields_have_type_default_and_text() -> None:
    fields = [(each.name, each.type, each.required, each.default, each.doc) for each in config_fields(Described)]
    assert fields == [
        ("path", "str", True, "", "where it is"),
        ("inner", "section", False, "", "both."),
        ("inner.deep", "float", False, "1.5", "how deep, in metres."),
        ("many", "list[str]", False, "[a]", "both."),
    ]
    assert summary_of(Described) == "Does things."
    assert config_fields(len) == ()


def test_every_operator_has_texts_and_an_example_that_is_valid(tmp_path: Path) -> None:
    for operator in OperatorRegistry().operators():
        if operator.name not in OURS:
            continue
        assert summary_of(operator.target).endswith("."), operator.name
        assert isinstance(contract_summary(operator.target.contract), str)
        example = example_of(operator)
        assert example.startswith(f"- {operator.kind}: {operator.name}\n")
        kind, lines = OURS[operator.name], ["pipeline: p", "operators:"]
        if kind != "source":
            lines.append("- collection: [1]")
        lines += [example] if kind == "sink" else [example, "- print:"]
        path = tmp_path / "example.yaml"
        path.write_text("\n".join(lines))
        assert isinstance(load_pipeline_file(path), LocalEnvironment)
        undocumented = [
            field.name for field in config_fields(operator.target) if not field.doc and "." not in field.name
        ]
        assert len(undocumented) <= 1, (operator.name, undocumented)
        assert config_model(operator.target) is not None
