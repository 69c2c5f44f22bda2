"""The questions of `make demo` find their answers in these documents."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sage.middleware.operators.llm import SageLLMGenerator
from sage.middleware.operators.rag import HybridRetriever, KnowledgeBase, QAPromptor

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = ROOT / "examples" / "questions.txt"

# What an answer must say; each question of the file stands here.
ANSWERS = {
    "What is SAGE?": "SAGE is a dataflow framework for LLM pipelines",
    "What is a contract of an operator?": "what it needs, keeps and promises",
    "What happens to an item whose operator raises?": "set aside as a dead letter",
    "How do I see the dead letters of a run?": "sage dead-letters list",
    "What does Ctrl-C do?": "lets the sources end",
    "What do the exit codes mean?": "1 finished with dead letters",
    "How are items of a key ordered?": "in the order in which they arrived",
    "What bounds the memory of a pipeline?": "bounded by the capacities of the queues",
    "How do I use an OpenAI-compatible server?": "set OPENAI_BASE_URL",
    "How is the vector index built?": "built in memory when HybridRetriever is set up",
    "How do I run a pipeline from the command line?": "sage run",
    "Which operators run on an event loop?": "async functions run on an event loop",
    "When do neighbouring operators become one task?": "have the same number of replicas",
    "Is the API key ever logged?": "The API key is never logged",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    """The documents, without what a build of the documentation has left there."""
    folder = tmp_path_factory.mktemp("corpus") / "docs"
    for page in (ROOT / "docs").rglob("*.md"):
        target = folder / page.relative_to(ROOT / "docs")
        if "_build" not in target.parts:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    return KnowledgeBase.from_directory(folder)


def test_each_question_has_an_expected_answer() -> None:
    asked = [line.strip() for line in QUESTIONS.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert asked == list(ANSWERS)


@pytest.mark.parametrize("question", ANSWERS)
def test_the_documents_answer(question: str, base: KnowledgeBase) -> None:
    # As examples/rag_demo.py does it.
    retriever = HybridRetriever({"knowledge_base": base, "top_k": 4})
    generator = SageLLMGenerator({"backend_type": "extractive"})
    retriever.setup()
    generator.setup()
    answer = asyncio.run(generator.execute(QAPromptor().execute(retriever.execute(question))))
    assert ANSWERS[question] in " ".join(answer.text.split())
