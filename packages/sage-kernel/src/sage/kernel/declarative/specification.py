"""What a pipeline file says of one operator, checked for its form; nothing is imported or declared here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sage.kernel.graph import SourceLocation

from .document import KeyPath, PipelineDocument
from .findings import hint
from .forms import read_what, type_of
from .inputs import InputStream, read_inputs
from .kinds import (
    EMITTING,
    KINDS,
    OPERATOR_KEYS,
    SEVERAL_STREAMS,
    SINKS,
    SOURCES,
    WITHOUT_CONFIG,
    WITHOUT_CONTRACT,
    WITHOUT_PARALLELISM,
)

__all__ = ["OperatorSpec", "read_operators"]


@dataclass(slots=True, kw_only=True)
class OperatorSpec:
    """One operator of a file.

    Attributes:
        base: path of the list that it stands in.
        index: its place in the list.
        location: file, line and column.
        kind: one of `KINDS`.
        what: the value of that key: a name, an import path, items, a field, a prefix; or arguments by name.
        name: given name, None without one.
        inputs: the streams that it takes; None: that of the operator before it in the list.
        inputs_wrong: `input` is given and cannot be read.
        config: as given.
        parallelism: as given.
        contract: as given.
        emit: "each" or "final"; None where it is not given.
        batch: the arguments of `batch` beside `map`; None without it.
        ordered: whether a sink takes items in the order of their source.
    """

    base: KeyPath
    index: int
    location: SourceLocation
    kind: str
    what: Any
    name: str | None = None
    inputs: tuple[InputStream, ...] | None = None
    inputs_wrong: bool = False
    config: dict[str, Any] | None = None
    parallelism: int | None = None
    contract: Mapping[str, Any] = field(default_factory=dict)
    emit: str | None = None
    batch: dict[str, Any] | None = None
    ordered: bool = False

    def path(self, *below: str | int) -> KeyPath:
        """Path in the document of something of this operator."""
        return (*self.base, self.index, *below)

    @property
    def is_source(self) -> bool:
        """Whether it takes no input."""
        return self.kind in SOURCES

    @property
    def is_sink(self) -> bool:
        """Whether nothing comes behind it."""
        return self.kind in SINKS


def read_operators(document: PipelineDocument, base: KeyPath, given: Any) -> list[OperatorSpec]:
    """The operators of a list; what is wrong with their form is reported to the document, and left out.

    Args:
        document: the file.
        base: where the list stands.
        given: the list.
    """
    if not isinstance(given, list) or not given:
        found = "nothing" if given is None else "an empty list" if given == [] else f"{type(given).__name__}"
        document.report(base, f"operators must be a list of at least one operator, got {found}")
        return []
    specs = []
    for index, entry in enumerate(given):
        spec = _read(document, base, index, entry)
        if spec is not None:
            specs.append(spec)
    return specs


def _read(document: PipelineDocument, base: KeyPath, index: int, entry: Any) -> OperatorSpec | None:
    path: KeyPath = (*base, index)
    if not isinstance(entry, dict):
        document.report(path, f"an operator is a mapping such as `map: name`, got {type_of(entry)}")
        return None
    for key in entry:
        if key not in KINDS and key not in OPERATOR_KEYS:
            document.report((*path, key), f"unknown key {key!r}{hint(key, (*KINDS, *OPERATOR_KEYS))}")
    kinds = [key for key in entry if key in KINDS]
    if sorted(kinds) == ["batch", "map"]:
        kinds = ["map"]
    elif len(kinds) == 2 and "ordered" in kinds:
        # Beside a sink it is a flag and no operator; beside anything else the sink's flag was meant.
        kinds.remove("ordered")
    if len(kinds) != 1:
        problem = "says no kind" if not kinds else f"has {len(kinds)} kinds ({', '.join(kinds)})"
        if len(kinds) > 1 or all(key in OPERATOR_KEYS for key in entry):
            document.report(path, f"the operator {problem}: it needs exactly one of {', '.join(KINDS)}")
        return None
    kind = kinds[0]
    fine, what = read_what(document, (*path, kind), kind, entry[kind])
    if not fine:
        return None
    spec = OperatorSpec(base=base, index=index, location=document.at(*path), kind=kind, what=what)
    _read_keys(document, spec, entry)
    _read_flags(document, spec, entry)
    return spec


def _read_keys(document: PipelineDocument, spec: OperatorSpec, entry: Mapping[str, Any]) -> None:
    name = entry.get("name")
    if name is not None and spec.kind == "fill":
        document.report(spec.path("name"), "fill is no operator and has no name")
    elif name is not None and not isinstance(name, str):
        document.report(spec.path("name"), f"name must be text, got {name!r}")
    else:
        spec.name = name
    if "input" in entry:
        _read_input(document, spec, entry["input"])
    config = entry.get("config")
    if config is not None and not isinstance(config, dict):
        document.report(spec.path("config"), f"config must be a mapping of names to values, got {type_of(config)}")
    elif config is not None and (spec.kind in WITHOUT_CONFIG or isinstance(spec.what, dict)):
        document.report(spec.path("config"), f"{spec.kind} takes no config here")
    else:
        spec.config = config
    contract = entry.get("contract")
    if contract is not None and not isinstance(contract, dict):
        document.report(spec.path("contract"), f"contract must be a mapping, got {type_of(contract)}")
    elif contract is not None and spec.kind in WITHOUT_CONTRACT:
        document.report(spec.path("contract"), f"{spec.kind} takes no contract")
    else:
        spec.contract = contract or {}
    spec.parallelism = _parallelism(document, spec, entry.get("parallelism"))


def _read_input(document: PipelineDocument, spec: OperatorSpec, given: Any) -> None:
    if spec.is_source:
        document.report(spec.path("input"), f"a {spec.kind} takes no input")
        return
    several = spec.kind in SEVERAL_STREAMS
    spec.inputs = read_inputs(document, spec.path("input"), given, several=several)
    spec.inputs_wrong = spec.inputs is None


def _read_flags(document: PipelineDocument, spec: OperatorSpec, entry: Mapping[str, Any]) -> None:
    emit = entry.get("emit")
    if emit is not None and spec.kind not in EMITTING:
        document.report(spec.path("emit"), f"emit goes with {', '.join(EMITTING)}, not with {spec.kind}")
    elif emit not in (None, "each", "final"):
        document.report(spec.path("emit"), f"emit must be 'each' or 'final', got {emit!r}")
    else:
        spec.emit = emit
    if spec.kind == "map" and "batch" in entry:
        spec.batch = _batch(document, spec, entry["batch"])
    if spec.kind != "ordered" and "ordered" in entry:
        if spec.kind != "sink":
            document.report(
                spec.path("ordered"),
                f"`ordered: true` goes with sink, not with {spec.kind}: put `- ordered:` before it",
            )
        elif not isinstance(entry["ordered"], bool):
            document.report(spec.path("ordered"), f"ordered must be true or false, got {entry['ordered']!r}")
        else:
            spec.ordered = entry["ordered"]


def _batch(document: PipelineDocument, spec: OperatorSpec, given: Any) -> dict[str, Any] | None:
    """The arguments of a batched map."""
    fine, arguments = read_what(document, spec.path("batch"), "batch", given)
    if isinstance(given, dict) and given.get("max_wait_s", 0) is None:
        # Here to wait without limit is something else than to say nothing.
        arguments["max_wait_s"] = None
    return arguments if fine else None


def _parallelism(document: PipelineDocument, spec: OperatorSpec, given: Any) -> int | None:
    if given is None:
        return None
    if spec.kind in WITHOUT_PARALLELISM:
        document.report(spec.path("parallelism"), f"{spec.kind} has one replica: leave out parallelism")
        return None
    if isinstance(given, str) and given.strip().isdecimal():  # out of a variable
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        document.report(spec.path("parallelism"), f"parallelism must be a whole number >= 1, got {given!r}")
        return None
    return given
