"""`Config`: values in layers, each knowing where it comes from."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, NamedTuple, TypeVar, overload

import pydantic

from sage.common.config import _json, _toml, _yaml
from sage.common.config._tree import DEPTH_MAX, FILE_BYTES_MAX, Location, Path, Tree, dotted, too_deep
from sage.common.config._validation import explain, suggestion, without_declared_extras
from sage.common.errors import ConfigError, InvalidArgumentError

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=pydantic.BaseModel)

_READERS = {".yaml": _yaml.parse, ".yml": _yaml.parse, ".json": _json.parse, ".toml": _toml.parse}
# Kinds for which "5" is not as good as 5: what is quoted in a file is meant as text.
_STRICT_KINDS: tuple[object, ...] = (int, float, bool, str)
_KEY = re.compile(r"[^\s.=]+(?:\.[^\s.=]+)*\Z")


class _Missing:
    """The type of `_MISSING`, which stands for "no default"."""


_MISSING = _Missing()


class Override(NamedTuple):
    """One ``--set path=value``.

    >>> Override("a.b", 3).path
    'a.b'
    """

    path: str
    value: Any


class Config:
    r"""Nested values by dotted path, each with its place. Never changes; layering makes new ones.

    >>> config = Config.from_text("retriever:\n  top_k: 5\n", "config.yaml")
    >>> config.get("retriever.top_k", int), str(config.location("retriever.top_k"))
    (5, 'config.yaml:2:3')
    """

    __slots__ = ("_prefix", "_tree", "_values")

    def __init__(self, tree: Tree | None = None) -> None:
        self._tree = Tree() if tree is None else tree
        self._prefix: Path = ()
        self._values: Any = self._tree.values

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str = "defaults") -> Config:
        """Make a configuration of plain values that share one place.

        Raises:
            ConfigError: If a key is not text, or the values are nested too deeply.

        >>> Config.from_mapping({"top_k": 5}).get("top_k", int)
        5
        """
        tree = Tree()
        tree.values = _copy_mapping(values, (), tree, Location(source))
        return cls(tree)

    @classmethod
    def from_text(cls, text: str, source: str) -> Config:
        """Read YAML, JSON or TOML, told apart by the ending of `source` (YAML where it has none).

        Raises:
            ConfigError: If the text is not of that format; with its location.

        >>> Config.from_text('{"a": [1]}', "x.json").get("a.0", int)
        1
        """
        reader = _READERS.get(FilePath(source).suffix.lower(), _yaml.parse)
        return cls(reader(text, source))

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of the plain values.

        >>> Config.from_mapping({"a": {"b": 1}}).to_dict()
        {'a': {'b': 1}}
        """
        values: dict[str, Any] = copy.deepcopy(self._values)
        return values

    def keys(self) -> list[str]:
        """Return the keys at the top of this configuration.

        >>> Config.from_mapping({"b": 1, "a": 2}).keys()
        ['b', 'a']
        """
        return list(self._values)

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and not isinstance(_lookup(self._values, _split(path)), _Missing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]  # holds dicts

    def __repr__(self) -> str:
        # Values may be secrets.
        return f"Config(keys={self.keys()!r})"

    def location(self, path: str | Sequence[str | int] = ()) -> Location | None:
        """Return the place of a key or, where it is missing, of the innermost section around it that has one.

        >>> Config().location("a") is None
        True
        """
        return self._locate((*self._prefix, *_as_keys(self._values, _split(path))))

    def _locate(self, whole: Path) -> Location | None:
        for end in range(len(whole), 0, -1):
            found = self._tree.locations.get(whole[:end])
            if found is not None:
                return found
        return None

    @overload
    def get(self, path: str, type: type[T]) -> T: ...

    @overload
    def get(self, path: str, type: type[T], default: None) -> T | None: ...

    @overload
    def get(self, path: str, type: type[T], default: T) -> T: ...

    def get(self, path: str, type: type[T], default: T | _Missing | None = _MISSING) -> T | None:
        """Return the value at `path` as a `type`.

        Args:
            path: Keys joined by dots; numbers for list items.
            type: Any type that pydantic knows. For int, float, bool and str, values of other types are
                refused.
            default: What to return where the key is missing; without one a missing key is an error.

        Raises:
            ConfigError: If the key is missing and there is no default, or the value is of another type.

        >>> Config.from_mapping({"top_k": 5}).get("topk", int)
        Traceback (most recent call last):
            ...
        sage.common.errors.ConfigError: missing required key 'topk', did you mean 'top_k'?
        """
        parts = _split(path)
        value = _lookup(self._values, parts)
        if isinstance(value, _Missing):
            if isinstance(default, _Missing):
                raise self._missing(parts)
            return default
        try:
            strict = type in _STRICT_KINDS or None
            return pydantic.TypeAdapter(type).validate_python(value, strict=strict)
        except pydantic.ValidationError as error:
            whole = (*self._prefix, *_as_keys(self._values, parts))
            raise explain(error.errors(), whole, value, self._locate, type) from error

    def _missing(self, parts: Path) -> ConfigError:
        around: Any = self._values
        end = 0
        while end < len(parts) - 1 and not isinstance(_lookup(around, parts[end : end + 1]), _Missing):
            around = _lookup(around, parts[end : end + 1])
            end += 1
        hint = suggestion(str(parts[end]), around) if isinstance(around, Mapping) else ""
        place = self._locate((*self._prefix, *parts[:end]))
        name = dotted((*self._prefix, *parts))
        return ConfigError(f"missing required key '{name}'{hint}", location=str(place) if place else None)

    def section(self, path: str) -> Config:
        """Return the part below `path` (empty where there is none), which still knows its places.

        Raises:
            ConfigError: If there is a value instead of a section.

        >>> Config.from_mapping({"a": {"b": 1}}).section("a").get("b", int)
        1
        """
        parts = _split(path)
        values = _lookup(self._values, parts)
        if isinstance(values, _Missing) or values is None:
            values = {}
        if not isinstance(values, dict):
            place = self.location(path)
            raise ConfigError(f"{path} must be a section, got {values!r}", location=str(place) if place else None)
        part = Config(self._tree)
        part._prefix = (*self._prefix, *_as_keys(self._values, parts))
        part._values = values
        return part

    def validate(self, model: type[ModelT], path: str = "") -> ModelT:
        """Return the section at `path` as a pydantic model.

        Unknown keys are refused, with a suggestion, unless the model (each nested one for itself) declares
        ``extra="allow"`` or ``"ignore"``. Validators may run twice.

        Raises:
            ConfigError: With a line for everything that is wrong, each with its place.

        >>> class Retriever(pydantic.BaseModel):
        ...     top_k: int
        >>> Config.from_text("top_k: five", "config.yaml").validate(Retriever)
        Traceback (most recent call last):
            ...
        sage.common.errors.ConfigError: config.yaml:1:1: top_k must be an integer, got 'five'
        """
        part = self.section(path) if path else self
        values = part.to_dict()
        try:
            model.model_validate(values, extra="forbid")
        except pydantic.ValidationError as error:
            findings = without_declared_extras(error, values, model)
            if findings:
                raise explain(findings, part._prefix, values, part._locate, model) from error
        try:
            return model.model_validate(values)
        except pydantic.ValidationError as error:
            raise explain(error.errors(), part._prefix, values, part._locate, model) from error

    def with_value(self, path: str, value: Any, location: Location) -> Config:
        """Return a configuration in which `path` has another value; sections on the way are made as needed.

        Raises:
            ConfigError: If something on the way is a value instead of a section, or a list without that item.

        >>> Config().with_value("a.b", 3, Location("--set")).to_dict()
        {'a': {'b': 3}}
        """
        parts = _split(path)
        if len(parts) > DEPTH_MAX:
            raise too_deep(location)
        tree = Tree(copy.deepcopy(self._tree.values), dict(self._tree.locations))
        current: Any = tree.values
        whole = (*self._prefix, *parts)
        for index, part in enumerate(whole):
            is_last = index == len(whole) - 1
            key = _existing_key(current, part)
            if isinstance(key, _Missing):
                raise self._not_a_section(whole[:index], current, location)
            at = (*whole[:index], key)
            whole = (*at, *whole[index + 1 :])
            if is_last:
                _forget(tree.locations, at)
                tree.locations[at] = location
                current[key] = copy.deepcopy(value)
            else:
                if isinstance(current, dict) and current.get(str(key)) is None:
                    current[key] = {}
                    tree.locations[at] = location
                current = current[key]
        changed = Config(tree)
        changed._prefix = self._prefix
        changed._values = _lookup(tree.values, self._prefix)
        return changed

    def _not_a_section(self, path: Path, value: Any, location: Location) -> ConfigError:
        place = self._locate(path)
        given = f" ({place})" if place else ""
        name = dotted(path)
        if isinstance(value, list):
            return ConfigError(f"{name} is a list of {len(value)} items{given}: no such item", location=str(location))
        return ConfigError(f"{name} is {value!r}{given}, not a section", location=str(location))


