"""A file can say what the DSL can: a method that is added there must get a key here, or a reason why not."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from sage.kernel.api import ConnectedStreams, FutureStream, KeyedStream, LocalEnvironment
from sage.kernel.declarative.document import TOP_KEYS
from sage.kernel.declarative.inputs import ROUTINGS
from sage.kernel.declarative.kinds import ARGUMENTS, KINDS, OPERATOR_KEYS

OTHER_WORDS = {
    "from_source": "source",
    "from_collection": "collection",
    "from_batch": "collection",
    "from_future": "future",
    "from_requests": "requests",
    "register_service": "services",
    "fill_future": "fill",
    "union": "input",
    "connect": "comap",
    "side_output": "input",
    "configure": "environment",
}
NOT_DECLARED = {"collect", "compile", "submit", "run_graph", "subgraph", "configure_operator", "calibrate"}
"""What runs, or changes, a pipeline that has been declared."""


def methods_of(*owners: type) -> set[str]:
    return {name for owner in owners for name, _ in inspect.getmembers(owner, callable) if not name.startswith("_")}


def test_every_method_of_the_dsl_has_a_key() -> None:
    methods = methods_of(KeyedStream, FutureStream, ConnectedStreams, LocalEnvironment) - NOT_DECLARED
    keys = {*KINDS, *OPERATOR_KEYS, *TOP_KEYS, *ROUTINGS}
    assert {method for method in methods if OTHER_WORDS.get(method, method) not in keys} == set()


FACTS = {"self", "others", "other", "parallelism", "contract", "name"}


@pytest.mark.parametrize("kind", sorted(set(ARGUMENTS) - {"future", "fill", "requests", "respond"}))
def test_every_argument_of_what_the_library_makes_has_a_key(kind: str) -> None:
    method: Any = getattr(KeyedStream, kind)
    assert set(inspect.signature(method).parameters) - FACTS == set(ARGUMENTS[kind])
    bounds = set(ARGUMENTS["fill"]) - {"future"}
    assert set(inspect.signature(FutureStream.fill).parameters) - {"self", "stream"} == bounds
