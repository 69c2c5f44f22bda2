"""Sentences and chunks: nothing lost, nothing too large, in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import ConfigError
from sage.libs.errors import DocumentError
from sage.libs.foundation import Document
from sage.libs.text import SentenceChunker, chunk_text, split_sentences
from sage.libs.text.chunking import ChunkingConfig

TEXTS = st.one_of(
    st.text(max_size=300),
    st.text(st.sampled_from("aB1.!?… \n\t#-*|`\"')。東京"), max_size=400),
    st.lists(
        st.sampled_from(["Dr. Who. ", "3.14 ", "Yes! ", "# Head\n", "- item\n", "\n\n", "word ", "日本。", "x" * 50]),
        max_size=60,
    ).map("".join),
)


@given(TEXTS)
def test_sentences_cover_each_character_once(text: str) -> None:
    spans = split_sentences(text)
    assert "".join(text[start:end] for start, end in spans) == text
    place = 0
    for start, end in spans:
        assert start == place < end
        place = end
    if text.strip():
        assert all(text[start:end].strip() for start, end in spans)  # none is only white space


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Mr. J. K. Smith met Dr. Jones.", ["Mr. J. K. Smith met Dr. Jones."]),
        ("Pi is 3.14. See e.g. Fig. 2 and pp. 3.", ["Pi is 3.14.", "See e.g. Fig. 2 and pp. 3."]),
        ("Use foo.bar() at example.org today. Done.", ["Use foo.bar() at example.org today.", "Done."]),
        ("Wait... what? He left... Then rain.", ["Wait... what?", "He left...", "Then rain."]),
        ('"Really?" he said. "Yes." She left.', ['"Really?" he said.', '"Yes."', "She left."]),
        (
            "Apples, pears, etc. are fruit. So are plums, etc. They grow.",
            ["Apples, pears, etc. are fruit.", "So are plums, etc.", "They grow."],
        ),
        ("The answer is No. Next one.", ["The answer is No.", "Next one."]),
        ("See No. 5 there.", ["See No. 5 there."]),
        ("He said (quietly.) Then left.", ["He said (quietly.)", "Then left."]),
        (
            "東京は大きい。大阪も！「はい。」と言った",
            ["東京は大きい。", "大阪も！", "「はい。」", "と言った"],
        ),
        ("# Title\nText goes on\nhere. End.", ["# Title", "Text goes on\nhere.", "End."]),
        ("Intro:\n- one\n- two\n1. three\n2. four", ["Intro:", "- one", "- two", "1. three", "2. four"]),
        ("First para\n\nSecond para", ["First para", "Second para"]),
        (
            "A verylongwordofmorethantwentyfourcharacters. Next.",
            ["A verylongwordofmorethantwentyfourcharacters.", "Next."],
        ),
        ("| a | b |\n| c | d |", ["| a | b |", "| c | d |"]),
        ("", []),
        ("  \n ", ["  \n "]),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    found = [text[start:end] for start, end in split_sentences(text)]
    assert [sentence.strip() for sentence in found] == [sentence.strip() for sentence in sentences]


CONFIGS = st.builds(
    lambda size, unit, overlap, overlap_unit: ChunkingConfig(
        max_size=size, unit=unit, overlap=min(overlap, size - 1), overlap_unit=overlap_unit
    ),
    st.integers(1, 60),
    st.sampled_from(["characters", "words"]),
    st.integers(0, 20),
    st.sampled_from(["sentences", "characters"]),
)


@given(TEXTS, CONFIGS)
def test_chunks_cover_the_text_in_order_and_within_the_limit(text: str, config: ChunkingConfig) -> None:
    spans = list(chunk_text(text, config))
    covered = 0
    last_start = -1
    for start, end in spans:
        assert start <= covered < end  # no gap, and something new
        assert start > last_start
        if config.unit == "characters":
            assert end - start <= config.max_size
        else:
            assert len(text[start:end].split()) <= config.max_size
            assert end - start <= 64 * config.max_size
        repeated = covered - start
        if config.overlap_unit == "characters":
            assert repeated <= config.overlap
        if config.overlap == 0:
            assert repeated == 0
        covered, last_start = end, start
    assert covered == len(text)


def test_overlap_in_sentences_and_in_characters() -> None:
    text = "Aa one. Bb two. Cc three. Dd four. "
    chunks = [text[a:b] for a, b in chunk_text(text, ChunkingConfig(max_size=26, overlap=1))]
    assert chunks == ["Aa one. Bb two. Cc three. ", "Cc three. Dd four. "]
    long = "alpha beta gamma delta epsilon zeta eta theta"
    config = ChunkingConfig(max_size=20, overlap=8, overlap_unit="characters")
    chunks = [long[a:b] for a, b in chunk_text(long, config)]
    assert chunks[0] == "alpha beta "
    assert chunks[1].startswith("beta gamma ")  # the tail of the chunk before, from a word on


def test_chunks_of_a_document() -> None:
    document = Document("a.md", "One two. Three four. Five six.", {"title": "A"})
    chunks = list(SentenceChunker({"max_size": 12, "overlap": 0}).execute(document))
    assert [chunk.id for chunk in chunks] == ["a.md#0", "a.md#1", "a.md#2"]
    for index, chunk in enumerate(chunks):
        assert chunk.text == document.text[chunk.start : chunk.end]
        assert (chunk.index, chunk.document_id, chunk.metadata) == (index, "a.md", {"title": "A"})
    (plain,) = SentenceChunker().execute("text")
    assert plain.document_id == next(iter(SentenceChunker().execute("text"))).document_id


@pytest.mark.parametrize("item", ["", " \n ", Document("a", ""), 7])
def test_a_document_without_text_is_an_error(item: object) -> None:
    with pytest.raises(DocumentError):
        list(SentenceChunker().execute(item))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"max_size": 0}, "max_size"),
        (
            {"max_size": 10, "overlap": 10, "overlap_unit": "characters"},
            "overlap must be smaller than max_size",
        ),
        ({"overlap": 200}, "at most 100 sentences"),
        ({"unit": "tokens"}, "unit"),
        ({"size": 3}, "did you mean 'max_size'"),
    ],
)
def test_wrong_configurations(config: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SentenceChunker(config)


@pytest.mark.parametrize(
    "unit",
    [
        "The fox, e.g. Dr. Smith, paid 3.50 dollars. Why? ",
        ".",
        ".)",
        " ",
        "\n ",
        "a",
        "- \n",
        "東。",
        "A. ",
        "1. ",
    ],
)
def test_hostile_and_long_lines_take_linear_time(unit: str) -> None:
    # 3 MB each; quadratic behaviour would run into the test's time limit many times over.
    text = unit * (3_000_000 // len(unit))
    assert sum(end - start for start, end in chunk_text(text, ChunkingConfig(overlap=0))) == len(text)
