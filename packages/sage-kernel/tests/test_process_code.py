"""How code that a process cannot import gets there: scripts with classes and data of their own."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest
from environments import letters

from sage.common.errors import SerializationError
from sage.kernel.operators import process_code
from sage.kernel.operators.process_code import Definitions

_POINT = """
import threading
SCALE = {scale}
LOCK = threading.Lock()
class Point:
    def __init__(self, x):
        self.x = x
    def scaled(self):
        return SCALE * self.x
def locked():
    return LOCK
def double(x):
    return 2 * x
"""


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    """A module that is nowhere in a file."""
    name = "sage_test_of_definitions"
    made = sys.modules[name] = types.ModuleType(name)
    yield made
    sys.modules.pop(name, None)


def _pack(module: types.ModuleType) -> Definitions:
    cloudpickle.register_pickle_by_value(module)
    try:
        return process_code._definitions(module)
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _arrive(module: types.ModuleType, scale: int) -> tuple[Definitions, types.ModuleType]:
    """Define, pack, and install as in a process that has nothing of the module but what came earlier."""
    for name in [name for name in vars(module) if not name.startswith("__")]:
        delattr(module, name)
    module.__dict__.pop("__getattr__", None)
    exec(_POINT.format(scale=scale), vars(module))
    packed = _pack(module)
    there = types.ModuleType(module.__name__)
    sys.modules[module.__name__] = there
    packed.install()
    return packed, there


def test_definitions_are_unpacked_when_the_first_is_looked_up(module: types.ModuleType) -> None:
    _, there = _arrive(module, 3)
    assert "Point" not in vars(there)
    assert "double" not in vars(there)
    assert not hasattr(there, "__path__")
    assert "Point" not in vars(there)
    assert there.Point(2).scaled() == 6
    assert there.double(4) == 8
    assert vars(there)["Point"] is there.Point


def test_what_cannot_be_pickled_is_left_out_and_named(module: types.ModuleType) -> None:
    packed, there = _arrive(module, 3)
    assert set(packed.left_out) == {"locked"}
    with pytest.raises(SerializationError, match=r"no attribute 'locked' in this process: cannot pickle .*lock"):
        _ = there.locked
    with pytest.raises(AttributeError, match=r"no attribute 'absent' in this process$"):
        _ = there.absent


def test_an_earlier_job_leaves_nothing_behind(module: types.ModuleType) -> None:
    first, there = _arrive(module, 3)
    assert there.double(1) == 2
    Definitions(module.__name__, (), {}).install()
    assert "double" not in vars(there)
    assert "Point" not in vars(there)
    first.install()
    assert there.Point(2).scaled() == 6


def test_a_large_global_keeps_only_what_refers_to_it_away(
    module: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_code, "DEFINITIONS_BYTES_MAX", 1 << 20)
    exec("DATA = bytes(2 << 20)\ndef uses():\n    return DATA\ndef free(x):\n    return x + 1", vars(module))
    packed = _pack(module)
    assert sum(map(len, packed.packed)) < 1 << 20
    assert set(packed.left_out) == {"uses"}
    sys.modules[module.__name__] = there = types.ModuleType(module.__name__)
    packed.install()
    assert there.free(1) == 2
    with pytest.raises(SerializationError, match="'uses' in this process: with what .* more than 1 MiB"):
        _ = there.uses


_SCRIPT = """
import sys
from sage.kernel.api import Contract, Execution, LocalEnvironment

TABLE = [bytes([n % 251]) * 1000 for n in range(20_000)]  # 20 MB

def report():
    return len(TABLE)

class Item:
    def __init__(self, x):
        self.x = x

class Heavy(Item):
    def cell(self):
        return TABLE[self.x]

def work(item):
    item.x += 1
    return item

kind = Heavy if sys.argv[1] == "heavy" else Item
env = LocalEnvironment("script", {"home": sys.argv[2]})
out = []
env.from_collection([kind(1), kind(2)]).map(work, contract=Contract(execution=Execution.PROCESS)).sink(out.append)
env.submit()
print(sorted(item.x for item in out))
"""


def _run_script(tmp_path: Path, kind: str) -> str:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), kind, str(tmp_path)], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.strip()


def test_a_script_may_hold_data_that_no_item_needs(tmp_path: Path) -> None:
    assert _run_script(tmp_path, "light") == "[2, 3]"
    assert not letters(tmp_path)


def test_items_of_a_class_that_refers_to_large_data_are_set_aside_and_the_message_says_why(tmp_path: Path) -> None:
    assert _run_script(tmp_path, "heavy") == "[]"
    told = [letter.error for letter in letters(tmp_path)]
    assert len(told) == 2
    for message in told:
        assert "'Heavy' in this process: with what it refers to it has more than 4 MiB" in message
