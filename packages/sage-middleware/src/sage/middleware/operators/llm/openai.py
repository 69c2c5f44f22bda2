"""Client of any OpenAI-compatible server (vLLM, llama.cpp, OpenAI, ...), over httpx."""

from __future__ import annotations

import asyncio
import email.utils
import random
import ssl
import time
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec

from sage.common.errors import ConfigError
from sage.kernel.graph.contracts import ErrorPolicy
from sage.middleware.errors import BackendResponseError, GenerationError

from .api_key import ApiKey
from .backends import BackendConfig, Generation, GenerationRequest
from .models import choose_model

__all__ = ["OpenAIBackend"]

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_EXCERPT_CHARACTERS = 300


class _Retry(Exception):  # noqa: N818 -- a signal between two functions of this file, not an error
    """An attempt failed in a way that another one may not; `after_s` is what the server asked for."""

    def __init__(self, error: GenerationError, after_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.after_s = after_s


class OpenAIBackend:
    """Asks a server that speaks OpenAI's chat or completions API.

    The API key comes from the environment variable that the configuration names; it is in no message, and is
    blotted out where a server repeats it. Connections are kept while requests are running and closed when the
    last one is done, so nothing is left open at the end, whatever ends it. No error of the HTTP library is chained to
    those that are raised here: its text may repeat what was sent.

    Args:
        config: see `BackendConfig`; without `model_path` OPENAI_MODEL names the model, or the server is asked.
        base_url: address of the server, usually ending with `/v1`.

    Raises:
        ConfigError: no model, an address that is none, or a key that cannot be sent.

    Example:
        >>> OpenAIBackend(BackendConfig(model_path="qwen"), "http://localhost:8000/v1").name
        'openai'
        >>> OpenAIBackend(BackendConfig(model_path="qwen"), "localhost:8000")
        Traceback (most recent call last):
        ...
        sage.common.errors.ConfigError: the address of the server must look like http://host:port/v1
    """

    name = "openai"

    def __init__(self, config: BackendConfig, base_url: str) -> None:
        try:
            parts = urlsplit(base_url)
            port = parts.port
        except ValueError:  # its text may repeat a password that is part of the address
            parts, port = urlsplit(""), None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError("the address of the server must look like http://host:port/v1")
        self._config = config
        path = "/chat/completions" if config.endpoint == "chat" else "/completions"
        self._url = base_url.rstrip("/") + path
        # Shown in messages: without a user and password that may be part of the address.
        host = parts.hostname if port is None else f"{parts.hostname}:{port}"
        shown = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        self._shown_url = shown + path
        self._key = ApiKey.from_environment(config.api_key_env)
        self._model = choose_model(config, base_url, shown, self._key)
        self._pauses = ErrorPolicy(
            retries=config.retries,
            delay_s=config.retry_delay_s,
            delay_s_max=config.retry_delay_s_max,
            jitter=0.5,
        )
        # Made once: it reads all certificates, and a client is made for each burst of requests.
        self._tls: ssl.SSLContext | bool = httpx.create_ssl_context() if parts.scheme == "https" else False
        self._client: httpx.AsyncClient | None = None
        self._running = 0

    async def generate(self, request: GenerationRequest) -> Generation:
        """Ask the server, again when it is busy.

        Raises:
            GenerationError: not reachable or too slow, and no retry left.
            BackendResponseError: refused, too large, or no answer in it.
        """
        body = msgspec.json.encode(self._payload(request))
        client = self._enter()
        try:
            for attempt in range(1, self._config.retries + 2):
                try:
                    return self._answer(await self._attempt(client, body))
                except _Retry as signal:
                    failed, after_s = signal.error, signal.after_s
                if attempt > self._config.retries:
                    raise type(failed)(f"{failed} ({attempt} attempts)" if attempt > 1 else str(failed))
                pause = self._pauses.pause_before(attempt, random.random())
                if after_s is not None:
                    pause = min(max(pause, after_s), self._config.retry_delay_s_max)
                await asyncio.sleep(pause)
            raise AssertionError("the last attempt returns or raises")
        finally:
            await self._leave(client)

    def close(self) -> None:
        """Nothing is open between requests."""

    def _enter(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                verify=self._tls,
                timeout=httpx.Timeout(self._config.timeout_s, pool=None),
                # How many requests run at once is for the operator's contract to say.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
                follow_redirects=False,
                trust_env=True,
            )
        self._running += 1
        return self._client

    async def _leave(self, client: httpx.AsyncClient) -> None:
        self._running -= 1
        if self._running == 0:
            # Unset before waiting: a request that comes meanwhile makes a client of its own.
            self._client = None
            await client.aclose()

    def _payload(self, request: GenerationRequest) -> dict[str, Any]:
        config = self._config
        payload: dict[str, Any] = {
            "model": self._model,
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "stream": False,
        }
        if config.stop:
            payload["stop"] = config.stop
        if config.seed is not None:
            payload["seed"] = config.seed
        if config.endpoint == "completions":
            system = f"{config.system_prompt}\n\n" if config.system_prompt else ""
            return {**payload, "prompt": system + request.prompt}
        messages = [{"role": "user", "content": request.prompt}]
        if config.system_prompt:
            messages.insert(0, {"role": "system", "content": config.system_prompt})
        return {**payload, "messages": messages}

    async def _attempt(self, client: httpx.AsyncClient, body: bytes) -> bytes:
        headers = {"content-type": "application/json", "accept-encoding": "identity", **self._key.headers()}
        limit_s = self._config.timeout_s
        # Raised below, outside of the except blocks: so the library's error is not even the context of ours.
        failed: GenerationError
        try:
            # httpx limits each read; a server that sends one byte a second would never reach that limit.
            async with asyncio.timeout(limit_s):
                async with client.stream("POST", self._url, content=body, headers=headers) as response:
                    return self._accepted(response, await self._read(response))
        except (TimeoutError, httpx.TimeoutException):
            failed = GenerationError(f"{self._shown_url}: no answer within {limit_s:g} s (timeout_s)")
        except httpx.HTTPError as error:
            message = self._key.blot(str(error)) or type(error).__name__
            failed = GenerationError(f"{self._shown_url}: connection failed: {message}")
        except httpx.InvalidURL as error:
            raise ConfigError(f"{self._shown_url}: not a valid address: {error}") from None
        raise _Retry(failed)

    def _accepted(self, response: httpx.Response, content: bytes) -> bytes:
        if response.status_code == httpx.codes.OK:
            return content
        refused = BackendResponseError(f"{self._shown_url}: HTTP {response.status_code}: {self._excerpt(content)}")
        if response.status_code in _RETRIED:
            raise _Retry(refused, _retry_after_s(response.headers.get("retry-after")))
        raise refused

    async def _read(self, response: httpx.Response) -> bytes:
        limit = self._config.max_response_bytes
        content = bytearray()
        async for part in response.aiter_bytes():
            content += part
            if len(content) > limit:
                raise BackendResponseError(
                    f"{self._shown_url}: the response has more than {limit} bytes (max_response_bytes)"
                )
        return bytes(content)

    def _answer(self, content: bytes) -> Generation:
        try:
            found = msgspec.json.decode(content)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BackendResponseError(
                f"{self._shown_url}: the response is not JSON ({error}): {self._excerpt(content)}"
            ) from None
        match found:
            case {"choices": [{"message": {"content": str() as text}}, *_]}:
                pass
            case {"choices": [{"text": str() as text}, *_]}:
                pass
            case _:
                raise BackendResponseError(
                    f"{self._shown_url}: the response has no text in choices[0]: {self._excerpt(content)}"
                )
        usage = found.get("usage")
        counts = {
            str(name): value
            for name, value in (usage.items() if isinstance(usage, dict) else ())
            if isinstance(value, int) and not isinstance(value, bool)
        }
        model = found.get("model")
        cut = found["choices"][0].get("finish_reason") == "length"
        note = f"cut off after max_tokens={self._config.max_tokens}" if cut else ""
        return Generation(
            text.strip(),
            model if isinstance(model, str) else self._model,
            None,
            counts,
            note,
        )

    def _excerpt(self, content: bytes) -> str:
        # Blotted out before anything is cut: half of a key would not be found.
        text = self._key.blot(content.decode("utf-8", "replace"))
        text = " ".join(text[: 4 * _EXCERPT_CHARACTERS].split())
        return text[:_EXCERPT_CHARACTERS] + ("…" if len(text) > _EXCERPT_CHARACTERS else "") or "(empty)"


def _retry_after_s(value: str | None) -> float | None:
    """Seconds of a Retry-After header (RFC 9110: seconds, or a date); None where it makes no sense."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:10])
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    return max(0.0, moment.timestamp() - time.time())
