"""What is known of a registered operator: its config fields, its contract in a line, an example."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sage.kernel.graph import Contract, OperatorKind
from sage.kernel.operators import Function

from .registry import RegisteredOperator
from .yaml_text import to_yaml

__all__ = ["ConfigField", "config_fields", "config_model", "contract_summary", "example_of", "summary_of"]

_SECTION = re.compile(r"^(?P<indent> *)(?:Config[^:\n]*|Attributes|Args):[ ]*$", re.MULTILINE)
_ENTRY = re.compile(r"^(?P<names>\w+(?:, \w+)*): (?P<text>.*)\Z", re.DOTALL)
_QUALIFIED = re.compile(r"\b(?:\w+\.)+(\w+)")
_LARGEST = 3
_TEXT_MAX = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigField:
    """One key of an operator's config.

    Attributes:
        name: dotted where it is in a section.
        type: in words of Python annotations.
        required: whether there is no default.
        default: as YAML; "" where it is required.
        doc: what it means, "" where nobody says so.
    """

    name: str
    type: str
    required: bool
    default: str
    doc: str


def config_model(target: Any) -> type[BaseModel] | None:
    """The pydantic model of an operator's config, None where it has none."""
    return target.Config if isinstance(target, type) and issubclass(target, Function) else None


def summary_of(target: Any) -> str:
    """The first sentence of its docstring, on one line."""
    first = (inspect.getdoc(target) or "").split("\n\n", 1)[0]
    return " ".join(first.split())


def config_fields(target: Any) -> tuple[ConfigField, ...]:
    """The keys of an operator's config, those of sections below their section; none where it takes any config.

    Example:
        >>> from sage.kernel.operators import MapFunction
        >>> class Times(MapFunction[int, int]):
        ...     '''Multiplies.
        ...
        ...     Config:
        ...         factor: what each item is multiplied by.
        ...     '''
        ...     class Config(BaseModel):
        ...         factor: int = 2
        ...     def execute(self, item):
        ...         return item * self.config.factor
        >>> [(field.name, field.type, field.default, field.doc) for field in config_fields(Times)]
        [('factor', 'int', '2', 'what each item is multiplied by.')]
    """
    model = config_model(target)
    return () if model is None else tuple(_fields(model, "", _documented(target, model)))


def contract_summary(contract: Contract) -> str:
    """What a contract says beyond the default one, in a line.

    Example:
        >>> from sage.kernel.graph import ErrorPolicy, IOSpec
        >>> contract_summary(Contract(io=IOSpec(timeout_s=5.0, errors=ErrorPolicy(retries=2))))
        'io.timeout_s=5.0, io.errors.retries=2'
    """
    return ", ".join(f"{path}={value}" for path, value in _differences(contract, Contract(), ""))


def example_of(operator: RegisteredOperator) -> str:
    """A few lines of YAML that use it: what its config requires, and a few of its defaults."""
    kind = (operator.kind or OperatorKind.MAP).value
    entry: dict[str, Any] = {kind: operator.name}
    model = config_model(operator.target)
    if model is not None:
        config = _example_config(model)
        for name, info in model.model_fields.items():
            if len(config) < _LARGEST and _is_short(info.default):
                config.setdefault(name, info.default)
        if config:
            entry["config"] = config
    if operator.kind is OperatorKind.COMAP:
        entry["input"] = ["first_stream", "second_stream"]
    return to_yaml([entry])


def _example_config(model: type[BaseModel]) -> dict[str, Any]:
    """What a config cannot do without: what is required, paths, and what its author gives examples of."""
    return {
        info.alias or name: _example_value(name, info)
        for name, info in model.model_fields.items()
        if info.is_required() or info.examples or "Path" in _type_text(info.annotation)
    }


def _example_value(name: str, info: FieldInfo) -> Any:
    if info.examples:
        return info.examples[0]
    section = _section(info.annotation)
    if section is not None:
        return _example_config(section)
    text = _type_text(info.annotation)
    for kind, value in (("int", 1), ("float", 1.0), ("bool", True), ("list", []), ("dict", {})):
        if text.startswith(kind):
            return value
    if "Path" in text:
        return "path/to/folder" if name in ("path", "documents") else "path/to/file"
    return f"some {name}"


def _is_short(default: Any) -> bool:
    if isinstance(default, str):
        return 0 < len(default) <= _TEXT_MAX and default.isprintable()
    return isinstance(default, (int, float))


def _differences(given: Any, usual: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for field in fields(given):
        value: Any = getattr(given, field.name)
        other = getattr(usual, field.name)
        path = f"{prefix}{field.name}"
        if is_dataclass(value) and other is not None:
            yield from _differences(value, other, f"{path}.")
        elif value != other:
            yield path, str(value.value if isinstance(value, Enum) else value)


def _fields(model: type[BaseModel], prefix: str, docs: dict[str, str]) -> Iterator[ConfigField]:
    for name, info in model.model_fields.items():
        key = info.alias or name
        inner = _section(info.annotation)
        required = info.is_required()
        yield ConfigField(
            name=prefix + key,
            type="section" if inner is not None else _type_text(info.annotation),
            required=required,
            default="" if required or inner is not None else _default_text(info),
            doc=info.description or docs.get(key, ""),
        )
        if inner is not None:
            yield from _fields(inner, f"{prefix}{key}.", _documented(inner))


def _section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _default_text(info: FieldInfo) -> str:
    default = info.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return ""
    try:
        return to_yaml(default.value if isinstance(default, Enum) else default, flow=True)
    except TypeError:
        return str(default)


def _type_text(annotation: Any) -> str:
    if annotation is None or annotation is type(None):
        return "null"
    if isinstance(annotation, type) and not get_args(annotation):
        if issubclass(annotation, Enum):
            return " | ".join(repr(member.value) for member in annotation)
        return annotation.__name__
    if str(get_origin(annotation)) == "typing.Literal":
        return " | ".join(map(repr, get_args(annotation)))
    text = str(annotation).replace("NoneType", "null").replace("None", "null")
    return _QUALIFIED.sub(r"\1", text)


def _documented(*owners: Any) -> dict[str, str]:
    """What docstrings say about keys: lines `name: text` below "Config:", "Attributes:" or "Args:"."""
    found: dict[str, str] = {}
    for owner in owners:
        # A model may inherit the fields, and with them the text, of another one.
        for base in inspect.getmro(owner):
            if base is not Function and base is not BaseModel and base.__doc__:
                for name, text in _entries(inspect.cleandoc(base.__doc__)):
                    found.setdefault(name, text)
    return found


def _entries(doc: str) -> Iterator[tuple[str, str]]:
    for section in _SECTION.finditer(doc):
        entry: list[str] = []
        indent: int | None = None
        for line in [*doc[section.end() :].splitlines()[1:], ""]:
            depth = len(line) - len(line.lstrip())
            ended = not line.strip() or depth <= len(section["indent"])
            indent = depth if indent is None and not ended else indent
            if entry and (ended or depth == indent):
                match = _ENTRY.match(" ".join(part.strip() for part in entry))
                if match is not None:
                    yield from ((name, match["text"]) for name in match["names"].split(", "))
                entry = []
            if ended:
                break
            entry.append(line)
