"""Generation.

- `backends`: `Backend`, what answers; `create_backend` chooses one
- `extractive`: quotes the answering sentences; no model
- `openai`: any OpenAI-compatible server
- `generator`: `SageLLMGenerator`, the operator
"""

from __future__ import annotations

from .backends import Backend, BackendConfig, Generation, GenerationRequest
from .extractive import ExtractiveBackend
from .factory import create_backend
from .generator import SageLLMGenerator
from .openai import OpenAIBackend

__all__ = [
    "Backend",
    "BackendConfig",
    "ExtractiveBackend",
    "Generation",
    "GenerationRequest",
    "OpenAIBackend",
    "SageLLMGenerator",
    "create_backend",
]
