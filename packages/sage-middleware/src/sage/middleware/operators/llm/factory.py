"""Chooses a generation backend."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from sage.common.errors import ConfigError
from sage.kernel.operators import validate_config

from .backends import Backend, BackendConfig
from .extractive import ExtractiveBackend
from .openai import OpenAIBackend

__all__ = ["BASE_URL_VARIABLE", "ENTRY_POINT_GROUP", "check_backend_type", "create_backend"]

BASE_URL_VARIABLE = "OPENAI_BASE_URL"
ENTRY_POINT_GROUP = "sage.backends"
_BUILT_IN = ("auto", "extractive", "openai")

_log = logging.getLogger("sage.middleware.llm")


def check_backend_type(name: str) -> None:
    """Check that there is a backend of this name.

    Raises:
        ConfigError: there is none; the message lists those that are there.

    Example:
        >>> check_backend_type("extractiv")
        Traceback (most recent call last):
        ...
        sage.common.errors.ConfigError: unknown backend_type 'extractiv'; did you mean 'extractive'?
    """
    known = [*_BUILT_IN, *sorted(set(entry_points(group=ENTRY_POINT_GROUP).names) - set(_BUILT_IN))]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        raise ConfigError(f"unknown backend_type {name!r}; {hint}")


def create_backend(config: Mapping[str, Any] | BackendConfig | None = None) -> Backend:
    """Return the backend that `config` asks for; "auto" takes a server when one is configured, else the
    extractive backend.

    Raises:
        ConfigError: an unknown backend, or a server without address or model (see `choose_model`).

    Example:
        >>> create_backend({"backend_type": "extractive"}).name
        'extractive'
    """
    checked: BackendConfig = validate_config("generation", BackendConfig, config)
    kind = checked.backend_type
    check_backend_type(kind)
    url = checked.base_url or os.environ.get(BASE_URL_VARIABLE, "").strip()
    if kind == "auto":
        kind = "openai" if url else "extractive"
        if kind == "extractive":
            _log.info("backend: extractive (no server: %s is not set)", BASE_URL_VARIABLE)
        else:
            _log.info("backend: openai")
    if kind == "extractive":
        return ExtractiveBackend(checked)
    if kind == "openai":
        if not url:
            raise ConfigError(f"backend 'openai' needs base_url or the environment variable {BASE_URL_VARIABLE}")
        return OpenAIBackend(checked, url)
    (entry,) = list(entry_points(group=ENTRY_POINT_GROUP, name=kind))[:1]
    backend = entry.load()(checked)
    if not isinstance(backend, Backend):
        raise ConfigError(f"entry point {kind!r} of {ENTRY_POINT_GROUP!r} gave {backend!r}, which is no Backend")
    return backend
