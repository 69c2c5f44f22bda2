"""Puts documents into a vector database on disk, and answers questions from it in later runs.

    sage run examples/vdb_rag.py --set step=index --set docs=docs
    sage run examples/vdb_rag.py --set step=ask --set questions=examples/questions.txt

The database is a folder (`--set path=.sage/kb`). A second `step=index` replaces the documents that are there already.
"""

from __future__ import annotations

from sage.kernel.api import LocalEnvironment
from sage.libs.foundation.io import DirectorySource, FileSource, TerminalSink
from sage.libs.text import SentenceChunker
from sage.middleware.operators.llm import SageLLMGenerator
from sage.middleware.operators.rag import QAPromptor, VDBRetriever, VDBSink


def build(
    step: str = "ask",
    path: str = ".sage/kb",
    docs: str = "docs",
    questions: str = "examples/questions.txt",
    top_k: int = 4,
) -> LocalEnvironment:
    """The pipeline.

    Args:
        step: "index" or "ask".
        path: folder of the database.
        docs: folder of text, Markdown and HTML documents, for "index".
        questions: a text file with one question per line, for "ask".
        top_k: passages per question.
    """
    env = LocalEnvironment(f"vdb_{step}")
    if step == "index":
        (
            env.from_source(DirectorySource, {"path": docs}, name="documents")
            .flatmap(SentenceChunker, name="chunk")
            .batch(64)
            .sink(VDBSink, {"path": path}, name="index")
        )
        return env
    if step != "ask":
        raise ValueError(f"step must be index or ask, got {step!r}")
    (
        env.from_source(FileSource, {"file_path": questions}, name="questions")
        .map(VDBRetriever, {"path": path, "top_k": top_k}, name="retrieve")
        .map(QAPromptor, name="prompt")
        .map(SageLLMGenerator, {"backend_type": "extractive"}, name="generate")
        .sink(TerminalSink, name="answers")
    )
    return env
