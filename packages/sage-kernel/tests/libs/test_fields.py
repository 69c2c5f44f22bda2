"""Keys and filters by a field of the item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from sage.common.errors import ConfigError
from sage.kernel.api import LocalEnvironment
from sage.libs.errors import FieldError
from sage.libs.foundation import Document, FieldFilter, FieldKey
from sage.libs.foundation.fields import field_of


@dataclass
class Order:
    user: dict[str, Any]
    _secret: str = "x"

    def method(self) -> int:
        return 1


ORDER = Order({"ids": [7, {"deep": None}], "name": "ada"})


@pytest.mark.parametrize(
    ("path", "value"), [("user.name", "ada"), ("user.ids.0", 7), ("user.ids.1.deep", None), ("user", ORDER.user)]
)
def test_paths(path: str, value: Any) -> None:
    assert field_of(ORDER, path) == value


@pytest.mark.parametrize(
    "path",
    ["nobody", "user.nme", "user.ids.2", "user.ids.-1", "user.ids.x", "user.name.0", "_secret", "__class__", "method",
     "user.keys", "user.name.upper", "user..name", ""],
)  # fmt: skip
def test_paths_that_lead_nowhere(path: str) -> None:
    with pytest.raises(FieldError, match="the item has no field"):
        field_of(ORDER, path)


def test_key() -> None:
    env = LocalEnvironment("keys")
    items = [{"user": {"id": id}, "n": n} for n, id in enumerate("abab")]
    counted = env.from_collection(items).key_by(FieldKey, {"field": "user.id"}).count(emit="final").collect()
    assert counted == [("a", 2), ("b", 2)]
    assert FieldKey({"field": "id"}).execute(Document("a.txt", "text")) == "a.txt"


ITEMS = [{"n": 1}, {"n": 2}, {"n": 3.5}, {"n": None}, {"n": "3"}, {"n": [2]}, {}]


@pytest.mark.parametrize(
    ("tests", "kept"),
    [
        ({"equals": 2}, [1]),
        ({"equals": None}, [3]),
        ({"not_equals": None}, [0, 1, 2, 4, 5]),
        ({"one_of": [1, "3"]}, [0, 4]),
        ({"exists": True}, [0, 1, 2, 3, 4, 5]),
        ({"exists": False}, [6]),
        ({"exists": True, "equals": 1}, [0]),
    ],
)
def test_filters_of_any_value(tests: dict[str, Any], kept: list[int]) -> None:
    keep = FieldFilter({"field": "n", **tests})
    given = ITEMS if "exists" in tests else ITEMS[:6]
    assert [number for number, item in enumerate(given) if keep.execute(item)] == kept


@pytest.mark.parametrize(
    ("tests", "kept"),
    [
        ({"above": 2}, [3.5]),
        ({"at_least": 2}, [2, 3.5]),
        ({"below": 2}, [1]),
        ({"at_most": 2}, [1, 2]),
        ({"above": 1, "below": 3}, [2]),
        ({"above": 0, "not_equals": 2}, [1, 3.5]),
    ],
)
def test_filters_of_numbers(tests: dict[str, Any], kept: list[float]) -> None:
    keep = FieldFilter({"field": "n", **tests})
    assert [item["n"] for item in ITEMS[:3] if keep.execute(item)] == kept


def test_contains() -> None:
    keep = FieldFilter({"field": "tags", "contains": "new"})
    assert [keep.execute({"tags": tags}) for tags in (["new", "x"], "renewed", [], "old")] == [True, True, False, False]


def test_a_misspelt_field_drops_nothing_silently() -> None:
    env = LocalEnvironment("misspelt")
    with pytest.raises(Exception, match=r"2 item\(s\) could not be processed.*FieldError: the item has no field 'm'"):
        env.from_collection([{"n": 1}, {"n": 2}]).filter(FieldFilter, {"field": "m", "equals": 1}).collect()


def test_what_cannot_be_compared_is_an_error_of_the_item() -> None:
    with pytest.raises(TypeError):
        FieldFilter({"field": "n", "above": 1}).execute({"n": "text"})


@pytest.mark.parametrize("config", [{}, {"field": ""}, {"field": "a"}, {"field": "a", "equal": 1}])
def test_configs_that_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        FieldFilter(config)
