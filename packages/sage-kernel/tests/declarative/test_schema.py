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
STREAMS = [
    "  - map: builtins:len\n    batch: {size: 3, max_wait_s: null}\n  - sink: terminal_sink\n    ordered: true\n",
    "  - ordered: {max_ahead: 3}\n  - ordered: 3\n  - ordered:\n  - map: builtins:len\n    batch: 3\n" + PRINT,
    "  - split: {by: {a: builtins:bool, b: {field: x, above: 1}}}\n    name: s\n  - print:\n    input: s/a\n",
    "  - split: {by: builtins:len, into: [a, b]}\n    name: s\n  - print:\n    input: [s/a, {from: s, branch: b}]\n",
    "  - map: builtins:abs\n    input: {routing: rebalance}\n" + PRINT,
    "  - comap: {map1: builtins:abs, map2: builtins:str}\n    input: [collection, [collection]]\n" + PRINT,
    "  - key_by: builtins:abs\n    name: k\n  - join:\n    input: [k, k]\n" + PRINT,
    "  - key_by: builtins:abs\n    name: k\n  - join: {within: [0, 1.5], time: {field: a}, kind: inner}\n"
    "    input: [k, k]\n" + PRINT,
    "  - interleave: 3\n    input: [collection, collection]\n" + PRINT,
    "  - distinct: {key: {field: a}}\n" + PRINT,
    "  - key_by: builtins:abs\n  - sum: {function: builtins:abs}\n  - key_by: builtins:abs\n"
    "  - aggregate: {create: {value: ''}, add: builtins:max}\n" + PRINT,
    (
        "  - future:\n    name: f\n  - map: builtins:abs\n    input: [collection, f]\n    name: m\n"
        "  - filter: builtins:bool\n  - fill: {future: f, max_in_flight: 3}\n  - print:\n    input: m\n"
    ),
    (
        "  - print:\nservices:\n  a: builtins:len\n  b: {service: builtins:len, concurrency: 2}\n"
        "  c: {operators: [{requests: }, {map: builtins:len}, {respond: }], environment: {fusion: false}}\n"
    ),
]
GOOD += STREAMS
BAD = [
    "  - map: builtins:len\n    batch: {sise: 3}\n" + PRINT,
    "  - split: {into: [a]}\n    name: s\n  - print:\n    input: s/a\n",
    "  - split: {by: {a: 3}}\n    name: s\n  - print:\n    input: s/a\n",
    "  - map: builtins:abs\n    input: {form: collection}\n" + PRINT,
    "  - map: builtins:abs\n    input: {routing: all}\n" + PRINT,
    "  - join: {within: [1]}\n    input: [collection, collection]\n" + PRINT,
    "  - future: 3\n" + PRINT,
    "  - fill:\n" + PRINT,
    "  - print:\nservices: {a: {concurrency: 2}}\n",
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
