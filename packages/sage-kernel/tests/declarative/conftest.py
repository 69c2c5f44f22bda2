"""Pipeline files, and modules beside them."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_STEPS = """
from __future__ import annotations
import time
from sage.kernel.api import CoMapFunction, MapFunction, ServiceFunction, SourceFunction
from pydantic import BaseModel

class Times(MapFunction[int, int]):
    class Config(BaseModel, extra="forbid"):
        factor: int = 2
        token: str = ""
    Config = Config
    def execute(self, item):
        return item * self.config.factor

class Numbers(SourceFunction[int]):
    def execute(self):
        yield from range(self.config.get("count", 5))

def numbers():
    return [3, 1, 2]

def square(n: int) -> int:
    return n * n

def words(line: str) -> list[str]:
    return line.split()

def is_odd(n: int) -> bool:
    return n % 2 == 1

def parity(n: int) -> str:
    return "odd" if n % 2 else "even"

def larger(one, two):
    return max(one, two)

def add(total, item):
    return total + item

def shout(total):
    return f"{total}!"

def slow_if_odd(n):
    time.sleep(0.01 if n % 2 else 0)
    return n

def all_squares(numbers):
    return [f"{n * n} of {len(numbers)}" for n in numbers]

def sign(n):
    return "negative" if n < 0 else "positive"

def first(item):
    return item[0]

def collatz(pair):
    n, steps = pair
    return [n // 2 if n % 2 == 0 else 3 * n + 1, steps + 1]

def not_one(pair):
    return pair[0] != 1

def one(pair):
    return pair[0] == 1

class Half(MapFunction):
    def execute(self, item):
        if item % 2:
            self.ctx.side_output("odd", item)
        return item // 2

class Priced(CoMapFunction):
    def execute1(self, order):
        return order["n"] * self.ctx.state.get("rate", 1)
    def execute2(self, rate):
        self.ctx.state["rate"] = rate["rate"]
        return "rate"

class Lookup(ServiceFunction):
    def setup(self):
        self.names = {"de": self.config["de"]}
    def execute(self, request):
        return self.names[request]

class Ask(MapFunction):
    def execute(self, item):
        return self.ctx.call_service(self.config["service"], item, timeout_s=10)
"""


@pytest.fixture(autouse=True)
def _own_modules() -> Iterator[None]:
    """Modules beside one test's file are not those of the next."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and "pytest-of" in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    """A module `steps` beside the pipeline files."""
    path = tmp_path / "steps.py"
    path.write_text(_STEPS)
    return path


@pytest.fixture
def yaml_file(tmp_path: Path) -> Callable[..., Path]:
    """`yaml_file(text)` writes a pipeline file."""

    def write(text: str, name: str = "pipeline.yaml") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write
