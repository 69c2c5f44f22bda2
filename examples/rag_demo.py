"""Answers questions over a folder of documents and shows the passages that each answer rests on.

    sage run examples/rag_demo.py --set docs=docs --set questions=examples/questions.txt

Nothing is downloaded: passages are found by their words (BM25) and by hashed vectors, and the answers are
sentences of the documents. `--set embedder=minilm` searches by meaning (extra `minilm`); with OPENAI_BASE_URL
set, any OpenAI-compatible server writes the answers, with the first model that it lists (`--set model=NAME` or
OPENAI_MODEL names another).
"""

from __future__ import annotations

from typing import Any

from sage.kernel.api import LocalEnvironment
from sage.libs.foundation.io import FileSource, TerminalSink
from sage.middleware.operators.llm import SageLLMGenerator
from sage.middleware.operators.rag import HybridRetriever, QAPromptor


def build(
    docs: str = "docs",
    questions: str = "examples/questions.txt",
    top_k: int = 4,
    embedder: str = "hashing",
    backend: str = "auto",
    model: str | None = None,
    on_unreadable: str = "warn",
) -> LocalEnvironment:
    """The pipeline.

    Args:
        docs: folder of text, Markdown and HTML documents.
        questions: a text file with one question per line.
        top_k: passages per question.
        embedder: "hashing" or "minilm".
        backend: "auto", "extractive" or "openai".
        model: name of the server's model; by default OPENAI_MODEL, or the first one that the server lists.
        on_unreadable: "warn" passes over documents that cannot be read, "fail" does not start.
    """
    generation: dict[str, Any] = {"backend_type": backend}
    if model is not None:
        generation["model_path"] = model
    env = LocalEnvironment("rag_demo")
    (
        env.from_source(FileSource, {"file_path": questions}, name="questions")
        .map(
            HybridRetriever,
            {
                "documents": docs,
                "top_k": top_k,
                "embedding": {"model": embedder},
                "on_unreadable": on_unreadable,
            },
            name="retrieve",
        )
        .map(QAPromptor, name="prompt")
        .map(SageLLMGenerator, generation, name="generate")
        .sink(TerminalSink, name="answers")
    )
    return env
