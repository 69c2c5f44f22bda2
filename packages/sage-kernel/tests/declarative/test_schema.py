"""The JSON Schema accepts what the loader accepts and refuses what it refuses, as far as a schema can tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from sage.kernel.declarative import check_pipeline_file
from sage.kernel.declarative.schema import pipeline_schema

YamlFile = Callable[..., Path]
PRINT = "  - print:\n"
HEAD = "pipeline: p\noperators:\n  - collection: [1]\n"


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = pipeline_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema
    return jsonschema.Draft202012Validator(schema)


GOOD = [
    "  - map: builtins:abs\n    parallelism: 2\n" + PRINT,
    "  - map: builtins:abs\n    parallelism: ${N:-2}\n" + PRINT,
    "  - key_by: {field: a}\n  - count:\n    emit: final\n  - sum: a\n  - sink: terminal_sink\n    config: {prefix: x}",
    "  - key_by: builtins:abs\n  - aggregate: {create: 0, add: builtins:max}\n  - print: 'a'\n",
    "  - map: hybrid_retriever\n    config: {documents: docs, top_k: '${K:-3}', embedding: {model: hashing}}\n" + PRINT,
    "  - map: builtins:abs\n    contract: {io: {errors: {retries: 3, backoff: fixed}}, execution: thread}\n" + PRINT,
    "  - map: builtins:abs\n    name: a\n  - print:\n    input: [collection, a]\n",
]
BAD = [
    "  - map: no_such_operator\n" + PRINT,
    "  - map: terminal_sink\n" + PRINT,
    "  - map: builtins:abs\n    paralelism: 2\n" + PRINT,
    "  - map: builtins:abs\n    parallelism: 0\n" + PRINT,
    "  - map: builtins:abs\n    filter: builtins:abs\n" + PRINT,
    "  - sink: terminal_sink\n    config: {prefx: a}\n",
    "  - map: hybrid_retriever\n    config: {documents: docs, top_k: five}\n" + PRINT,
    "  - map: builtins:abs\n    contract: {io: {error: {}}}\n" + PRINT,
    "  - map: builtins:abs\n    contract: {execution: tread}\n" + PRINT,
    "  - key_by: {feild: a}\n" + PRINT,
    "  - count: a\n" + PRINT,
]


@pytest.mark.parametrize("text", GOOD)
def test_what_is_right(validator: Any, yaml_file: YamlFile, text: str) -> None:
    assert check_pipeline_file(yaml_file(HEAD + text)) == ()
    assert [error.message for error in validator.iter_errors(yaml.safe_load(HEAD + text))] == []


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong(validator: Any, yaml_file: YamlFile, text: str) -> None:
    assert check_pipeline_file(yaml_file(HEAD + text))
    assert list(validator.iter_errors(yaml.safe_load(HEAD + text)))
