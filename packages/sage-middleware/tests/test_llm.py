"""Generation: the extractive backend, the choice of a backend, the operator, and the whole chain by hand."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sage.common.errors import ConfigError, InvalidArgumentError
from sage.kernel.graph.contracts import Execution
from sage.kernel.operators import OperatorContext
from sage.libs.foundation.io import FileSource, TerminalSink
from sage.libs.foundation.records import encode_json
from sage.middleware.errors import GenerationError
from sage.middleware.operators.llm import (
    Backend,
    BackendConfig,
    ExtractiveBackend,
    Generation,
    GenerationRequest,
    OpenAIBackend,
    SageLLMGenerator,
    create_backend,
    factory,
)
from sage.middleware.operators.llm.extractive import NOTHING_FOUND
from sage.middleware.operators.rag import HybridRetriever, QAPromptor
from sage.middleware.records import Answer, Passage

TEXTS = (
    "# Channels\n\nA channel is bounded. A writer blocks while it is full, because memory stays flat.",
    "The queue has a capacity of 1024 items. Its name is `inbox`. What is a queue?",
    "The project was started by Ada Lovelace in 1843. Results are written to the directory out.",
)


def ask(question: str, texts: tuple[str, ...] = TEXTS, **config: Any) -> Generation:
    passages = tuple(Passage(f"p{n}", text) for n, text in enumerate(texts))
    return asyncio.run(ExtractiveBackend(BackendConfig(**config)).generate(GenerationRequest(question, "", passages)))


@pytest.mark.parametrize(
    ("question", "answer", "citations"),
    [
        (
            "Why does a writer block?",
            "A writer blocks while it is full, because memory stays flat. [1]",
            (1,),
        ),
        ("How many items is the capacity of the queue?", "The queue has a capacity of 1024 items. [2]", (2,)),
        ("Who started the project?", "The project was started by Ada Lovelace in 1843. [3]", (3,)),
        ("Where are results written?", "Results are written to the directory out. [3]", (3,)),
        ("Is a channel bounded?", "A channel is bounded. [1]", (1,)),
    ],
)
def test_it_quotes_the_answering_sentence(question: str, answer: str, citations: tuple[int, ...]) -> None:
    made = ask(question, max_sentences=1)
    assert (made.text, made.citations) == (answer, citations)
    assert made.note.startswith("extractive: sentences quoted")


@pytest.mark.parametrize("question", ["Who won the football cup?", "the of and", "東京は？", "?!"])
def test_it_says_when_there_is_no_answer(question: str) -> None:
    made = ask(question)
    assert (made.text, made.citations) == (NOTHING_FOUND, ())
    assert "no sentence of the passages matches" in made.note
    assert ask("What is a queue?", ()).text == NOTHING_FOUND


def test_it_quotes_no_headings_tables_or_questions_and_nothing_twice() -> None:
    texts = (
        "# Routing of keys\n\n| routing | keys |\n- **Routing** of [keys](x.html) is by `hash`.\n\nWhat?",
        "Routing of keys is by hash.",
    )
    assert ask("What is routing of keys?", texts).text == "Routing of keys is by hash. [1]"


def test_every_sentence_that_it_gives_stands_in_a_passage() -> None:
    for question in ("What is the channel?", "Which items are written?", "capacity of queue and channel"):
        made = ask(question)
        for number, sentence in ((int(part[-1]), part[:-1].strip(" [")) for part in made.text.split("]")[:-1]):
            assert sentence in TEXTS[number - 1].replace("`", "")


def test_a_definition_begins_with_what_is_asked_for() -> None:
    texts = ("Every operator has a contract and a contract is read. Contract: what an operator needs and keeps.",)
    assert ask("What is a contract?", texts, max_sentences=1).text == (
        "Contract: what an operator needs and keeps. [1]"
    )


def test_a_huge_passage_takes_bounded_time() -> None:
    made = ask("What is the answer of item 7?", ("Item seven has no answer here. " * 100_000,))
    assert isinstance(made.text, str)


def test_auto_takes_the_server_when_there_is_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    listing = {"model_path": "Qwen/Qwen2.5-7B-Instruct", "backend_type": "auto"}  # the paper's Listing 1
    assert isinstance(create_backend(listing), ExtractiveBackend)
    assert "backend: extractive (no server: OPENAI_BASE_URL is not set)" in caplog.text
    assert isinstance(create_backend({**listing, "base_url": "http://localhost:1/v1"}), OpenAIBackend)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    assert isinstance(create_backend(listing), OpenAIBackend)
    assert isinstance(create_backend({"backend_type": "extractive"}), ExtractiveBackend)


def test_wrong_backends_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_MODEL", raising=False)
    for config, message in (
        ({"backend_type": "opnai"}, "unknown backend_type 'opnai'; did you mean 'openai'"),
        ({"backend_type": "zzz"}, "known: auto, extractive, openai"),
        (
            {"backend_type": "openai", "model_path": "m"},
            "needs base_url or the environment variable OPENAI_BASE_URL",
        ),
        (
            {"backend_type": "openai", "base_url": "http://127.0.0.1:1/v1"},
            "--set model=NAME` or `make demo MODEL=NAME`",
        ),
        ({"base_url": "localhost:8000"}, "must begin with http"),
        ({"base_url": "http://", "model_path": "m"}, "must look like http://host:port/v1"),
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"api_key": "sk-123"}, "unknown config key 'api_key'"),
    ):
        with pytest.raises(ConfigError) as caught:
            create_backend(config)
        assert message in str(caught.value)
    with pytest.raises(ConfigError, match="unknown backend_type 'opnai'"):
        SageLLMGenerator({"backend_type": "opnai"})  # when the pipeline is built


class EchoBackend:
    """A backend of another package."""

    name = "echo"

    def __init__(self, config: BackendConfig) -> None:
        self.prefix = config.options.get("prefix", "")
        self.closed = False

    async def generate(self, request: GenerationRequest) -> Generation:
        return Generation(self.prefix + request.prompt + " [2] [9] [1, 2]", "echo-1", usage={"total_tokens": 5})

    def close(self) -> None:
        self.closed = True


def test_backends_of_other_packages_are_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint("echo", f"{__name__}:EchoBackend", factory.ENTRY_POINT_GROUP)
    bad = importlib.metadata.EntryPoint("bad", "builtins:repr", factory.ENTRY_POINT_GROUP)
    monkeypatch.setattr(
        importlib.metadata.EntryPoint, "load", lambda self: EchoBackend if self.name == "echo" else repr
    )

    def entry_points(**wanted: str) -> importlib.metadata.EntryPoints:
        return importlib.metadata.EntryPoints([entry, bad]).select(**wanted)

    monkeypatch.setattr(factory, "entry_points", entry_points)
    generator = SageLLMGenerator({"backend_type": "echo", "options": {"prefix": "> "}})
    generator.attach(OperatorContext("generate"))
    generator.setup()
    item = {"query": "q", "prompt": "the prompt", "passages": ["a", "b"], "id": 3}
    answer = asyncio.run(generator.execute(item))
    assert (answer.text, answer.backend, answer.model) == ("> the prompt [2] [9] [1, 2]", "echo", "echo-1")
    assert answer.citations == (2, 1)  # as the text cites them; there is no passage 9
    assert answer.metadata == {"id": 3}
    assert generator.ctx.metrics.counters == {"total_tokens": 5}
    silent = asyncio.run(generator.execute({"query": "q", "prompt": "x", "passages": []}))
    assert silent.citations == ()
    generator.teardown()
    with pytest.raises(ConfigError, match="which is no Backend"):
        create_backend({"backend_type": "bad"})
    assert isinstance(EchoBackend(BackendConfig()), Backend)


def test_the_operator_declares_what_it_is() -> None:
    contract = SageLLMGenerator.contract
    assert contract.execution is Execution.ASYNC
    assert contract.resources.concurrency == 32
    generator = SageLLMGenerator({"backend_type": "extractive"})
    with pytest.raises(GenerationError, match="before setup"):
        asyncio.run(generator.execute("x"))
    generator.setup()
    for item in ("", 7, {"prompt": "no question"}):
        with pytest.raises(InvalidArgumentError):
            asyncio.run(generator.execute(item))
    generator.teardown()
    generator.teardown()


def test_an_answer_prints_well_and_has_a_json_form() -> None:
    passages = (Passage("a#0", "word " * 100, 0.5, "a.md"), Passage("b#0", "Second.", 0.4, "b.md"))
    answer = Answer("Why?\nReally?", "Because. [2]", "extractive", "m", passages, (2,), {"total_tokens": 3}, "a note")
    assert str(answer) == "Q: Why?\n   Really?\nA: Because. [2]\n   (a note)\n   [2] b.md: Second.\n"
    uncited = str(Answer("Why?", "Because.", "openai", "m", passages, (1, 2, 3)))
    assert "   [1] a.md: word word" in uncited
    assert "   [2] b.md: Second." in uncited
    assert "[3]" not in uncited
    assert all(len(line) <= 100 for line in uncited.split("\n"))
    assert msgspec.json.decode(encode_json(answer), type=Answer) == answer


def test_the_chain_of_the_paper_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Source, retriever, prompt, generator, sink, called in turn as the runtime would."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    docs = tmp_path / "docs"
    docs.mkdir()
    for number, text in enumerate(TEXTS):
        (docs / f"doc{number}.md").write_text(text)
    (tmp_path / "questions.txt").write_text(
        "Who started the project?\n\nHow many items is the capacity of the queue?\n"
    )
    source = FileSource({"file_path": tmp_path / "questions.txt"})
    retriever = HybridRetriever({"documents": docs, "top_k": 2})
    promptor = QAPromptor({"template": "Answer based on context: {context}\nQ: {query}\nA:"})
    generator = SageLLMGenerator({"model_path": "Qwen/Qwen2.5-7B-Instruct", "backend_type": "auto"})
    sink = TerminalSink()
    functions = (source, retriever, promptor, generator, sink)
    for function in functions:
        function.setup()
    for question in source.execute():
        sink.execute(asyncio.run(generator.execute(promptor.execute(retriever.execute(question)))))
    for function in functions:
        function.teardown()
    shown = capsys.readouterr().out
    assert "Q: Who started the project?\nA: The project was started by Ada Lovelace in 1843. [1]\n" in shown
    assert "A: The queue has a capacity of 1024 items. [1]" in shown
    assert "(extractive: sentences quoted from the passages, nothing is generated)" in shown
    assert f"[1] {docs / 'doc2.md'}: The project was started" in " ".join(shown.split())