def load_config(path: str | FilePath, *, limit_bytes: int = FILE_BYTES_MAX) -> Config:
    """Read a ``.yaml``, ``.yml``, ``.toml`` or ``.json`` file (UTF-8).

    Raises:
        ConfigError: If it cannot be read, is too large or not of its format; with line and column.

    >>> load_config("no/such/file.yaml")
    Traceback (most recent call last):
        ...
    sage.common.errors.ConfigError: no/such/file.yaml: no such file or directory
    """
    source = str(path)
    suffix = FilePath(path).suffix.lower()
    if suffix not in _READERS:
        raise ConfigError(f"a configuration file ends in {', '.join(_READERS)}, not in {suffix!r}", location=source)
    try:
        with FilePath(path).open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise ConfigError((error.strerror or str(error)).lower(), location=source) from error
    except ValueError as error:
        raise ConfigError(f"not a path: {error}", location=repr(source)) from error
    if len(data) > limit_bytes:
        raise ConfigError(f"larger than the limit of {limit_bytes} bytes", location=source)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"not UTF-8: byte 0x{data[error.start]:02x}", location=f"{source}:{line}:1") from error
    return Config.from_text(text, source)


def merge(*layers: Config) -> Config:
    """Put configurations on top of each other, the later the stronger.

    Sections are put together key by key; lists and values are replaced. Each value keeps its own place.

    >>> low, high = Config.from_mapping({"a": {"x": 1, "y": 2}}), Config.from_mapping({"a": {"y": 3}})
    >>> merge(low, high).to_dict()
    {'a': {'x': 1, 'y': 3}}
    """
    tree = Tree()
    for layer in layers:
        if layer._prefix:
            layer = Config(Tree(layer._values, _below(layer._tree.locations, layer._prefix)))
        _merge_into(tree, copy.deepcopy(layer._values), layer._tree.locations)
    return Config(tree)


