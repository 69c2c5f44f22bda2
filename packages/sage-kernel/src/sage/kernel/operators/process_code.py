"""The user's code on its way to a process: operators by cloudpickle, and what the items' classes need.

What a process can import travels as a reference. What it cannot (a script or notebook, a module that was loaded from
a path) travels by value, and the functions and classes that such a module defines can be found in the process under
its name, so that instances of them can be pickled by reference like any others, in both directions. They are unpacked
there when the first of them is looked up: most jobs pass on strings and dicts and need none.
"""

from __future__ import annotations

import functools
import importlib.machinery
import inspect
import sys
import threading
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from sage.common.errors import SerializationError, SizeLimitError
from sage.common.serialization import dump_code, load_code
from sage.kernel.graph import BaseTransformation, OperatorFactory, PipelineError, TaskNode

from .factory import FunctionFactory

__all__ = ["PackedCode", "ProcessOrder", "explain_code", "pack_code"]

_registry_lock = threading.Lock()


DEFINITIONS_BYTES_MAX = 4 << 20
"""What the definitions of one module may have together, and each of them where that is exceeded."""

_DEFINED = "__sage_defined__"


@dataclass(frozen=True, slots=True)
class Definitions:
    """What a module that a process cannot import defines.

    Attributes:
        module: its name.
        packed: pickled dicts of its functions and classes by name, as many as had to be made.
        left_out: by the name of one that is in none of them, why.
    """

    module: str
    packed: tuple[bytes, ...]
    left_out: Mapping[str, str]

    def install(self) -> None:
        """In the process: make them what is found in the module of that name, in place of those of an earlier job."""
        module = sys.modules.get(self.module)
        if module is None:
            module = sys.modules[self.module] = types.ModuleType(self.module)
        found = vars(module)
        for name in found.pop(_DEFINED, ()):
            found.pop(name, None)
        waiting = list(self.packed)
        why = dict(self.left_out)

        def look_up(name: str) -> Any:
            while waiting and not (name.startswith("__") and name.endswith("__")):
                try:
                    defined = load_code(waiting.pop())
                except SerializationError as error:
                    why.setdefault(name, str(error))
                    continue
                found[_DEFINED] = (*found.get(_DEFINED, ()), *defined)
                found.update(defined)
            if name in found:
                return found[name]
            told = f"module {self.module!r} has no attribute {name!r} in this process"
            if name in why:
                # No AttributeError: pickle would put a text of its own in its place.
                raise SerializationError(f"{told}: {why[name]}")
            raise AttributeError(told)

        found["__getattr__"] = look_up


@dataclass(frozen=True, slots=True)
class PackedCode:
    """Operators in the form in which they travel.

    Attributes:
        operators: the pickled transformations.
        definitions: of the modules that a process cannot import.
    """

    operators: bytes
    definitions: tuple[Definitions, ...]

    def unpack(self) -> Sequence[BaseTransformation]:
        """The operators, in the process; the modules that it cannot import are made first."""
        for definitions in self.definitions:
            definitions.install()
        operators: Sequence[BaseTransformation] = load_code(self.operators)
        return operators


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessOrder:
    """What the process of a task has to do.

    Attributes:
        code: its operators.
        node: its place in the plan.
        job: the job's name.
        keys_in: items come with a key.
        keys_out: items leave with a key.
        first: position of its first operator in the chain of the task, which several processes may share.
        last: position behind its last operator there.
        size: operators of that chain.
        calls: the job has services.
        lists: the first operator is a batched function: each message holds one of its lists.
    """

    code: PackedCode
    node: TaskNode
    job: str
    keys_in: bool
    keys_out: bool
    first: int
    last: int
    size: int
    calls: bool = False
    lists: bool = False

    @property
    def is_alone(self) -> bool:
        """Whether the task has no other process."""
        return self.last - self.first == self.size


