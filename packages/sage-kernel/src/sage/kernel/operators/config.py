"""Checks an operator's configuration against its pydantic model when the pipeline is built."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from sage.common.errors import ConfigError

__all__ = ["validate_config"]


def validate_config(owner: str, model: type[BaseModel] | None, config: Mapping[str, Any] | BaseModel | None) -> Any:
    """Return `config` as an instance of `model`, or as a dict where there is no model.

    Raises:
        ConfigError: a key is missing, unknown or of the wrong type; the message names key, value and likely
            mistake.

    Example:
        >>> class Config(BaseModel, extra="forbid"):
        ...     top_k: int = 5
        >>> validate_config("Retriever", Config, {"top_k": 3}).top_k
        3
        >>> validate_config("Retriever", Config, {"topk": 3})
        Traceback (most recent call last):
        ...
        sage.common.errors.ConfigError: Retriever: unknown config key 'topk'; did you mean 'top_k'?
    """
    if model is None:
        if isinstance(config, BaseModel):
            return config
        if config is not None and not isinstance(config, Mapping):
            raise ConfigError(f"{owner}: config must be a mapping of names to values, got {config!r}")
        return dict(config or {})
    if isinstance(config, model):
        return config
    if config is not None and not isinstance(config, Mapping):
        raise ConfigError(f"{owner}: config must be a mapping of names to values, got {config!r}")
    try:
        return model.model_validate(dict(config or {}))
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(owner, model, detail) for detail in error.errors())) from error


def _explain(owner: str, model: type[BaseModel], detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "missing":
        return f"{owner}: config key {key!r} is required"
    if detail["type"] == "extra_forbidden":
        known = sorted(model.model_fields)
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
        return f"{owner}: unknown config key {key!r}; {hint}"
    where = f"config key {key!r}" if key else "config"
    if detail["type"] == "value_error":  # a validator of the model speaks; mostly it names the value itself
        message = str(detail["ctx"]["error"])
        got = "" if ", got " in message else f", got {detail['input']!r}"
        return f"{owner}: {where}: {message}{got}"
    return f"{owner}: {where}: {detail['msg']}, got {detail['input']!r}"
