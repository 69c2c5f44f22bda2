"""The examples of the repository run as their docstrings say."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

Sage = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are in the repository only")


def test_word_count(sage: Sage, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The cat and the dog.\nA dog, and the CAT again: the end\n" * 40)
    expected = Counter(re.findall(r"[a-z]{2,}", text.read_text().lower()))
    for parallelism in ("1", "3"):
        done = sage(
            "run", EXAMPLES / "word_count.py", "--set", f"text={text}", "--set", "top=3", "-q",
            "--parallelism", f"count={parallelism}",
        )  # fmt: skip
        rows = [line.split() for line in done.stdout.splitlines()]
        assert done.stderr == ""
        ranking = sorted(expected.items(), key=lambda pair: (-pair[1], pair[0]))
        assert [(word, int(count)) for count, word in rows] == ranking[:3]


def test_what_is_emitted_at_the_end_of_the_stream_has_a_latency_of_this_run(sage: Sage) -> None:
    done = sage("run", EXAMPLES / "word_count.py", "--json", "--parallelism", "count=2")
    metrics = json.loads(done.stdout.splitlines()[-1])["metrics"]
    assert metrics["latency"]["count"] == metrics["items_out"] > 0
    assert metrics["latency"]["max_ms"] <= metrics["elapsed_s"] * 1000


def test_async_calls(sage: Sage) -> None:
    done = sage("run", EXAMPLES / "async_calls.py", "--json", "--set", "items=64", "--set", "reject=20")
    assert done.returncode == 1
    *lines, last = done.stdout.splitlines()
    assert {int(line.split()[0]) for line in lines} == set(range(64)) - {20, 40, 60}
    report = json.loads(last)
    assert report["dead_letters"] == 3
    lookup = next(each for each in report["metrics"]["operators"] if each["operator"] == "lookup")
    assert lookup["retries"] == 3 * 2 + len(range(0, 64, 17))


def test_listing_1_compiles_as_it_stands(sage: Sage) -> None:
    done = sage("compile", EXAMPLES / "listing1.py")
    assert done.returncode == 0, done.stderr
    assert "FileSource -> ChromaRetriever -> QAPromptor" in done.stdout


def test_listing_1_says_what_it_needs(sage: Sage) -> None:
    done = sage("run", EXAMPLES / "listing1.py")
    assert done.returncode == 3
    error = done.stderr[done.stderr.index("error: ") :]
    assert any(hint in error for hint in ("sage-middleware[chroma]", "questions.txt", "no Chroma database"))


@pytest.mark.skipif(importlib.util.find_spec("sage.middleware._vdb") is None, reason="the C++ part is not built")
def test_rag_demo(sage: Sage, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "queues.md").write_text("# Queues\n\nEvery queue is bounded. A full queue makes the writer wait.\n")
    (docs / "ends.md").write_text("# Ends\n\nA job that is stopped drains within the grace period.\n")
    (tmp_path / "questions.txt").write_text("What happens when a queue is full?\nHow is a job stopped?\n")
    settings = ("--set", "docs=docs", "--set", "questions=questions.txt", "--set", "top_k=1")
    done = sage("run", EXAMPLES / "rag_demo.py", *settings)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.strip().split("\n\n")
    assert "A full queue makes the writer wait. [1]" in first
    assert "[1] docs/queues.md: " in first
    assert "drains within the grace period" in second
    assert "[1] docs/ends.md: " in second
    for operator in ("questions", "retrieve", "prompt", "generate", "answers"):
        assert re.search(rf"^{operator} +1 +2 +2 +0 ", done.stderr, re.MULTILINE)
    wrong = sage("run", EXAMPLES / "rag_demo.py", "--set", "docs=docs", "--set", "questions=absent.txt")
    assert wrong.returncode == 3
    assert "'absent.txt'" in wrong.stderr
    wrong = sage("run", EXAMPLES / "rag_demo.py", "--set", "docs=docs", "--set", "embeder=minilm")
    assert wrong.returncode == 2
    assert "did you mean 'embedder'?" in wrong.stderr
