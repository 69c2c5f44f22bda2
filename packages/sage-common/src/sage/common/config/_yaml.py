"""YAML by PyYAML's safe loader, with the plain scalars of YAML 1.2.

PyYAML follows YAML 1.1, where ``no`` is false, ``010`` is eight, ``1:30`` is ninety and ``1e-3`` is text;
here they are what the core schema of YAML 1.2 says: text, ten, text and a number.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from sage.common.config._tree import (
    DEPTH_MAX,
    NODES_MAX,
    Location,
    Path,
    Tree,
    duplicate_key,
    too_deep,
    too_many,
)
from sage.common.errors import ConfigError

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_STR = f"{_TAG}str"
_PLAIN = "plain"  # our own mark for scalars without quotes and tag, whose value decides their type
_INT = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_INFINITE = re.compile(r"([-+]?)\.(?:inf|Inf|INF)\Z")
_DIGITS_MAX = 4000
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


def plain_scalar(text: str) -> Any:
    """Return the value of an unquoted scalar (core schema of YAML 1.2).

    >>> [plain_scalar(text) for text in ("5", "1e-3", "true", "no", "")]
    [5, 0.001, True, 'no', None]
    """
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _DIGITS_MAX:
        return text
    if _INT.match(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text, base)
    if _FLOAT.match(text):
        return float(text)
    infinite = _INFINITE.match(text)
    if infinite:
        return float(f"{infinite[1]}inf")
    return text


class _Loader(yaml.SafeLoader):
    """Builds the node tree only, and refuses to go too deep before Python's stack does."""

    depth = 0
    source = ""

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise too_deep(_location(event.start_mark, self.source))
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_scalar_node(self, anchor: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        node: Any = super().compose_scalar_node(anchor)
        if event.tag is None and event.style is None and node.tag != _MERGE:
            node.tag = _PLAIN
        elif event.tag is None and event.style is not None:
            node.tag = _STR
        return node


def parse(text: str, source: str) -> Tree:
    """Read a YAML document whose top is a mapping.

    Raises:
        ConfigError: If it is none, or breaks a limit; with its location.

    >>> parse("top_k: 5", "a.yaml").values
    {'top_k': 5}
    """
    node = _compose(text, source)
    tree = Tree()
    if node is None:
        return tree
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(
            "a configuration must be a mapping (key: value) at its top",
            location=str(_location(node.start_mark, source)),
        )
    tree.values = _Builder(tree, source).build(node, ())
    return tree


def parse_flow(text: str, source: str) -> Any:
    """Read one quoted scalar or flow collection, as of ``--set``.

    >>> parse_flow("[1, {a: b}]", "--set")
    [1, {'a': 'b'}]
    """
    node = _compose(text, source)
    return None if node is None else _Builder(Tree(), source).build(node, ())


def _compose(text: str, source: str) -> yaml.Node | None:
    loader = None
    try:
        loader = _Loader(text)
        loader.source = source
        node: yaml.Node | None = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"not YAML: {message}", location=str(_location(mark, source))) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"not YAML: the character {error.character!r} is not allowed", location=f"{source}:{line}:1"
        ) from error
    finally:
        if loader is not None:
            loader.dispose()
    return node


def _location(mark: Any, source: str) -> Location:
    return Location(source) if mark is None else Location(source, mark.line + 1, mark.column + 1)


class _Builder:
    """Makes plain values of nodes. Aliases are expanded, each into values of its own, and counted."""

    def __init__(self, tree: Tree, source: str) -> None:
        self._tree = tree
        self._source = source
        self._nodes = 0
        self._above: set[int] = set()

    def build(self, node: yaml.Node, path: Path) -> Any:
        location = _location(node.start_mark, self._source)
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise too_many(location)
        if id(node) in self._above:
            raise ConfigError("an alias refers to what contains it", location=str(location))
        if len(self._above) > DEPTH_MAX:
            raise too_deep(location)
        self._above.add(id(node))
        try:
            return self._value(node, path, location)
        finally:
            self._above.discard(id(node))

    def _value(self, node: yaml.Node, path: Path, location: Location) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, location)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, "seq", location)
            for index, item in enumerate(node.value):
                self._tree.locations[(*path, index)] = _location(item.start_mark, self._source)
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)
        self._check_tag(node, "map", location)
        return self._mapping(node, path)

    def _scalar(self, node: yaml.ScalarNode, location: Location) -> Any:
        if node.tag == _PLAIN:
            return plain_scalar(node.value)
        if node.tag == _MERGE:
            return node.value
        self._check_tag(node, "str", location)
        return node.value

    def _check_tag(self, node: yaml.Node, kind: str, location: Location) -> None:
        if node.tag != _TAG + kind:
            shown = node.tag.replace(_TAG, "!!")
            raise ConfigError(f"the tag {shown} is not allowed in a configuration", location=str(location))

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        given: dict[str, tuple[Location, yaml.Node]] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            location = _location(key_node.start_mark, self._source)
            if key_node.tag == _MERGE:
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            key = self._key(key_node, location)
            if key in given:
                raise duplicate_key(key, given[key][0], location)
            given[key] = (location, value_node)
        values: dict[str, Any] = {}
        for source_node in reversed(merged):
            # Of several merged mappings the first one counts, and keys given here count more than merged
            # ones.
            if not isinstance(source_node, yaml.MappingNode):
                raise ConfigError(
                    "<< must be given a mapping",
                    location=str(_location(source_node.start_mark, self._source)),
                )
            values.update(self.build(source_node, path))
        for key, (location, value_node) in given.items():
            self._forget((*path, key))
            self._tree.locations[(*path, key)] = location
            values[key] = self.build(value_node, (*path, key))
        return values

    def _forget(self, path: Path) -> None:
        """Drop the locations of a merged value that is replaced."""
        if path in self._tree.locations:
            for known in [known for known in self._tree.locations if known[: len(path)] == path]:
                del self._tree.locations[known]

    def _key(self, node: yaml.Node, location: Location) -> str:
        key = self._scalar(node, location) if isinstance(node, yaml.ScalarNode) else node.value
        if not isinstance(key, str):
            shown = repr(key) if isinstance(node, yaml.ScalarNode) else "a collection"
            raise ConfigError(f"a key must be text, got {shown}: put it in quotes", location=str(location))
        return key
