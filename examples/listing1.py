"""Listing 1 of the paper as it stands there: a RAG pipeline over a Chroma collection.

`sage compile examples/listing1.py` shows its plan. To run it, install `sage-middleware[chroma,minilm]`, fill
the collection `kb` in `.sage/chroma` with MiniLM vectors and write questions into `questions.txt`.
"""

from __future__ import annotations

from sage.kernel.api.local_environment import LocalEnvironment
from sage.libs.foundation.io import FileSource, TerminalSink
from sage.middleware.operators.llm import SageLLMGenerator
from sage.middleware.operators.rag import ChromaRetriever, QAPromptor

env = LocalEnvironment("rag_pipeline")

(
    env.from_source(FileSource, {"file_path": "questions.txt"})
    .map(
        ChromaRetriever,
        {
            "top_k": 5,
            "embedding": {"model": "sentence-transformers/all-MiniLM-L6-v2"},
            "chroma": {
                "collection_name": "kb",
                "persistence_path": ".sage/chroma",
            },
        },
    )
    .map(QAPromptor, {"template": "Answer based on context: {context}\nQ: {query}\nA:"})
    .map(
        SageLLMGenerator,
        {
            "model_path": "Qwen/Qwen2.5-7B-Instruct",
            "backend_type": "auto",
        },
    )
    .sink(TerminalSink)
)
env.submit()