def pack_code(operators: Sequence[BaseTransformation]) -> PackedCode:
    """Pack the operators of a chain.

    Raises:
        PipelineError: one of them cannot be sent to a process; the message names the attribute.
    """
    modules = _travelling_modules(operator.factory for operator in operators)
    with _by_value(modules):
        try:
            packed = dump_code(list(operators))
        except (SerializationError, SizeLimitError) as error:
            for operator in operators:
                reason = _explain(operator.factory)
                if reason:
                    raise PipelineError(f"it cannot be sent to a process: {reason} {operator.where}") from error
            raise PipelineError(f"it cannot be sent to a process: {error} {operators[0].where}") from error
        definitions = tuple(_definitions(module) for module in modules)
    return PackedCode(packed, definitions)


def explain_code(factory: OperatorFactory) -> str:
    """Why an operator's code cannot be sent to a process, "" where it can."""
    with _by_value(_travelling_modules([factory])):
        return _explain(factory)


def _explain(factory: OperatorFactory) -> str:
    parts = [factory.target, factory.config] if isinstance(factory, FunctionFactory) else [factory]
    for part in parts:
        try:
            dump_code(part)
        except (SerializationError, SizeLimitError) as error:
            return str(error)
    return ""


@contextmanager
def _by_value(modules: Sequence[types.ModuleType]) -> Iterator[None]:
    """Meanwhile what these modules define is pickled by value, as what `__main__` defines always is."""
    with _registry_lock:
        registered = [module for module in modules if module.__name__ != "__main__"]
        for module in registered:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in registered:
                cloudpickle.unregister_pickle_by_value(module)


def _definitions(module: types.ModuleType) -> Definitions:
    defined = {
        name: value
        for name, value in list(vars(module).items())
        if isinstance(value, (type, types.FunctionType)) and value.__module__ == module.__name__
    }
    packed, left_out = [], {}
    try:
        # All at once: they share what they refer to.
        packed.append(dump_code(defined, DEFINITIONS_BYTES_MAX))
    except (SerializationError, SizeLimitError):
        for name, value in defined.items():
            try:
                packed.append(dump_code({name: value}, DEFINITIONS_BYTES_MAX))
            except SizeLimitError:
                left_out[name] = (
                    f"with what it refers to it has more than {DEFINITIONS_BYTES_MAX >> 20} MiB; "
                    "define it in a module that can be imported, without large globals"
                )
            except SerializationError as error:
                left_out[name] = str(error)
    return Definitions(module.__name__, tuple(packed), left_out)


def _travelling_modules(factories: Iterable[OperatorFactory]) -> list[types.ModuleType]:
    """The modules that the operators' code is from and that a process cannot import; the program's own script is
    always one of them.
    """
    names = {"__main__": None}
    for factory in factories:
        if isinstance(factory, FunctionFactory):
            names |= dict.fromkeys(_module_names(factory.target))
    modules = [sys.modules[name] for name in names if name in sys.modules]
    return [module for module in modules if not _is_importable(module)]


def _module_names(target: Any) -> Iterator[str]:
    if isinstance(target, functools.partial):
        yield from _module_names(target.func)
    elif is_dataclass(target) and not isinstance(target, type):
        for field in fields(target):
            yield from _module_names(getattr(target, field.name))
    elif isinstance(target, type):
        for base in target.__mro__:
            yield base.__module__
    elif inspect.ismethod(target):
        yield from _module_names(target.__self__)
    elif isinstance(target, types.FunctionType):
        yield target.__module__
    else:
        yield from _module_names(type(target))


def _is_importable(module: types.ModuleType) -> bool:
    """Whether a new interpreter with our path finds this very module under its name."""
    name = module.__name__
    if name == "__main__":
        return False
    if name in sys.builtin_module_names or importlib.machinery.FrozenImporter.find_spec(name) is not None:
        return True
    path: Any = sys.path
    spec = None
    parts = name.split(".")
    for depth in range(len(parts)):
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[: depth + 1]), path)
        if spec is None:
            # An editable install may be found by an importer of its own; it is there for each interpreter.
            return depth > 0 and parts[0] == "sage"
        path = spec.submodule_search_locations
    return spec is not None and (spec.origin is None or spec.origin == getattr(module, "__file__", None))
