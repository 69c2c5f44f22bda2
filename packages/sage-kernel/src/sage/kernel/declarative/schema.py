"""JSON Schema (draft 2020-12) of pipeline files, with the configs of the operators that are installed: editors complete
and check by it.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from sage.kernel.api import EnvironmentConfig

from .build import contract_adapter
from .describe import config_model, summary_of
from .registry import OperatorRegistry, RegisteredOperator
from .specification import FOLDS, KINDS, SHAPES, SHORT_FORMS

__all__ = ["config_schema", "pipeline_schema"]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_IMPORT_PATH = {
    "type": "string",
    "pattern": r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*$",
    "description": "import path module:Object",
}
_VARIABLE = {"type": "string", "pattern": r"\$\{", "description": "${NAME} or ${NAME:-default}"}
_FUNCTION_KINDS = ("source", "map", "flatmap", "filter", "key_by", "reduce", "aggregate", "sink")


class _Generator(GenerateJsonSchema):
    """Lets anything pass where a config takes an object of Python, which a file cannot give in any case."""

    def handle_invalid_for_json_schema(self, schema: core_schema.CoreSchema, error_info: str) -> JsonSchemaValue:
        return {}


def pipeline_schema(registry: OperatorRegistry | None = None) -> dict[str, Any]:
    """The schema of a pipeline file.

    Example:
        >>> schema = pipeline_schema(OperatorRegistry([]))
        >>> schema["required"], sorted(schema["properties"])
        (['pipeline', 'operators'], ['environment', 'operators', 'parameters', 'pipeline'])
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
            "operators": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/operator"}},
        },
        "$defs": {"operator": _operator(operators), **definitions},
    }


def _operator(operators: list[RegisteredOperator]) -> dict[str, Any]:
    properties: dict[str, Any] = {kind: _what(kind, operators) for kind in KINDS}
    properties.update(
        name={"type": "string", "pattern": r"^\w[\w .:-]*$", "description": "unique in the pipeline"},
        input={
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
            "description": "operators whose outputs it takes; without it, the one above",
        },
        config={"type": "object"},
        parallelism={"anyOf": [{"type": "integer", "minimum": 1}, _VARIABLE], "description": "replicas"},
        contract={"$ref": "#/$defs/contract"},
        emit={"enum": ["each", "final"], "description": "after each item, or once per key at the end of the stream"},
    )
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "oneOf": [{"required": [kind]} for kind in KINDS],
        "allOf": [
            {
                "if": {"required": [kind], "properties": {kind: {"const": found.name}}},
                "then": {"properties": {"config": {"$ref": f"#/$defs/config.{found.name}"}}},
            }
            for found in operators
            for kind in _kinds(found)
        ],
    }


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
    if kind in SHAPES:
        return _shape(kind)
    if kind in FOLDS:
        return {"type": ["string", "integer", "null"], "description": "the field, or nothing for the item itself"}
    names = [
        {"const": found.name, "description": summary_of(found.target)} for found in operators if kind in _kinds(found)
    ]
    forms: list[dict[str, Any]] = [*names, _IMPORT_PATH]
    short = SHORT_FORMS.get(kind)
    if short is not None and any(found.name == short for found in operators):
        forms.append({"$ref": f"#/$defs/config.{short}"})
    if kind == "aggregate":
        parts = {
            "create": {"anyOf": [_IMPORT_PATH, {"type": "number"}]},
            "add": _IMPORT_PATH,
            "result": _IMPORT_PATH,
        }
        forms.append(
            {"type": "object", "properties": parts, "required": ["create", "add"], "additionalProperties": False}
        )
    return {"anyOf": forms}


def _shape(kind: str) -> dict[str, Any]:
    types: dict[str, Any] = {"number": {"type": ["number", "null"]}, "path": _IMPORT_PATH}
    arguments = {name: types[form] for name, form in SHAPES[kind].items()}
    forms = [{"type": "object", "properties": arguments, "additionalProperties": False}, next(iter(arguments.values()))]
    return {"anyOf": [*forms, {"type": "null"}] if kind == "distinct" else forms}


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
