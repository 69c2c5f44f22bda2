"""What a pipeline file says of one operator, checked for its form; nothing is imported or declared here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sage.kernel.graph import SourceLocation

from .document import KeyPath, PipelineDocument
from .findings import hint

__all__ = ["FOLDS", "KINDS", "OPERATOR_KEYS", "SHAPES", "SHORT_FORMS", "OperatorSpec", "read_operators"]

FOLDS: Final = ("count", "sum", "min", "max", "mean")
SHAPES: Final[dict[str, dict[str, str]]] = {
    "limit": {"items": "number"},
    "batch": {"size": "number", "max_wait_s": "number"},
    "sample": {"fraction": "number", "every": "number", "seed": "number"},
    "distinct": {"key": "path", "max_keys": "number"},
}
"""Operators that need no function, with their arguments; the value of the key may be the first argument alone."""
KINDS: Final = (
    "source", "collection", "map", "flatmap", "filter", "key_by", "reduce", "aggregate",
    *FOLDS, *SHAPES, "sink", "print",
)  # fmt: skip
"""Each operator has exactly one of these keys; its value says which operator it is."""

OPERATOR_KEYS: Final = ("name", "input", "config", "parallelism", "contract", "emit")
SHORT_FORMS: Final = {"key_by": "field_key", "filter": "field_filter"}
"""Kinds whose value may be the config of a registered operator: `key_by: {field: user.id}`."""

SOURCES: Final = ("source", "collection")
SINKS: Final = ("sink", "print")
_EMITTING: Final = ("reduce", "aggregate", *FOLDS)
_WITHOUT_CONFIG: Final = ("collection", "print", *FOLDS, *SHAPES)
_FOLD_PARTS: Final = ("create", "add", "result")


@dataclass(slots=True, kw_only=True)
class OperatorSpec:
    """One operator of a file.

    Attributes:
        index: its place in the list.
        location: file, line and column.
        kind: one of `KINDS`.
        what: the value of that key: a name, an import path, items, a field, a prefix; or parts of an aggregate.
        name: given name, None without one.
        inputs: names of the operators whose outputs it takes; None: the one before it in the list.
        config: as given.
        parallelism: as given.
        contract: as given.
        emit: "each" or "final"; None where it is not given.
    """

    index: int
    location: SourceLocation
    kind: str
    what: Any
    name: str | None = None
    inputs: tuple[str, ...] | None = None
    config: dict[str, Any] | None = None
    parallelism: int | None = None
    contract: Mapping[str, Any] = field(default_factory=dict)
    emit: str | None = None

    def path(self, *below: str | int) -> KeyPath:
        """Path in the document of something of this operator."""
        return ("operators", self.index, *below)

    @property
    def is_source(self) -> bool:
        """Whether it takes no input."""
        return self.kind in SOURCES

    @property
    def is_sink(self) -> bool:
        """Whether nothing comes behind it."""
        return self.kind in SINKS


def read_operators(document: PipelineDocument) -> list[OperatorSpec]:
    """The operators of a file; what is wrong with their form is reported to the document, and left out."""
    given = document.values.get("operators")
    if not isinstance(given, list) or not given:
        found = "nothing" if given is None else "an empty list" if given == [] else f"{type(given).__name__}"
        document.report(("operators",), f"operators must be a list of at least one operator, got {found}")
        return []
    specs = []
    for index, entry in enumerate(given):
        spec = _read(document, index, entry)
        if spec is not None:
            specs.append(spec)
    return specs


def _read(document: PipelineDocument, index: int, entry: Any) -> OperatorSpec | None:
    path: KeyPath = ("operators", index)
    if not isinstance(entry, dict):
        document.report(path, f"an operator is a mapping such as `map: name`, got {_type_of(entry)}")
        return None
    for key in entry:
        if key not in KINDS and key not in OPERATOR_KEYS:
            document.report((*path, key), f"unknown key {key!r}{hint(key, (*KINDS, *OPERATOR_KEYS))}")
    kinds = [key for key in entry if key in KINDS]
    if len(kinds) != 1:
        problem = "says no kind" if not kinds else f"has {len(kinds)} kinds ({', '.join(kinds)})"
        if len(kinds) > 1 or all(key in OPERATOR_KEYS for key in entry):
            document.report(path, f"the operator {problem}: it needs exactly one of {', '.join(KINDS)}")
        return None
    spec = OperatorSpec(index=index, location=document.at(*path), kind=kinds[0], what=entry[kinds[0]])
    if not _check_what(document, spec):
        return None
    _read_keys(document, spec, entry)
    return spec


def _check_what(document: PipelineDocument, spec: OperatorSpec) -> bool:
    kind, what = spec.kind, spec.what
    path = spec.path(kind)
    if kind == "collection":
        if not isinstance(what, list):
            document.report(path, f"collection must be a list of items, got {_type_of(what)}")
            return False
    elif kind in FOLDS:
        if what is not None and (isinstance(what, bool) or not isinstance(what, (str, int))):
            document.report(path, f"{kind} takes the name of a field, or nothing for the item itself, got {what!r}")
            return False
        if kind == "count" and what is not None:
            document.report(path, f"count counts items and takes no field, got {what!r}")
            return False
    elif kind in SHAPES:
        return _check_shape(document, spec)
    elif kind == "print":
        if what is not None and not isinstance(what, str):
            document.report(path, f"print takes the text to put before each item, or nothing, got {what!r}")
            return False
    elif kind == "aggregate" and isinstance(what, dict):
        unknown = [part for part in what if part not in _FOLD_PARTS]
        for part in unknown:
            document.report((*path, part), f"unknown key {part!r}{hint(part, _FOLD_PARTS)}")
        missing = [part for part in ("create", "add") if part not in what]
        for part in missing:
            document.report(path, f"aggregate needs {part}")
        return not unknown and not missing
    elif kind in SHORT_FORMS and isinstance(what, dict):
        return True
    elif not isinstance(what, str) or not what:
        document.report(path, f"{kind} takes a registered name or an import path module:Object, got {_type_of(what)}")
        return False
    return True


def _check_shape(document: PipelineDocument, spec: OperatorSpec) -> bool:
    """Bring the arguments of a shape into the form of a mapping; whether they can be used."""
    allowed, given = SHAPES[spec.kind], spec.what
    if not isinstance(given, dict):
        given = {} if given is None else {next(iter(allowed)): given}
    fine = True
    given = {key: _number(value) if allowed.get(key) == "number" else value for key, value in given.items()}
    for key, value in given.items():
        path = spec.path(spec.kind, key)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if key not in allowed:
            document.report(path, f"unknown key {key!r}{hint(key, allowed)}")
        elif allowed[key] == "path" and not isinstance(value, str):
            document.report(path, f"{key} must be an import path module:Object, got {value!r}")
        elif allowed[key] == "number" and not number and value is not None:
            document.report(path, f"{key} must be a number, got {value!r}")
        else:
            continue
        fine = False
    spec.what = {key: value for key, value in given.items() if value is not None}
    return fine


def _read_keys(document: PipelineDocument, spec: OperatorSpec, entry: Mapping[str, Any]) -> None:
    name = entry.get("name")
    if name is not None and not isinstance(name, str):
        document.report(spec.path("name"), f"name must be text, got {name!r}")
    else:
        spec.name = name
    if "input" in entry:
        spec.inputs = _inputs(document, spec, entry["input"])
    config = entry.get("config")
    if config is not None and not isinstance(config, dict):
        document.report(spec.path("config"), f"config must be a mapping of names to values, got {_type_of(config)}")
    elif config is not None and (spec.kind in _WITHOUT_CONFIG or isinstance(spec.what, dict)):
        document.report(spec.path("config"), f"{spec.kind} takes no config here")
    else:
        spec.config = config
    contract = entry.get("contract")
    if contract is not None and not isinstance(contract, dict):
        document.report(spec.path("contract"), f"contract must be a mapping, got {_type_of(contract)}")
    elif contract is not None and spec.kind == "print":
        document.report(spec.path("contract"), "print takes no contract: use sink: terminal_sink")
    else:
        spec.contract = contract or {}
    spec.parallelism = _parallelism(document, spec, entry.get("parallelism"))
    emit = entry.get("emit")
    if emit is not None and spec.kind not in _EMITTING:
        document.report(spec.path("emit"), f"emit goes with {', '.join(_EMITTING)}, not with {spec.kind}")
    elif emit not in (None, "each", "final"):
        document.report(spec.path("emit"), f"emit must be 'each' or 'final', got {emit!r}")
    else:
        spec.emit = emit


def _inputs(document: PipelineDocument, spec: OperatorSpec, given: Any) -> tuple[str, ...] | None:
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        document.report(spec.path("input"), f"input is the name of an operator or a list of names, got {given!r}")
        return None
    if spec.is_source:
        document.report(spec.path("input"), f"a {spec.kind} takes no input")
        return None
    return tuple(names)


def _parallelism(document: PipelineDocument, spec: OperatorSpec, given: Any) -> int | None:
    if given is None:
        return None
    if isinstance(given, str) and given.strip().isdecimal():  # out of a variable
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        document.report(spec.path("parallelism"), f"parallelism must be a whole number >= 1, got {given!r}")
        return None
    return given


def _number(value: Any) -> Any:
    """The number that a text out of a variable says; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return int(value) if value.strip().isdecimal() else float(value)
    except ValueError:
        return value


def _type_of(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", type(None): "nothing", str: repr(value)}
    return names.get(type(value), repr(value))
