"""BM25 against the plain formula and against bm25s; fusion against its definition."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import InvalidArgumentError
from sage.libs.retrieval import BM25Index, reciprocal_rank_fusion, weighted_fusion
from sage.libs.text import STOPWORDS, tokenize

WORDS = st.lists(st.sampled_from("red green blue cat dog sun".split()), max_size=8).map(" ".join)
CORPUS = st.dictionaries(st.sampled_from("abcdefgh"), WORDS, max_size=8)


def naive_scores(corpus: dict[str, str], query: str, k1: float, b: float) -> dict[str, float]:
    """The formula as it stands in the books, one document at a time."""
    tokens = {name: text.split() for name, text in corpus.items()}
    mean = sum(map(len, tokens.values())) / len(tokens) if tokens else 0.0
    scores = {}
    for name, words in tokens.items():
        total = 0.0
        for word in query.split():
            tf = words.count(word)
            if tf:
                df = sum(word in other for other in tokens.values())
                idf = math.log(1 + (len(tokens) - df + 0.5) / (df + 0.5))
                total += idf * tf / (tf + k1 * (1 - b + b * len(words) / mean))
        if total:
            scores[name] = total
    return scores


@given(CORPUS, WORDS, st.floats(0, 3), st.floats(0, 1))
def test_scores_are_those_of_the_formula(corpus: dict[str, str], query: str, k1: float, b: float) -> None:
    index = BM25Index(k1=k1, b=b)
    index.add_many(corpus.items())
    found = {hit.id: hit.score for hit in index.search(query, k=100)}
    assert found == pytest.approx(naive_scores(corpus, query, k1, b))


OPERATIONS = st.lists(st.tuples(st.sampled_from(["upsert", "remove"]), st.sampled_from("abcdef"), WORDS), max_size=25)


@given(OPERATIONS, WORDS)
def test_any_updates_give_the_very_index_that_is_built_afresh(
    operations: list[tuple[str, str, str]], query: str
) -> None:
    index = BM25Index()
    corpus: dict[str, str] = {}
    for operation, name, text in operations:
        if operation == "upsert":
            index.upsert(name, text)
            corpus[name] = text
        else:
            assert index.remove(name) is (corpus.pop(name, None) is not None)
    fresh = BM25Index()
    fresh.add_many(sorted(corpus.items(), reverse=True))
    assert len(index) == len(corpus)
    assert index.search(query, k=50) == fresh.search(query, k=50)  # equal to the last bit, ties included
    restored = BM25Index()
    restored.restore_state(json.loads(json.dumps(index.get_state())))
    assert restored.search(query, k=50) == index.search(query, k=50)


def test_bm25s_agrees() -> None:
    bm25s = pytest.importorskip("bm25s")
    corpus = {
        str(n): text
        for n, text in enumerate(
            [
                "the cat sat on the mat",
                "a dog chased the cat",
                "birds fly high",
                "the dog and the bird",
                "sun red sun blue sun",
            ]
        )
    }
    index = BM25Index(k1=1.5, b=0.75)
    index.add_many(corpus.items())
    oracle = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    oracle.index([text.split() for text in corpus.values()], show_progress=False)
    for query in ("cat", "the dog", "sun blue", "the the bird"):
        expected = oracle.get_scores(query.split())
        found = {hit.id: hit.score for hit in index.search(query, k=10)}
        for number, score in enumerate(expected):
            assert found.get(str(number), 0.0) == pytest.approx(float(score), abs=1e-5)


def test_idf_is_never_negative_and_ties_go_by_id() -> None:
    index = BM25Index()
    index.add_many((name, "same words") for name in "dbca")
    hits = index.search("same", k=3)
    assert [hit.id for hit in hits] == ["a", "b", "c"]
    assert all(hit.score > 0 for hit in hits)


def test_what_is_refused() -> None:
    index = BM25Index()
    index.add("a", "text")
    for call in (
        lambda: index.add("a", "again"),
        lambda: index.add(1, "x"),
        lambda: index.search("x", k=0),  # type: ignore[arg-type]
        lambda: BM25Index(k1=-1),
        lambda: BM25Index(k1=math.nan),
        lambda: BM25Index(b=1.1),
        lambda: index.restore_state({"version": 9}),
        lambda: index.restore_state({}),
    ):
        with pytest.raises(InvalidArgumentError):
            call()
    assert "a" in index
    assert len(index) == 1
    assert index.search("", k=3) == []
    assert BM25Index().search("x") == []


def test_tokens() -> None:
    assert tokenize("Don't STOP—the café’s key_by() 3.5x") == [
        "don't",
        "stop",
        "the",
        "café",
        "key",
        "by",
        "3",
        "5x",
    ]
    assert tokenize("ﬁne ① ｗｉｄｅ") == ["fine", "1", "wide"]
    assert tokenize("東京タワー and 한국어") == ["東京", "京タ", "タワ", "ワー", "and", "한국", "국어"]
    assert tokenize("", stemming=True) == []
    assert tokenize("Running the operators", stemming=True, stopwords=False) == ["run", "operator"]
    for pair in (
        ("query", "queries"),
        ("index", "indexes"),
        ("use", "uses"),
        ("embed", "embedding"),
        ("cache", "caches"),
        ("store", "stored"),
        ("use", "using"),
        ("name", "named"),
        ("run", "runs"),
        ("plan", "planned"),
        ("compile", "compiling"),
        ("retry", "retries"),
        ("process", "processes"),
    ):
        one, other = (tokenize(word, stemming=True) for word in pair)
        assert one == other, pair
    assert "the" in STOPWORDS


RANKINGS = st.lists(st.lists(st.sampled_from("abcdef"), unique=True), max_size=4)


@given(RANKINGS, st.floats(0, 100))
def test_rrf_is_its_definition(rankings: list[list[str]], k: float) -> None:
    fused = reciprocal_rank_fusion(rankings, k=k)
    expected = {
        name: sum(1 / (k + ranking.index(name) + 1) for ranking in rankings if name in ranking)
        for name in {name for ranking in rankings for name in ranking}
    }
    assert dict(fused) == pytest.approx(expected)
    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)
    assert fused == reciprocal_rank_fusion(rankings, k=k)
    if rankings and k > 0:
        assert [name for name, _ in reciprocal_rank_fusion(rankings[:1], k=k)] == rankings[0]


SCORED = st.lists(st.dictionaries(st.sampled_from("abcd"), st.floats(-100, 100), max_size=4), max_size=3)


@given(SCORED)
def test_weighted_fusion_stays_between_0_and_the_sum_of_the_weights(scored: list[dict[str, float]]) -> None:
    fused = weighted_fusion(scored)
    assert {name for name, _ in fused} == {name for scores in scored for name in scores}
    assert all(0 <= score <= len(scored) + 1e-9 for _, score in fused)
    best: Counter[str] = Counter()
    for scores in scored:
        best.update(name for name in scores if scores[name] == max(scores.values()))
    if scored and best and max(best.values()) == len(scored):
        top = {name for name, count in best.items() if count == len(scored)}
        # Scores that differ by less than a rounding may tie.
        assert top & {name for name, score in fused if score == pytest.approx(fused[0][1])}


@pytest.mark.parametrize(
    "call",
    [
        lambda: reciprocal_rank_fusion([["a", "a"]]),
        lambda: reciprocal_rank_fusion([["a"]], k=-1),
        lambda: reciprocal_rank_fusion([["a"]], weights=[1, 2]),
        lambda: reciprocal_rank_fusion([["a"]], weights=[-1]),
        lambda: weighted_fusion([{"a": math.nan}]),
        lambda: weighted_fusion([{"a": 1.0}], weights=[math.inf]),
    ],
)
def test_what_fusion_refuses(call: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        call()


def test_weights_of_rankings() -> None:
    rankings = [["a", "b"], ["b", "a"]]
    assert reciprocal_rank_fusion(rankings, weights=[2, 1])[0][0] == "a"
    assert reciprocal_rank_fusion(rankings, weights=[1, 2])[0][0] == "b"
    assert [name for name, _ in reciprocal_rank_fusion(rankings, weights=[0, 1])] == ["b", "a"]
