"""Which model a server has, for those who name none."""

from __future__ import annotations

import logging
import os
import time

import httpx
import msgspec

from sage.common.errors import ConfigError

from .api_key import ApiKey
from .backends import BackendConfig

__all__ = ["MODEL_VARIABLE", "choose_model"]

MODEL_VARIABLE = "OPENAI_MODEL"
_LIMIT_S = 10.0
_SHOWN_MAX = 5

_log = logging.getLogger("sage.middleware.llm")


class _NoModelError(Exception):
    """Why the server's list gives no model; becomes part of a ConfigError."""


def choose_model(config: BackendConfig, base_url: str, shown_url: str, key: ApiKey) -> str:
    """Return the model to ask for: `model_path`, else the environment variable OPENAI_MODEL, else the first one that
    the server lists under `/models`; the log says which.

    Args:
        config: see `BackendConfig`.
        base_url: address of the server.
        shown_url: the same without user and password, for messages.
        key: sent along.

    Raises:
        ConfigError: none is named, and the server does not answer within 10 s or lists none.

    Example:
        >>> url = "http://localhost:8000/v1"
        >>> choose_model(BackendConfig(model_path="qwen"), url, url, ApiKey("", "OPENAI_API_KEY"))
        'qwen'
    """
    if config.model_path is not None:
        return config.model_path
    if named := os.environ.get(MODEL_VARIABLE, "").strip():
        _log.info("model: %s (%s)", named, MODEL_VARIABLE)
        return named
    found: list[str] = []
    why = ""
    # The error of the HTTP library stays behind in the except block: it may repeat what was sent.
    try:
        found = _listed(_fetch(base_url.rstrip("/") + "/models", config, key))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = key.blot(str(error)) or type(error).__name__
    except _NoModelError as error:
        why = str(error)
    if not found:
        raise ConfigError(
            f"backend 'openai' needs the name of a model, and {shown_url}/models gave none ({why}); name it with"
            f" model_path in the generator's config, the environment variable {MODEL_VARIABLE}, `sage run"
            " examples/rag_demo.py --set model=NAME` or `make demo MODEL=NAME`"
        )
    names = ", ".join(found[:_SHOWN_MAX]) + (", ..." if len(found) > _SHOWN_MAX else "")
    _log.info("model: %s (the first that %s/models lists: %s)", found[0], shown_url, names)
    return found[0]


def _fetch(url: str, config: BackendConfig, key: ApiKey) -> bytes:
    limit_s = min(_LIMIT_S, config.timeout_s)
    end = time.monotonic() + limit_s
    content = bytearray()
    headers = {"accept-encoding": "identity", **key.headers()}
    with (
        httpx.Client(timeout=limit_s, follow_redirects=False) as client,
        client.stream("GET", url, headers=headers) as got,
    ):
        if got.status_code != httpx.codes.OK:
            raise _NoModelError(f"HTTP {got.status_code}")
        for part in got.iter_bytes():
            content += part
            if len(content) > config.max_response_bytes:
                raise _NoModelError(f"more than {config.max_response_bytes} bytes")
            if time.monotonic() > end:
                raise _NoModelError(f"no answer within {limit_s:g} s")
    return bytes(content)


def _listed(content: bytes) -> list[str]:
    try:
        answer = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError):
        raise _NoModelError("the answer is not JSON") from None
    match answer:
        case {"data": [*entries]}:
            found = [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
        case _:
            raise _NoModelError("the answer is no list of models")
    if not any(found):
        raise _NoModelError("the list is empty")
    return [name for name in found if name]