def parse_override(text: str) -> Override:
    """Read the ``key=value`` of ``--set``.

    The value is a YAML scalar (``5``, ``true``, ``text with spaces``, ``"quoted"``, nothing for null) or a
    flow collection (``[1, 2]``, ``{a: b}``).

    Raises:
        ConfigError: If there is no ``=``, the key is no dotted path, or the value is no YAML.

    >>> parse_override("a.b=3"), parse_override("names=[x, y]")
    (Override(path='a.b', value=3), Override(path='names', value=['x', 'y']))
    >>> parse_override("top_k 5")
    Traceback (most recent call last):
        ...
    sage.common.errors.ConfigError: --set top_k 5: expected key=value, there is no '='
    """
    location = f"--set {text[:80]}"
    key, separator, value = text.partition("=")
    if not separator:
        raise ConfigError("expected key=value, there is no '='", location=location)
    key = key.strip()
    if _KEY.match(key) is None:
        raise ConfigError(f"{key!r} is not a key: expected names joined by dots, like a.b=3", location=location)
    return Override(key, _parse_value(value, location))


def config_from_env(prefix: str, environ: Mapping[str, str] | None = None) -> Config:
    """Read environment variables: for the prefix ``SAGE_``, ``SAGE_A__TOP_K=5`` is ``a.top_k``.

    Two underscores separate sections; names become lower case; values are read as by `parse_override`.

    Raises:
        ConfigError: If a value is no YAML, or two variables contradict each other.
        InvalidArgumentError: If `prefix` is empty.

    >>> config_from_env("SAGE_", {"SAGE_RETRIEVER__TOP_K": "5", "HOME": "/"}).to_dict()
    {'retriever': {'top_k': 5}}
    """
    if not prefix:
        raise InvalidArgumentError("prefix must not be empty: the whole environment is no configuration")
    config = Config()
    for name, text in sorted((os.environ if environ is None else environ).items()):
        if not name.startswith(prefix) or name == prefix:
            continue
        location = f"environment variable {name}"
        path = ".".join(name[len(prefix) :].lower().split("__"))
        if _KEY.match(path) is None:
            raise ConfigError(f"{path!r} is not a key", location=location)
        config = config.with_value(path, _parse_value(text, location), Location(location))
    return config


