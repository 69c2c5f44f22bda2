"""Plain values as YAML text that our loader, which reads scalars by YAML 1.2, gives back unchanged.

PyYAML writes for readers of YAML 1.1; what the two versions read differently is put in quotes here.
"""

from __future__ import annotations

import math
import re
from pathlib import PurePath
from typing import Any

import yaml

__all__ = ["to_yaml"]

_WORD = re.compile(r"[A-Za-z_/][A-Za-z0-9_./ -]*[A-Za-z0-9_/]\Z|[A-Za-z_]\Z")
_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*\Z")
_RESERVED = frozenset("true false null yes no on off y n nan inf infinity".split())


class _Dumper(yaml.SafeDumper):
    """Never writes anchors and aliases: nobody wants to read them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = (_WORD.match(text) or _PATH.match(text)) and text.lower() not in _RESERVED
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


def _represent_float(dumper: yaml.SafeDumper, number: float) -> yaml.ScalarNode:
    text = repr(number) if math.isfinite(number) else {math.inf: ".inf", -math.inf: "-.inf"}.get(number, ".nan")
    # Without a point it is text to readers of YAML 1.1, and PyYAML would put a tag in front of it.
    text = text if "." in text else text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(float, _represent_float)


def to_yaml(value: Any, *, flow: bool = False) -> str:
    """`value`, made of mappings, lists and scalars, as YAML.

    Args:
        value: what to write; paths are written as text.
        flow: on one line, without the newline at its end.

    Raises:
        TypeError: it has something in it that YAML has no plain form of.

    Example:
        >>> to_yaml({"a": [1, "1", "text", 1e-7, None]}, flow=True)
        '{a: [1, "1", text, 1.0e-07, null]}'
    """
    try:
        text = yaml.dump(
            _plain(value),
            Dumper=_Dumper,
            sort_keys=False,
            allow_unicode=True,
            default_flow_style=flow,
            width=10_000 if flow else 110,
        )
    except yaml.representer.RepresenterError as error:
        raise TypeError(f"YAML has no plain form of {error.args[-1]!r}") from error
    return text.removesuffix("\n").removesuffix("\n...") if flow else text


def _plain(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_plain(inner) for inner in value]
    return value
