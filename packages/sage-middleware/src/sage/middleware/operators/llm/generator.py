"""The operator that answers prompts."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from pydantic import BaseModel, field_validator

from sage.common.errors import ConfigError
from sage.kernel.graph.contracts import Contract, Execution, Resources
from sage.kernel.operators import MapFunction
from sage.middleware.errors import GenerationError
from sage.middleware.records import Answer, PromptedQuery, passages_of, question_of

from .backends import Backend, BackendConfig, GenerationRequest
from .factory import check_backend_type, create_backend

__all__ = ["SageLLMGenerator"]

_CITATION = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")
_CONCURRENCY = 32


class _Config(BackendConfig, extra="forbid"):
    @field_validator("backend_type")
    @classmethod
    def _there(cls, name: str) -> str:
        try:
            check_backend_type(name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return name


class SageLLMGenerator(MapFunction[Any, Answer]):
    """Answers prompts with a language model or, without one, by quoting the passages (paper, Listing 1).

    Takes a `PromptedQuery`, a mapping with `query` (and `prompt`, `passages`), or a string that is prompt and
    question at once. Gives an `Answer`. At most 32 requests run at once in a replica; `contract=` changes
    that.

    The config is a `BackendConfig`. With `backend_type` "auto" (the default) the server of OPENAI_BASE_URL answers
    when that is set, else the extractive backend; the log says which.

    Raises:
        ConfigError: when the pipeline is built: an unknown backend; from `setup`: a server that lists no model
            where none is named, or an API key that cannot be sent.
        GenerationError: from `execute`: no answer.

    Example:
        >>> import asyncio
        >>> generator = SageLLMGenerator({"backend_type": "extractive"})
        >>> generator.setup()
        >>> item = {"query": "What is SAGE?", "passages": ["SAGE is a framework."]}
        >>> answer = asyncio.run(generator.execute(item))
        >>> generator.teardown()
        >>> answer.text, answer.backend, answer.citations
        ('SAGE is a framework. [1]', 'extractive', (1,))
    """

    Config: ClassVar[type[BaseModel] | None] = _Config
    contract: ClassVar[Contract] = Contract(execution=Execution.ASYNC, resources=Resources(concurrency=_CONCURRENCY))
    _backend: Backend | None = None

    def setup(self) -> None:
        """Make the backend."""
        self._backend = create_backend(BackendConfig(**self.config.model_dump()))
        if self._ctx is not None:
            self.ctx.logger.info("answers come from the backend %r", self._backend.name)

    def teardown(self) -> None:
        """Close the backend."""
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()

    async def execute(self, item: Any) -> Answer:
        """Answer `item`."""
        backend = self._backend
        if backend is None:
            raise GenerationError("SageLLMGenerator: execute called before setup")
        query, extra = question_of("SageLLMGenerator", item)
        passages = passages_of("SageLLMGenerator", item)
        prompt = item.prompt if isinstance(item, PromptedQuery) else str(extra.pop("prompt", query))
        extra.pop("passages", None)
        made = await backend.generate(GenerationRequest(query, prompt, passages))
        if self._ctx is not None:
            for name, amount in made.usage.items():
                self.ctx.metrics.count(name, amount)
        citations = made.citations
        if citations is None:
            # A model that cites nothing has still seen them all.
            citations = _cited(made.text, len(passages)) or tuple(range(1, len(passages) + 1))
        return Answer(query, made.text, backend.name, made.model, passages, citations, made.usage, made.note, extra)


def _cited(text: str, passages: int) -> tuple[int, ...]:
    """Numbers of passages that `text` cites, in order of first mention; those that do not exist are left
    out.
    """
    numbers = (int(number) for group in _CITATION.findall(text) for number in group.split(","))
    return tuple(dict.fromkeys(number for number in numbers if 1 <= number <= passages))
