"""What every generation backend takes, gives and is configured with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, Field, field_validator

from sage.middleware.records import Passage

__all__ = ["Backend", "BackendConfig", "Generation", "GenerationRequest"]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What is asked of a backend.

    Example:
        >>> GenerationRequest("Why?", "Q: Why?\\nA:").passages
        ()
    """

    query: str
    prompt: str
    passages: tuple[Passage, ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """What a backend gives back.

    Attributes:
        text: the answer.
        model: who wrote it.
        citations: 1-based numbers of the passages that the text rests on; None lets the generator read them
            out of the text.
        usage: counts of tokens.
        note: what a reader must know about how the answer came about.

    Example:
        >>> Generation("Because.", "tiny").usage
        {}
    """

    text: str
    model: str
    citations: tuple[int, ...] | None = None
    usage: dict[str, int] = field(default_factory=dict)
    note: str = ""


@runtime_checkable
class Backend(Protocol):
    """Answers requests; many at once on one event loop. A backend of another package is an entry point of the
    group `sage.backends`: a callable from `BackendConfig` to a `Backend`.
    """

    @property
    def name(self) -> str:
        """Name of the backend, as in `backend_type`."""

    async def generate(self, request: GenerationRequest) -> Generation:
        """Answer one request, or raise GenerationError."""

    def close(self) -> None:
        """Release what is held; no request is running."""


class BackendConfig(BaseModel, extra="forbid"):
    """Configuration of generation.

    Attributes:
        backend_type: "auto" (a server when OPENAI_BASE_URL or `base_url` is set, else extractive),
            "extractive", "openai", or the name of an entry point of the group `sage.backends`.
        model_path: name of the model, as the server knows it; without it the environment variable OPENAI_MODEL
            counts, else the first model that the server lists.
        base_url: of the server, with its `/v1`; the environment variable OPENAI_BASE_URL by default.
        api_key_env: name of the environment variable that holds the API key. The key itself is never in a
            configuration.
        endpoint: "chat" (`/chat/completions`) or "completions".
        system_prompt: first message of a chat.
        temperature, max_tokens, stop, seed: as in the API.
        timeout_s: limit of one attempt, from connecting to the last byte.
        retries: further attempts after 408, 409, 425, 429, 500, 502, 503, 504, 529, a lost connection or a timeout.
        retry_delay_s, retry_delay_s_max: first and longest pause between attempts; it doubles. A server's
            Retry-After counts, up to the longest.
        max_response_bytes: a longer response is an error.
        max_sentences: most sentences of an extractive answer.
        options: for backends of other packages.
    """

    backend_type: str = Field(default="auto", min_length=1)
    model_path: str | None = Field(default=None, min_length=1)
    base_url: str | None = None
    api_key_env: str = Field(default="OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    endpoint: Literal["chat", "completions"] = "chat"
    system_prompt: str | None = None
    temperature: float = Field(default=0.0, ge=0, le=2)
    max_tokens: int = Field(default=1024, ge=1)
    stop: list[str] | None = Field(default=None, max_length=16)
    seed: int | None = None
    timeout_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    retries: int = Field(default=3, ge=0, le=100)
    retry_delay_s: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    retry_delay_s_max: float = Field(default=30.0, ge=0, allow_inf_nan=False)
    max_response_bytes: int = Field(default=8 * 1024 * 1024, ge=1)
    max_sentences: int = Field(default=3, ge=1, le=100)
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("base_url")
    @classmethod
    def _http(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must begin with http:// or https://, got {url!r}")
        return url