def resolve_config(
    path: str | FilePath | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
    env_prefix: str | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Iterable[str] = (),
) -> Config:
    """Put all layers together: defaults < file < environment < overrides.

    Args:
        path: The configuration file; None for none.
        defaults: Plain values.
        env_prefix: Prefix of environment variables; None to read none.
        environ: Instead of the environment of the process.
        overrides: Texts like ``a.b=3``; they may also set items of lists (``stages.0.name=x``).

    Raises:
        ConfigError: If a layer is wrong.

    >>> resolve_config(defaults={"top_k": 3, "model": "m"}, overrides=["top_k=5"]).to_dict()
    {'top_k': 5, 'model': 'm'}
    """
    config = merge(
        Config.from_mapping(defaults or {}),
        Config() if path is None else load_config(path),
        Config() if env_prefix is None else config_from_env(env_prefix, environ),
    )
    for text in overrides:
        override = parse_override(text)
        config = config.with_value(override.path, override.value, Location(f"--set {text[:80]}"))
    return config


def _parse_value(text: str, source: str) -> Any:
    text = text.strip()
    if text[:1] in ("[", "{", '"', "'"):
        try:
            return _yaml.parse_flow(text, source)
        except ConfigError as error:
            # Line and column of an argument would say nothing.
            raise ConfigError(error.message, location=source) from error
    # Everything else is one plain scalar: block YAML ("a: b", "# ...") would surprise in an argument.
    return _yaml.plain_scalar(text)


def _split(path: str | Sequence[str | int]) -> Path:
    return tuple(path.split(".")) if isinstance(path, str) and path else tuple(path)


def _as_keys(values: Any, path: Path) -> Path:
    """Return `path` with the numbers of list items as numbers."""
    keys: list[str | int] = []
    for part in path:
        key = _existing_key(values, part)
        values = _lookup(values, (part,))
        keys.append(part if isinstance(key, _Missing) else key)
    return tuple(keys)


def _lookup(values: Any, path: Path) -> Any:
    for part in path:
        key = _existing_key(values, part)
        if isinstance(key, _Missing) or (isinstance(values, dict) and key not in values):
            return _MISSING
        values = values[key]
    return values


def _existing_key(container: Any, part: str | int) -> str | int | _Missing:
    """Return `part` as a key of a mapping or an index of a list; missing where neither is possible."""
    if isinstance(container, dict):
        return str(part)
    if isinstance(container, list) and str(part).isdecimal() and int(part) < len(container):
        return int(part)
    return _MISSING


def _copy_mapping(values: Mapping[str, Any], path: Path, tree: Tree, location: Location) -> dict[str, Any]:
    if len(path) > DEPTH_MAX:
        raise too_deep(location)
    copied = {}
    for key, value in values.items():
        given: object = key
        if not isinstance(given, str):
            raise ConfigError(f"a key must be text, got {given!r}", location=str(location))
        tree.locations[(*path, key)] = location
        copied[key] = (
            _copy_mapping(value, (*path, key), tree, location) if isinstance(value, Mapping) else copy.deepcopy(value)
        )
    return copied


def _merge_into(tree: Tree, values: dict[str, Any], locations: Mapping[Path, Location]) -> None:
    pending: list[tuple[dict[str, Any], dict[str, Any], Path]] = [(tree.values, values, ())]
    while pending:
        below, above, path = pending.pop()
        for key, value in above.items():
            at = (*path, key)
            old = below.get(key)
            if isinstance(old, dict) and isinstance(value, dict):
                pending.append((old, value, at))
            else:
                _forget(tree.locations, at)
                below[key] = value
    tree.locations.update(locations)


def _forget(locations: dict[Path, Location], path: Path) -> None:
    for known in [known for known in locations if known[: len(path)] == path]:
        del locations[known]


def _below(locations: Mapping[Path, Location], prefix: Path) -> dict[Path, Location]:
    size = len(prefix)
    return {path[size:]: place for path, place in locations.items() if path[:size] == prefix and path != prefix}
