"""Configuration that knows file, line and column of every key.

`_config` holds `Config`, loading and layering; `_validation` turns pydantic's errors into ours; `_yaml`,
`_json` and `_toml` read one format each into the tree of `_tree`.
"""

from __future__ import annotations

from sage.common.config._config import (
    Config,
    Override,
    config_from_env,
    load_config,
    merge,
    parse_override,
    resolve_config,
)
from sage.common.config._tree import FILE_BYTES_MAX, Location

from ._validation import user_path

__all__ = [
    "FILE_BYTES_MAX",
    "Config",
    "Location",
    "Override",
    "config_from_env",
    "load_config",
    "merge",
    "parse_override",
    "resolve_config",
    "user_path",
]
