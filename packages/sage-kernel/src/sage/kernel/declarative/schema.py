"""JSON Schema (draft 2020-12) of pipeline files, with the configs of the operators that are installed: editors complete
and check by it.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from sage.kernel.api import EnvironmentConfig

from .declaring import contract_adapter
from .describe import config_model, summary_of
from .inputs import ROUTINGS
from .kinds import ARGUMENTS, FOLDS, KINDS, PARTS, REQUIRED, SHORT_FORMS
from .registry import OperatorRegistry, RegisteredOperator

__all__ = ["config_schema", "pipeline_schema"]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_IMPORT_PATH = {
    "type": "string",
    "pattern": r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*$",
    "description": "import path module:Object",
}
_VARIABLE = {"type": "string", "pattern": r"\$\{", "description": "${NAME} or ${NAME:-default}"}
_FUNCTION = {"type": "string", "minLength": 1, "description": "registered name or import path module:Object"}
_FUNCTION_KINDS = ("source", "map", "flatmap", "filter", "key_by", "reduce", "aggregate", "sink")
_NAME = {"type": "string", "pattern": r"^\w[\w .:-]*$"}
_NUMBER = {"anyOf": [{"type": ["number", "null"]}, _VARIABLE]}
_WHOLE = {"anyOf": [{"type": "integer", "minimum": 1}, _VARIABLE]}


class _Generator(GenerateJsonSchema):
    """Lets anything pass where a config takes an object of Python, which a file cannot give in any case."""

    def handle_invalid_for_json_schema(self, schema: core_schema.CoreSchema, error_info: str) -> JsonSchemaValue:
        return {}


def pipeline_schema(registry: OperatorRegistry | None = None) -> dict[str, Any]:
    """The schema of a pipeline file.

    Example:
        >>> schema = pipeline_schema(OperatorRegistry([]))
        >>> schema["required"], sorted(schema["properties"])
        (['pipeline', 'operators'], ['environment', 'operators', 'parameters', 'pipeline', 'services'])
    """
    operators = [found for found in (registry or OperatorRegistry()).operators() if not found.error]
    definitions: dict[str, Any] = {"contract": _contract(), "environment": _schema_of(EnvironmentConfig)}
    for found in operators:
        definitions[f"config.{found.name}"] = config_schema(found, f"#/$defs/config.{found.name}")
    return {
        "$schema": _DRAFT,
        "title": "SAGE pipeline",
        "type": "object",
        "additionalProperties": False,
        "required": ["pipeline", "operators"],
        "properties": {
            "pipeline": {"type": "string", "minLength": 1, "description": "the name of the pipeline"},
            "environment": {"$ref": "#/$defs/environment"},
            "parameters": {"type": "object", "description": "names with default values; `--set name=value` beats them"},
            "services": {"$ref": "#/$defs/services"},
            "operators": {"$ref": "#/$defs/operators"},
        },
        "$defs": {"operator": _operator(operators), **_shared(), **definitions},
    }


def _shared() -> dict[str, Any]:
    """What more than one place refers to."""
    ref = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "from": {"type": "string", "description": "an operator above; without it, the one right above"},
            "branch": {"type": "string", "description": "a branch of a split, or a side output"},
            "routing": {"enum": list(ROUTINGS), "description": "each item to all replicas, or to them in turn"},
        },
    }
    texts: list[dict[str, Any]] = [{"type": "string", "description": "operator, or operator/branch"}, ref]
    stream = {"anyOf": [*texts, {"type": "array", "items": {"anyOf": texts}, "minItems": 1}]}
    pipeline = {
        "pipeline": {"type": "string", "minLength": 1},
        "environment": {"$ref": "#/$defs/environment"},
        "services": {"$ref": "#/$defs/services"},
        "operators": {"$ref": "#/$defs/operators"},
        "concurrency": _WHOLE,
    }
    named = {"service": {"type": "string"}, "config": {"type": "object"}, "concurrency": _WHOLE}
    service = {
        "anyOf": [
            _IMPORT_PATH,
            {"type": "object", "properties": named, "required": ["service"], "additionalProperties": False},
            {"type": "object", "properties": pipeline, "required": ["operators"], "additionalProperties": False},
        ]
    }
    return {
        "operators": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/operator"}},
        "services": {
            "type": "object",
            "additionalProperties": service,
            "description": "what operators call by name: a function, a class, or a pipeline from requests to respond",
        },
        "input": {
            "anyOf": [stream, {"type": "array", "items": stream, "minItems": 2}],
            "description": "operators whose outputs it takes; without it, the one above",
        },
    }


def _operator(operators: list[RegisteredOperator]) -> dict[str, Any]:
    properties: dict[str, Any] = {kind: _what(kind, operators) for kind in KINDS}
    properties.update(
        name={**_NAME, "description": "unique in the pipeline"},
        input={"$ref": "#/$defs/input"},
        config={"type": "object"},
        parallelism={**_WHOLE, "description": "replicas"},
        contract={"$ref": "#/$defs/contract"},
        emit={"enum": ["each", "final"], "description": "after each item, or once per key at the end of the stream"},
    )
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "oneOf": [_is_of(kind) for kind in KINDS],
        "allOf": [
            {
                "if": {"required": [kind], "properties": {kind: {"const": found.name}}},
                "then": {"properties": {"config": {"$ref": f"#/$defs/config.{found.name}"}}},
            }
            for found in operators
            for kind in _kinds(found)
        ],
    }


def _is_of(kind: str) -> dict[str, Any]:
    # Beside a map `batch` is no operator of its own, nor is `ordered` beside a sink.
    owner = {"batch": "map", "ordered": "sink"}.get(kind)
    alone = {} if owner is None else {"not": {"required": [owner]}}
    return {"required": [kind], **alone}


def _kinds(found: RegisteredOperator) -> tuple[str, ...]:
    return _FUNCTION_KINDS if found.kind is None else (found.kind.value,)


def _what(kind: str, operators: list[RegisteredOperator]) -> dict[str, Any]:
    """What may stand behind the key of a kind."""
    if kind == "collection":
        return {"type": "array", "description": "the items"}
    if kind == "print":
        return {"type": ["string", "null"], "description": "text before each item"}
    if kind == "count":
        return {"type": "null"}
    if kind in ARGUMENTS:
        return _arguments(kind)
    if kind in FOLDS:
        field = {"type": ["string", "integer", "null"], "description": "the field, or nothing for the item itself"}
        return {"anyOf": [field, _mapping(PARTS[kind], REQUIRED[kind])]}
    names = [
        {"const": found.name, "description": summary_of(found.target)} for found in operators if kind in _kinds(found)
    ]
    forms: list[dict[str, Any]] = [*names, _IMPORT_PATH]
    short = SHORT_FORMS.get(kind)
    if short is not None and any(found.name == short for found in operators):
        forms.append({"$ref": f"#/$defs/config.{short}"})
    if kind in PARTS:
        forms.append(_mapping(PARTS[kind], REQUIRED[kind]))
    return {"anyOf": forms}


def _mapping(forms: dict[str, str], required: tuple[str, ...] = ()) -> dict[str, Any]:
    properties = {name: _form(form) for name, form in forms.items()}
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _arguments(kind: str) -> dict[str, Any]:
    """What the library makes by itself: its arguments, the first alone, nothing where none is needed."""
    forms = ARGUMENTS[kind]
    shapes = [_mapping(forms, REQUIRED.get(kind, ()))]
    shapes += [_form(form) for form in list(forms.values())[:1]]
    shapes += [] if REQUIRED.get(kind) else [{"type": "null"}]
    shapes += [{"type": "boolean"}] if kind == "ordered" else []  # of a sink
    return {"anyOf": shapes}


def _form(form: str) -> dict[str, Any]:
    key = {"anyOf": [_FUNCTION, {"type": "object", "required": ["field"]}]}
    condition = {"anyOf": [_FUNCTION, {"type": "object", "required": ["field"]}]}
    forms: dict[str, dict[str, Any]] = {
        "number": _NUMBER,
        "numbers": {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2},
        "text": {"type": "string"},
        "names": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "function": _FUNCTION,
        "key": key,
        "times": {"anyOf": [key, {"type": "array", "items": key, "minItems": 2, "maxItems": 2}]},
        "branches": {"anyOf": [_FUNCTION, {"type": "object", "additionalProperties": condition, "minProperties": 1}]},
        "create": {
            "anyOf": [
                _FUNCTION,
                {"type": "number"},
                {"type": "object", "properties": {"value": {}}, "required": ["value"], "additionalProperties": False},
            ]
        },
    }
    return forms[form]


def _contract() -> dict[str, Any]:
    schema = contract_adapter().json_schema(ref_template="#/$defs/contract/$defs/{model}")
    tolerant: dict[str, Any] = _tolerant(schema, closed=True)
    return tolerant


def config_schema(found: RegisteredOperator, root: str = "#") -> dict[str, Any]:
    """The schema of an operator's config; `root` is where it will stand in a larger schema."""
    model = config_model(found.target)
    return {"type": "object"} if model is None else _schema_of(model, f"{root}/$defs/{{model}}")


def _schema_of(model: Any, template: str = "#/$defs/environment/$defs/{model}") -> dict[str, Any]:
    schema = model.model_json_schema(ref_template=template, schema_generator=_Generator)
    tolerant: dict[str, Any] = _tolerant(schema, closed=False)
    return tolerant


def _tolerant(schema: Any, *, closed: bool) -> Any:
    """`schema` in which `${NAME}` may stand for a number; `closed` refuses unknown keys, as the loader does."""
    if isinstance(schema, list):
        return [_tolerant(each, closed=closed) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {}
    for key, value in schema.items():
        if key in ("default", "enum", "const", "required", "description", "title"):
            inner[key] = value
        elif key in ("properties", "$defs"):
            inner[key] = {name: _tolerant(each, closed=closed) for name, each in value.items()}
        else:
            inner[key] = _tolerant(value, closed=closed)
    if closed and inner.get("type") == "object" and "properties" in inner:
        inner.setdefault("additionalProperties", False)
    if inner.get("type") in ("integer", "number", "boolean"):
        facts = {key: inner.pop(key) for key in ("default", "description", "title") if key in inner}
        return {"anyOf": [inner, _VARIABLE], **facts}
    return inner
